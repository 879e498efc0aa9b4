"""What leasing remembers of the store, and what makes it forget."""

from collections import Counter
from collections.abc import Sequence

import pytest

from vault_service.core.changes import ChangeLog, CredentialUpdated, OwnerRevoked, PolicyUpdated, TokenRevoked, What
from vault_service.core.recollection import MAX_CREDENTIALS, ForgettingStore, RecollectingStore, Recollection
from vault_service.store.memory import MemoryStore
from vault_service.store.store import Document

NAME = "organizations/acme/credentials/main"
MATERIAL = f"{NAME}/versions/1/material"
OTHER = "organizations/other/credentials/main"
POLICY = "organizations/acme/credentialPolicy"
LIFE_SECONDS = 300.0


class CountingStore(MemoryStore):
    """A store that counts what is read of it."""

    def __init__(self) -> None:
        super().__init__()
        self.reads: Counter[str] = Counter()

    async def read(self, path: str, *, request_id: str = "") -> Document | None:
        self.reads[path] += 1
        return await super().read(path, request_id=request_id)


class World:
    """One instance that remembers, and another one that writes to the same store."""

    def __init__(self, seconds: float = LIFE_SECONDS) -> None:
        self.now = 1000.0
        self.store = CountingStore()
        self.changes = self.change_log()
        self.elsewhere = self.change_log()
        self.memory = Recollection(self.changes, monotonic=lambda: self.now, seconds=seconds)
        self.lately = RecollectingStore(self.store, self.memory)
        self.fresh = ForgettingStore(self.store, self.memory)

    def change_log(self) -> ChangeLog:
        return ChangeLog(self.store, clock=lambda: self.now, monotonic=lambda: self.now, fresh_seconds=1.0)

    async def begin(self) -> "World":
        for path in (NAME, MATERIAL, OTHER, POLICY):
            await self.store.write(path, b"1", expected_revision=0)
        await self.changes.refresh()
        return self

    async def asked(self, path: str) -> int:
        """How often the store was asked for reading it once."""
        before = self.store.reads[path]
        await self.lately.read(path)
        return self.store.reads[path] - before


def updated(name: str = NAME) -> CredentialUpdated:
    return CredentialUpdated("DISABLED", name, "providers/openai")


@pytest.mark.parametrize("path", [NAME, MATERIAL, POLICY])
async def test_it_asks_once(path: str) -> None:
    world = await World().begin()
    assert [await world.asked(path) for _ in range(3)] == [1, 0, 0]
    assert await world.lately.read(path) == await world.store.read(path)


async def test_that_there_is_nothing_is_asked_again() -> None:
    world = await World().begin()
    await world.store.delete(NAME)
    assert [await world.asked(NAME) for _ in range(2)] == [1, 1]


DROPS: Sequence[tuple[What, list[int]]] = [
    (updated(), [1, 1, 0, 0]),
    (updated(OTHER), [0, 0, 1, 0]),
    (OwnerRevoked("organizations/acme"), [1, 1, 1, 1]),
    (PolicyUpdated("organizations/acme"), [1, 1, 1, 1]),
    (TokenRevoked("t", 9e9), [0, 0, 0, 0]),
]


@pytest.mark.parametrize(("what", "asked"), DROPS)
async def test_a_change_elsewhere_drops_what_it_is_about(what: What, asked: list[int]) -> None:
    world = await World().begin()
    paths = [NAME, MATERIAL, OTHER, POLICY]
    for path in paths:
        await world.lately.read(path)
    await world.elsewhere.append([what])
    await world.changes.refresh()
    assert [await world.asked(path) for path in paths] == asked


async def test_missed_changes_drop_everything() -> None:
    world = await World().begin()
    await world.lately.read(NAME)
    await world.elsewhere.append([updated(OTHER)] * 300)
    await world.changes.refresh()
    assert await world.asked(NAME) == 1


async def test_it_is_dropped_before_anybody_is_told() -> None:
    world = await World().begin()
    await world.lately.read(NAME)
    seen: list[int] = []
    world.changes.listen(lambda _: seen.append(len(world.memory._held)))
    await world.changes.append([updated()])
    assert seen == [0]


async def test_without_fresh_changes_nothing_counts() -> None:
    world = await World().begin()
    await world.lately.read(NAME)
    world.now += 1.5
    assert await world.asked(NAME) == 1
    await world.changes.refresh()
    assert await world.asked(NAME) == 0


async def test_it_forgets_after_a_lease_s_life() -> None:
    world = await World().begin()
    await world.lately.read(NAME)
    world.now += LIFE_SECONDS + 1
    await world.changes.refresh()
    assert await world.asked(NAME) == 1


async def test_what_is_written_here_is_not_remembered_told_or_not() -> None:
    world = await World().begin()
    await world.lately.read(NAME)
    await world.fresh.write(NAME, b"2", expected_revision=1)
    found = await world.lately.read(NAME)
    assert found is not None
    assert found.value == b"2"
    await world.fresh.delete(NAME)
    assert await world.lately.read(NAME) is None


async def test_what_was_read_across_a_change_is_not_kept() -> None:
    world = await World().begin()
    read = world.store.read

    async def overtaken(path: str, *, request_id: str = "") -> Document | None:
        found = await read(path, request_id=request_id)
        if path == NAME:
            await world.changes.append([updated()])
        return found

    world.store.read = overtaken  # type: ignore[method-assign] # a change that comes while it is on its way
    await world.lately.read(NAME)
    world.store.read = read  # type: ignore[method-assign]
    assert await world.asked(NAME) == 1


async def test_it_can_be_switched_off_and_is_bounded() -> None:
    world = await World(seconds=0).begin()
    assert [await world.asked(NAME) for _ in range(2)] == [1, 1]
    world = await World().begin()
    for number in range(MAX_CREDENTIALS + 5):
        world.memory.keep(f"organizations/acme/credentials/c{number}", Document(b"1", revision=1), world.memory.drops)
    assert len(world.memory._held) == MAX_CREDENTIALS
