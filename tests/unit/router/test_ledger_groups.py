"""Postings that share a transaction: as if one came after the other, whatever becomes of one or of the server."""

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from router_service.core.budget import Basis, Period
from router_service.core.database import Database, SqliteDatabase
from router_service.core.faults import Fault, Reason
from router_service.database.postgres import interrupt_raw
from router_service.ledger.connection import Connection
from router_service.ledger.ledger import CLAIM_SECONDS, Balance, Spending
from router_service.ledger.postgres import PostgresConnection, PostgresStore
from router_service.ledger.postings import Cancel, Claim, Posting, Reserve, Settle
from router_service.ledger.sql_ledger import SqlLedger, open_ledger
from router_service.ledger.writer import Operation
from tests.fakes.postgres_server import PostgresServer
from tests.suites.budget_suite import make_budget
from tests.suites.ledger_values import LATER, NOW, Clock, spend
from tests.unit.router.test_ledger_postgres import place_of

ORGANIZATIONS = ("acme", "other")
WHO = ("", "/applications/chat", "/users/ada")
CAPS = (("all", "", Basis.CHARGED, Period.MONTH, 1200), ("her", WHO[2], Basis.LIST_PRICE, Period.DAY, 900))
RULES = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
Outcome = str | Reason | None
_marks = count()

organizations = st.sampled_from(ORGANIZATIONS)
keys = st.tuples(st.sampled_from(("r1", "r2", "r3")), st.integers(1, 2))
amounts = st.none() | st.integers(0, 700)
postings = st.one_of(
    st.tuples(st.just("claim"), organizations, st.sampled_from("xy"), st.sampled_from(("r1", "r2"))),
    st.tuples(st.just("reserve"), keys, organizations, amounts, amounts),
    st.tuples(st.just("settle"), keys, st.integers(0, 900), amounts),
    st.tuples(st.just("cancel"), keys),
)


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Database:
    if request.param == "sqlite":
        return SqliteDatabase(tmp_path / "ledger.db")
    server: PostgresServer = request.getfixturevalue("postgres_server")
    return place_of(server, server.create_database())


@pytest.fixture
async def ledger(place: Database) -> AsyncIterator[SqlLedger]:
    ledger = await open_ledger(place, Clock(), flush_interval_seconds=3600)
    yield ledger
    await ledger.close()


def posting_of(mark: str, drawn: tuple[Any, ...]) -> Posting:
    """A drawn posting, among the organizations and responses of a mark."""
    match drawn:
        case ("claim", organization, request_id, response_id):
            return Claim(mark + organization, request_id, mark + response_id, NOW)
        case ("reserve", (response_id, attempt), organization, charged, listed):
            subjects = tuple(f"organizations/{mark}{organization}{who}" for who in WHO)
            return Reserve(
                mark + response_id, attempt, Spending(mark + organization, charged, listed, subjects), LATER, NOW
            )
        case ("settle", (response_id, attempt), charged, listed):
            return Settle(mark + response_id, attempt, charged, listed, "note", NOW)
        case ("cancel", (response_id, attempt)):
            return Cancel(mark + response_id, attempt)
    raise AssertionError(drawn)


async def furnish(ledger: SqlLedger, mark: str) -> None:
    """Credits and budgets of an example's own."""
    for organization in ORGANIZATIONS:
        name = mark + organization
        await ledger.add_credits(name, 1000, "start", "", NOW)
        for budget_id, who, basis, period, limit in CAPS:
            made = make_budget(budget_id, limit, organization=name, basis=basis, period=period)
            subject = f"organizations/{name}{who}"
            await ledger.create_budget(replace(made, uid=f"{name}-{budget_id}", subject=subject))


def submit_together(
    ledger: SqlLedger, wanted: Sequence[Operation], first: Callable[[Connection], None] | None = None
) -> list["asyncio.Future[Any]"]:
    """Queues operations while the thread is kept busy, so that they share a group; `first` runs before it."""
    has_begun, go_on = threading.Event(), threading.Event()

    def wait(connection: Connection) -> None:
        has_begun.set()
        go_on.wait(10)
        if first is not None:
            first(connection)

    ledger._writer.submit(wait)
    assert has_begun.wait(10)
    futures = [ledger._writer.submit(one) for one in wanted]
    go_on.set()
    return futures


async def outcome_of(future: Awaitable[Any], mark: str = "") -> Outcome:
    try:
        result: str | None = await future
    except Fault as fault:
        return fault.reason
    return result.removeprefix(mark) if result is not None else None


async def read_books(ledger: SqlLedger, mark: str) -> list[list[tuple[object, ...]]]:
    """Everything that a group may have written, without what tells one example from another."""

    def read(connection: Connection) -> list[list[tuple[object, ...]]]:
        found = []
        for table, columns in (
            ("accounts", "organization, balance_nanos, reserved_nanos"),
            ("entries", "organization, response_id, attempt, amount_nanos, note, create_time"),
            ("reservations", "organization, response_id, attempt, amount_nanos, expire_time, state, charged_nanos"),
            ("holds", "uid, response_id, attempt, start_time, basis, amount_nanos, expire_time, state, spent_nanos"),
            ("budget_windows", "uid, start_time, spent_nanos, reserved_nanos"),
            ("claims", "organization, request_id, response_id, create_time"),
        ):
            first = columns.partition(",")[0]
            rows = connection.execute(f"SELECT {columns} FROM {table} WHERE {first} LIKE ?", (f"{mark}%",)).fetchall()
            found.append(sorted((_unmarked(row, mark) for row in rows), key=repr))
        return found

    books: list[list[tuple[object, ...]]] = await ledger._writer.submit(read)
    return books


def _unmarked(row: Sequence[object], mark: str) -> tuple[object, ...]:
    return tuple(value.removeprefix(mark) if isinstance(value, str) else value for value in row)


def test_a_group_is_the_same_as_one_posting_after_the_other(place: Database) -> None:
    runner = asyncio.Runner()
    ledger = runner.run(open_ledger(place, Clock(), flush_interval_seconds=3600))

    async def compare(drawn: Sequence[tuple[Any, ...]]) -> None:
        number = next(_marks)
        single, group = f"s{number}-", f"g{number}-"
        await furnish(ledger, single)
        await furnish(ledger, group)
        expected = [await outcome_of(ledger._writer.submit(posting_of(single, one)), single) for one in drawn]
        futures = submit_together(ledger, [posting_of(group, one) for one in drawn])
        assert [await outcome_of(future, group) for future in futures] == expected
        assert await read_books(ledger, group) == await read_books(ledger, single)
        assert (await ledger.verify()).is_right

    @RULES
    @given(st.lists(postings, max_size=25))
    def check(drawn: Sequence[tuple[Any, ...]]) -> None:
        runner.run(compare(drawn))

    try:
        check()
    finally:
        runner.run(ledger.close())
        runner.close()


async def test_a_posting_that_fails_does_not_take_its_group_with_it(ledger: SqlLedger) -> None:
    for organization in ("bad", "acme"):
        await ledger.add_credits(organization, 1000, "id", "", NOW)
    await ledger.reserve("bad", 1, spend("bad", 100), LATER)
    wrong = "UPDATE accounts SET reserved_nanos = 0 WHERE organization = ?"
    await ledger._writer.submit(lambda connection: connection.execute(wrong, ("bad",)))
    futures = submit_together(
        ledger,
        [
            Reserve("r", 1, spend("acme", 100), LATER, NOW),
            Settle("bad", 1, 50, 50, "bad", NOW),  # the database refuses what its sum would become
            Reserve("poor", 1, spend("acme", 901), LATER, NOW),
            Settle("r", 1, 60, 60, "r", NOW),
            Claim("acme", "id", "r", NOW),
        ],
    )
    assert [await outcome_of(one) for one in futures] == [
        None,
        Reason.LEDGER_UNAVAILABLE,
        Reason.CREDIT_EXHAUSTED,
        None,
        None,
    ]
    assert await ledger.balance("acme") == Balance("acme", 940, 0)
    assert (await ledger.balance("bad")).balance_nanos == 1000
    assert await ledger.claim("acme", "id", "s", NOW) == "r"


async def test_a_waiter_that_leaves_takes_nobody_with_it(ledger: SqlLedger) -> None:
    await ledger.add_credits("acme", 1000, "id", "", NOW)
    futures = submit_together(
        ledger,
        [
            Reserve("stays", 1, spend("acme", 100), LATER, NOW),
            Reserve("leaves", 1, spend("acme", 100), LATER, NOW),
            Cancel("leaves", 1),
            Reserve("forgets", 1, spend("acme", 100), LATER, NOW),
        ],
    )
    futures[1].cancel()
    futures[3].cancel()
    assert [await outcome_of(futures[0]), await outcome_of(futures[2])] == [None, None]
    assert await ledger.balance("acme") == Balance("acme", 1000, 200)
    await ledger.settle("stays", 1, 70, "stays")
    await ledger.settle("forgets", 1, 30, "forgets")  # it was made, as the caller must expect
    assert await ledger.balance("acme") == Balance("acme", 900, 0)
    assert (await ledger.verify()).is_right


async def test_what_has_expired_is_free_before_a_group_begins(place: Database) -> None:
    clock = Clock()
    ledger = await open_ledger(place, clock, flush_interval_seconds=3600)
    await ledger.add_credits("acme", 100, "id", "", NOW)
    await ledger.create_budget(make_budget("cap", 100, period=Period.TOTAL))
    await ledger.reserve("old", 1, spend("acme", 100), LATER)
    clock.now = LATER
    futures = submit_together(
        ledger,
        [
            Reserve("new", 1, spend("acme", 90), LATER + 600, LATER),
            Settle("old", 1, 10, 10, "late", LATER),
            Reserve("more", 1, spend("acme", 1), LATER + 600, LATER),
        ],
    )
    assert [await outcome_of(one) for one in futures] == [None, None, Reason.CREDIT_EXHAUSTED]
    assert await ledger.balance("acme") == Balance("acme", 90, 90)
    assert (await ledger.verify()).is_right
    await ledger.close()


async def test_old_claims_are_forgotten_by_a_group(ledger: SqlLedger) -> None:
    await ledger.claim("acme", "id", "old", NOW)
    await ledger.claim("acme", "other", "old", NOW)
    later = NOW + CLAIM_SECONDS
    futures = submit_together(ledger, [Claim("acme", "id", name, later) for name in ("first", "second", "first")])
    assert [await outcome_of(one) for one in futures] == [None, "first", None]
    rows = await ledger._writer.submit(lambda c: c.execute("SELECT request_id, response_id FROM claims").fetchall())
    assert [tuple(row) for row in rows] == [("id", "first")]


class Cut:
    """Loses the connection once, at a step of a transaction: before its statement is sent, or after it was done."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, owner: type, step: str, *, is_done: bool) -> None:
        self.is_armed = False
        self.count = 0
        self._is_done = is_done
        self._real: Callable[..., Any] = getattr(owner, step)
        monkeypatch.setattr(owner, step, lambda *arguments: self._run(*arguments))  # noqa: PLW0108 # a method binds

    def arm(self, _: Connection) -> None:
        """An operation, so that it is armed when the ones before it have been committed."""
        self.is_armed = self.count == 0

    def _run(self, *arguments: Any) -> Any:
        if not self.is_armed:
            return self._real(*arguments)
        self.is_armed = False
        self.count += 1
        (connection,) = (one for one in arguments if isinstance(one, PostgresConnection))
        if self._is_done:
            self._real(*arguments)
        interrupt_raw(connection.raw)
        if self._is_done:
            raise psycopg.OperationalError("the answer was lost")
        return self._real(*arguments)


@pytest.mark.parametrize("is_done", [False, True])
@pytest.mark.parametrize(
    ("owner", "step"),
    [
        (PostgresStore, "begin"),
        (PostgresConnection, "read_all"),
        (PostgresConnection, "write_all"),
        (PostgresStore, "commit"),
    ],
)
async def test_a_connection_that_is_lost_in_the_middle_of_a_group(
    postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch, owner: type, step: str, is_done: bool
) -> None:
    cut = Cut(monkeypatch, owner, step, is_done=is_done)
    place = place_of(postgres_server, postgres_server.create_database())
    ledger = await open_ledger(place, Clock(), flush_interval_seconds=3600)
    await ledger.add_credits("acme", 1000, "id", "", NOW)
    await ledger.create_budget(make_budget("cap", 500))
    for number in range(3):
        await ledger.reserve(f"old{number}", 1, spend("acme", 50), LATER)
    wanted: list[Operation] = [
        Claim("acme", "request", "new", NOW),
        Reserve("new", 1, spend("acme", 100), LATER, NOW),
        *(Settle(f"old{number}", 1, 10, 10, "old", NOW) for number in range(2)),
        Cancel("old2", 1),
        Reserve("poor", 1, spend("acme", 501), LATER, NOW),
    ]
    is_first = step == "begin"  # its own group's is over when anything of the group runs
    futures = submit_together(ledger, [*wanted] if is_first else [cut.arm, *wanted], cut.arm if is_first else None)
    outcomes = [await outcome_of(one) for one in futures][-len(wanted) :]
    assert outcomes == [None] * 5 + [Reason.BUDGET_EXHAUSTED]
    assert cut.count == 1
    assert await ledger.balance("acme") == Balance("acme", 980, 100)
    assert [entry.amount_nanos for entry in await ledger.list_entries("acme", None, 9)] == [-10, -10, 1000]
    status = await ledger.get_budget("acme", "cap")
    assert status is not None
    assert (status.spent_nanos, status.reserved_nanos) == (20, 100)
    assert await ledger.claim("acme", "request", "again", NOW) == "new"
    assert (await ledger.verify()).is_right
    await ledger.close()


async def test_a_plan_that_is_kept_reads_no_table_whole(postgres_server: PostgresServer) -> None:
    name = postgres_server.create_database()
    place = place_of(postgres_server, name)
    tables = ("accounts", "budget_windows", "budgets", "claims", "entries", "holds", "reservations")

    def count_scans() -> dict[str, int]:
        with postgres_server.connect(name) as connection:
            rows = connection.execute("SELECT relname, seq_scan FROM pg_stat_user_tables").fetchall()
        return {str(table): int(str(scans)) for table, scans in rows if table in tables}

    ledger = await open_ledger(place, Clock(), flush_interval_seconds=3600)
    await ledger.add_credits("acme", 10**6, "id", "", NOW)
    await ledger.create_budget(make_budget("cap", 10**6))
    await ledger.close()  # whoever leaves tells what it has read
    before = count_scans()
    ledger = await open_ledger(place, Clock(), flush_interval_seconds=3600)
    for number in range(20):  # more than a server takes to keep a plan
        response_id = f"r{number}"
        await ledger.claim("acme", response_id, response_id, NOW)
        await ledger.reserve(response_id, 1, spend("acme", 10), LATER)
        await ledger.settle(response_id, 1, 5, response_id, 5)
        with postgres_server.connect(name) as connection:
            connection.execute("ANALYZE")  # now it knows how small they are
    await ledger.close()
    after = count_scans()
    scanned = {table for table in tables if after[table] != before[table]}
    assert scanned == {"budgets"}  # by the one who asks at its start which subjects there are
    assert after["budgets"] == before["budgets"] + 1
