"""What maintenance does to a store's keys, and what must hold of it in every store."""

from abc import abstractmethod

import pytest

from tests.suites.credential_store import Harness
from vault_service.core.names import Owner
from vault_service.maintenance.rotation import rotate_tenant
from vault_service.store.store import MaintainedStore, Unsealable


class KeyMaintenanceSuite:
    """Inherit it, and give a `harness`, and the `store` in it with the rights of maintenance."""

    @pytest.fixture
    @abstractmethod
    def store(self, harness: Harness) -> MaintainedStore:
        """The store, with the rights of maintenance."""

    async def test_a_rotated_key_seals_anew_and_still_opens_what_was(
        self, harness: Harness, store: MaintainedStore
    ) -> None:
        before = await store.seal(harness.tenant, b"secret", context="c")
        for _ in range(3):
            await store.rotate_key(harness.tenant)
        after = await store.seal(harness.tenant, b"secret", context="c")
        for sealed in (before, after):
            assert await store.unseal(harness.tenant, sealed, context="c") == b"secret"
            with pytest.raises(Unsealable):
                await store.unseal(harness.tenant, sealed, context="d")

    async def test_a_retired_key_opens_nothing(self, harness: Harness, store: MaintainedStore) -> None:
        before = await store.seal(harness.tenant, b"secret", context="c")
        await store.rotate_key(harness.tenant)
        after = await store.seal(harness.tenant, b"secret", context="c")
        await store.retire_old_keys(harness.tenant)
        assert await store.unseal(harness.tenant, after, context="c") == b"secret"
        with pytest.raises(Unsealable):
            await store.unseal(harness.tenant, before, context="c")
        await store.retire_old_keys(harness.tenant)
        assert await store.unseal(harness.tenant, after, context="c") == b"secret"

    async def test_a_shredded_tenant_is_lost_and_no_other(self, harness: Harness, store: MaintainedStore) -> None:
        neighbour = f"{harness.tenant}-x"
        mine = await store.seal(harness.tenant, b"secret", context="c")
        theirs = await store.seal(neighbour, b"secret", context="c")
        await store.rotate_key(harness.tenant)
        newer = await store.seal(harness.tenant, b"secret", context="c")
        for _ in range(2):
            await store.shred_key(harness.tenant)
            for sealed in (mine, newer):
                with pytest.raises(Unsealable):
                    await store.unseal(harness.tenant, sealed, context="c")
        assert await store.unseal(neighbour, theirs, context="c") == b"secret"
        again = await store.seal(harness.tenant, b"another", context="c")
        assert await store.unseal(harness.tenant, again, context="c") == b"another"
        with pytest.raises(Unsealable):
            await store.unseal(harness.tenant, mine, context="c")

    async def test_a_tenant_without_a_key_has_nothing_to_rotate(self, harness: Harness, store: MaintainedStore) -> None:
        with pytest.raises(Unsealable):
            await store.rotate_key(harness.tenant)
        await store.retire_old_keys(harness.tenant)

    async def test_everything_of_a_tenant_goes_under_the_new_key(
        self, harness: Harness, store: MaintainedStore
    ) -> None:
        versions = [
            f"{harness.tenant}/credentials/main/versions/1",
            f"{harness.tenant}/credentials/main/versions/2",
            f"{harness.tenant}/users/ada/credentials/own/versions/1",
        ]
        sealed = {}
        for version in versions:
            sealed[version] = await store.seal(harness.tenant, version.encode(), context=version)
            await store.write(f"{version}/material", sealed[version], expected_revision=0)
        await store.write(f"{harness.tenant}/credentials/main", b"{}", expected_revision=0)
        done = await rotate_tenant(store, Owner(harness.organization))
        assert (done.resealed, done.had_key) == (3, True)
        for version in versions:
            document = await store.read(f"{version}/material")
            assert document is not None
            assert document.value != sealed[version]
            assert await store.unseal(harness.tenant, document.value, context=version) == version.encode()
            with pytest.raises(Unsealable):
                await store.unseal(harness.tenant, sealed[version], context=version)
        assert not (await rotate_tenant(store, Owner(f"{harness.organization}-none"))).had_key

    async def test_what_was_moved_stops_a_rotation_before_anything_is_retired(
        self, harness: Harness, store: MaintainedStore
    ) -> None:
        sealed = await store.seal(harness.tenant, b"secret", context="another")
        path = f"{harness.tenant}/credentials/main/versions/1/material"
        await store.write(path, sealed, expected_revision=0)
        with pytest.raises(Unsealable):
            await rotate_tenant(store, Owner(harness.organization))
        assert await store.unseal(harness.tenant, sealed, context="another") == b"secret"
