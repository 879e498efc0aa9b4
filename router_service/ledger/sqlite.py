"""The ledger's database as one SQLite file.

SQLite has one writer, and an ORM or an async driver would cost more per statement than it does. WAL with
synchronous=FULL: acknowledged means on the disk. Several processes may share the file.
"""

import os
import sqlite3
from pathlib import Path

from router_service.ledger.connection import Connection
from router_service.ledger.migration import upgrade_sqlite

_BUSY_SECONDS = 5.0  # how long another process may hold the write lock


class SqliteStore:
    """See Store."""

    errors: tuple[type[Exception], ...] = (sqlite3.Error,)

    def __init__(self, path: Path) -> None:
        self._path = path

    def connect(self) -> Connection:
        """See Store."""
        os.close(os.open(self._path, os.O_CREAT | os.O_RDWR, 0o600))
        connection = sqlite3.connect(self._path, timeout=_BUSY_SECONDS, isolation_level=None)
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

    def roll_back(self, connection: sqlite3.Connection) -> None:
        """See Store."""
        if connection.in_transaction:  # a full disk has rolled back already
            connection.execute("ROLLBACK")

    def is_lost(self, connection: sqlite3.Connection) -> bool:  # a file is never lost
        """See Store."""
        return False

    def interrupt(self, connection: sqlite3.Connection) -> None:
        """See Store. A file answers within its busy time-out."""
