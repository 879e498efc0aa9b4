"""The stored configuration: documents by path under one revision, in SQLite or PostgreSQL.

A write names the revision that it was made from and fails where another one came first, whichever router made it: so
what is checked against the whole configuration is what is written.
"""

import asyncio
import json
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Protocol, TypeVar

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Engine,
    Integer,
    MetaData,
    Table,
    Text,
    delete,
    insert,
    select,
    update,
)
from sqlalchemy.exc import SQLAlchemyError

from router_service.catalog.document import Value
from router_service.catalog.problems import Path
from router_service.catalog.stored import Documents, StoredDocument
from router_service.core.faults import Fault, Reason
from router_service.database.patience import left_seconds

T = TypeVar("T")

metadata = MetaData()

documents_table = Table(
    "configuration_documents",
    metadata,
    Column("path", Text, primary_key=True),  # a JSON list
    Column("body", Text, nullable=False),  # JSON
    Column("revision", BigInteger, nullable=False),
)
revision_table = Table(
    "configuration_revision",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("revision", BigInteger, nullable=False),
)


class Superseded(Exception):
    """Another write came first: read again, and decide again."""


class DocumentStore(Protocol):
    """Where documents are kept."""

    async def load(self, known_revision: int | None = None) -> Documents | None:
        """Everything; None where the revision is still the known one. Raises Fault CONFIGURATION_UNAVAILABLE."""

    async def write(self, base_revision: int, changes: Mapping[Path, Value]) -> Documents:
        """Writes under the next revision; None removes. Raises Superseded and Fault CONFIGURATION_UNAVAILABLE."""

    async def close(self) -> None:
        """Lets go of the database."""


class SqlDocumentStore:
    """Documents in a database of SQLAlchemy's, whose tables are there.

    One thread talks to it, and nobody waits for that thread for longer than `wait_seconds`; `interrupt` frees it.
    """

    def __init__(self, engine: Engine, wait_seconds: float, interrupt: Callable[[], None] = lambda: None) -> None:
        self.engine = engine
        self._wait_seconds = wait_seconds
        self._interrupt = interrupt
        self._thread = ThreadPoolExecutor(1, "configuration-store")

    async def load(self, known_revision: int | None = None) -> Documents | None:
        """See DocumentStore."""
        return await self._run(lambda _: self._load(known_revision), unavailable)

    async def write(self, base_revision: int, changes: Mapping[Path, Value]) -> Documents:
        """See DocumentStore."""
        return await self._run(lambda late: self._write(base_revision, changes, late), _uncertain)

    async def close(self) -> None:
        """See DocumentStore."""
        ending = asyncio.create_task(asyncio.to_thread(self._thread.shutdown, cancel_futures=True))
        _, unended = await asyncio.wait([ending], timeout=self._wait_seconds)
        if unended:
            self._interrupt()
            await ending
        await asyncio.to_thread(self.engine.dispose)

    async def _run(self, work: Callable[[Event], T], fault: Callable[[], Fault]) -> T:
        begun, late = Event(), Event()

        def do() -> T:
            begun.set()
            return work(late)

        loop = asyncio.get_running_loop()
        done = self._thread.submit(do)
        # The thread is freed also where its caller left long ago: others wait behind it.
        alarm = loop.call_later(self._wait_seconds, self._interrupt)
        done.add_done_callback(lambda _: loop.call_soon_threadsafe(alarm.cancel))
        try:
            async with asyncio.timeout(left_seconds(self._wait_seconds)):
                return await asyncio.wrap_future(done)
        except TimeoutError:
            late.set()
            raise (fault() if begun.is_set() else unavailable()) from None

    def _load(self, known_revision: int | None) -> Documents | None:
        try:
            with self.engine.connect() as connection:
                while True:
                    revision = connection.execute(select(revision_table.c.revision)).scalar_one()
                    if revision == known_revision:
                        return None
                    entries = _read(connection)
                    # One level of isolation below a snapshot, a write may come between the two.
                    if connection.execute(select(revision_table.c.revision)).scalar_one() == revision:
                        return Documents(revision, entries)
        except (SQLAlchemyError, OSError):
            raise unavailable() from None

    def _write(self, base_revision: int, changes: Mapping[Path, Value], late: Event) -> Documents:
        is_ending = False
        try:
            with self.engine.connect() as connection:
                if self.engine.dialect.name == "sqlite":
                    connection.exec_driver_sql("BEGIN IMMEDIATE")
                written = _change(connection, base_revision, changes)
                if late.is_set():  # over a new connection, perhaps: nobody expects it any more
                    raise unavailable()
                is_ending = True
                connection.commit()
        except (SQLAlchemyError, OSError):
            raise (_uncertain() if is_ending else unavailable()) from None
        return written


def _change(connection: Connection, base_revision: int, changes: Mapping[Path, Value]) -> Documents:
    following = base_revision + 1
    # First of all, because it also is the lock: whoever comes second finds another revision.
    taken = connection.execute(
        update(revision_table).where(revision_table.c.revision == base_revision).values(revision=following)
    )
    if taken.rowcount != 1:
        raise Superseded
    for path, body in changes.items():
        key = json.dumps(path)
        connection.execute(delete(documents_table).where(documents_table.c.path == key))
        if body is not None:
            row = {"path": key, "body": json.dumps(body), "revision": following}
            connection.execute(insert(documents_table).values(**row))
    return Documents(following, _read(connection))


def _read(connection: Connection) -> dict[Path, StoredDocument]:
    rows = connection.execute(select(documents_table)).all()
    return {tuple(json.loads(row.path)): StoredDocument(json.loads(row.body), row.revision) for row in rows}


def unavailable() -> Fault:
    """The store did not answer, and nothing was written."""
    message = (
        "The store of the configuration cannot be read or written. Nothing was changed; try again, and tell the "
        "operator if it lasts."
    )
    return Fault(Reason.CONFIGURATION_UNAVAILABLE, message, retry_after_seconds=1.0)


def _uncertain() -> Fault:
    message = (
        "The store of the configuration went away while it was written. Read what you changed before you try again: "
        "the change is in force as a whole, or not at all."
    )
    return Fault(Reason.CONFIGURATION_UNAVAILABLE, message, retry_after_seconds=1.0)
