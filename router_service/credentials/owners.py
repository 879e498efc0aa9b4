"""What each owner has, remembered until a change says otherwise. Holds names, never secrets."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from router_service.core.caller import Credential
from router_service.credentials.waiting import wait_for


@dataclass(frozen=True, slots=True)
class Owned:
    """One owner's credentials, by name, and whether keys of users count for it."""

    credentials: tuple[Credential, ...]
    user_credentials_enabled: bool


Load = Callable[[str], Awaitable[Owned]]


class Owners:
    """The cache. A change that arrives while a list is on the way makes it be asked for again."""

    def __init__(self) -> None:
        self._owned: dict[str, Owned] = {}
        self._loading: dict[tuple[str, str], asyncio.Task[Owned]] = {}
        self._changes = 0

    def held(self, owner: str) -> Owned | None:
        """What is known of an owner, without asking."""
        return self._owned.get(owner)

    async def get(self, owner: str, token_id: str, load: Load) -> Owned:
        """What the owner has. Callers with the same token wait for one list together."""
        held = self._owned.get(owner)
        if held is not None:
            return held
        key = (owner, token_id)
        task = self._loading.get(key)
        if task is None or task.done():  # one that is over may be from before a change
            task = asyncio.ensure_future(self._load(owner, load))
            self._loading[key] = task
            task.add_done_callback(lambda done: self._loaded(key, done))
        return await wait_for(task)

    def _loaded(self, key: tuple[str, str], done: asyncio.Task[Owned]) -> None:
        if self._loading.get(key) is done:
            del self._loading[key]
        if not done.cancelled():
            done.exception()  # looked at, or asyncio would log it when every caller has left

    async def _load(self, owner: str, load: Load) -> Owned:
        before = self._changes
        owned = await load(owner)
        while before != self._changes:
            before = self._changes
            owned = await load(owner)
        self._owned[owner] = owned
        return owned

    def forget(self, owner: str) -> None:
        """Something of the owner changed."""
        self._changes += 1
        self._owned.pop(owner, None)

    def forget_below(self, owner: str) -> None:
        """Something changed for the owner and all below it; the deployment is above everything."""
        self._changes += 1
        if owner == "deployment":
            self._owned.clear()
        for name in [name for name in self._owned if name == owner or name.startswith(f"{owner}/")]:
            del self._owned[name]
