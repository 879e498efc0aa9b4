"""Waiting for a slot, and keeping it alive while it is held."""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine

import structlog

from router_service.core.faults import Fault
from router_service.observe.metrics import Metrics
from router_service.state.limits import SLOT_SECONDS, Limits

BEAT_SECONDS = SLOT_SECONDS / 3
FIRST_PAUSE_SECONDS = 0.05
LONGEST_PAUSE_SECONDS = 0.5
"""How often a waiting call asks when nobody wakes it: the first in the queue often, those behind it less."""

log = structlog.get_logger(__name__)


class SlotKeeper:
    """The slots that calls of this router hold or wait for."""

    def __init__(self, limits: Limits, metrics: Metrics) -> None:
        self._limits = limits
        self._metrics = metrics
        self._held: dict[str, set[str]] = {}
        self._waiting: dict[str, deque[asyncio.Event]] = {}
        self._beating = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    async def take(self, key: str, ticket: str, limit: int, wait_seconds: float | None) -> bool:
        """Whether the ticket got a slot in time; None waits for as long as the caller does.

        `leave` must follow whatever happens, a cancel in here included: a slot that was given just then is given back.
        """
        place = await self._limits.take_slot(key, ticket, limit)
        if place is None:
            self._hold(key, ticket)
            return True
        loop = asyncio.get_running_loop()
        started = loop.time()
        until = None if wait_seconds is None else started + wait_seconds
        with self._metrics.waiting_for_slot() as note:
            while place is not None:
                left = LONGEST_PAUSE_SECONDS if until is None else until - loop.time()
                if left <= 0:
                    return False
                await self._pause(key, min(left, LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * (1 + place)))
                place = await self._limits.take_slot(key, ticket, limit)
            note(loop.time() - started)
        self._hold(key, ticket)
        return True

    def _hold(self, key: str, ticket: str) -> None:
        self._held.setdefault(key, set()).add(ticket)

    async def _pause(self, key: str, seconds: float) -> None:
        """Waits for a slot that this router gives back, or for the time to ask again."""
        event = asyncio.Event()
        waiting = self._waiting.setdefault(key, deque())
        waiting.append(event)
        try:
            async with asyncio.timeout(seconds):
                await event.wait()
        except TimeoutError:
            pass
        finally:
            waiting.remove(event)
            if not waiting and self._waiting.get(key) is waiting:
                del self._waiting[key]

    def leave(self, key: str, ticket: str) -> None:
        """Gives back what the ticket has, without making anybody wait for it."""
        held = self._held.get(key)
        if held is not None:
            held.discard(ticket)
            if not held:
                del self._held[key]
        self._spawn(self._leave(key, ticket))

    async def _leave(self, key: str, ticket: str) -> None:
        # A beat on its way names this slot; it must not come after the slot was given back. A later one does not name
        # it, so a slow store is told of many at once.
        async with self._beating:
            pass
        await self._limits.leave_slot(key, ticket)
        for event in self._waiting.get(key, ()):
            event.set()

    def _spawn(self, work: Coroutine[object, object, None]) -> None:
        task: asyncio.Task[None] = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def beat(self) -> None:
        """Tells the store that the holders live."""
        async with self._beating:
            held = {key: sorted(tickets) for key, tickets in self._held.items()}
            try:
                lost = await self._limits.keep_slots(held) if held else 0
            except Fault:
                return
        if lost:
            self._metrics.slots_lost(lost)
            log.warning("slots_lost", count=lost)

    async def follow(self, sleep: Callable[[float], Coroutine[object, object, None]]) -> None:
        """Beats for as long as the router runs."""
        while True:
            await sleep(BEAT_SECONDS)
            await self.beat()

    async def close(self) -> None:
        """Waits until everything is given back."""
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)
