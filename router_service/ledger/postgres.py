"""The ledger's database as a PostgreSQL server that many routers share.

Transactions that write take one lock that all routers share, as SQLite has one writer: sums are read and changed by one
transaction at a time, and two can never wait for each other. What that costs is paid back by committing in groups
(writer.py): a router that waits for the lock meanwhile gathers the operations of its next transaction.
"""

import re
from collections.abc import Sequence
from functools import cache, lru_cache
from itertools import count
from typing import Any

import msgspec
import psycopg
from psycopg.errors import error_from_result
from psycopg.pq import ExecStatus, TransactionStatus
from psycopg.pq.abc import PGresult

from router_service.core.database import PostgresDatabase
from router_service.database.postgres import connect_raw, interrupt_raw
from router_service.ledger.connection import Connection, Cursor, Query, Write
from router_service.ledger.migration import upgrade_postgres
from router_service.ledger.table import Table

WRITER_LOCK = 0x6B73_6C65_6467  # the same number in every router: "ksledg"


# The writer finds rows by their keys, in tables that grow while a plan is kept: one that was made while a table was
# small would read all of it.
_BY_KEY = "SET jit = off; SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off"
_BY_ALL = "; ".join(f"SET LOCAL {name} = on" for name in ("enable_seqscan", "enable_hashjoin", "enable_mergejoin"))
_TYPES = {str: "TEXT", int: "BIGINT", float: "DOUBLE PRECISION", bytes: "TEXT"}
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(list[dict[str, Any]]).decode


class PostgresConnection:
    """A psycopg connection that takes `?` for parameters.

    What every call needs goes to libpq itself as JSON, one prepared statement for rows of any number: through
    psycopg's cursor a statement costs several times as much.
    """

    def __init__(self, connection: "psycopg.Connection[tuple[Any, ...]]") -> None:
        self.raw = connection
        self._cursor = connection.cursor()
        self._prepared: dict[bytes, bytes] = {}

    def execute(self, sql: str, parameters: Sequence[Any] = (), /) -> Cursor:
        """See Connection."""
        return self._cursor.execute(_translate(sql), parameters) if parameters else self._cursor.execute(sql.encode())

    def read_all(self, queries: Sequence[Query], /) -> list[list[tuple[Any, ...]]]:
        """See Connection."""
        text = _reading(tuple(sql for sql, _ in queries))
        result = self._run(text, [_encode(one) for _, parameters in queries for one in parameters])
        found = (result.get_value(0, column) for column in range(len(queries)))
        return [[] if rows is None else [tuple(row.values()) for row in _decode(rows)] for rows in found]

    def write_all(self, writes: Sequence[Write], /) -> None:
        """See Connection."""
        if writes:
            self._run(_writing(tuple(table for table, _ in writes)), [_encode(rows) for _, rows in writes])

    def run(self, sql: bytes) -> bytes | None:
        """Runs statements of which no rows are wanted; gives what the last of them says that it did."""
        return _check(self.raw.pgconn.exec_(sql)).command_status

    def close(self) -> None:
        """See Connection."""
        self.raw.close()

    def _run(self, sql: bytes, parameters: list[bytes]) -> PGresult:
        name = self._prepared.get(sql)
        if name is None:
            name = b"ledger_%d" % len(self._prepared)
            _check(self.raw.pgconn.prepare(name, sql))
            self._prepared[sql] = name
        return _check(self.raw.pgconn.exec_prepared(name, parameters))


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
            connection.run(_BY_KEY.encode())
        except BaseException:  # also an interrupt: nobody else has the connection
            connection.close()
            raise
        return connection

    def begin(self, connection: PostgresConnection) -> None:
        """See Store."""
        connection.run(b"BEGIN; SELECT pg_advisory_xact_lock(%d)" % WRITER_LOCK)

    def begin_reading(self, connection: PostgresConnection) -> None:
        """See Store."""
        connection.run(f"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; {_BY_ALL}".encode())

    def commit(self, connection: PostgresConnection) -> None:
        """See Store."""
        if connection.run(b"COMMIT") != b"COMMIT":  # a server rolls back what had failed, and calls that a success
            raise psycopg.OperationalError("the transaction was rolled back")

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


@cache
def _reading(queries: tuple[str, ...]) -> bytes:
    """One row with a column for each of the queries: its rows as JSON."""
    numbers = count(1)
    text = "SELECT " + ", ".join(f"(SELECT json_agg(found) FROM ({sql}) found)" for sql in queries)  # noqa: S608 # constants
    text = re.sub(r"\?", lambda _: f"${next(numbers)}", text)
    return text.replace("json_each(", "json_array_elements_text(").encode()


@cache
def _writing(tables: tuple[Table, ...]) -> bytes:
    """One statement for all of the tables, whose parameters are their rows as JSON."""
    *others, last = (_insertion(table, number) for number, table in enumerate(tables, 1))
    if not others:
        return last.encode()
    parts = ", ".join(f"write_{number} AS ({text})" for number, text in enumerate(others))
    return f"WITH {parts} {last}".encode()


def _insertion(table: Table, number: int) -> str:
    types = ", ".join(f"{name} {_TYPES[kind]}" for name, kind in table.columns.items())
    values = ", ".join(f"decode({name}, 'base64')" if kind is bytes else name for name, kind in table.columns.items())
    found = f"json_to_recordset(${number}) AS found({types})"
    return f"INSERT INTO {table.name} ({table.names}) SELECT {values} FROM {found}{table.on_conflict}"  # noqa: S608 # constants


def _check(result: PGresult) -> PGresult:
    if result.status not in (ExecStatus.COMMAND_OK, ExecStatus.TUPLES_OK):
        raise error_from_result(result)
    return result
