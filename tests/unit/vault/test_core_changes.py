"""The change log: gapless, bounded, and never silent about what a reader missed."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vault_service.core.changes import (
    MAX_CHANGES,
    PATH,
    ChangeLog,
    CredentialUpdated,
    Log,
    OwnerRevoked,
    PolicyUpdated,
    TokenRevoked,
    What,
    _decode,
    _encode,
)
from vault_service.store.memory import MemoryStore
from vault_service.store.store import Document, StoreError, Unavailable

UPDATE = CredentialUpdated("UPDATED", "deployment/credentials/a", "providers/p")
WHATS: list[What] = [
    CredentialUpdated("ACTIVATED", "deployment/credentials/a", "providers/p", "v/1", "v/1", True),
    OwnerRevoked("organizations/acme", True),
    TokenRevoked("t", 100.0),
    PolicyUpdated("deployment"),
]


class Clock:
    now = 10.0

    def __call__(self) -> float:
        return self.now


def make(store: MemoryStore | None = None, clock: Clock | None = None) -> ChangeLog:
    clock = clock or Clock()
    return ChangeLog(store or MemoryStore(), clock=clock, monotonic=clock, fresh_seconds=1.0)


def test_the_document_keeps_every_kind() -> None:
    log = Log().appended(WHATS, 5.0)
    assert _decode(_encode(log)) == log


@given(st.lists(st.integers(1, 40), max_size=30), st.integers(0, 700))
def test_a_reader_gets_everything_after_its_revision_or_a_reset(sizes: list[int], after: int) -> None:
    log = Log()
    for size in sizes:
        log = log.appended([UPDATE] * size, 1.0)
    assert log.revision == sum(sizes)
    assert len(log.changes) <= MAX_CHANGES
    is_reset, changes = log.since(after, 1.0, is_first=True)
    if is_reset:
        assert after == 0 or after > log.revision or after < log.revision - MAX_CHANGES
        assert not changes
    else:
        assert [change.revision for change in changes] == list(range(after + 1, log.revision + 1))


def test_unexpired_token_revocations_outlive_the_bound_and_come_with_a_reset() -> None:
    log = Log().appended([TokenRevoked("early", 50.0), TokenRevoked("late", 500.0)], 1.0)
    log = log.appended([UPDATE] * (MAX_CHANGES + 10), 2.0)
    is_reset, changes = log.since(1, 60.0, is_first=True)
    assert is_reset
    assert [change.what for change in changes] == [TokenRevoked("late", 500.0)]
    assert set(log.appended([UPDATE], 60.0).revoked) == {"late"}


def test_zero_is_nothing_seen_only_in_the_first_message() -> None:
    log = Log().appended([UPDATE], 1.0)
    assert log.since(0, 1.0, is_first=True)[0]
    is_reset, changes = log.since(0, 1.0, is_first=False)
    assert not is_reset
    assert [change.revision for change in changes] == [1]


async def test_writers_in_several_instances_leave_no_gap() -> None:
    class Yielding(MemoryStore):
        async def read(self, path: str, *, request_id: str = "") -> Document | None:
            document = await super().read(path)
            await asyncio.sleep(0)
            return document

    store = Yielding()
    logs = [make(store) for _ in range(4)]
    await asyncio.gather(*(log.append([UPDATE]) for log in logs for _ in range(8)))
    await asyncio.gather(*(log.refresh() for log in logs))
    for log in logs:
        assert log.revision == 32
        assert [change.revision for change in log.since(1, is_first=True)[1]] == list(range(2, 33))


async def test_another_instance_sees_it_after_a_refresh_and_wakes_its_readers() -> None:
    store = MemoryStore()
    one, other = make(store), make(store)
    waiting = asyncio.create_task(other.wait_beyond(0, 10))
    await asyncio.sleep(0)
    await one.append([TokenRevoked("t", 100.0)])
    assert not other.is_revoked("t")
    await other.refresh()
    await waiting
    assert other.is_revoked("t")


async def test_it_is_fresh_as_long_as_it_was_read_lately() -> None:
    clock = Clock()
    log = make(clock=clock)
    states = [(log.is_fresh, log.is_loaded)]
    await log.refresh()
    states.append((log.is_fresh, log.is_loaded))
    clock.now += 1.5
    states.append((log.is_fresh, log.is_loaded))
    assert states == [(False, False), (True, True), (False, True)]


async def test_polling_survives_a_store_that_is_away() -> None:
    class Away(MemoryStore):
        failures = 2

        async def read(self, path: str, *, request_id: str = "") -> Document | None:
            if self.failures:
                self.failures -= 1
                raise Unavailable("away")
            return await super().read(path)

    seen: list[str] = []
    log = make(Away())
    polling = asyncio.create_task(
        log.poll(0, lambda error: seen.append(type(error).__name__), lambda: seen.append("read"))
    )
    while "read" not in seen:
        await asyncio.sleep(0)
    polling.cancel()
    assert seen == ["Unavailable", "Unavailable", "read"]
    assert log.is_loaded


async def test_closing_wakes_readers() -> None:
    log = make()
    waiting = asyncio.create_task(log.wait_beyond(0, 60))
    await asyncio.sleep(0)
    await log.close()
    async with asyncio.timeout(60):
        await waiting
    assert log.is_closed


async def test_a_log_that_went_back_does_not_count_as_read() -> None:
    store, clock = MemoryStore(), Clock()
    log = make(store, clock)
    await log.append([UPDATE])
    await log.refresh()
    await store.delete(PATH)
    clock.now += 1.5
    with pytest.raises(Unavailable):
        await log.refresh()
    assert not log.is_fresh
    assert log.revision == 1


@pytest.mark.parametrize(
    "value",
    [b"", b"x", b"{}", b"[" * 5000, b'{"revision":1,"changes":[{}],"revoked":[]}', b'{"revision":1,"changes":3}'],
)
async def test_what_is_no_log_is_an_error_of_the_store(value: bytes) -> None:
    """Polling goes on after one, and until then the log is not fresh."""
    store = MemoryStore(clock=Clock())
    await store.write(PATH, value, expected_revision=0)
    log = make(store)
    with pytest.raises(StoreError):
        await log.refresh()
    assert not log.is_loaded
