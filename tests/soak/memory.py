"""`make soak-memory`: whether a router keeps anything of calls that have ended, over 100,000 and 10,000 that were left.

The router is a process of its own, as its users start it. What gRPC and the allocator keep of a stream that was left
is not the router's, so a bare pipe on the same libraries is left as often; what the router keeps beyond that counts.
Exit status 1: it grew for as long as it was called.
"""

import argparse
import asyncio
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack, aclosing

from tests.bench import load
from tests.bench.keyswitch_peer import KeyswitchPeer
from tests.bench.peers import Peer, PipePeer
from tests.bench.processes import WORK, free_port, start_program, wait_for_port

STEPS = 20
AT_ONCE = 16
MOMENTS_MIN = 4
WARMING = 3_000  # streams that are left before it is weighed: they take other ways than completions (decision 0122)
KEPT_BYTES_MAX = 64  # of a call; what the allocator does in 80,000 calls is below that

Weights = Sequence[tuple[int, int]]


def slope(weights: Weights) -> float:
    """Bytes for each call, by least squares."""
    middle = sum(calls for calls, _ in weights) / len(weights)
    spread = sum((calls - middle) ** 2 for calls, _ in weights)
    return sum((calls - middle) * size for calls, size in weights) / spread if spread else 0.0


async def leave(peer: Peer, count: int) -> None:
    """Streams whose callers go after the first text."""

    async def one() -> None:
        async with aclosing(peer.stream("bench-paced")) as events:
            await anext(events)

    for first in range(0, count, AT_ONCE):
        await asyncio.gather(*(one() for _ in range(min(AT_ONCE, count - first))))


async def weigh(peer: Peer, calls: int, *, is_left: bool) -> list[tuple[int, int]]:
    """How much memory the router has after each step of so many calls."""
    assert peer.program is not None
    if is_left:
        await leave(peer, min(WARMING, calls))
    weights = [(0, peer.program.rss_bytes())]
    for step in range(1, STEPS + 1):
        if is_left:
            await leave(peer, calls // STEPS)
        else:
            await load.measure_unary(peer, calls // STEPS, AT_ONCE)
        weights.append((calls // STEPS * step, peer.program.rss_bytes()))
        print(f"{weights[-1][0]} {weights[-1][1]}", file=sys.stderr, flush=True)
    return weights


def report(what: str, weights: Weights) -> float:
    """Prints a line; the bytes kept of each. The first fifth is the allocator's and the caches' warming up."""
    later = weights[STEPS // 5 :]
    kept = slope(later)
    print(
        f"{weights[-1][0]:,} {what}: {weights[0][1] / 1e6:.1f} MB before, {later[0][1] / 1e6:.1f} MB after a fifth, "
        f"{weights[-1][1] / 1e6:.1f} MB at the end, {kept:+.1f} bytes for each"
    )
    return kept


async def measure(completions: int, cancels: int) -> int:
    """Runs it."""
    port = free_port()
    async with AsyncExitStack() as stack:
        upstream = start_program("upstream", [sys.executable, "-m", "tests.bench.upstream", "--port", str(port)])
        stack.push_async_callback(upstream.stop)
        await wait_for_port(upstream, port)
        peer = KeyswitchPeer()
        stack.push_async_callback(peer.stop)
        await peer.start(port)
        await load.measure_unary(peer, 500, AT_ONCE)
        pipe = PipePeer()
        await pipe.start(port)
        stack.push_async_callback(pipe.stop)
        kept_of_completions = report("completions", await weigh(peer, completions, is_left=False))
        floor = report("streams of a bare pipe that were left", await weigh(pipe, cancels, is_left=True))
        kept_of_left = report("streams that were left", await weigh(peer, cancels, is_left=True)) - max(0.0, floor)
    return 0 if max(kept_of_completions, kept_of_left) <= KEPT_BYTES_MAX else 1


def main() -> int:
    """Reads the command line and runs it."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak.memory", description=__doc__)
    parser.add_argument("--completions", type=int, default=100_000)
    parser.add_argument("--cancels", type=int, default=10_000)
    chosen = parser.parse_args()
    WORK.mkdir(exist_ok=True)
    return asyncio.run(measure(max(STEPS, chosen.completions), max(STEPS, chosen.cancels)))


if __name__ == "__main__":
    sys.exit(main())
