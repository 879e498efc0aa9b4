"""The ledger's database as one SQLite file.

SQLite has one writer, and an ORM or an async driver would cost more per statement than it does. WAL with
synchronous=FULL: acknowledged means on the disk. Several processes may share the file.
"""

import os
import sqlite3
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from router_service.ledger.connection import Connection, Query, Write
from router_service.ledger.migration import upgrade_sqlite
from router_service.ledger.table import Table

_BUSY_SECONDS = 5.0  # how long another process may hold the write lock


class SqliteConnection(sqlite3.Connection):
    """See Connection. There is nobody to travel to: many at once only share what a statement costs."""

    def read_all(self, queries: Sequence[Query], /) -> list[list[tuple[Any, ...]]]:
        """See Connection."""
        return [self.execute(sql, [_encode(one) for one in parameters]).fetchall() for sql, parameters in queries]

    def write_all(self, writes: Sequence[Write], /) -> None:
        """See Connection."""
        for table, rows in writes:
            self.executemany(_insertion(table), map(table.values, rows))


class SqliteStore:
    """See Store."""

    errors: tuple[type[Exception], ...] = (sqlite3.Error,)

    def __init__(self, path: Path) -> None:
        self._path = path

    def connect(self) -> Connection:
        """See Store."""
        os.close(os.open(self._path, os.O_CREAT | os.O_RDWR, 0o600))
        connection = sqlite3.connect(self._path, timeout=_BUSY_SECONDS, isolation_level=None, factory=SqliteConnection)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA trusted_schema = OFF")
            upgrade_sqlite(connection, self._path)
        except BaseException:  # also an interrupt: nobody else has the connection
            connection.close()
            raise
        return connection

    def begin(self, connection: sqlite3.Connection) -> None:
        """See Store."""
        connection.execute("BEGIN IMMEDIATE")

    def begin_reading(self, connection: sqlite3.Connection) -> None:
        """See Store."""
        connection.execute("BEGIN")

    def commit(self, connection: sqlite3.Connection) -> None:
        """See Store."""
        connection.execute("COMMIT")

    def roll_back(self, connection: sqlite3.Connection) -> None:
        """See Store."""
        if connection.in_transaction:  # a full disk has rolled back already
            connection.execute("ROLLBACK")

    def is_lost(self, connection: sqlite3.Connection) -> bool:  # a file is never lost
        """See Store."""
        return False

    def interrupt(self, connection: sqlite3.Connection) -> None:
        """See Store. A file answers within its busy time-out."""


def _encode(parameter: Any) -> Any:
    return msgspec.json.encode(parameter).decode() if isinstance(parameter, list) else parameter


@cache
def _insertion(table: Table) -> str:
    places = ", ".join("?" for _ in table.columns)
    return f"INSERT INTO {table.name} ({table.names}) VALUES ({places}){table.on_conflict}"  # noqa: S608 # constants
