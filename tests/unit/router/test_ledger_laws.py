"""The ledger against a model on both databases, and many spenders over two routers."""

import asyncio
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from router_service.core.database import Database, SqliteDatabase
from router_service.core.faults import Fault, Reason
from router_service.ledger.sql_ledger import SqlLedger, open_ledger
from tests.fakes.postgres_server import PostgresServer
from tests.suites.budget_suite import make_budget
from tests.suites.ledger_machine import LedgerMachine
from tests.suites.ledger_values import LATER, NOW, Clock, spend
from tests.unit.router.test_ledger_postgres import place_of

RULES = settings(max_examples=50, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
SPENDERS = 200
ROUNDS = 3
CREDITS_NANOS = 20_000
BUDGET_NANOS = 15_000
RESERVED_NANOS = 100
CHARGED_NANOS = 60


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Database:
    if request.param == "sqlite":
        return SqliteDatabase(tmp_path / "ledger.db")
    server: PostgresServer = request.getfixturevalue("postgres_server")
    return place_of(server, server.create_database())


@pytest.mark.timeout(900)
def test_the_books_agree_with_a_model(place: Database) -> None:
    machines = 0

    class Machine(LedgerMachine):
        def __init__(self) -> None:
            nonlocal machines
            machines += 1
            self.place = place
            super().__init__()

    run_state_machine_as_test(Machine, settings=RULES)
    steps = RULES.stateful_step_count
    print(f"\nledger laws on {type(place).__name__}: {machines} histories of up to {steps} operations, differences 0")


@pytest.mark.timeout(300)
async def test_many_spenders_over_two_routers_never_overshoot(place: Database) -> None:
    ledgers = [await open_ledger(place, Clock(), flush_interval_seconds=3600) for _ in range(2)]
    await ledgers[0].add_credits("acme", CREDITS_NANOS, "id", "", NOW)
    await ledgers[0].create_budget(make_budget("cap", BUDGET_NANOS))
    lowest = CREDITS_NANOS
    refused = paid = 0

    async def work(ledger: SqlLedger, name: str) -> None:
        nonlocal refused, paid
        for number in range(ROUNDS):
            try:
                await ledger.reserve(f"{name}-{number}", 1, spend("acme", RESERVED_NANOS), LATER)
            except Fault as fault:
                if fault.reason not in (Reason.BUDGET_EXHAUSTED, Reason.CREDIT_EXHAUSTED):
                    raise
                refused += 1
                continue
            await ledger.settle(f"{name}-{number}", 1, CHARGED_NANOS, name, CHARGED_NANOS)
            paid += 1

    async def watch() -> None:
        nonlocal lowest
        while True:
            status = await ledgers[0].get_budget("acme", "cap")
            assert status is not None
            lowest = min(lowest, status.remaining_nanos, (await ledgers[1].balance("acme")).available_nanos)
            await asyncio.sleep(0)

    watching = asyncio.ensure_future(watch())
    await asyncio.gather(*(work(ledgers[number % 2], f"w{number}") for number in range(SPENDERS)))
    watching.cancel()
    balance, verification = await ledgers[1].balance("acme"), await ledgers[0].verify()
    overshoot = max(0, -lowest, paid * CHARGED_NANOS - BUDGET_NANOS)
    unexplained = CREDITS_NANOS - balance.balance_nanos - paid * CHARGED_NANOS
    print(
        f"\nspenders on {type(place).__name__}: {SPENDERS} at once over two routers, {paid} paid, {refused} refused,"
        f" overshoot {overshoot}, nanos unexplained {unexplained}"
    )
    assert (overshoot, unexplained, balance.reserved_nanos) == (0, 0, 0)
    assert verification.is_right
    assert refused
    assert paid
    for ledger in ledgers:
        await ledger.close()
