"""What a call reaches the world through, and the work that outlives it."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass

from router_service.admission import Admission
from router_service.credentials.client import Credentials
from router_service.database.patience import waited_for
from router_service.ledger.ledger import Ledger
from router_service.observe.metrics import Metrics
from router_service.upstream.client import Upstream


@dataclass(frozen=True, slots=True)
class Edges:
    """What calls reach the world through."""

    credentials: Credentials
    ledger: Ledger
    upstream: Upstream
    metrics: Metrics
    admission: Admission
    clock: Callable[[], float]
    sleep: Callable[[float], Coroutine[object, object, None]]
    spread: Callable[[], float]  # in [0, 1)
    is_recorded_first: bool = False  # no call is sent while the ledger is away, whoever pays for it


class Afterwork:
    """Work that must be done although the call that began it may be gone: settling, draining."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Future[None]] = set()
        self.is_closing = False

    def spawn(self, work: Coroutine[object, object, None]) -> None:
        """Begins it. Nobody waits for it, so no caller's deadline is its own."""
        with waited_for(None):
            task: asyncio.Future[None] = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def rest(self) -> None:
        """Waits until there is none."""
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def close(self) -> None:
        """Waits for what there is, which may give up what it cannot do."""
        self.is_closing = True
        await self.rest()
