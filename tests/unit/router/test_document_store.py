"""The store of the configuration: one revision, and nobody's write over another's."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from router_service.catalog.stored import Documents, StoredDocument
from router_service.core.faults import Fault, Reason
from router_service.state.documents import SqlDocumentStore, Superseded
from router_service.state.open_documents import open_documents

ONE, TWO = ("providers", "one"), ("organizations", "acme", "applications", "app")


@pytest.fixture
async def stores(tmp_path: Path) -> AsyncIterator[tuple[SqlDocumentStore, SqlDocumentStore]]:
    """Two routers' views of one database."""
    first, second = [await open_documents(tmp_path / "configuration.db") for _ in range(2)]
    yield first, second
    await first.close()
    await second.close()


async def test_what_one_writes_the_other_reads(stores: tuple[SqlDocumentStore, SqlDocumentStore]) -> None:
    first, second = stores
    assert await second.load() == Documents(0, {})
    written = await first.write(0, {ONE: {"a": 1.5}, TWO: {"b": ["é"]}})
    assert written == Documents(1, {ONE: StoredDocument({"a": 1.5}, 1), TWO: StoredDocument({"b": ["é"]}, 1)})
    assert await second.load(0) == written
    assert await second.load(1) is None
    assert await second.write(1, {ONE: None, TWO: "x"}) == Documents(2, {TWO: StoredDocument("x", 2)})
    assert (await first.load(1)) == Documents(2, {TWO: StoredDocument("x", 2)})


async def test_of_many_writes_from_one_revision_one_wins(stores: tuple[SqlDocumentStore, SqlDocumentStore]) -> None:
    writes = [stores[number % 2].write(0, {ONE: number}) for number in range(8)]
    ended = await asyncio.gather(*writes, return_exceptions=True)
    won = [one for one in ended if isinstance(one, Documents)]
    assert len(won) == 1
    assert all(isinstance(one, Superseded) for one in ended if one is not won[0])
    assert await stores[0].load() == won[0]


async def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "configuration.db").write_bytes(b"this is something else altogether " * 100)
    with pytest.raises(Fault) as caught:
        await open_documents(tmp_path / "configuration.db")
    assert caught.value.reason is Reason.CONFIGURATION_UNAVAILABLE
