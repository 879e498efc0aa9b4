"""Revocations that hold here although the store cannot be written yet (Revocation.deny_locally).

They are in memory: a process that ends before the store is back takes them with it, which the log says.
"""

import asyncio
from collections.abc import Awaitable, Callable

from vault_service.core.faults import Fault
from vault_service.core.names import VersionName, is_within, parse_owner
from vault_service.store.store import StoreError

Write = Callable[[], Awaitable[object]]


class Denials:
    """What is denied here, and how it is written as soon as the store takes it."""

    def __init__(self) -> None:
        self._pending: dict[str, Write] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """What is still to be written: names of owners, credentials and versions."""
        return tuple(self._pending)

    def add(self, name: str, write: Write) -> None:
        """Denies leases of an owner, a credential or a version from now on."""
        self._pending[name] = write

    def denies(self, version: VersionName) -> bool:
        """Whether a lease of the version is denied."""
        if not self._pending:
            return False
        credential = version.credential
        if str(version) in self._pending or str(credential) in self._pending:
            return True
        return any(
            is_within(str(credential.owner), parse_owner(name)) for name in self._pending if "/credentials/" not in name
        )

    async def write_pending(self, on_dropped: Callable[[str, Fault], None]) -> None:
        """Tries each once. What the law refuses (it was deleted meanwhile) needs no denial any longer."""
        for name, write in list(self._pending.items()):
            try:
                await write()
            except StoreError:
                continue
            except Fault as fault:
                on_dropped(name, fault)
            if self._pending.get(name) is write:
                del self._pending[name]

    async def run(self, interval_seconds: float, on_dropped: Callable[[str, Fault], None]) -> None:
        """Tries until it is cancelled."""
        while True:
            await asyncio.sleep(interval_seconds)
            await self.write_pending(on_dropped)
