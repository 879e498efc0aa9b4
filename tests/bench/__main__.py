"""`python -m tests.bench`: measures Keyswitch beside a bare pipe and LiteLLM, in rounds that take turns."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass

import uvloop

from tests.bench import load, report
from tests.bench.credits_peer import CreditsPeer
from tests.bench.keyswitch_peer import KeyswitchPeer
from tests.bench.names import DIRECT, KEYSWITCH, LITELLM, PIPE
from tests.bench.peers import HttpPeer, LiteLlmPeer, Peer, PipePeer
from tests.bench.processes import WORK, free_port, start_program, wait_for_port
from tests.bench.report import Figures


@dataclass(frozen=True)
class Plan:
    """How much is asked of a fast peer in one round; a slow one gets a tenth."""

    rounds: int
    unary_calls: int
    paced_streams: int
    burst_streams: int
    timed_calls: int
    timed_streams: int
    cancels: int
    open_streams: int


FULL = Plan(5, 3000, 100, 600, 200, 3, 50, 2000)
QUICK = Plan(2, 1000, 40, 200, 100, 1, 50, 0)
PEERS: dict[str, Callable[[], Peer]] = {
    "pipe": PipePeer,
    "keyswitch": KeyswitchPeer,
    "keyswitch-credits": CreditsPeer,
    "litellm": LiteLlmPeer,
}
UNARY_AT_ONCE = 16
STREAMS_AT_ONCE = 20


async def _measure_round(peer: Peer, figures: Figures, plan: Plan, marker: load.Marker) -> None:
    if isinstance(peer, CreditsPeer):  # what else it would cost is what it costs Keyswitch without credits
        cost = await load.measure_booked(peer, plan.unary_calls, UNARY_AT_ONCE)
        figures.costs.setdefault("unary", []).append(cost)
        return
    slower = 10 if peer.name == LITELLM else 1
    if peer.program is not None:
        streams = max(STREAMS_AT_ONCE, plan.paced_streams // slower)
        costs = {
            "unary": await load.measure_unary(peer, plan.unary_calls // slower, UNARY_AT_ONCE),
            "paced": await load.measure_streams(peer, "bench-paced", streams, STREAMS_AT_ONCE),
            "burst": await load.measure_streams(peer, "bench-burst", plan.burst_streams // slower, STREAMS_AT_ONCE),
        }
        for kind, cost in costs.items():
            figures.costs.setdefault(kind, []).append(cost)
        slow = await load.measure_unary(peer, plan.unary_calls // slower, 64, "bench-unary-20ms")
        figures.slow_rates.append(slow.units_per_second)
    figures.unary_millis.append(await load.time_unary(peer, plan.timed_calls))
    figures.lateness.append(await load.time_paced(peer, marker, plan.timed_streams))
    if peer.name in {KEYSWITCH, PIPE}:
        figures.cancels_millis.append(await load.time_cancels(peer, marker, plan.cancels))


async def _warm(peer: Peer, figures: Figures) -> None:
    for model in ("bench-paced", "bench-burst"):
        await load.stream_once(peer, model)
    await load.measure_streams(peer, "bench-burst", 40, STREAMS_AT_ONCE) if peer.program else None
    for _ in range(50):
        await load.complete_once(peer, "bench-unary")
    if peer.program is not None:
        figures.rss_idle_bytes = peer.program.rss_bytes()


async def _run(peers: list[Peer], plan: Plan) -> dict[str, Figures]:
    port = free_port()
    upstream = start_program("upstream", [sys.executable, "-m", "tests.bench.upstream", "--port", str(port)])
    marker = load.Marker(port)
    all_figures = {peer.name: Figures() for peer in peers}
    async with AsyncExitStack() as stack:
        stack.push_async_callback(upstream.stop)
        await wait_for_port(upstream, port)
        for peer in peers:
            await peer.start(port)
            stack.push_async_callback(peer.stop)
            await _warm(peer, all_figures[peer.name])
        for number in range(plan.rounds):
            for peer in peers:
                print(f"round {number + 1} of {plan.rounds}: {peer.name} …", file=sys.stderr, flush=True)
                await _measure_round(peer, all_figures[peer.name], plan, marker)
        for peer in peers:
            if peer.program is not None:
                all_figures[peer.name].rss_after_bytes = peer.program.rss_bytes()
        for peer in peers:
            if isinstance(peer, KeyswitchPeer) and not isinstance(peer, CreditsPeer):
                await _measure_alone(peer, all_figures[peer.name], plan)
    return all_figures


async def _measure_alone(peer: KeyswitchPeer, figures: Figures, plan: Plan) -> None:
    """What needs no peer beside it: open streams, cold starts, import."""
    if plan.open_streams:
        before, held, first = await load.hold_streams(peer, plan.open_streams)
        figures.open_streams = (plan.open_streams, before, held, first)
    for _ in range(3):
        figures.start_seconds.append(await peer.restart_router())
        figures.start_all_seconds.append(await peer.restart_all())
        figures.import_seconds.append(await peer.time_import())


def main() -> None:
    """Reads the command line, measures, prints."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two short rounds instead of five")
    parser.add_argument("--without", action="append", default=[], choices=list(PEERS))
    chosen = parser.parse_args()
    WORK.mkdir(exist_ok=True)
    peers: list[Peer] = [HttpPeer(DIRECT), *(make() for name, make in PEERS.items() if name not in chosen.without)]
    loop: asyncio.Runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
    with loop:
        print(report.write(loop.run(_run(peers, QUICK if chosen.quick else FULL))))


if __name__ == "__main__":
    main()
