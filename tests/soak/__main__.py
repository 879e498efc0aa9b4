"""`make soak`: two routers over one Redis and one PostgreSQL, callers that come and go, providers that fail.

What was promised is counted. Exit status 1: a slot, a rate or a budget was exceeded, a slot or a reservation leaked, a
nano is not explained, or a call ended in a way that nothing explains.
"""

import asyncio
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grpc
import structlog

from router_service.app import RunningRouter
from router_service.core.budget import Basis, Budget, Period
from router_service.core.database import Database, PostgresDatabase, parse_database
from router_service.ledger.ledger import Ledger, LedgerEntry
from router_service.state.limits import Taken
from tests.fakes import scripted_upstream
from tests.fakes.fault_proxy import running_proxy
from tests.fakes.postgres_server import find_programs, running_postgres
from tests.fakes.redis_server import find_program, running_redis
from tests.fakes.scripted_upstream import (
    Action,
    Cut,
    Pause,
    Reached,
    Received,
    Reset,
    ScriptedUpstream,
    Send,
    chunk,
    head,
    respond,
)
from tests.fakes.vault_server import free_port
from tests.service.router_answers import Json, answer_events
from tests.service.router_harness import DEMO, Caller, make_call, make_policy, running_stack
from tests.service.two_routers import second_router
from tests.soak.disturbances import Count, crash, freeze, spoil, weigh

SEED = 20261127
WORKERS = 24
SLOTS = {"first": 3, "second": 2}
REQUESTS_PER_MINUTE = 1500
CREDITS_NANOS = 10**13
BUDGET_NANOS = 10**9  # runs out on the way, so that its bound is tried too
PAYERS = ("CREDITS", "ORGANIZATION_KEY")
EXPLAINED = frozenset(
    {
        "RATE_LIMITED",
        "CONCURRENCY_LIMITED",
        "LIMITS_UNAVAILABLE",
        "LEDGER_UNAVAILABLE",
        "BUDGET_EXHAUSTED",
        "UPSTREAM_UNAVAILABLE",
        "UPSTREAM_RATE_LIMITED",
        "UPSTREAM_PROTOCOL_VIOLATION",
        "UPSTREAM_TIMEOUT",
    }
)


@dataclass(frozen=True)
class Money:
    """What the books say in the end."""

    overshoot: int
    held: int
    unexplained: int
    entries: int
    receipts_lost: int
    is_right: bool


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


class Scripts:
    """Scripts without end for one key of a provider, one in four a fault. Counts how many run at once."""

    def __init__(self, name: str, chance: random.Random, count: Count) -> None:
        self.inside = 0
        self._name = name
        self._chance = chance
        self._count = count

    def next(self) -> list[Action]:
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


def by_key(name: str, chance: random.Random, count: Count) -> Callable[[Received], list[Action]]:
    """Scripts of a provider, counted for each key, because each has slots of its own."""
    scripts: dict[str, Scripts] = {}

    def choose(received: Received) -> list[Action]:
        key = received.headers["authorization"]
        if key not in scripts:
            scripts[key] = Scripts(f"{name}, key {len(scripts) + 1}", chance, count)
        return scripts[key].next()

    return choose


async def call_until(end: float, callers: list[Caller], chance: random.Random, count: Count) -> None:
    """Calls, one after the other, over whichever router; one call in eight is left by its caller."""
    while time.monotonic() < end:
        caller = chance.choice(callers)
        fields: dict[str, Any] = {"max_queue_wait": 0.05} if chance.random() < 0.7 else {}
        policy = make_policy(payers=[f"PAYER_{chance.choice(PAYERS)}"], **fields)
        model = chance.choice(["test/both", "test/both", "test/echo"])
        call = make_call(model=model, route_policy=policy)
        call.spec.settings.max_output_tokens = 100
        stream = caller.open(call, timeout=chance.choice([0.5, 2.0, 5.0]))
        if chance.random() < 0.125:
            asyncio.get_running_loop().call_later(chance.random() * 0.1, stream.cancel)
            count.faults["caller: leaves"] += 1
        try:
            while (message := await stream.read()) is not grpc.aio.EOF:
                for event in message.events:
                    if event.WhichOneof("event") == "response_ended":
                        receipt = event.response_ended.receipt
                        count.charged[receipt.response_id] = receipt.cost.charged_usd_nanos
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


async def open_books(ledger: Ledger) -> None:
    """Credits, and a budget that they are spent under."""
    await ledger.add_credits("demo", CREDITS_NANOS, "soak", "soak", time.time())
    now = time.time()
    budget = Budget("demo", "soak", "soak", DEMO, Period.TOTAL, Basis.CHARGED, BUDGET_NANOS, None, now, now, 1)
    await ledger.create_budget(budget)


async def close_books(ledger: Ledger, count: Count) -> Money:
    """Reads everything and compares it with what callers were told."""
    entries: list[LedgerEntry] = []
    while page := await ledger.list_entries("demo", entries[-1].entry_id if entries else None, 1000):
        entries += page
    booked: Counter[str] = Counter()
    for entry in entries:
        booked[entry.note] -= entry.amount_nanos
    notes = Counter(entry.note for entry in entries)
    balance, verification = await ledger.balance("demo"), await ledger.verify()
    status = await ledger.get_budget("demo", "soak")
    assert status is not None
    unexplained = sum(abs(booked[one] - nanos) for one, nanos in count.charged.items())
    unexplained += abs(balance.balance_nanos - sum(entry.amount_nanos for entry in entries))
    receipts = [await ledger.get_receipt(one) for one in notes if one != "soak"]
    for found in receipts:
        if found is not None:
            told = sum(
                attempt.cost.charged
                for attempt in found.attempts
                if attempt.cost is not None and isinstance(attempt.cost.charged, int)
            )
            unexplained += abs(told - booked[found.response_id])
    lost = sum(found is None for found in receipts)
    lost += sum([await ledger.get_receipt(one) is None for one in count.charged if one not in notes])
    return Money(
        max(0, -status.remaining_nanos),
        balance.reserved_nanos + status.reserved_nanos,
        unexplained,
        len(entries),
        lost,
        verification.is_right,
    )


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
    limits: str, database: Database, home: Path, chance: random.Random, count: Count
) -> AsyncIterator[tuple[list[Caller], list[RunningRouter]]]:
    """Two routers over the store and the ledger."""
    shared: dict[str, Any] = {"limits": limits, "routers": 2, "database": database}
    async with running_stack(home, configuration=configure, **shared) as stack:
        stack.router.engine.edges = replace(stack.router.engine.edges, sleep=asyncio.sleep)
        await open_books(stack.router.ledger)
        for name in SLOTS:
            await stack.save_key(f"{DEMO}/credentials/{name}", provider=name)
            await stack.save_key(f"deployment/credentials/{name}", f"sk-ours-{name}-0123456789", provider=name)
            upstream: ScriptedUpstream = getattr(stack, name)
            upstream.choose = by_key(name, chance, count)
            count.notes.append(upstream.received)
        count.notes += [stack.receipts, stack.sleeps]
        async with second_router(stack, home, database=database) as (other, second):
            routers = [stack.router, second]
            for router in routers:
                watch_rates(router, count)
            yield [stack.member, other], routers


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
    with (
        running_proxy() as proxy,
        running_redis(find_program(), free_port()) as server,
        running_postgres(find_programs()) as books,
        tempfile.TemporaryDirectory() as folder,
    ):
        ways = {"ledger": proxy.way_to(books.port), "store": proxy.way_to(server.port)}
        direct = parse_database(books.url(books.create_database()), books.password_file)
        assert isinstance(direct, PostgresDatabase)
        database = replace(direct, port=ways["ledger"].port)
        limits = f"redis://127.0.0.1:{ways['store'].port}/0"
        async with stage(limits, database, Path(folder), chance, count) as (callers, routers):
            end = time.monotonic() + minutes * 60
            work = [call_until(end, callers, chance, count) for _ in range(WORKERS)]
            work += [freeze(server, end, chance, count), crash(books, end, chance, count), weigh(end, count)]
            await asyncio.gather(*work, *(spoil(name, way, end, chance, count) for name, way in ways.items()))
            for router in routers:
                await router.engine.afterwork.rest()
                await router.ledger.flush()
                await router.engine.edges.admission.slots.close()
            # What the frozen store did not hear ends by itself.
            await asyncio.sleep(16)
            owners = (DEMO, "deployment")
            keys = [f"{owner}/credentials/{name}" for owner in owners for name in SLOTS]
            slots = [await routers[0].limits.count_slots(key) for key in keys]
            money = await close_books(routers[0].ledger, count)
    return report(minutes, count, sum(taken + waiting for taken, waiting in slots), money)


def report(minutes: float, count: Count, leaked: int, money: Money) -> int:
    """Prints the table; gives the exit status."""
    bounds = {label: SLOTS[label.partition(",")[0]] for label in sorted(count.most)}
    overshoot = sum(max(0, count.most[label] - slots) for label, slots in bounds.items())
    minute = worst_minute(count.admitted)
    beyond = max(0, minute - REQUESTS_PER_MINUTE)
    unexplained = sum(
        number
        for end, number in count.ends.items()
        if end not in EXPLAINED | {"answered", "CANCELLED", "DEADLINE_EXCEEDED"}
    )
    print(f"two routers, one Redis, one PostgreSQL, {minutes:g} min, seed {SEED}")
    print(f"requests          {sum(count.ends.values())}")
    for end, number in count.ends.most_common():
        print(f"  {end:32}{number}")
    print(f"faults injected   {sum(count.faults.values())}")
    for fault, number in count.faults.most_common():
        print(f"  {fault:32}{number}")
    print(f"most at once      {'; '.join(f'{label}: {count.most[label]} of {n}' for label, n in bounds.items())}")
    print(f"resident          {count.grown()}, all of it: routers, credential service, providers, callers")
    print(f"longest pause     {count.longest_pause_seconds:.2f} s of the process, which has everything in it")
    print(f"worst minute      {minute} of {REQUESTS_PER_MINUTE} requests")
    print(f"overshoot         {overshoot} slots, {beyond} requests")
    print(f"leaked slots      {leaked}")
    print(f"unexplained ends  {unexplained}")
    print(f"ledger entries    {money.entries}, acknowledged answers {len(count.charged)}")
    print(f"budget overshoot  {money.overshoot} nanos of {BUDGET_NANOS}")
    print(f"left reserved     {money.held} nanos")
    print(f"receipts lost     {money.receipts_lost}")
    print(f"unexplained nanos {money.unexplained}, books {'right' if money.is_right else 'WRONG'}")
    wrong = (
        overshoot,
        beyond,
        leaked,
        unexplained,
        money.overshoot,
        money.held,
        money.receipts_lost,
        money.unexplained,
    )
    return 1 if any(wrong) or not money.is_right else 0


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
