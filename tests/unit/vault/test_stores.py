"""The suite of credential stores, over the two that need no server."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.suites.credential_store import CredentialStoreSuite, Harness, PersistentStoreSuite
from tests.suites.key_maintenance import KeyMaintenanceSuite
from vault_service.store.embedded import EmbeddedStore
from vault_service.store.memory import MemoryStore
from vault_service.store.store import MaintainedStore, Store


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
