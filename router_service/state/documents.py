"""The stored configuration: documents by path under one revision, in SQLite or PostgreSQL.

A write names the revision that it was made from and fails where another one came first, whichever router made it: so
what is checked against the whole configuration is what is written.
"""

import asyncio
import json
from collections.abc import Mapping
from typing import Protocol

from sqlalchemy import BigInteger, Column, Engine, Integer, MetaData, Table, Text, delete, insert, select, update
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from router_service.catalog.document import Value
from router_service.catalog.problems import Path
from router_service.catalog.stored import Documents, StoredDocument
from router_service.core.faults import Fault, Reason

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
    """Documents in a database of SQLAlchemy's."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def prepare(self) -> None:
        """Makes the tables where there are none. Raises Fault CONFIGURATION_UNAVAILABLE."""
        try:
            metadata.create_all(self._engine)
            with self._engine.begin() as connection:
                if connection.execute(select(revision_table.c.revision)).first() is None:
                    connection.execute(insert(revision_table).values(id=1, revision=0))
        except IntegrityError:
            return  # another router has just made them
        except SQLAlchemyError:
            raise _unavailable() from None

    async def load(self, known_revision: int | None = None) -> Documents | None:
        """See DocumentStore."""
        return await asyncio.to_thread(self._load, known_revision)

    async def write(self, base_revision: int, changes: Mapping[Path, Value]) -> Documents:
        """See DocumentStore."""
        return await asyncio.to_thread(self._write, base_revision, changes)

    async def close(self) -> None:
        """See DocumentStore."""
        await asyncio.to_thread(self._engine.dispose)

    def _load(self, known_revision: int | None) -> Documents | None:
        try:
            with self._engine.connect() as connection:
                while True:
                    revision = connection.execute(select(revision_table.c.revision)).scalar_one()
                    if revision == known_revision:
                        return None
                    rows = connection.execute(select(documents_table)).all()
                    # One level of isolation below a snapshot, a write may come between the two.
                    if connection.execute(select(revision_table.c.revision)).scalar_one() == revision:
                        break
        except SQLAlchemyError:
            raise _unavailable() from None
        entries = {tuple(json.loads(row.path)): StoredDocument(json.loads(row.body), row.revision) for row in rows}
        return Documents(revision, entries)

    def _write(self, base_revision: int, changes: Mapping[Path, Value]) -> Documents:
        following = base_revision + 1
        try:
            with self._engine.begin() as connection:
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
        except SQLAlchemyError:
            raise _unavailable() from None
        written = self._load(None)
        if written is None:
            raise AssertionError("a load without a known revision gives documents")
        return written


def _unavailable() -> Fault:
    message = (
        "The store of the configuration cannot be read or written. Nothing was changed; try again, and tell the "
        "operator if it lasts."
    )
    return Fault(Reason.CONFIGURATION_UNAVAILABLE, message, retry_after_seconds=1.0)
