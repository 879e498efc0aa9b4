"""What the ledger needs of a database: connections that speak the same SQL, and how a transaction of it begins.

Statements are written once, with `?` for parameters, in the SQL that SQLite and PostgreSQL share. What every call
needs is read and written for many calls at once: a round trip to a server, and a driver's work for a statement, cost
more than the rows do.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from router_service.ledger.table import Table

Query = tuple[str, tuple[Any, ...]]
"""A statement that reads, and its parameters. Its columns have names that differ; `json_each(?)` takes a list."""

Write = tuple[Table, Sequence[Any]]
"""Rows for a table, no two of the same key."""


class Cursor(Protocol):
    """The rows of a statement."""

    def fetchone(self) -> Any:
        """The next row, or None."""

    def fetchall(self) -> list[Any]:
        """The rest."""

    def __iter__(self) -> Iterator[Any]: ...


class Executor(Protocol):
    """What runs statements."""

    def execute(self, sql: str, parameters: Sequence[Any] = ..., /) -> Cursor:
        """Runs a statement."""


class Connection(Executor, Protocol):
    """A connection. Used by one thread."""

    def read_all(self, queries: Sequence[Query], /) -> list[list[tuple[Any, ...]]]:
        """The rows of each of the queries, in one round trip."""

    def write_all(self, writes: Sequence[Write], /) -> None:
        """Writes the rows of all of the tables, in one round trip."""

    def close(self) -> None:
        """Lets go of it."""


class Store(Protocol):
    """A database."""

    errors: tuple[type[Exception], ...]
    """What its driver raises when it cannot do something."""

    def connect(self) -> Connection:
        """A connection to a database whose tables are there. May raise Fault."""

    def begin(self, connection: Any) -> None:
        """Begins a transaction that may write: no other one does until it ends, in any process."""

    def begin_reading(self, connection: Any) -> None:
        """Begins a transaction that sees one moment and holds nobody up."""

    def commit(self, connection: Any) -> None:
        """Ends a transaction; what it wrote is durable."""

    def roll_back(self, connection: Any) -> None:
        """Ends a transaction that failed."""

    def is_lost(self, connection: Any) -> bool:
        """Whether it can only be replaced."""

    def interrupt(self, connection: Any) -> None:
        """Called from another thread: makes what waits for the database fail soon."""
