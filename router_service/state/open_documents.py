"""The store of the configuration in an SQLite file, or in a PostgreSQL database that many routers share.

SQLAlchemy is slow to load, so it is loaded where a store is opened.
"""

import asyncio
import os
import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import Any, assert_never

from router_service.core.database import Database, PostgresDatabase, SqliteDatabase
from router_service.state.documents import SqlDocumentStore, unavailable

WAIT_SECONDS = 6.0  # longer than a statement may take


async def open_documents(database: Database, wait_seconds: float = WAIT_SECONDS) -> SqlDocumentStore:
    """Opens it, and makes its tables where there are none. Raises Fault CONFIGURATION_UNAVAILABLE."""
    return await asyncio.to_thread(_open, database, wait_seconds)


def _open(database: Database, wait_seconds: float) -> SqlDocumentStore:
    from sqlalchemy.exc import SQLAlchemyError

    from router_service.state.migration import upgrade

    try:
        match database:
            case SqliteDatabase():
                store = _open_sqlite(database.path, wait_seconds)
            case PostgresDatabase():
                store = _open_postgres(database, wait_seconds)
            case _:
                assert_never(database)
        upgrade(store.engine)
    except (SQLAlchemyError, sqlite3.Error, OSError):
        raise unavailable() from None
    return store


def _open_sqlite(path: Path, wait_seconds: float) -> SqlDocumentStore:
    from sqlalchemy import create_engine
    from sqlalchemy.pool import QueuePool

    from router_service.state.migration import BUSY_SECONDS

    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))

    def connect() -> sqlite3.Connection:
        # Transactions are begun by hand: the driver would begin them too late for a step, and end them too soon.
        return sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)

    engine = create_engine("sqlite://", creator=connect, poolclass=QueuePool, pool_size=1, max_overflow=0)
    return SqlDocumentStore(engine, wait_seconds)


def _open_postgres(database: PostgresDatabase, wait_seconds: float) -> SqlDocumentStore:
    from sqlalchemy import create_engine

    from router_service.database.postgres import connect_raw, interrupt_raw

    opened: list[Any] = []

    def connect() -> Any:
        raw = connect_raw(database)
        raw.autocommit = False
        opened[:] = [raw]
        return raw

    def interrupt() -> None:
        for raw in opened:
            with suppress(OSError):
                interrupt_raw(raw)

    engine = create_engine("postgresql+psycopg://", creator=connect, pool_size=1, max_overflow=0, pool_pre_ping=True)
    return SqlDocumentStore(engine, wait_seconds, interrupt)
