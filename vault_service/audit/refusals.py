"""Refusals of callers who prove nothing: recorded one by one as long as they are few, counted when they are many.

Anybody who reaches the port can cause them, so a record for each would let anybody fill the disk, and with it close the
door for everybody. Beyond the first hundred, and ten a second, they are counted by reason and method; each interval
writes one record for each such count.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from keyswitch.vault.v1 import audit_pb2

from vault_service.audit.recorder import Actor, Recorder
from vault_service.core.faults import Fault

BURST = 100
PER_SECOND = 10.0
INTERVAL_SECONDS = 10.0
_MAX_PEERS = 1000


@dataclass(slots=True)
class _Count:
    fault: Fault
    number: int = 0
    peers: set[str] = field(default_factory=set)


class Refusals:
    """What is refused before anybody is known."""

    def __init__(self, recorder: Recorder, *, monotonic: Callable[[], float]) -> None:
        self._recorder = recorder
        self._monotonic = monotonic
        self._tokens = float(BURST)
        self._time = monotonic()
        self._counts: dict[tuple[str, str, str], _Count] = {}

    async def refused(self, actor: Actor, method: str, fault: Fault) -> None:
        """Records a refusal, or counts it. Raises AUDIT_FAILED where it cannot be recorded."""
        if self._take():
            await self._recorder.note(actor, audit_pb2.AUDIT_ACTION_AUTHENTICATE, "", fault, note=method)
            return
        key = (fault.reason.value, fault.metadata.get("cause", ""), method)
        count = self._counts.setdefault(key, _Count(fault))
        count.number += 1
        if len(count.peers) < _MAX_PEERS:
            count.peers.add(actor.peer.rpartition(":")[0])

    async def flush(self) -> None:
        """Writes what was counted. What cannot be written is kept for the next time."""
        for key, count in list(self._counts.items()):
            number, peers = count.number, len(count.peers)
            await self._recorder.note(
                Actor(),
                audit_pb2.AUDIT_ACTION_AUTHENTICATE,
                "",
                count.fault,
                note=f"{key[2]}, from {peers}{' or more' if peers == _MAX_PEERS else ''} addresses",
                refused_count=number,
            )
            count.number -= number
            if count.number == 0:
                del self._counts[key]

    async def run(self, on_error: Callable[[Exception], None]) -> None:
        """Writes after each interval, until it is cancelled."""
        while True:
            await asyncio.sleep(INTERVAL_SECONDS)
            try:
                await self.flush()
            except Fault as fault:
                on_error(fault)

    def _take(self) -> bool:
        now = self._monotonic()
        self._tokens = min(float(BURST), self._tokens + (now - self._time) * PER_SECOND)
        self._time = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
