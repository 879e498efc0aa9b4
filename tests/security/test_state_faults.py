"""PostgreSQL and Redis out of reach in every way, through two routers; docs/state-faults.md is what this found."""

import asyncio
import os
import threading
import time
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from keyswitch.router.v1 import application_service_pb2 as applications
from keyswitch.router.v1 import application_service_pb2_grpc, usage_service_pb2
from keyswitch.router.v1 import budget_service_pb2 as budgets

from router_service.core.database import PostgresDatabase, parse_database
from router_service.core.faults import Fault, Reason
from router_service.ledger.connection import Connection
from router_service.ledger.sql_ledger import open_ledger
from router_service.state.limits import Demand, LimitsAway, Taken
from router_service.state.redis_store import RedisLimits, rate_key
from tests.fakes.fault_proxy import FaultProxy, WayFault
from tests.fakes.postgres_server import PostgresServer
from tests.fakes.redis_server import RedisServer, running_redis
from tests.fakes.relay import running_relay
from tests.fakes.vault_server import free_port
from tests.security.promises import is_thorough
from tests.security.state_site import RESTING, StateSite, running_state_site
from tests.service.router_answers import MARKUP_BASIS_POINTS, USAGE
from tests.service.router_harness import CHAT, DEMO, Answer, Caller, Refused, follow, make_call, make_policy
from tests.suites.limits_suite import KEY, TENANT

pytestmark = pytest.mark.timeout(1200)

DOCUMENT = Path(__file__).parents[2] / "docs" / "state-faults.md"
DEADLINE_SECONDS = 4.0
LATE_SECONDS = 0.05
SERVED = "served"
CHARGED_NANOS = (USAGE[0] * 1000 + USAGE[1] * 4000) * (10_000 + MARKUP_BASIS_POINTS) // 10_000
NETWORK = (
    WayFault.SLOW,
    WayFault.REFUSED,
    WayFault.RESET,
    WayFault.SNAP,
    WayFault.BLACKHOLE,
    WayFault.DEAF,
    WayFault.MUTE,
    WayFault.LATE,
    WayFault.DRIP,
)
QUICK = (WayFault.REFUSED, WayFault.SNAP, WayFault.MUTE)
Cells = dict[str, str]
Calls = Mapping[str, Callable[[], Awaitable[Any]]]


def rows() -> tuple[WayFault, ...]:
    return NETWORK if is_thorough() else QUICK


async def seen_by(call: Callable[[], Awaitable[Any]]) -> str:
    """What the caller sees, which it must see by its deadline."""
    began = time.monotonic()
    try:
        found = await call()
    except Refused as refusal:
        seen = f"`{refusal.reason}`"
    else:
        seen = SERVED if not isinstance(found, Answer) or found.error is None else f"`{found.error.reason}`"
    if is_thorough():
        assert time.monotonic() - began <= DEADLINE_SECONDS + LATE_SECONDS
    return seen


async def see(calls: Calls) -> Cells:
    return dict(zip(calls, await asyncio.gather(*(seen_by(call) for call in calls.values())), strict=True))


def complete(caller: Caller, payer: str, model: str = "test/echo", **fields: Any) -> Awaitable[Answer]:
    """A completion with a deadline."""
    call = make_call(model=model, route_policy=make_policy(payers=[f"PAYER_{payer}"]), **fields)
    call.spec.settings.max_output_tokens = 100
    return caller.stream(call, timeout=DEADLINE_SECONDS)


def ask(caller: Caller, method: Callable[..., Any], request: Any) -> Awaitable[Any]:
    return caller.call(method, request, timeout=DEADLINE_SECONDS)


def note(charged: Counter[str], found: Answer) -> Answer:
    """Keeps what a caller was told that it was charged."""
    if found.error is None:
        assert found.receipt.cost.charged_usd_nanos == CHARGED_NANOS
        charged[found.receipt.response_id] += CHARGED_NANOS
    return found


# --- the database ---


async def calls_of_database(site: StateSite, request_id: str, charged: Counter[str]) -> Calls:
    member, admin = site.stack.member, site.admin
    earlier = await complete(member, "ORGANIZATION_KEY")
    await site.stack.rest()
    configuration = application_service_pb2_grpc.ApplicationServiceStub(site.stack.channel)
    receipt = usage_service_pb2.GetReceiptRequest(response_id=earlier.response_id)
    balance = budgets.GetBalanceRequest(organization=DEMO)
    cap = budgets.Budget(name=f"{DEMO}/budgets/cap", limit_usd_nanos=10**12)
    limit = budgets.UpdateBudgetRequest(budget=cap, update_mask=FieldMask(paths=["limit_usd_nanos"]))
    get = applications.GetApplicationRequest(name=CHAT)
    rename = applications.UpdateApplicationRequest(
        application=applications.Application(name=CHAT, display_name=request_id),
        update_mask=FieldMask(paths=["display_name"]),
        override_file=True,
    )

    async def on_credits() -> Answer:
        return note(charged, await complete(member, "CREDITS"))

    return {
        "a call on credits": on_credits,
        "an own key under a budget": lambda: complete(site.capped, "ORGANIZATION_KEY"),
        "a call with a request id": lambda: complete(member, "ORGANIZATION_KEY", request_id=request_id),
        "an own key": lambda: complete(member, "ORGANIZATION_KEY"),
        "a receipt": lambda: ask(member, member.usage.GetReceipt, receipt),
        "credits read": lambda: ask(admin, admin.budgets.GetBalance, balance),
        "a budget changed": lambda: ask(admin, admin.budgets.UpdateBudget, limit),
        "configuration read": lambda: ask(admin, configuration.GetApplication, get),
        "configuration changed": lambda: ask(admin, configuration.UpdateApplication, rename),
    }


async def try_database(site: StateSite, fault: WayFault, charged: Counter[str]) -> Cells:
    """One row. An answer that had begun ends under the fault, and is charged once."""
    request_id = str(uuid.uuid4())
    calls = await calls_of_database(site, request_id, charged)
    site.release = asyncio.Event()
    on_credits = make_policy(payers=["PAYER_CREDITS"])
    begun = site.stack.member.open(make_call("wait", model="test/echo", route_policy=on_credits), timeout=120)
    assert (await begun.read()).events
    await site.database.impair(fault)
    cells = await see(calls)
    site.release.set()
    ended = note(charged, await follow(begun))
    cells["an answer that had begun"] = SERVED if ended.error is None else f"`{ended.error.reason}`"
    if fault is not WayFault.SLOW:
        await site.wait_until_said("the ledger", "the configuration")
    await site.database.heal()
    await site.wait_until_said()
    await site.stack.rest()
    again = await complete(site.stack.member, "ORGANIZATION_KEY", request_id=request_id)
    if cells["a call with a request id"] == SERVED:
        assert again.refused.reason == "REQUEST_ID_REUSED"
    else:
        assert again.error is None  # nothing was sent under it, so the id is free
    note(charged, await complete(site.stack.member, "CREDITS"))
    return cells


@pytest.fixture
def tcp_redis(redis_program: Path) -> Any:
    with running_redis(redis_program, free_port()) as server:
        yield server


async def test_every_fault_of_the_database(
    own_postgres_server: PostgresServer, tcp_redis: RedisServer, fault_proxy: FaultProxy, tmp_path: Path
) -> None:
    table: dict[str, Cells] = {}
    charged: Counter[str] = Counter()
    async with running_state_site(own_postgres_server, tcp_redis, fault_proxy, tmp_path) as site:
        for fault in rows():
            table[fault.value] = await try_database(site, fault, charged)
            await site.check_books(charged)
            await site.check_slots()
        before = threading.active_count()
    assert threading.active_count() <= before
    check_document("database", table)
    print(f"\nstate faults: {len(table)} of the database, {len(charged)} charged calls, nanos unexplained 0", end=" ")


# --- the store of limits ---


async def calls_of_limits(site: StateSite) -> Calls:
    stack, here, there = site.stack, site.limited, site.limited_there
    slots_there = Caller(site.local_caller.channel, stack.member.token)
    return {
        "a rate, `closed`": lambda: complete(here, "ORGANIZATION_KEY"),
        "a rate, `local`": lambda: complete(there, "ORGANIZATION_KEY"),
        "a slot, `closed`": lambda: complete(stack.member, "ORGANIZATION_KEY", "test/other"),
        "a slot, `local`": lambda: complete(slots_there, "ORGANIZATION_KEY", "test/other"),
        "no limit": lambda: complete(stack.member, "ORGANIZATION_KEY"),
        "a key that rested": lambda: complete(stack.member, "ORGANIZATION_KEY", RESTING),
    }


async def try_limits(site: StateSite, fault: WayFault) -> Cells:
    """One row. What rests goes on resting: its provider is not asked."""
    board = site.stack.router.engine.edges.admission.board
    await board.wake(list(board.current))
    await complete(site.stack.member, "ORGANIZATION_KEY", RESTING)
    await board.refresh()
    calls, asked = await calls_of_limits(site), site.throttled
    await site.limits.impair(fault)
    cells = await see(calls)
    if fault is not WayFault.SLOW:
        await site.wait_until_said("limits")
        assert await seen_by(calls["a key that rested"]) == cells["a key that rested"]
    assert site.throttled == asked
    await site.limits.heal()
    await site.wait_until_said()
    there: Any = site.local.limits
    async with asyncio.timeout(60):
        while there.is_away:
            await asyncio.sleep(0.02)
    await site.stack.rest()
    for name, call in calls.items():
        assert name == "a key that rested" or await seen_by(call) == SERVED, (fault, name)
    return cells


async def test_every_fault_of_the_limits(
    own_postgres_server: PostgresServer, tcp_redis: RedisServer, fault_proxy: FaultProxy, tmp_path: Path
) -> None:
    table: dict[str, Cells] = {}
    async with running_state_site(own_postgres_server, tcp_redis, fault_proxy, tmp_path) as site:
        for fault in rows():
            table[fault.value] = await try_limits(site, fault)
            await site.check_slots()
        await site.check_books(Counter())
    check_document("limits", table)
    print(f"\nstate faults: {len(table)} of the limits, slots left 0", end=" ")


def check_document(name: str, table: dict[str, Cells]) -> None:
    columns = list(next(iter(table.values())))
    head = f"| {name} | {' | '.join(columns)} |\n{'|---' * (len(columns) + 1)}|\n"
    lines = [f"| {row} | {' | '.join(cells.values())} |\n" for row, cells in table.items()]
    text = DOCUMENT.read_text()
    if os.environ.get("KEYSWITCH_WRITE_MATRIX") == "1":
        before, _, rest = text.partition(f"| {name} |")
        after = rest.partition("\n\n")[2]
        DOCUMENT.write_text(before + head + "".join(lines) + (f"\n{after}" if after else ""))
        return
    assert head in text
    assert [line for line in lines if line not in text] == []


# --- what a proxy cannot show ---


async def test_a_router_that_is_cut_off_in_a_transaction_holds_the_others_up_for_a_moment_only(
    own_postgres_server: PostgresServer, fault_proxy: FaultProxy
) -> None:
    server = own_postgres_server
    direct = parse_database(server.url(server.create_database()), server.password_file)
    assert isinstance(direct, PostgresDatabase)
    way = await asyncio.to_thread(fault_proxy.way_to, server.port)
    far = await open_ledger(replace(direct, port=way.port), time.time)
    near = await open_ledger(direct, time.time)
    inside, go_on = threading.Event(), threading.Event()

    def stand_still(connection: Connection) -> None:
        connection.execute("SELECT 1")
        inside.set()
        go_on.wait()
        connection.execute("SELECT 1")

    hanging = far._writer.submit(stand_still)
    await asyncio.to_thread(inside.wait)
    await way.impair(WayFault.BLACKHOLE)
    go_on.set()
    # The far one has the lock that all writers share, and nobody can ask it for it.
    await near.add_credits("acme", 100, "id", "", 0.0)
    with pytest.raises(Fault) as refused:
        await hanging
    assert refused.value.reason is Reason.LEDGER_UNAVAILABLE
    await way.heal()
    await far.add_credits("acme", 100, "id", "", 0.0)
    assert (await near.balance("acme")).balance_nanos == 100
    await asyncio.gather(far.close(), near.close())


async def test_a_ledger_whose_connection_fell_silent_makes_another(own_postgres_server: PostgresServer) -> None:
    server = own_postgres_server
    direct = parse_database(server.url(server.create_database()), server.password_file)
    assert isinstance(direct, PostgresDatabase)
    async with running_relay(server.port) as relay:
        ledger = await open_ledger(replace(direct, port=relay.port), time.time, wait_seconds=0.5)
        await ledger.add_credits("acme", 100, "id", "", 0.0)
        relay.silence()
        left = asyncio.ensure_future(ledger.balance("acme"))
        await asyncio.sleep(0)
        left.cancel()  # a caller that left frees nobody else
        with pytest.raises(Fault):
            await ledger.balance("acme")
        assert (await ledger.balance("acme")).balance_nanos == 100
        await ledger.close()


async def test_limits_whose_connections_fell_silent_are_away_once(tcp_redis: RedisServer) -> None:
    async with running_relay(tcp_redis.port) as relay:
        limits = RedisLimits(f"redis://127.0.0.1:{relay.port}/0")
        await asyncio.gather(*(limits.count_slots(KEY) for _ in range(20)))
        assert relay.count > 10
        relay.silence()
        with pytest.raises(LimitsAway):
            await limits.count_slots(KEY)
        for number in range(20):
            assert await limits.take_slot(KEY, str(number), 20) is None
        await limits.close()


async def test_a_lost_answer_gives_tokens_back_once(tcp_redis: RedisServer) -> None:
    async with running_relay(tcp_redis.port) as relay:
        limits = RedisLimits(f"redis://127.0.0.1:{relay.port}/0")
        taken = await limits.take_rates(TENANT, [Demand("tokens", 100, 90)])
        assert isinstance(taken, Taken)
        await limits.correct_rate(TENANT, "tokens", taken.step, -1)  # the server knows the script now
        relay.is_losing = True
        with pytest.raises(LimitsAway):
            await limits.correct_rate(TENANT, "tokens", taken.step, -10)
        with tcp_redis.connect() as client:
            assert client.hvals(rate_key(TENANT, "tokens")) == ["79"]
        relay.is_losing = True
        assert await limits.count_slots(KEY) == (0, 0)  # what may be asked twice is
        await limits.close()
