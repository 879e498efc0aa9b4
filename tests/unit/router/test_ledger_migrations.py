"""The ledger's tables: from nothing, from the version before, and beside it."""

import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine
from sqlalchemy.pool import StaticPool

from router_service.core.database import Database, SqliteDatabase
from router_service.core.faults import Reason
from router_service.database.postgres import connect_raw
from router_service.ledger import codec, migration
from router_service.ledger.ledger import Balance
from router_service.ledger.postgres import PostgresConnection
from router_service.ledger.sql_ledger import open_ledger
from tests.fakes.postgres_server import PostgresServer
from tests.suites.budget_suite import make_budget
from tests.suites.ledger_values import LATER, NOW, Clock, make_receipt, reason_of, spend
from tests.unit.router.test_ledger_postgres import place_of

VERSIONS = sorted(Path(migration.__file__).with_name("migrations").glob("versions/v*.py"))


def spend_as_before(execute: Callable[..., Any], response_id: str, charged_nanos: int) -> None:
    """What version 0001 sends for a call, word for word: it runs beside this version while routers are replaced."""
    execute("INSERT INTO claims VALUES (?, ?, ?, ?)", ("acme", response_id, response_id, NOW))
    (balance,) = execute("SELECT balance_nanos FROM accounts WHERE organization = ?", ("acme",)).fetchone()
    account = (
        "INSERT INTO accounts VALUES (?, ?, ?) ON CONFLICT (organization) DO UPDATE SET"
        " balance_nanos = excluded.balance_nanos, reserved_nanos = excluded.reserved_nanos"
    )
    execute("INSERT INTO reservations VALUES (?, ?, ?, ?, ?, ?, 'HELD', NULL)", (response_id, 1, "acme", 40, 0, LATER))
    execute(account, ("acme", balance, 40))
    execute(
        "INSERT INTO entries (organization, amount_nanos, note, create_time, response_id, attempt)"
        " VALUES (?, ?, ?, ?, ?, ?)",
        ("acme", -charged_nanos, response_id, NOW, response_id, 1),
    )
    execute(
        "UPDATE reservations SET state = ?, charged_nanos = ? WHERE response_id = ? AND attempt = ?",
        ("SETTLED", charged_nanos, response_id, 1),
    )
    execute(account, ("acme", balance - charged_nanos, 0))
    execute(
        "INSERT INTO receipts VALUES (?, ?, ?, ?, ?) ON CONFLICT (response_id) DO UPDATE SET"
        " organization = excluded.organization, request_id = excluded.request_id,"
        " create_time = excluded.create_time, body = excluded.body",
        (response_id, "acme", response_id, NOW, codec.encode(make_receipt(response_id))),
    )


@dataclass
class Before:
    """A database as version 0001 has it, and a connection of that version."""

    place: Database
    execute: Callable[..., Any]


@pytest.fixture(params=["sqlite", "postgresql"])
def before(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Before]:
    if request.param == "sqlite":
        path = tmp_path / "ledger.db"
        make_old(path)
        raw = sqlite3.connect(path, isolation_level=None)
        yield Before(SqliteDatabase(path), raw.execute)
        raw.close()
        return
    server: PostgresServer = request.getfixturevalue("postgres_server")
    place = place_of(server, server.create_database())
    engine = create_engine("postgresql+psycopg://", creator=lambda: connect_raw(place), poolclass=StaticPool)
    with engine.connect() as connected:
        migration.run_migrations(connected, "0001")
        connected.commit()
    engine.dispose()
    connection = PostgresConnection(connect_raw(place))
    connection.execute("INSERT INTO accounts VALUES ('acme', 100, 0)")
    connection.execute(
        "INSERT INTO entries (organization, amount_nanos, note, create_time) VALUES ('acme', 100, '', 0)"
    )
    yield Before(place, connection.execute)
    connection.close()


async def test_a_version_and_the_one_before_it_run_side_by_side(before: Before) -> None:
    spend_as_before(before.execute, "before", 10)
    ledger = await open_ledger(before.place, Clock())  # makes the new tables under the old version's feet
    spend_as_before(before.execute, "beside", 20)
    await ledger.create_budget(make_budget("cap", 100))
    await ledger.reserve("new", 1, spend("acme", 50), LATER)
    await ledger.settle("new", 1, 30, "new", 30)
    spend_as_before(before.execute, "after", 5)
    assert await ledger.balance("acme") == Balance("acme", 35, 0)
    assert [entry.amount_nanos for entry in await ledger.list_entries("acme", None, 9)] == [-5, -30, -20, -10, 100]
    assert await ledger.claim("acme", "beside", "new", NOW) == "beside"
    assert await ledger.get_receipt("after") == make_receipt("after")
    assert (await ledger.verify()).is_right
    await ledger.close()


def make_old(path: Path) -> None:
    """A file as version 0001 left it, before there was a table of versions."""
    raw = sqlite3.connect(path, isolation_level=None)
    engine = create_engine("sqlite://", creator=lambda: raw, poolclass=StaticPool)
    with engine.connect() as connected:
        connected.exec_driver_sql("BEGIN")
        migration.run_migrations(connected, "0001")
        connected.commit()
    raw.execute("DROP TABLE ledger_version")
    raw.execute("INSERT INTO accounts VALUES ('acme', 100, 0)")
    raw.execute("INSERT INTO entries (organization, amount_nanos, note, create_time) VALUES ('acme', 100, '', 0)")
    raw.execute("PRAGMA user_version = 1")
    engine.dispose()
    raw.close()


async def test_a_file_of_the_version_before_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    make_old(path)
    ledger = await open_ledger(SqliteDatabase(path), Clock())
    assert await ledger.balance("acme") == Balance("acme", 100, 0)
    await ledger.reserve("r", 1, spend("acme", 100), LATER)
    assert (await ledger.verify()).is_right
    await ledger.close()


async def test_tables_of_a_newer_version_serve_while_it_says_so(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    await (await open_ledger(SqliteDatabase(path), Clock())).close()
    newer = sqlite3.connect(path, isolation_level=None)
    newer.execute("UPDATE ledger_version SET version_num = '0099'")
    newer.execute("UPDATE ledger_compatibility SET oldest_version = ?", (migration.HEAD,))
    await (await open_ledger(SqliteDatabase(path), Clock())).close()
    newer.execute("UPDATE ledger_compatibility SET oldest_version = '0099'")
    newer.close()
    assert await reason_of(open_ledger(SqliteDatabase(path), Clock())) is Reason.LEDGER_UNAVAILABLE


def test_the_latest_migration_is_the_one_that_is_expected() -> None:
    assert VERSIONS[-1].name.startswith(f"v{migration.HEAD}_")


@pytest.mark.parametrize("path", VERSIONS[1:], ids=lambda path: path.stem)
def test_a_migration_only_adds(path: Path) -> None:
    text = path.read_text()
    for word in ("drop_", "alter_", "rename_", "DROP ", "ALTER ", "DELETE ", "UPDATE "):
        assert word not in text, f"{path.name}: {word}takes something away from the version before"
