"""The ledger's database as a PostgreSQL server that many routers share.

Transactions that write take one lock that all routers share, as SQLite has one writer: sums are read and changed by one
transaction at a time, and two can never wait for each other. What that costs is paid back by committing in groups
(writer.py): a router that waits for the lock meanwhile gathers the operations of its next transaction.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus

from router_service.core.database import PostgresDatabase
from router_service.database.postgres import connect_raw, interrupt_raw
from router_service.ledger.connection import Connection, Cursor
from router_service.ledger.migration import upgrade_postgres

WRITER_LOCK = 0x6B73_6C65_6467  # the same number in every router: "ksledg"


class PostgresConnection:
    """A psycopg connection that takes `?` for parameters."""

    def __init__(self, connection: "psycopg.Connection[tuple[Any, ...]]") -> None:
        self.raw = connection
        self._cursor = connection.cursor()

    def execute(self, sql: str, parameters: Sequence[Any] = (), /) -> Cursor:
        """See Connection."""
        return self._cursor.execute(_translate(sql), parameters) if parameters else self._cursor.execute(sql.encode())

    def executemany(self, sql: str, parameters: Iterable[Sequence[Any]], /) -> Cursor:
        """See Connection."""
        self._cursor.executemany(_translate(sql), parameters)
        return self._cursor

    def close(self) -> None:
        """See Connection."""
        self.raw.close()


class PostgresStore:
    """See Store."""

    errors: tuple[type[Exception], ...] = (psycopg.Error, OSError)

    def __init__(self, database: PostgresDatabase) -> None:
        self._database = database
        self._is_upgraded = False

    def connect(self) -> Connection:
        """See Store."""
        connection = PostgresConnection(connect_raw(self._database))
        try:
            if not self._is_upgraded:
                upgrade_postgres(connection, self._database)
                self._is_upgraded = True
        except BaseException:  # also an interrupt: nobody else has the connection
            connection.close()
            raise
        return connection

    def begin(self, connection: PostgresConnection) -> None:
        """See Store."""
        connection.raw.execute(f"BEGIN; SELECT pg_advisory_xact_lock({WRITER_LOCK})".encode())

    def begin_reading(self, connection: PostgresConnection) -> None:
        """See Store."""
        connection.raw.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")

    def roll_back(self, connection: PostgresConnection) -> None:
        """See Store."""
        if connection.raw.info.transaction_status is not TransactionStatus.IDLE:
            connection.raw.execute("ROLLBACK")

    def is_lost(self, connection: PostgresConnection) -> bool:
        """See Store."""
        return connection.raw.closed

    def interrupt(self, connection: PostgresConnection) -> None:
        """See Store."""
        interrupt_raw(connection.raw)


@lru_cache(maxsize=256)
def _translate(sql: str) -> bytes:
    return sql.replace("%", "%%").replace("?", "%s").encode()
