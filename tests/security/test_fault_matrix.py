"""Exact money under every fault on every wire, through the whole router; docs/fault-matrix.md is what this found."""

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grpc
import pytest

from router_service.config import Address, Addresses
from router_service.core.database import PostgresDatabase, parse_database
from router_service.core.faults import Fault, Reason
from router_service.core.money import TOKENS_MAX
from router_service.core.receipt import Attempt, Receipt
from router_service.core.resolution import Payer
from tests.fakes.fault_proxy import FaultProxy, Way, WayFault
from tests.fakes.postgres_server import PostgresServer
from tests.fakes.redis_server import running_redis
from tests.fakes.scripted_upstream import Action
from tests.fakes.vault_server import free_port
from tests.security.fault_matrix import (
    FAULTS,
    MARKUP_BASIS_POINTS,
    PRICE,
    WIRES,
    Case,
    Told,
    Wire,
    case_of,
    every_event,
    fair_price,
)
from tests.service.router_answers import Json
from tests.service.router_harness import DEMO, Stack, make_call, make_policy, running_stack

DOCUMENT = Path(__file__).parents[2] / "docs" / "fault-matrix.md"
MARK = "<!-- the table is written by `make fault-matrix` -->\n\n"
CREDITS_NANOS = 10**12
MOST_ESTIMATED = 10_000  # tokens: no answer of the matrix is nearly as long
IS_THOROUGH = os.environ.get("KEYSWITCH_THOROUGH") == "1"
PAYERS = (Payer.CREDITS, Payer.ORGANIZATION_KEY)


def wire_id(wire: Wire) -> str:
    return wire.name.replace("_", "-").replace(" ", "-").lower()


def add_wires(made: Json) -> None:
    made["organizations"]["demo"]["markup_basis_points"] = MARKUP_BASIS_POINTS
    made["organizations"]["demo"]["limits"] = {"requests_per_minute": 1_000_000}
    first = made["providers"]["first"]
    for wire in WIRES:
        quirks = {"carrier": wire.carrier.value} if wire.dialect == "anthropic_messages" else {}
        provider = {**first, "dialect": wire.dialect, "auth": wire.auth, "max_concurrent_requests": 9}
        provider["base_url"] = first["base_url"].removesuffix("/v1")
        made["providers"][wire_id(wire)] = provider | ({"quirks": quirks} if quirks else {})
        endpoint = {"provider": wire_id(wire), "upstream_model": "m"}
        made["models"][f"test/{wire_id(wire)}"] = {"endpoints": [endpoint], "price": PRICE}
        made["deployment_credentials"][wire_id(wire)] = {"provider": wire_id(wire), "payers": ["CREDITS"]}


@dataclass
class Outage:
    """Takes one part away from one call: its way refuses, or one settlement does."""

    stack: Stack
    ways: Mapping[str, Way]
    is_settling_late: bool = False

    def __post_init__(self) -> None:
        ledger: Any = self.stack.router.ledger
        settle = ledger.settle

        async def settle_late(*arguments: Any, **options: Any) -> None:
            if self.is_settling_late:
                self.is_settling_late = False
                raise Fault(Reason.LEDGER_UNAVAILABLE, "away")
            await settle(*arguments, **options)

        ledger.settle = settle_late

    async def begin(self, away: str, credential: str) -> None:
        """Takes it away; the credential service together with the lease that is in hand."""
        self.is_settling_late = away == "settle"
        if away == "credential service":
            self.stack.router.credentials._call_seconds = 0.5  # nobody answers, so nobody is waited for
            self.stack.router.credentials.leases.drop_credential(credential)
        if away in self.ways:
            await self.ways[away].impair(WayFault.REFUSED)

    async def end(self, away: str) -> None:
        """Gives it back; returns when the router knows."""
        if away not in self.ways:
            return
        await self.ways[away].heal()
        router: Any = self.stack.router
        router.credentials._call_seconds = router.config.lease_timeout_seconds
        async with asyncio.timeout(60):
            while router.limits.is_away or not router.credentials.connected.is_set():
                await asyncio.sleep(0.02)


@dataclass(frozen=True)
class Result:
    """What one call came to."""

    receipt: Receipt
    paid_nanos: int


@pytest.fixture(scope="module")
async def bench(
    tmp_path_factory: pytest.TempPathFactory,
    postgres_server: PostgresServer,
    redis_program: Path,
    fault_proxy: FaultProxy,
) -> AsyncIterator[tuple[Stack, Outage]]:
    home = tmp_path_factory.mktemp("matrix")
    direct = parse_database(postgres_server.url(postgres_server.create_database()), postgres_server.password_file)
    assert isinstance(direct, PostgresDatabase)
    lease_port = free_port()
    with running_redis(redis_program, free_port()) as redis:
        targets = {"ledger": postgres_server.port, "limits": redis.port, "credential service": lease_port}
        ways = {part: await asyncio.to_thread(fault_proxy.way_to, port) for part, port in targets.items()}
        async with running_stack(
            home,
            configuration=add_wires,
            vault_changes={"lease_address": f"127.0.0.1:{lease_port}"},
            database=replace(direct, port=ways["ledger"].port),
            limits=f"redis://127.0.0.1:{ways['limits'].port}/0",
            lease_targets=Addresses([Address("localhost", ways["credential service"].port)]),
            lease_timeout_seconds=20.0,
            disconnect_grace_seconds=600.0,
        ) as stack:
            await furnish(stack)
            yield stack, Outage(stack, ways)


async def furnish(stack: Stack) -> None:
    """A key of each kind for each wire, and credits."""
    for wire in WIRES:
        await stack.save_key(f"{DEMO}/credentials/{wire_id(wire)}", provider=wire_id(wire))
        await stack.save_key(f"deployment/credentials/{wire_id(wire)}", provider=wire_id(wire))
    await stack.add_credits(CREDITS_NANOS)


async def run(stack: Stack, outage: Outage, wire: Wire, case: Case, payer: Payer) -> Result:
    ledger, engine = stack.router.ledger, stack.router.engine
    before = await ledger.balance("demo")
    count, seen = len(stack.receipts), len(stack.first.received)
    board = engine.edges.admission.board
    await board.wake(list(board.current))
    stack.first.scripts.clear()
    stack.first.script(list[Action](case.actions))
    owner = "deployment" if payer is Payer.CREDITS else DEMO
    await outage.begin(case.away, f"{owner}/credentials/{wire_id(wire)}")
    policy: dict[str, Any] = {"payers": [f"PAYER_{payer.value}"], "max_attempts": 1}
    if case.timeout:
        policy[case.timeout] = 0.5  # long enough for what comes before the stall
    call = make_call(model=f"test/{wire_id(wire)}", route_policy=make_policy(**policy))
    call.spec.settings.max_output_tokens = 1000
    opened = stack.member.open(call)
    if case.is_cancelled:
        await stack.first.wait_for_requests(seen + 1)
        async with asyncio.timeout(20):
            while not await has_read(stack, case.told):
                pass
        opened.cancel()
    try:
        while await opened.read() is not grpc.aio.EOF:
            pass
    except (grpc.aio.AioRpcError, asyncio.CancelledError):
        pass
    await stack.ended.wait_for(lambda: len(stack.receipts) > count)
    await outage.end(case.away)
    await stack.rest()
    after = await ledger.balance("demo")
    assert after.reserved_nanos == 0
    assert (await ledger.verify()).is_right
    receipt = stack.receipts[-1]
    kept = await stack.member.receipt(receipt.response_id)
    paid = before.balance_nanos - after.balance_nanos
    assert kept.cost.charged_usd_nanos == paid
    return Result(receipt, paid)


async def has_read(stack: Stack, told: Told) -> bool:
    """Whether the router has read all that the provider has said; lets everybody else run in between."""
    await asyncio.sleep(0)
    engine: Any = stack.router.engine
    (record,) = engine._in_flight.values()
    attempt = record.attempts[-1]
    return (attempt.output_bytes, attempt.usage, attempt.is_begun) == (told.output_size, told.usage, told.is_begun)


def judge(case: Case, payer: Payer, result: Result) -> str:
    """Insists on the law, and says what was billed."""
    if not result.receipt.attempts or result.receipt.attempts[0].cost is None:
        assert result.paid_nanos == 0
        return "nothing"
    (attempt,) = result.receipt.attempts
    assert attempt.payer is payer
    assert attempt.cost is not None
    if attempt.usage is None:
        assert result.paid_nanos == 0
        assert case.told.usage is None
        assert not case.told.is_begun
        return "nothing"
    listed, charged = fair_price(attempt.usage)
    assert attempt.cost.list_price == listed
    assert attempt.cost.charged == result.paid_nanos == (charged if payer is Payer.CREDITS else 0)
    check_usage(case.told, attempt, is_estimate=attempt.cost.is_estimate)
    return "estimate" if attempt.cost.is_estimate else f"{attempt.usage.input_tokens} + {attempt.usage.output_tokens}"


def check_usage(told: Told, attempt: Attempt, *, is_estimate: bool) -> None:
    """Billed is what the provider said, or an estimate that is marked and never less than what it said credibly."""
    usage, said = attempt.usage, told.usage
    assert usage is not None
    if not is_estimate:
        assert usage == said
        return
    assert told.is_begun
    assert usage.input_tokens
    assert usage.output_tokens is not None
    assert usage.output_tokens >= -(-told.output_size // 4) or told.is_finished
    for billed, reported in (
        (usage.input_tokens, said.input_tokens if said else None),
        (usage.output_tokens, said.output_tokens if said else None),
    ):
        if reported is None or reported > TOKENS_MAX:
            assert billed < MOST_ESTIMATED
        else:
            assert billed >= reported


@pytest.mark.timeout(600)
async def test_every_fault_on_every_wire(bench: tuple[Stack, Outage]) -> None:
    stack, outage = bench
    cells: dict[tuple[str, str], str] = {}
    calls = 0
    for wire in WIRES:
        for fault in (*FAULTS, *(every_event(wire) if IS_THOROUGH else ())):
            case = case_of(wire, fault)
            found = []
            for payer in PAYERS:
                try:
                    found.append(judge(case, payer, await run(stack, outage, wire, case, payer)))
                except Exception as error:
                    error.add_note(f"{wire.name}, {fault}, {payer.value}")
                    raise
                calls += 1
            by_credits, by_own_key = found
            # Own keys do without the ledger: their calls are answered while it is away.
            assert by_own_key == (cells[wire.name, "none"] if case.away == "ledger" else by_credits), (wire.name, fault)
            cells[wire.name, fault] = by_credits
        assert cells[wire.name, "none"] == "{} + {}".format(*wire.true_usage())
        assert cells[wire.name, "usage:twice"] == cells[wire.name, "none"] == cells[wire.name, "ledger:settles late"]
    print(f"\nfault matrix: {len(cells)} cases, {calls} calls, {len(FAULTS)} faults, {len(WIRES)} wires,", end=" ")
    print("nanos unexplained 0, reservations left 0")
    check_document(cells)


def check_document(cells: dict[tuple[str, str], str]) -> None:
    names = [wire.name for wire in WIRES]
    lines = ["| fault | " + " | ".join(f"`{name}`" for name in names) + " |", "|---" * (len(names) + 1) + "|"]
    lines += [
        f"| {fault.replace(':', ', ')} | " + " | ".join(cells[name, fault] for name in names) + " |" for fault in FAULTS
    ]
    written = DOCUMENT.read_text()
    fresh = written[: written.index(MARK) + len(MARK)] + "\n".join(lines) + "\n"
    if os.environ.get("KEYSWITCH_WRITE_MATRIX") == "1":
        DOCUMENT.write_text(fresh)
        written = fresh
    assert written == fresh, "run `make fault-matrix`"
