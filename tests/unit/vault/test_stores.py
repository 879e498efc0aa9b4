"""The suite of credential stores, over the two that need no server."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.suites.credential_store import CredentialStoreSuite, Harness, PersistentStoreSuite
from tests.suites.key_maintenance import KeyMaintenanceSuite
from vault_service.store.embedded import EmbeddedStore
from vault_service.store.memory import MemoryStore
from vault_service.store.store import MaintainedStore, Purpose, Store


class TestMemoryStore(CredentialStoreSuite, KeyMaintenanceSuite):
    @pytest.fixture
    def store(self, harness: Harness) -> MaintainedStore:
        assert isinstance(harness.store, MemoryStore)
        return harness.store

    @pytest.fixture
    def harness(self) -> Harness:
        store = MemoryStore()

        async def same() -> Store:
            return store

        async def read_all() -> bytes:
            return b"".join(document.value for document in store._documents.values())

        return Harness(store, same, read_all)


class TestEmbeddedStore(PersistentStoreSuite, KeyMaintenanceSuite):
    @pytest.fixture
    def store(self, harness: Harness) -> MaintainedStore:
        assert isinstance(harness.store, EmbeddedStore)
        return harness.store

    @pytest.fixture
    async def harness(self, tmp_path: Path) -> AsyncIterator[Harness]:
        folder = tmp_path / "store"

        async def open_again() -> Store:
            return await EmbeddedStore.open(folder)

        async def read_all() -> bytes:
            return b"".join(file.read_bytes() for file in sorted(folder.iterdir()))

        store = await EmbeddedStore.open(folder)
        yield Harness(store, open_again, read_all)
        await store.close()


@pytest.mark.parametrize("kind", ["memory", "embedded"])
async def test_a_rotated_key_signs_and_the_old_one_stays_readable(kind: str, tmp_path: Path) -> None:
    store: Store = MemoryStore() if kind == "memory" else await EmbeddedStore.open(tmp_path)
    old_id, _ = await store.sign(b"x", purpose=Purpose.AUDIT)
    await store.rotate_signing_key(purpose=Purpose.AUDIT)
    new_id, _ = await store.sign(b"x", purpose=Purpose.AUDIT)
    assert [key.key_id for key in await store.signing_keys(purpose=Purpose.AUDIT)] == [new_id, old_id]
    assert len(await store.signing_keys()) == 1
    await store.close()
