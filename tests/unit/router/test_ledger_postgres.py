"""The ledger on PostgreSQL through the suite, and what only a server does."""

import asyncio
import signal
from dataclasses import replace

import psycopg
import pytest

from router_service.core.database import Database, PostgresDatabase, parse_database
from router_service.core.faults import Reason
from router_service.ledger.ledger import Balance, Ledger
from router_service.ledger.sql_ledger import SqlLedger, open_ledger
from tests.fakes.postgres_server import PostgresServer
from tests.suites.ledger_suite import LedgerSuite
from tests.suites.ledger_values import LATER, NOW, Clock, make_receipt, reason_of, spend


def place_of(server: PostgresServer, name: str) -> PostgresDatabase:
    place = parse_database(server.url(name), server.password_file)
    assert isinstance(place, PostgresDatabase)
    return place


class TestPostgres(LedgerSuite):
    async def open(self, place: Database, clock: Clock) -> SqlLedger:
        return await open_ledger(place, clock, flush_interval_seconds=3600)

    @pytest.fixture
    def name(self, postgres_server: PostgresServer) -> str:
        return postgres_server.create_database()

    @pytest.fixture
    def place(self, postgres_server: PostgresServer, name: str) -> Database:
        return place_of(postgres_server, name)

    async def test_entries_cannot_be_changed(self, ledger: Ledger, postgres_server: PostgresServer, name: str) -> None:
        await ledger.add_credits("acme", 1, "id", "", NOW)
        with postgres_server.connect(name) as connection:
            for statement in ("UPDATE entries SET amount_nanos = 2", "DELETE FROM entries", "TRUNCATE entries"):
                with pytest.raises(psycopg.errors.RaiseException, match="append only"):
                    connection.execute(statement)

    async def test_a_changed_sum_is_found(self, ledger: Ledger, postgres_server: PostgresServer, name: str) -> None:
        await ledger.add_credits("acme", 5, "id", "", NOW)
        with postgres_server.connect(name) as connection:
            connection.execute("UPDATE accounts SET balance_nanos = 6")
        (found,) = (await ledger.verify()).mismatches
        assert (found.organization, found.balance_nanos, found.entries_nanos) == ("acme", 6, 5)

    async def test_routers_that_start_together_make_the_tables_once(self, place: Database, clock: Clock) -> None:
        ledgers = await asyncio.gather(*(self.open(place, clock) for _ in range(4)))
        await ledgers[0].add_credits("acme", 7, "id", "", NOW)
        assert await ledgers[3].balance("acme") == Balance("acme", 7, 0)
        for ledger in ledgers:
            await ledger.close()

    async def test_a_statement_that_fails_does_not_take_its_group_with_it(self, ledger: Ledger) -> None:
        assert isinstance(ledger, SqlLedger)
        adding = [asyncio.ensure_future(ledger.add_credits("acme", 1, f"a{number}", "", NOW)) for number in range(5)]
        bad = ledger._writer.submit(lambda connection: connection.execute("INSERT INTO accounts VALUES ('bad', 1, -1)"))
        adding += [asyncio.ensure_future(ledger.add_credits("acme", 1, f"b{number}", "", NOW)) for number in range(5)]
        assert await reason_of(bad) is Reason.LEDGER_UNAVAILABLE
        await asyncio.gather(*adding)
        assert await ledger.balance("acme") == Balance("acme", 10, 0)


async def test_a_server_that_crashes_is_said_and_got_over(own_postgres_server: PostgresServer) -> None:
    server, clock = own_postgres_server, Clock()
    ledger = await open_ledger(place_of(server, server.create_database()), clock, flush_interval_seconds=3600)
    await ledger.add_credits("acme", 100, "id", "", NOW)
    await ledger.reserve("r", 1, spend("acme", 60), LATER)
    server.stop()
    assert await reason_of(ledger.reserve("s", 1, spend("acme", 1), LATER)) is Reason.LEDGER_UNAVAILABLE
    assert ledger.is_available is False
    assert ledger.record_soon(make_receipt("queued"))
    assert await reason_of(ledger.flush()) is Reason.LEDGER_UNAVAILABLE
    server.start()
    await ledger.settle("r", 1, 40, "r")
    await ledger.flush()
    assert await ledger.get_receipt("queued") == make_receipt("queued")
    assert await ledger.balance("acme") == Balance("acme", 60, 0)
    assert (await ledger.verify()).is_right
    await ledger.close()


async def test_a_server_that_freezes_holds_nobody_up(own_postgres_server: PostgresServer) -> None:
    server, clock = own_postgres_server, Clock()
    place = place_of(server, server.create_database())
    ledger = await open_ledger(place, clock, flush_interval_seconds=3600, wait_seconds=0.5)
    await ledger.add_credits("acme", 100, "id", "", NOW)
    frozen = server.backend("keyswitch-router")
    frozen.send_signal(signal.SIGSTOP)
    try:
        assert await reason_of(ledger.reserve("r", 1, spend("acme", 60), LATER)) is Reason.LEDGER_UNAVAILABLE
    finally:
        frozen.send_signal(signal.SIGCONT)
    await ledger.cancel_reservation("r", 1)
    assert await ledger.balance("acme") == Balance("acme", 100, 0)
    await ledger.close()


async def test_a_wrong_password_is_unavailable(postgres_server: PostgresServer) -> None:
    place = place_of(postgres_server, postgres_server.create_database())
    wrong = postgres_server.folder / "wrong"
    wrong.write_text("nothing like it")
    assert await reason_of(open_ledger(replace(place, password_file=wrong), Clock())) is Reason.LEDGER_UNAVAILABLE
