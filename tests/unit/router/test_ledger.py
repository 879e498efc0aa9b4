"""The SQLite ledger through the suite, and what only SQLite does."""

import asyncio
import sqlite3
from pathlib import Path

import pytest

from router_service.core.database import Database, SqliteDatabase
from router_service.core.faults import Reason
from router_service.ledger.connection import Connection
from router_service.ledger.ledger import Balance, Ledger, Mismatch
from router_service.ledger.sql_ledger import SqlLedger, open_ledger
from tests.suites.ledger_suite import LedgerSuite
from tests.suites.ledger_values import LATER, NOW, Clock, make_receipt, reason_of, spend


class TestSqlite(LedgerSuite):
    async def open(self, place: Database, clock: Clock) -> SqlLedger:
        return await open_ledger(place, clock, flush_interval_seconds=3600)

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        return tmp_path / "ledger.db"

    @pytest.fixture
    def place(self, path: Path) -> Database:
        return SqliteDatabase(path)

    @pytest.fixture
    async def sqlite_ledger(self, ledger: Ledger) -> SqlLedger:
        assert isinstance(ledger, SqlLedger)
        return ledger

    async def test_the_file_is_private(self, ledger: Ledger, path: Path) -> None:
        await ledger.add_credits("acme", 1, "id", "", NOW)
        for file in path.parent.iterdir():
            assert file.stat().st_mode & 0o777 == 0o600, file

    async def test_a_commit_is_synced(self, sqlite_ledger: SqlLedger) -> None:
        def read(connection: Connection) -> list[object]:
            return [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")]

        pragmas = await sqlite_ledger._writer.submit(read)
        assert pragmas == ["wal", 2]

    async def test_a_full_disk_is_said_and_got_over(self, sqlite_ledger: SqlLedger) -> None:
        ledger = sqlite_ledger
        await ledger.add_credits("acme", 10**9, "id", "", NOW)
        await ledger.reserve("before", 1, spend("acme", 100), LATER)
        await ledger._writer.submit(lambda connection: connection.execute("PRAGMA max_page_count = 1").fetchone())
        big = make_receipt("big", failure_reason=None, principal="x" * 100_000)
        assert await reason_of(ledger.record(big)) is Reason.LEDGER_UNAVAILABLE
        assert ledger.record_soon(big)
        assert ledger.record_soon(make_receipt("small"))
        assert await reason_of(ledger.flush()) is Reason.LEDGER_UNAVAILABLE
        await ledger.settle("before", 1, 40, "before")  # needs no new page
        assert await ledger.get_receipt("big") == big  # queued again
        await ledger._writer.submit(lambda connection: connection.execute("PRAGMA max_page_count = 100000").fetchone())
        await ledger.flush()
        assert not ledger._queued
        assert await ledger.get_receipt("big") == big
        assert await ledger.get_receipt("small") == make_receipt("small")
        assert await ledger.balance("acme") == Balance("acme", 10**9 - 40, 0)
        assert (await ledger.verify()).mismatches == ()

    async def test_a_failed_write_does_not_bring_an_older_receipt_back(self, sqlite_ledger: SqlLedger) -> None:
        ledger = sqlite_ledger
        await ledger.record(make_receipt("r", principal="y" * 200_000))
        pages = await ledger._writer.submit(lambda connection: connection.execute("PRAGMA page_count").fetchone()[0])
        limit = f"PRAGMA max_page_count = {pages}"
        await ledger._writer.submit(lambda connection: connection.execute(limit).fetchone())
        assert ledger.record_soon(make_receipt("r", principal="x" * 1_000_000))
        flushing = asyncio.ensure_future(ledger.flush())
        await asyncio.sleep(0)  # lets it be submitted
        await ledger.record(make_receipt("r", principal="users/latest"))
        assert await reason_of(flushing) is Reason.LEDGER_UNAVAILABLE
        await ledger.flush()
        assert await ledger.get_receipt("r") == make_receipt("r", principal="users/latest")

    async def test_an_operation_that_fails_does_not_take_its_group_with_it(self, sqlite_ledger: SqlLedger) -> None:
        def fail(connection: Connection) -> None:
            connection.execute("INSERT INTO accounts VALUES ('bad', 1, -1)")

        def overflow(connection: Connection) -> None:
            connection.execute("INSERT INTO accounts VALUES ('bad', ?, 0)", (2**70,))

        submit = sqlite_ledger._writer.submit
        adding = [
            asyncio.ensure_future(sqlite_ledger.add_credits("acme", 1, f"id-{number}", "", NOW)) for number in range(10)
        ]
        bad = [submit(fail), submit(overflow)]
        adding += [
            asyncio.ensure_future(sqlite_ledger.add_credits("acme", 1, f"id-{number}", "", NOW))
            for number in range(10, 20)
        ]
        results = await asyncio.gather(*bad, return_exceptions=True)
        assert await reason_of(bad[0]) is Reason.LEDGER_UNAVAILABLE
        assert isinstance(results[1], OverflowError)
        await asyncio.gather(*adding)
        assert await sqlite_ledger.balance("acme") == Balance("acme", 20, 0)
        assert await sqlite_ledger.balance("bad") == Balance("bad", 0, 0)

    async def test_entries_cannot_be_changed(self, ledger: Ledger, path: Path) -> None:
        await ledger.add_credits("acme", 1, "id", "", NOW)
        with sqlite3.connect(path) as connection:
            for statement in ("UPDATE entries SET amount_nanos = 2", "DELETE FROM entries"):
                with pytest.raises(sqlite3.IntegrityError):
                    connection.execute(statement)
        connection.close()

    async def test_a_changed_sum_is_found(self, ledger: Ledger, path: Path) -> None:
        await ledger.add_credits("acme", 5, "id", "", NOW)
        await ledger.add_credits("good", 5, "id", "", NOW)
        connection = sqlite3.connect(path)
        connection.execute("UPDATE accounts SET balance_nanos = 6 WHERE organization = 'acme'")
        connection.commit()
        connection.close()
        verification = await ledger.verify()
        assert verification.mismatches == (Mismatch("acme", 6, 5, 0, 0),)
        assert verification.organization_count == 2

    async def test_a_full_queue_refuses(self, path: Path, clock: Clock) -> None:
        ledger = await open_ledger(SqliteDatabase(path), clock, flush_interval_seconds=3600, queued_receipts_max=2)
        taken = [ledger.record_soon(make_receipt(name)) for name in ("a", "b", "c", "b")]
        assert taken == [True, True, False, True]
        await ledger.close()

    async def test_queued_receipts_are_written_by_themselves(self, path: Path, clock: Clock) -> None:
        ledger = await open_ledger(SqliteDatabase(path), clock, flush_interval_seconds=0)
        ledger.record_soon(make_receipt("a"))
        connection = sqlite3.connect(path)
        async with asyncio.timeout(10):
            while connection.execute("SELECT count(*) FROM receipts").fetchone()[0] == 0:
                await asyncio.sleep(0)
        connection.close()
        await ledger.close()


@pytest.mark.parametrize("kind", ["foreign", "folder missing", "newer", "folder"])
async def test_a_store_that_cannot_be_opened_is_unavailable(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "ledger.db"
    if kind == "foreign":
        path.write_bytes(b"this is not a database" * 1000)
    elif kind == "folder missing":
        path = tmp_path / "missing" / "ledger.db"
    elif kind == "folder":
        path.mkdir()
    else:
        connection = sqlite3.connect(path)
        connection.execute("PRAGMA user_version = 99")
        connection.close()
    assert await reason_of(open_ledger(SqliteDatabase(path), Clock())) is Reason.LEDGER_UNAVAILABLE
