"""`make soak`: two routers over one Redis, callers that come and go, providers that fail; what was promised is counted.

Exit status 1: a slot or a rate was exceeded, a slot leaked, or a call ended in a way that nothing explains.
"""

import asyncio
import random
import signal
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import structlog

from router_service.app import RunningRouter
from router_service.state.limits import Taken
from tests.fakes import scripted_upstream
from tests.fakes.redis_server import RedisServer, find_program, running_redis
from tests.fakes.scripted_upstream import (
    Action,
    Cut,
    Pause,
    Reached,
    Reset,
    ScriptedUpstream,
    Send,
    chunk,
    head,
    respond,
)
from tests.service.router_answers import Json, answer_events
from tests.service.router_harness import DEMO, Caller, Stack, make_call, make_policy, running_stack
from tests.service.two_routers import second_router

SEED = 20261127
WORKERS = 24
SLOTS = {"first": 3, "second": 2}
REQUESTS_PER_MINUTE = 1500
EXPLAINED = frozenset(
    {
        "RATE_LIMITED",
        "CONCURRENCY_LIMITED",
        "LIMITS_UNAVAILABLE",
        "UPSTREAM_UNAVAILABLE",
        "UPSTREAM_RATE_LIMITED",
        "UPSTREAM_PROTOCOL_VIOLATION",
        "UPSTREAM_TIMEOUT",
    }
)


@dataclass
class Count:
    """What was seen."""

    ends: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    most: dict[str, int] = field(default_factory=dict)
    admitted: list[float] = field(default_factory=list)


class Ending:
    """Where an answer of a provider ends: after a while, or when its caller leaves. Stands for an event in a script."""

    def __init__(self, scripts: "Scripts", seconds: float) -> None:
        self._scripts = scripts
        self._seconds = seconds
        self._is_over = False

    def set(self) -> None:
        """The provider has done its part."""
        if not self._is_over:
            self._is_over = True
            self._scripts.inside -= 1

    async def wait(self) -> None:
        """The provider works."""
        try:
            await asyncio.sleep(self._seconds)
        finally:
            self.set()


class Script(list[Action]):
    """What a provider does with one request."""

    ending: "Ending"


async def play_counted(script: Any, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    """Plays it; the provider has done its part at the latest when the connection is gone."""
    try:
        return await play(script, reader, writer)
    finally:
        if isinstance(script, Script):
            script.ending.set()


play = scripted_upstream._play


class Scripts(deque[list[Action]]):
    """Scripts without end, one in four a fault. Counts how many run at once."""

    def __init__(self, name: str, chance: random.Random, count: Count) -> None:
        super().__init__()
        self.inside = 0
        self._name = name
        self._chance = chance
        self._count = count

    def __bool__(self) -> bool:
        return True

    def popleft(self) -> list[Action]:
        """The next one."""
        ending = Ending(self, self._chance.random() * 0.08)
        script = Script(self._actions(ending))
        script.ending = ending
        return script

    def _actions(self, ending: Any) -> list[Action]:
        self.inside += 1
        self._count.most[self._name] = max(self._count.most.get(self._name, 0), self.inside)
        end = Reached(ending)
        events = answer_events("Hello", " world")
        kind = self._chance.choices(["answer", "500", "429", "reset", "cut"], weights=[75, 8, 4, 7, 6])[0]
        if kind != "answer":
            self._count.faults[f"provider: {kind}"] += 1
        match kind:
            case "500":
                return [end, *respond(b"{}", status=500)]
            case "429":
                return [end, *respond(b"{}", status=429, retry_after_ms="300")]
            case "reset":
                return [end, Reset()]
            case "cut":
                return [Send(head()), *(Send(chunk(event)) for event in events[:2]), end, Cut()]
            case _:
                body = [Send(chunk(event)) for event in events]
                return [Send(head()), *body[:2], Pause(ending), *body[2:], Send(b"0\r\n\r\n")]


async def call_until(end: float, callers: list[Caller], chance: random.Random, count: Count) -> None:
    """Calls, one after the other, over whichever router; one call in eight is left by its caller."""
    while time.monotonic() < end:
        caller = chance.choice(callers)
        policy = make_policy(max_queue_wait=0.05) if chance.random() < 0.7 else None
        model = chance.choice(["test/both", "test/both", "test/echo"])
        stream = caller.open(make_call(model=model, route_policy=policy), timeout=chance.choice([0.5, 2.0, 5.0]))
        if chance.random() < 0.125:
            asyncio.get_running_loop().call_later(chance.random() * 0.1, stream.cancel)
            count.faults["caller: leaves"] += 1
        try:
            while await stream.read() is not grpc.aio.EOF:
                pass
            count.ends["answered"] += 1
        except asyncio.CancelledError:
            count.ends["CANCELLED"] += 1
        except grpc.aio.AioRpcError as error:
            count.ends[_reason(error)] += 1


def _reason(error: grpc.aio.AioRpcError) -> str:
    from google.rpc import error_details_pb2
    from grpc_status import rpc_status

    status: Any = rpc_status.from_call(error)  # type: ignore[arg-type] # takes anything with trailing metadata
    info = error_details_pb2.ErrorInfo()
    for detail in status.details if status is not None else ():
        if detail.Unpack(info):
            return str(info.reason).removeprefix("ERROR_REASON_")
    return error.code().name


async def freeze(server: RedisServer, end: float, chance: random.Random, count: Count) -> None:
    """Stops the store for a moment, again and again."""
    while time.monotonic() + 8 < end:
        await asyncio.sleep(6 + 4 * chance.random())
        server.signal(signal.SIGSTOP)
        count.faults["store: frozen"] += 1
        await asyncio.sleep(0.3 + chance.random())
        server.signal(signal.SIGCONT)


def watch_rates(router: RunningRouter, count: Count) -> None:
    """Notes when a router lets a call through."""
    limits: Any = router.limits
    take = limits.take_rates

    async def taken(tenant: str, demands: Any) -> Any:
        before = time.monotonic()
        answer = await take(tenant, demands)
        if isinstance(answer, Taken) and tenant != "probes":
            count.admitted.append(before)
        return answer

    limits.take_rates = taken


def configure(made: Json) -> None:
    """The limits that are to hold."""
    made["organizations"]["demo"]["limits"] = {"requests_per_minute": REQUESTS_PER_MINUTE}
    for name, slots in SLOTS.items():
        made["providers"][name].update(max_concurrent_requests=slots, breaker_failures=12)


@asynccontextmanager
async def stage(
    server: RedisServer, home: Path, chance: random.Random, count: Count
) -> AsyncIterator[tuple[Stack, list[Caller], list[RunningRouter]]]:
    """Two routers over the store."""
    async with running_stack(home, limits=server.url(), routers=2, configuration=configure) as stack:
        for name in SLOTS:
            await stack.save_key(f"{DEMO}/credentials/{name}", provider=name)
            upstream: ScriptedUpstream = getattr(stack, name)
            upstream.scripts = Scripts(name, chance, count)
        async with second_router(stack, home) as (other, second):
            routers = [stack.router, second]
            for router in routers:
                watch_rates(router, count)
            yield stack, [stack.member, other], routers


def worst_minute(times: list[float]) -> int:
    """The most calls that were let through in any 60 s."""
    ordered, first, most = sorted(times), 0, 0
    for last, moment in enumerate(ordered):
        while ordered[first] <= moment - 60:
            first += 1
        most = max(most, last - first + 1)
    return most


async def soak(minutes: float) -> int:
    """Runs it and prints what was seen."""
    chance, count = random.Random(SEED), Count()
    scripted_upstream._play = play_counted
    with running_redis(find_program()) as server, tempfile.TemporaryDirectory() as folder:
        async with stage(server, Path(folder), chance, count) as (stack, callers, routers):
            end = time.monotonic() + minutes * 60
            work = [call_until(end, callers, chance, count) for _ in range(WORKERS)]
            await asyncio.gather(*work, freeze(server, end, chance, count))
            await stack.rest()
            for router in routers:
                await router.engine.edges.admission.slots.close()
            # What the frozen store did not hear ends by itself.
            await asyncio.sleep(16)
            slots = [await routers[0].limits.count_slots(f"{DEMO}/credentials/{name}") for name in SLOTS]
    return report(minutes, count, sum(taken + waiting for taken, waiting in slots))


def report(minutes: float, count: Count, leaked: int) -> int:
    """Prints the table; gives the exit status."""
    overshoot = sum(max(0, count.most.get(name, 0) - slots) for name, slots in SLOTS.items())
    minute = worst_minute(count.admitted)
    beyond = max(0, minute - REQUESTS_PER_MINUTE)
    unexplained = sum(
        number
        for end, number in count.ends.items()
        if end not in EXPLAINED | {"answered", "CANCELLED", "DEADLINE_EXCEEDED"}
    )
    print(f"two routers, one store, {minutes:g} min, seed {SEED}")
    print(f"requests          {sum(count.ends.values())}")
    for end, number in count.ends.most_common():
        print(f"  {end:32}{number}")
    print(f"faults injected   {sum(count.faults.values())}")
    for fault, number in count.faults.most_common():
        print(f"  {fault:32}{number}")
    print(f"most at once      {', '.join(f'{name} {count.most.get(name, 0)} of {n}' for name, n in SLOTS.items())}")
    print(f"worst minute      {minute} of {REQUESTS_PER_MINUTE} requests")
    print(f"overshoot         {overshoot} slots, {beyond} requests")
    print(f"leaked slots      {leaked}")
    print(f"unexplained ends  {unexplained}")
    return 1 if overshoot or beyond or leaked or unexplained else 0


def main() -> int:
    """`python -m tests.soak MINUTES`, at most 60."""
    minutes = float(sys.argv[1]) if len(sys.argv) > 1 else 2.0
    if not 0 < minutes <= 60:
        print("from 0 to 60 minutes", file=sys.stderr)
        return 2
    structlog.configure(
        processors=[structlog.processors.JSONRenderer()], logger_factory=structlog.ReturnLoggerFactory()
    )
    return asyncio.run(soak(minutes))


if __name__ == "__main__":
    sys.exit(main())
