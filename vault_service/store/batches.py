"""Requests of one kind that go out together: what comes while one is on its way goes with the next one.

The first of a key goes at once, so nobody who comes alone waits for company. While many come, `spacing_seconds` lie
between two of a key, or they would be many and small. One that takes long holds nothing up: after `patience_seconds`
the next one goes beside it.
"""

import asyncio
import contextvars
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

MAX_ITEMS = 64
SPACING_SECONDS = 0.004
PATIENCE_SECONDS = 0.05

Item = TypeVar("Item")
Answer = TypeVar("Answer")


@dataclass(slots=True, eq=False)
class _Waiter(Generic[Item, Answer]):
    item: Item
    done: "asyncio.Future[Answer]"
    batch: "_Batch[Item, Answer] | None" = None

    def give_up(self) -> None:
        if not self.done.done():
            self.done.set_exception(TimeoutError())


@dataclass(slots=True, eq=False)
class _Batch(Generic[Item, Answer]):
    waiters: Sequence[_Waiter[Item, Answer]]
    task: "asyncio.Task[None] | None" = None


@dataclass(slots=True, eq=False)
class _Queue(Generic[Item, Answer]):
    waiting: deque[_Waiter[Item, Answer]] = field(default_factory=deque)
    under_way: set[_Batch[Item, Answer]] = field(default_factory=set)
    sent_time: float = float("-inf")
    next_send: asyncio.Handle | None = None
    """When what waits goes at the latest; None: at once, whatever is under way."""


class Batches(Generic[Item, Answer]):
    """`ask` gives one answer for each item, in their order; what it raises is everybody's."""

    def __init__(
        self,
        ask: Callable[[str, Sequence[Item]], Awaitable[Sequence[Answer]]],
        *,
        max_items: int = MAX_ITEMS,
        spacing_seconds: float = SPACING_SECONDS,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        self._ask = ask
        self._max_items = max_items
        self._spacing_seconds = spacing_seconds
        self._patience_seconds = patience_seconds
        self._queues: dict[str, _Queue[Item, Answer]] = {}

    async def ask(self, key: str, item: Item, seconds: float) -> Answer:
        """Gives the item's answer, or raises TimeoutError after so many seconds.

        Who is cancelled leaves alone; a batch that nobody waits for is cancelled too.
        """
        loop = asyncio.get_running_loop()
        waiter: _Waiter[Item, Answer] = _Waiter(item, loop.create_future())
        queue = self._queues.setdefault(key, _Queue())
        queue.waiting.append(waiter)
        if queue.next_send is None:
            queue.next_send = loop.call_soon(self._send, key, queue)  # who comes in this round of the loop goes along
        # A timer costs a fifth of a time-out of asyncio's, and each lease waits here.
        timer = loop.call_later(seconds, waiter.give_up)
        try:
            return await waiter.done
        finally:
            timer.cancel()
            batch = waiter.batch
            if batch is not None and batch.task is not None and all(one.done.done() for one in batch.waiters):
                batch.task.cancel()

    def _send(self, key: str, queue: _Queue[Item, Answer]) -> None:
        if queue.next_send is not None:
            queue.next_send.cancel()
            queue.next_send = None
        waiters: list[_Waiter[Item, Answer]] = []
        while queue.waiting and len(waiters) < self._max_items:
            waiter = queue.waiting.popleft()
            if not waiter.done.done():
                waiters.append(waiter)
        if waiters:
            batch = _Batch(waiters)
            for waiter in waiters:
                waiter.batch = batch
            queue.under_way.add(batch)
            # A context of its own: what one caller has set, its deadline for one, holds for nobody else.
            batch.task = asyncio.create_task(self._run(key, queue, batch), context=contextvars.Context())
            queue.sent_time = asyncio.get_running_loop().time()
            self._send_at(queue.sent_time + self._patience_seconds, key, queue)
        elif not queue.under_way:
            self._queues.pop(key, None)

    async def _run(self, key: str, queue: _Queue[Item, Answer], batch: _Batch[Item, Answer]) -> None:
        try:
            answers = await self._ask(key, [waiter.item for waiter in batch.waiters])
            for waiter, answer in zip(batch.waiters, answers, strict=True):
                if not waiter.done.done():
                    waiter.done.set_result(answer)
        except Exception as error:  # noqa: BLE001 - whoever waits hears of it, and raises it
            for waiter in batch.waiters:
                if not waiter.done.done():
                    waiter.done.set_exception(error)
        finally:
            queue.under_way.discard(batch)
            if not queue.under_way:
                self._send_at(queue.sent_time + self._spacing_seconds, key, queue)

    def _send_at(self, time: float, key: str, queue: _Queue[Item, Answer]) -> None:
        if queue.next_send is not None:
            queue.next_send.cancel()
        queue.next_send = asyncio.get_running_loop().call_at(time, self._send, key, queue)
