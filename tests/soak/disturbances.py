"""What goes wrong with the stores during a soak, and what is counted of it."""

import asyncio
import random
import signal
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.bench.processes import PAGE_BYTES
from tests.fakes.fault_proxy import Way, WayFault
from tests.fakes.postgres_server import PostgresServer
from tests.fakes.redis_server import RedisServer
from tests.soak.memory import MOMENTS_MIN, slope

WAY_FAULTS = (
    WayFault.REFUSED,
    WayFault.RESET,
    WayFault.CUT,
    WayFault.BLACKHOLE,
    WayFault.DEAF,
    WayFault.MUTE,
    WayFault.SLOW,
    WayFault.DRIP,
)


@dataclass
class Count:
    """What was seen."""

    ends: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    most: dict[str, int] = field(default_factory=dict)
    admitted: list[float] = field(default_factory=list)
    charged: dict[str, int] = field(default_factory=dict)  # what callers were told, by response id
    weights: list[tuple[int, int]] = field(default_factory=list)  # calls that had ended, bytes resident
    notes: list[list[Any]] = field(default_factory=list)  # what the fakes keep for tests, and nobody reads here
    longest_pause_seconds: float = 0.0

    def grown(self) -> str:
        """What a thousand calls left resident, over the second half."""
        later = self.weights[len(self.weights) // 2 :]
        if len(later) < MOMENTS_MIN:
            return "not known after so short a time"
        kib = slope(later) * 1000 / 1024
        half, end = (size / 1e6 for _, size in (later[0], later[-1]))
        return f"{half:.0f} MB at half-time, {end:.0f} MB at the end, {kib:+.0f} KiB in 1000 calls"


async def crash(server: PostgresServer, end: float, chance: random.Random, count: Count) -> None:
    """Ends the ledger's server in the middle of everything, and starts it again."""
    while time.monotonic() + 15 < end:
        await asyncio.sleep(10 + 5 * chance.random())
        await asyncio.to_thread(server.stop)
        count.faults["ledger: crashed"] += 1
        await asyncio.sleep(1 + chance.random())
        await asyncio.to_thread(server.start)


async def freeze(server: RedisServer, end: float, chance: random.Random, count: Count) -> None:
    """Stops the store for a moment, again and again."""
    while time.monotonic() + 8 < end:
        await asyncio.sleep(6 + 4 * chance.random())
        server.signal(signal.SIGSTOP)
        count.faults["store: frozen"] += 1
        await asyncio.sleep(0.3 + chance.random())
        server.signal(signal.SIGCONT)


async def weigh(end: float, count: Count) -> None:
    """Notes how much memory this process has, and for how long it stood still, whoever blocked it."""
    beat = 0
    while (now := time.monotonic()) < end:
        if beat % 50 == 0:
            for notes in count.notes:
                notes.clear()
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            count.weights.append((count.ends.total(), pages * PAGE_BYTES))
        beat += 1
        await asyncio.sleep(0.1)
        count.longest_pause_seconds = max(count.longest_pause_seconds, time.monotonic() - now - 0.1)


async def spoil(name: str, way: Way, end: float, chance: random.Random, count: Count) -> None:
    """Makes the way to a store bad in one manner after the other, for longer than some callers wait."""
    while time.monotonic() + 20 < end:
        await asyncio.sleep(8 + 6 * chance.random())
        fault = chance.choice(WAY_FAULTS)
        await way.impair(fault)
        count.faults[f"{name}: {fault.value}"] += 1
        await asyncio.sleep(0.5 + 5 * chance.random())
        await way.heal()
