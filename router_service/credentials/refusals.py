"""Callers that were refused because they proved no identity: counted here, recorded in the credential service's log.

They are counted by method and cause, so that a flood of them is a few numbers.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field

from keyswitch.vault.v1 import lease_service_pb2

FLUSH_SECONDS = 10.0
MOST_ADDRESSES = 1000
MOST_IN_A_REPORT = 1000

Send = Callable[[list[lease_service_pb2.CallerRefusals]], Awaitable[None]]


@dataclass(slots=True)
class _Count:
    number: int = 0
    sources: set[str] = field(default_factory=set)


class Refusals:
    """The counts. What has been sent is taken off, and nothing else: a report that failed is made again."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._counts: dict[tuple[str, str], _Count] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to report."""
        self._task = asyncio.create_task(self._run())

    def add(self, method: str, cause: str, source: str) -> None:
        """Notes a refusal. `method` is "Service/Method"; both come from this program, not from the caller."""
        count = self._counts.setdefault((method, cause), _Count())
        count.number += 1
        if len(count.sources) < MOST_ADDRESSES:
            count.sources.add(source)

    async def flush(self) -> None:
        """Reports what was counted. Raises what `send` raises; then all of it stays."""
        taken = dict(list(self._counts.items())[:MOST_IN_A_REPORT])
        if not taken:
            return
        numbers = {key: count.number for key, count in taken.items()}
        refusals = [
            lease_service_pb2.CallerRefusals(
                method=method, cause=cause, count=count.number, address_count=len(count.sources)
            )
            for (method, cause), count in taken.items()
        ]
        await self._send(refusals)
        for key, number in numbers.items():
            count = self._counts[key]
            count.number -= number
            if count.number == 0:
                del self._counts[key]

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            with suppress(Exception):  # reported with the next flush; the watch says that the service is away
                await self.flush()

    async def stop(self) -> None:
        """Reports what is left, once."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        with suppress(Exception):
            await self.flush()
