"""The store of the configuration in a file of its own, or in the database that a URL names.

SQLAlchemy is slow to load, so it is loaded where a store is opened.
"""

import asyncio
from pathlib import Path

from router_service.state.documents import SqlDocumentStore

BUSY_SECONDS = 5


async def open_documents(path: Path) -> SqlDocumentStore:
    """Opens it, and makes it where there is none. Raises Fault CONFIGURATION_UNAVAILABLE."""
    return await asyncio.to_thread(_open, path)


def _open(path: Path) -> SqlDocumentStore:
    from sqlalchemy import URL, create_engine

    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.touch(mode=0o600)
    engine = create_engine(
        URL.create("sqlite", database=str(path)), connect_args={"timeout": BUSY_SECONDS}, pool_pre_ping=True
    )
    store = SqlDocumentStore(engine)
    store.prepare()
    return store
