"""Promise 10: whatever fails meanwhile, each revision has one successor, and nothing acknowledged is lost."""

import asyncio
import random
import uuid
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import pytest

from tests.fakes.vault_server import VaultServer
from tests.security.promises import count, tried
from tests.suites.linearizability import End, History
from vault_service.store.embedded import EmbeddedStore
from vault_service.store.hashicorp import HashiCorpStore
from vault_service.store.memory import MemoryStore
from vault_service.store.store import Conflict, Store, StoreError, Unavailable
from vault_service.store.vault_settings import AppRoleFiles, VaultSettings

WRITERS = 64
DOCUMENTS = 4
FAULTS = 0.15
READS = 0.4


class Instance:
    """A store as one credential service has it: it fails before or after it acts, and may be killed and come back."""

    def __init__(self, open_store: Callable[[], Awaitable[Store]], chance: random.Random) -> None:
        self._open = open_store
        self._chance = chance
        self._store: Store | None = None
        self.faults = 0
        self.kills = 0

    async def start(self) -> None:
        self._store = await self._open()

    async def kill(self) -> None:
        """Ends it under its callers, whose answers are lost; and starts it again."""
        store, self._store = self._store, None
        self.kills += 1
        if store is not None:
            await store.close()
        await self.start()

    async def close(self) -> None:
        if self._store is not None:
            await self._store.close()

    async def read(self, path: str) -> tuple[int, bytes]:
        await self._maybe_fail()
        found = await self._living().read(path)
        return (found.revision, found.value) if found else (0, b"")

    async def write(self, path: str, value: bytes, expected: int) -> int:
        await self._maybe_fail()
        revision = await self._living().write(path, value, expected_revision=expected)
        await self._maybe_fail()  # written, and the answer is lost
        return revision

    def _living(self) -> Store:
        if self._store is None:
            raise Unavailable("killed")
        return self._store

    async def _maybe_fail(self) -> None:
        await asyncio.sleep(0)
        if self._chance.random() < FAULTS:
            self.faults += 1
            raise Unavailable("a fault of the test")


async def write_on(
    instances: Sequence[Instance], paths: Sequence[str], history: History, rounds: int, seed: int
) -> None:
    """One writer: reads, changes, writes over what it read, over whichever instance; it notes all that it sees."""
    chance = random.Random(seed)
    for number in range(rounds):
        path = chance.choice(paths)
        reading = history.begin(path)
        try:
            revision, value = await chance.choice(instances).read(path)
        except StoreError:
            await asyncio.sleep(0.005)  # as a caller would: what was killed takes a moment to come back
            continue  # a read that failed has seen nothing
        history.end(reading, End.DONE, revision=revision, value=value)
        if chance.random() < READS:
            continue
        mine = f"{seed}-{number}".encode()
        writing = history.begin(path, expected=revision, value=mine)
        try:
            made = await chance.choice(instances).write(path, mine, revision)
        except Conflict:
            history.end(writing, End.CONFLICT)
        except StoreError:
            history.end(writing, End.UNKNOWN)
        else:
            history.end(writing, End.DONE, revision=made)


async def kill_on(
    instances: Sequence[Instance], times: int, chance: random.Random, history: History, expected_operations: int
) -> None:
    """Kills one or the other, spread over all the work."""
    for number in range(times):
        while len(history.operations) < expected_operations * (number + 0.5) / (times + 1):
            await asyncio.sleep(0.002)
        await chance.choice(instances).kill()


async def contend(instances: Sequence[Instance], name: str, *, rounds: int, kills: int) -> None:
    """Lets the writers loose, checks the history, and counts."""
    chance, history = random.Random(3), History()
    organization = f"organizations/c-{uuid.uuid4().hex[:8]}"
    paths = [f"{organization}/d{number}" for number in range(DOCUMENTS)]
    for instance in instances:
        await instance.start()
    try:
        writers = [asyncio.create_task(write_on(instances, paths, history, rounds, seed)) for seed in range(WRITERS)]
        await asyncio.gather(*writers, kill_on(instances, kills, chance, history, WRITERS * rounds))
        last = await read_last(instances[0], paths, history)
    finally:
        for instance in instances:
            await instance.close()
    assert history.problems() == []
    writes = [one for one in history.operations if one.is_write]
    ends = {how: sum(one.how is how for one in writes) for how in End}
    assert min(ends.values()) > 0, "each kind of end was there"
    kept = sum(last.values())
    assert ends[End.DONE] <= kept <= ends[End.DONE] + ends[End.UNKNOWN]
    tried(
        10,
        f"{WRITERS} writers with faults, {name}",
        operations=len(history.operations),
        acknowledged=ends[End.DONE],
        refused=ends[End.CONFLICT],
        answers_lost=ends[End.UNKNOWN],
        faults=sum(instance.faults for instance in instances),
        kills=sum(instance.kills for instance in instances),
        lost_updates=0,
    )


async def read_last(instance: Instance, paths: Sequence[str], history: History) -> dict[str, int]:
    """What is there when all is over: read until the faults let it through, and part of the history."""
    last: dict[str, int] = {}
    while len(last) < len(paths):
        path = paths[len(last)]
        reading = history.begin(path)
        try:
            revision, value = await instance.read(path)
        except StoreError:
            continue
        history.end(reading, End.DONE, revision=revision, value=value)
        last[path] = revision
    return last


async def test_writers_over_the_memory_store() -> None:
    store = MemoryStore()

    async def open_store() -> Store:
        return store

    await contend([Instance(open_store, random.Random(1))], "memory store", rounds=count(30, 300), kills=0)


async def test_writers_over_the_embedded_store(tmp_path: Path) -> None:
    async def open_store() -> Store:
        return await EmbeddedStore.open(tmp_path / "store")

    instance = Instance(open_store, random.Random(1))
    name = "embedded store, closed and opened again"
    await contend([instance], name, rounds=count(30, 300), kills=count(4, 40))


@pytest.mark.vault
async def test_writers_over_two_instances_and_one_vault(vault_server: VaultServer, tmp_path: Path) -> None:
    def instance(number: int) -> Instance:
        folder = tmp_path / str(number)
        folder.mkdir()

        async def open_store() -> Store:
            for file in folder.iterdir():
                file.unlink()
            files = AppRoleFiles(*vault_server.write_credentials(folder))
            return HashiCorpStore(VaultSettings(vault_server.url, files))

        return Instance(open_store, random.Random(number))

    await contend(
        [instance(0), instance(1)], "two instances over a real Vault", rounds=count(20, 100), kills=count(4, 40)
    )


# --- the check itself ------------------------------------------------------------------------------------------------


class Lax(MemoryStore):
    """A store that compares first and sets later: two writers may both be told that they were first."""

    async def write(self, path: str, value: bytes, *, expected_revision: int, request_id: str = "") -> int:
        found = await self.read(path)
        revision = found.revision if found else 0
        await asyncio.sleep(0)
        if revision != expected_revision:
            raise Conflict("another one came first")
        current = await self.read(path)
        await super().write(path, value, expected_revision=current.revision if current else 0)
        return expected_revision + 1


async def test_a_store_that_loses_updates_is_found_out() -> None:
    store, history = Lax(), History()

    async def open_store() -> Store:
        return store

    instance = Instance(open_store, random.Random(1))
    await instance.start()
    await asyncio.gather(*(write_on([instance], ["a"], history, 4, seed) for seed in range(8)))
    assert any("two successors" in problem for problem in history.problems())


def history_of(*operations: tuple[int, int, int | None, bytes, End, int]) -> list[str]:
    """(begin, end, expected, value, how, revision) of each operation."""
    history = History()
    for begin, end, expected, value, how, revision in operations:
        made = history.begin("p", expected=expected, value=value)
        made.begin, made.end, made.how, made.revision = begin, end, how, revision
    return history.problems()


@pytest.mark.parametrize(
    ("operations", "problem"),
    [
        ([(0, 1, 0, b"a", End.DONE, 1), (2, 3, None, b"", End.DONE, 0)], "after 1 was known"),
        ([(0, 1, 0, b"a", End.DONE, 1), (2, 3, None, b"b", End.DONE, 1)], "nobody had written"),
        ([(0, 1, 0, b"a", End.CONFLICT, 0)], "no other came first"),
        ([(0, 1, 0, b"a", End.DONE, 2)], "a write over 0 made 2"),
        ([(0, 1, None, b"a", End.DONE, 1), (2, 3, 0, b"a", End.UNKNOWN, 0)], "nobody had written"),
    ],
)
def test_what_no_order_explains_is_found(
    operations: list[tuple[int, int, int | None, bytes, End, int]], problem: str
) -> None:
    assert any(problem in found for found in history_of(*operations))


def test_a_lost_answer_may_have_been_a_write_or_not() -> None:
    lost = (0, 9, 0, b"a", End.UNKNOWN, 0)
    assert history_of(lost, (1, 2, None, b"a", End.DONE, 1)) == []
    assert history_of(lost, (1, 2, None, b"", End.DONE, 0), (3, 4, 0, b"b", End.DONE, 1)) == []
