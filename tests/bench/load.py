"""The load: calls against one peer, checked for completeness, with what they cost and how long they took."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import aclosing
from dataclasses import dataclass, field
from statistics import median

import aiohttp

from tests.bench import upstream
from tests.bench.credits_peer import CreditsPeer
from tests.bench.peers import Peer


class Incomplete(Exception):
    """An answer that lacks some of its text: its cost must not be reported."""


@dataclass
class Samples:
    """Figures of one quantity."""

    values: list[float] = field(default_factory=list)

    def median(self) -> float:
        return median(self.values)

    def p99(self) -> float:
        """The nearest-rank 99th percentile; of fewer than 100 values it is the largest."""
        ordered = sorted(self.values)
        return ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]


@dataclass(frozen=True)
class Cost:
    """CPU of the peer's process tree for a number of units, and how many units passed in a second."""

    cpu_seconds: float
    wall_seconds: float
    units: int

    @property
    def micros_per_unit(self) -> float:
        return self.cpu_seconds / self.units * 1e6

    @property
    def units_per_second(self) -> float:
        return self.units / self.wall_seconds


async def _share_out(total: int, concurrency: int, work: Callable[[], Awaitable[None]]) -> None:
    left = iter(range(total))

    async def worker() -> None:
        for _ in left:
            await work()

    async with asyncio.TaskGroup() as group:
        for _ in range(concurrency):
            group.create_task(worker())


async def _measure(peer: Peer, units: int, load: Awaitable[None]) -> Cost:
    program = peer.program
    assert program is not None, "the upstream itself has no cost to measure"
    cpu, wall = program.cpu_seconds(), time.monotonic()
    await load
    return Cost(program.cpu_seconds() - cpu, time.monotonic() - wall, units)


async def complete_once(peer: Peer, model: str) -> None:
    """One whole answer; raises unless all of its text came."""
    text = await peer.complete(model)
    if text != upstream.TEXT:
        raise Incomplete(f"{peer.name} returned {len(text)} characters of {len(upstream.TEXT)}")


async def stream_once(peer: Peer, model: str) -> None:
    """One streamed answer; raises unless all of its text came."""
    received = 0
    async with aclosing(peer.stream(model)) as events:
        async for text in events:
            received += len(text)
    if received != len(upstream.TEXT):
        raise Incomplete(f"{peer.name} streamed {received} characters of {len(upstream.TEXT)}")


async def measure_unary(peer: Peer, total: int, concurrency: int, model: str = "bench-unary") -> Cost:
    """The cost of a request."""
    return await _measure(peer, total, _share_out(total, concurrency, lambda: complete_once(peer, model)))


async def measure_booked(peer: CreditsPeer, total: int, concurrency: int) -> Cost:
    """The cost of a request that is charged, until it is; raises unless each was charged once."""
    charged = await peer.settle()

    async def load() -> None:
        await _share_out(total, concurrency, lambda: complete_once(peer, "bench-unary"))
        await peer.settle()

    cost = await _measure(peer, total, load())
    await peer.check_booked(charged, total)
    return cost


async def measure_streams(peer: Peer, model: str, total: int, concurrency: int) -> Cost:
    """The cost of an upstream's event, the call's own cost shared out among its events."""
    work = _share_out(total, concurrency, lambda: stream_once(peer, model))
    return await _measure(peer, total * upstream.EVENTS, work)


async def time_unary(peer: Peer, total: int) -> Samples:
    """Milliseconds from call to answer, one call after another."""
    samples = Samples()
    for _ in range(total):
        begin = time.monotonic()
        await complete_once(peer, "bench-unary")
        samples.values.append((time.monotonic() - begin) * 1000)
    return samples


class Marker:
    """Hands out marks and fetches what the upstream noted under them."""

    def __init__(self, upstream_port: int) -> None:
        self._url = f"http://127.0.0.1:{upstream_port}/notes"
        self._next = 0

    def marks(self, count: int) -> list[str]:
        self._next += count
        return [f"mark-{number:06d}" for number in range(self._next - count, self._next)]

    async def notes(self) -> tuple[dict[str, list[float]], dict[str, float]]:
        """Departures of tokens and closures of connections since the last time; the upstream forgets them."""
        async with aiohttp.ClientSession() as session, session.get(self._url) as response:
            noted = await response.json(content_type=None)
        sent, closed = noted["sent"], noted["closed"]
        return {f"mark-{k}": v for k, v in sent.items()}, {f"mark-{k}": v for k, v in closed.items()}


@dataclass
class Lateness:
    """Milliseconds: of the first token after the call began, and of each token after it left the upstream."""

    first: Samples = field(default_factory=Samples)
    token: Samples = field(default_factory=Samples)


async def time_paced(peer: Peer, marker: Marker, total: int) -> Lateness:
    """How late tokens come, one stream after another."""
    late, arrivals = Lateness(), dict[str, list[float]]()
    for mark in marker.marks(total):
        begin, times = time.monotonic(), list[float]()
        async with aclosing(peer.stream("bench-paced", mark)) as events:
            async for text in events:
                times.extend([time.monotonic()] * (len(text) // len(upstream.TOKEN)))
        late.first.values.append((times[0] - begin) * 1000)
        arrivals[mark] = times
    sent, _ = await marker.notes()
    for mark, times in arrivals.items():
        late.token.values.extend((came - left) * 1000 for came, left in zip(times, sent[mark], strict=True))
    return late


async def time_cancels(peer: Peer, marker: Marker, total: int) -> Samples:
    """Milliseconds from a caller's cancel to the upstream's connection being closed, all cancelled at once."""
    marks = marker.marks(total)
    opened, leave = asyncio.Semaphore(0), asyncio.Event()
    cancelled: dict[str, float] = {}

    async def hold(mark: str) -> None:
        async with aclosing(peer.stream("bench-open", mark)) as events:
            await anext(aiter(events))
            opened.release()
            await leave.wait()
            cancelled[mark] = time.monotonic()

    async with asyncio.TaskGroup() as group:
        for mark in marks:
            group.create_task(hold(mark))
        for _ in marks:
            await opened.acquire()
        leave.set()
    await asyncio.sleep(1.0)
    _, closed = await marker.notes()
    lost = [mark for mark in marks if mark not in closed]
    if lost:
        raise Incomplete(f"{peer.name}: {len(lost)} of {total} connections were still open a second after the cancel")
    return Samples([(closed[mark] - cancelled[mark]) * 1000 for mark in marks])


async def hold_streams(peer: Peer, count: int, batch: int = 50) -> tuple[int, int, Samples]:
    """Resident bytes before and while many streams are open, and the first-token times of fifty more."""
    program = peer.program
    assert program is not None, "the upstream itself has no memory to measure"
    before, leave = program.rss_bytes(), asyncio.Event()
    opened = asyncio.Semaphore(0)

    async def hold() -> None:
        async with aclosing(peer.stream("bench-open")) as events:
            await anext(aiter(events))
            opened.release()
            async for _ in events:
                if leave.is_set():
                    return

    async with asyncio.TaskGroup() as group:
        for _ in range(0, count, batch):
            for _ in range(batch):
                group.create_task(hold())
            await _acquire(opened, batch)
        held, first = program.rss_bytes(), Samples()
        for _ in range(50):
            begin = time.monotonic()
            async with aclosing(peer.stream("bench-open")) as events:
                await anext(aiter(events))
            first.values.append((time.monotonic() - begin) * 1000)
        leave.set()
    return before, held, first


async def _acquire(semaphore: asyncio.Semaphore, times: int) -> None:
    for _ in range(times):
        await semaphore.acquire()


def pooled(samples: Iterable[Samples]) -> Samples:
    """All values of several rounds as one set."""
    return Samples([value for one in samples for value in one.values])
