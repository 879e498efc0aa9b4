"""The ledger's database as a PostgreSQL server that many routers share.

Transactions that write take one lock that all routers share, as SQLite has one writer: sums are read and changed by one
transaction at a time, and two can never wait for each other. What that costs is paid back by committing in groups
(writer.py): a router that waits for the lock meanwhile gathers the operations of its next transaction.
"""

import contextlib
import os
import socket
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

import psycopg
from psycopg import conninfo
from psycopg.pq import TransactionStatus

from router_service.core.database import PostgresDatabase
from router_service.ledger.connection import Connection, Cursor
from router_service.ledger.migration import upgrade_postgres

WRITER_LOCK = 0x6B73_6C65_6467  # the same number in every router: "ksledg"
_CONNECT_SECONDS = 3
_STATEMENT_MILLISECONDS = 5000
_IDLE_MILLISECONDS = 10_000  # a router that stops in a transaction does not hold the others up for longer


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
        except BaseException:
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
        """See Store. The socket is shut under the driver, because a server that is frozen answers no cancel either."""
        with contextlib.suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(connection.raw.fileno())) as twin:
            twin.shutdown(socket.SHUT_RDWR)


def connect_raw(database: PostgresDatabase) -> "psycopg.Connection[tuple[Any, ...]]":
    """A connection of which each statement is a transaction unless one is begun. Waits for nothing for long."""
    password = None
    if database.password_file is not None:
        password = database.password_file.read_text().strip()
    text = conninfo.make_conninfo(
        "",
        host=database.host,
        port=database.port,
        dbname=database.name,
        user=database.user,
        password=password,
        connect_timeout=_CONNECT_SECONDS,
        tcp_user_timeout=_STATEMENT_MILLISECONDS,
        application_name="keyswitch-router",
        options=f"-c statement_timeout={_STATEMENT_MILLISECONDS} -c synchronous_commit=on"
        f" -c idle_in_transaction_session_timeout={_IDLE_MILLISECONDS}",
        **dict(database.parameters),
    )
    return psycopg.connect(text, autocommit=True)


@lru_cache(maxsize=256)
def _translate(sql: str) -> bytes:
    return sql.replace("%", "%%").replace("?", "%s").encode()
