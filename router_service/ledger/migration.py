"""Brings a database's tables to what this version of the router needs, once, whoever of the routers starts first.

A version and the one before it run side by side: a migration only adds, and what it makes needless is taken out by a
later one. The table `ledger_compatibility` names the oldest version whose statements still run, so that a router that
meets tables newer than its own knows whether it may go on. SQLAlchemy and Alembic are loaded only where there is
something to do, because they are slow to load.
"""

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from router_service.core.database import PostgresDatabase
from router_service.core.faults import Fault, Reason
from router_service.database.steps import run_steps
from router_service.ledger.connection import Executor

if TYPE_CHECKING:
    from sqlalchemy import Connection as SqlConnection

HEAD = "0002"  # the latest file in migrations/versions
VERSION_TABLE = "ledger_version"
_MIGRATION_LOCK = 0x6B73_6D69_6772  # "ksmigr"
_BEFORE_ALEMBIC = 1  # a SQLite file's user_version: older routers look for it, so it stays


def upgrade_sqlite(connection: sqlite3.Connection, path: Path) -> None:
    """Makes or changes the tables of a file. Raises Fault where they belong to a version that is too new."""
    user_version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if user_version not in (0, _BEFORE_ALEMBIC):
        raise _too_new()
    if is_current(_read_sqlite(connection)):
        return
    from sqlalchemy import create_engine
    from sqlalchemy.pool import StaticPool

    own = sqlite3.connect(path, timeout=30.0, isolation_level=None, check_same_thread=False)
    engine = create_engine("sqlite://", creator=lambda: own, poolclass=StaticPool)
    try:
        with engine.connect() as connected:  # first: SQLAlchemy rolls back what a new connection had begun
            connected.exec_driver_sql("BEGIN IMMEDIATE")
            found = _read_sqlite(own)
            if not is_current(found):  # else another process was first
                if not found and own.execute("SELECT 1 FROM sqlite_master WHERE name = 'accounts'").fetchone():
                    own.execute(f"CREATE TABLE {VERSION_TABLE} (version_num VARCHAR(32) NOT NULL PRIMARY KEY)")
                    own.execute(f"INSERT INTO {VERSION_TABLE} VALUES ('0001')")  # noqa: S608 # a constant
                run_migrations(connected)
                own.execute(f"PRAGMA user_version = {_BEFORE_ALEMBIC}")
            connected.commit()
    finally:
        engine.dispose()
        own.close()


def upgrade_postgres(connection: Executor, database: PostgresDatabase) -> None:
    """Makes or changes the tables of a server's database. Raises Fault where they belong to a version too new."""
    if is_current(_read_postgres(connection)):
        return
    from sqlalchemy import create_engine
    from sqlalchemy.pool import NullPool

    from router_service.database.postgres import connect_raw

    def connect() -> Any:
        raw = connect_raw(database)
        raw.execute("SET statement_timeout = 0")  # a large table takes its time, and nobody else waits for this lock
        raw.execute("SET idle_in_transaction_session_timeout = 0")
        raw.autocommit = False
        return raw

    engine = create_engine("postgresql+psycopg://", creator=connect, poolclass=NullPool)
    with engine.connect() as lock:
        lock.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_MIGRATION_LOCK})")
        if not is_current(_read_postgres(connection)):
            with engine.connect() as connected:
                connected.begin()
                run_migrations(connected)
                connected.commit()
    engine.dispose()


def is_current(found: tuple[str, str] | None) -> bool:
    """Whether tables of a version, and the oldest that they serve, are ones to work with as they are."""
    if found is None:
        return False
    version, oldest = found
    if oldest > HEAD:
        raise _too_new()
    return version >= HEAD


def run_migrations(connection: "SqlConnection", target: str = "head") -> None:
    """Takes the steps that are missing, in the transaction of whoever calls."""
    run_steps(connection, Path(__file__).with_name("migrations"), VERSION_TABLE, target)


def _read_sqlite(connection: sqlite3.Connection) -> tuple[str, str] | None:
    def has(table: str) -> bool:
        found = connection.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?", (table,))
        return found.fetchone() is not None

    return _read(connection, has)


def _read_postgres(connection: Executor) -> tuple[str, str] | None:
    def has(table: str) -> bool:
        found = connection.execute("SELECT to_regclass(?)", (table,)).fetchone()
        return found is not None and found[0] is not None

    return _read(connection, has)


def _read(connection: Executor, has: Callable[[str], bool]) -> tuple[str, str] | None:
    if not has(VERSION_TABLE):
        return None
    row = connection.execute(f"SELECT version_num FROM {VERSION_TABLE}").fetchone()  # noqa: S608 # a constant
    if row is None:
        return None
    if not has("ledger_compatibility"):
        return str(row[0]), str(row[0])
    oldest = connection.execute("SELECT oldest_version FROM ledger_compatibility").fetchone()
    return str(row[0]), str(oldest[0])


def _too_new() -> Fault:
    return Fault(
        Reason.LEDGER_UNAVAILABLE,
        "The ledger's tables were made by a newer version of Keyswitch that this one cannot work beside. Start the "
        "newer version.",
    )
