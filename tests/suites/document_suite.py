"""What every store of the configuration must do, whatever database it stands on: two routers' views of one."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from router_service.catalog.stored import Documents, StoredDocument
from router_service.core.database import Database
from router_service.state.documents import SqlDocumentStore, Superseded
from router_service.state.open_documents import open_documents

ONE, TWO = ("providers", "one"), ("organizations", "acme", "applications", "app")
Pair = tuple[SqlDocumentStore, SqlDocumentStore]


class DocumentSuite:
    """Give it a fixture `place`, a database that nobody has used."""

    @pytest.fixture
    async def pair(self, place: Database) -> AsyncIterator[Pair]:
        # Both make the tables at once, as routers that start together do.
        first, second = await asyncio.gather(open_documents(place), open_documents(place))
        yield first, second
        await first.close()
        await second.close()

    async def test_what_one_writes_the_other_reads(self, pair: Pair) -> None:
        first, second = pair
        assert await second.load() == Documents(0, {})
        written = await first.write(0, {ONE: {"a": 1.5}, TWO: {"b": ["é"]}})
        assert written == Documents(1, {ONE: StoredDocument({"a": 1.5}, 1), TWO: StoredDocument({"b": ["é"]}, 1)})
        assert await second.load(0) == written
        assert await second.load(1) is None
        assert await second.write(1, {ONE: None, TWO: "x"}) == Documents(2, {TWO: StoredDocument("x", 2)})
        assert (await first.load(1)) == Documents(2, {TWO: StoredDocument("x", 2)})

    async def test_of_many_writes_from_one_revision_one_wins(self, pair: Pair) -> None:
        writes = [pair[number % 2].write(0, {ONE: number}) for number in range(8)]
        ended = await asyncio.gather(*writes, return_exceptions=True)
        won = [one for one in ended if isinstance(one, Documents)]
        assert len(won) == 1
        assert all(isinstance(one, Superseded) for one in ended if one is not won[0])
        assert await pair[0].load() == won[0]

    async def test_nobody_sees_half_a_change(self, pair: Pair) -> None:
        first, second = pair
        is_done = False

        async def watch() -> int:
            seen = 0
            while not is_done:
                found = await second.load()
                assert found is not None
                bodies = set(found.bodies.values())
                assert bodies in (set(), {found.revision}), "both documents are of one change"
                seen += 1
            return seen

        watching = asyncio.create_task(watch())
        for revision in range(40):
            await first.write(revision, {ONE: revision + 1, TWO: revision + 1})
        is_done = True
        assert await watching > 0

    async def test_what_was_written_is_there_for_who_opens_it_later(self, pair: Pair, place: Database) -> None:
        written = await pair[0].write(0, {ONE: {"a": [1, None, "ü"]}})
        third = await open_documents(place)
        assert await third.load() == written
        await third.close()
