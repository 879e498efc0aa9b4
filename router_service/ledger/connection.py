"""What the ledger needs of a database: connections that speak the same SQL, and how a transaction of it begins.

Statements are written once, with `?` for parameters, in the SQL that SQLite and PostgreSQL share.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol


class Cursor(Protocol):
    """The rows of a statement."""

    def fetchone(self) -> Any:
        """The next row, or None."""

    def fetchall(self) -> list[Any]:
        """The rest."""

    def __iter__(self) -> Iterator[Any]: ...


class Connection(Protocol):
    """A connection. Used by one thread."""

    def execute(self, sql: str, parameters: Sequence[Any] = ..., /) -> Cursor:
        """Runs a statement."""

    def executemany(self, sql: str, parameters: Iterable[Sequence[Any]], /) -> Cursor:
        """Runs a statement for each of many rows."""

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

    def roll_back(self, connection: Any) -> None:
        """Ends a transaction that failed."""

    def is_lost(self, connection: Any) -> bool:
        """Whether it can only be replaced."""

    def interrupt(self, connection: Any) -> None:
        """Called from another thread: makes what waits for the database fail soon."""
