"""Leases in hand. Loading is single-flight; a change drops them; nothing is used when the watch is silent for too long.

A revocation may overtake the answer of a lease that was asked for before it. So every drop counts, and an answer that
was asked for before a drop of its credential is thrown away and asked for again.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from router_service.core.faults import Fault
from router_service.core.secret import Secret
from router_service.credentials.errors import unavailable
from router_service.credentials.waiting import wait_for

MARGIN_SECONDS = 2.0
"""A lease is not used for a new attempt in its last moments."""


@dataclass(frozen=True, slots=True)
class Lease:
    """A secret that may be used for one origin until a time."""

    id: str
    credential: str
    credential_version: str
    origin: str
    expire_time: float
    secret: Secret = field(repr=False)


Load = Callable[[], Awaitable[Lease]]
Cut = Callable[[], None]


class Leases:
    """The cache, and the streams that use what is in it."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._held: dict[tuple[str, str], Lease] = {}
        self._loading: dict[tuple[str, str, str], asyncio.Task[Lease]] = {}
        self._drops: dict[str, int] = {}
        self._all_drops = 0
        self._streams: dict[str, set[Cut]] = {}  # by credential version

    def held(self, credential: str, origin: str) -> Lease | None:
        """The lease in hand, if it still holds."""
        lease = self._held.get((credential, origin))
        if lease is not None and lease.expire_time - MARGIN_SECONDS > self._clock():
            return lease
        return None

    def sweep(self) -> None:
        """Lets go of leases that have ended, and of the secrets in them."""
        now = self._clock()
        for key in [key for key, lease in self._held.items() if lease.expire_time <= now]:
            del self._held[key]

    async def get(self, credential: str, origin: str, token_id: str, load: Load) -> Lease:
        """The lease in hand, or a new one. Callers with the same token wait for one loading together."""
        for _ in range(3):
            lease = self.held(credential, origin)
            if lease is not None:
                return lease
            key = (credential, origin, token_id)
            task = self._loading.get(key)
            if task is None or task.done():  # one that is over may be from before a change
                task = asyncio.ensure_future(self._load(credential, origin, load))
                self._loading[key] = task
                task.add_done_callback(lambda done, key=key: self._loaded(key, done))  # type: ignore[misc]
            try:
                lease = await wait_for(task)
            except _OvertakenError:
                continue
            if self._held.get((credential, origin)) is lease:
                return lease  # else it was dropped between its arrival and this moment
        raise _overtaken_fault()

    def _loaded(self, key: tuple[str, str, str], done: asyncio.Task[Lease]) -> None:
        if self._loading.get(key) is done:
            del self._loading[key]
        if not done.cancelled():
            done.exception()  # looked at, or asyncio would log it when every caller has left

    async def _load(self, credential: str, origin: str, load: Load) -> Lease:
        before = (self._drops.get(credential, 0), self._all_drops)
        lease = await load()
        if before != (self._drops.get(credential, 0), self._all_drops):
            raise _OvertakenError
        self._held[credential, origin] = lease
        return lease

    def forget(self, lease: Lease) -> None:
        """Drops a lease whose secret the upstream has rejected, unless another one took its place."""
        if self._held.get((lease.credential, lease.origin)) is lease:
            del self._held[lease.credential, lease.origin]

    def drop_credential(self, credential: str) -> None:
        """Drops what is held of a credential, and what is being loaded of it."""
        self._drops[credential] = self._drops.get(credential, 0) + 1
        for key in [key for key in self._held if key[0] == credential]:
            del self._held[key]

    def drop_below(self, owner: str) -> None:
        """Drops what is held of an owner and of those below it; the deployment is above everything."""
        self._all_drops += 1
        for key in [key for key in self._held if _is_below(key[0], owner)]:
            del self._held[key]

    def drop_all(self) -> None:
        """Drops everything."""
        self._all_drops += 1
        self._held.clear()

    def attach(self, credential_version: str, cut: Cut) -> Callable[[], None]:
        """Notes that a stream uses a version; `cut` is called on a revocation. Gives what ends the note."""
        streams = self._streams.setdefault(credential_version, set())
        streams.add(cut)

        def detach() -> None:
            streams.discard(cut)
            if not streams and self._streams.get(credential_version) is streams:
                del self._streams[credential_version]

        return detach

    def kill(self, prefix: str) -> None:
        """Cuts the streams that use a version, or any version below a credential or an owner."""
        for version in [version for version in self._streams if version == prefix or _is_below(version, prefix)]:
            for cut in list(self._streams.get(version, ())):
                cut()


def _is_below(name: str, owner: str) -> bool:
    return owner == "deployment" or name.startswith(f"{owner}/")


class _OvertakenError(Exception):
    """The credential was dropped while its lease was on the way."""


def _overtaken_fault() -> Fault:
    return unavailable("The key kept changing while it was fetched; try again.", {"cause": "changing"})
