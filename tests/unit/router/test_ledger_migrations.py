"""The ledger's tables: from nothing, from the version before, and beside it."""

import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import create_engine
from sqlalchemy.pool import StaticPool

from router_service.core.database import SqliteDatabase
from router_service.core.faults import Reason
from router_service.ledger import migration
from router_service.ledger.ledger import Balance
from router_service.ledger.sql_ledger import open_ledger
from tests.suites.ledger_values import LATER, NOW, Clock, reason_of, spend

VERSIONS = sorted(Path(migration.__file__).with_name("migrations").glob("versions/v*.py"))

# What version 0001 sends, word for word: it runs beside this version for as long as routers are replaced one by one.
OLD_STATEMENTS = (
    ("INSERT INTO claims VALUES (?, ?, ?, ?)", ("acme", "id", "old", NOW)),
    ("INSERT INTO reservations VALUES (?, ?, ?, ?, ?, ?, 'HELD', NULL)", ("old", 1, "acme", 40, 0, LATER)),
    (
        "INSERT INTO accounts VALUES (?, ?, ?) ON CONFLICT (organization) DO UPDATE SET"
        " balance_nanos = excluded.balance_nanos, reserved_nanos = excluded.reserved_nanos",
        ("acme", 100, 40),
    ),
    (
        "INSERT INTO entries (organization, amount_nanos, note, create_time, response_id, attempt)"
        " VALUES (?, ?, ?, ?, ?, ?)",
        ("acme", -30, "old", NOW, "old", 1),
    ),
    (
        "UPDATE reservations SET state = ?, charged_nanos = ? WHERE response_id = ? AND attempt = ?",
        ("SETTLED", 30, "old", 1),
    ),
    (
        "INSERT INTO accounts VALUES (?, ?, ?) ON CONFLICT (organization) DO UPDATE SET"
        " balance_nanos = excluded.balance_nanos, reserved_nanos = excluded.reserved_nanos",
        ("acme", 70, 0),
    ),
    (
        "INSERT INTO receipts VALUES (?, ?, ?, ?, ?) ON CONFLICT (response_id) DO UPDATE SET"
        " organization = excluded.organization, request_id = excluded.request_id,"
        " create_time = excluded.create_time, body = excluded.body",
        ("old", "acme", "id", NOW, b"{}"),
    ),
)


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


async def test_the_version_before_runs_on_this_ones_tables(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    ledger = await open_ledger(SqliteDatabase(path), Clock())
    await ledger.add_credits("acme", 100, "first", "", NOW)
    old = sqlite3.connect(path, isolation_level=None)
    assert old.execute("PRAGMA user_version").fetchone() == (1,)  # what it looks for before it starts
    for statement, parameters in OLD_STATEMENTS:
        old.execute(statement, parameters)
    old.close()
    assert await ledger.balance("acme") == Balance("acme", 70, 0)
    assert await ledger.claim("acme", "id", "new", NOW) == "old"
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
