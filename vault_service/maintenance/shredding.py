"""The end of a tenant: everything revoked and destroyed, and then the key, so that no backup gives anything back."""

from dataclasses import dataclass

from vault_service.core.changes import ChangeLog
from vault_service.core.credentials import Credentials, Revocation
from vault_service.core.names import Owner
from vault_service.maintenance.materials import find_materials, list_owners, material_of
from vault_service.store.store import MaintainedStore


@dataclass(frozen=True, slots=True)
class Shredding:
    """What was done."""

    tenant: Owner
    deleted_credentials: int
    destroyed_values: int


async def shred_tenant(
    store: MaintainedStore, credentials: Credentials, changes: ChangeLog, tenant: Owner
) -> Shredding:
    """Shreds; may be repeated after a failure. Routers are told first, and streams on the tenant's keys are cut."""
    await changes.refresh()
    how = Revocation(kill_in_flight=True)
    await credentials.revoke_all(tenant, how)
    deleted = destroyed = 0
    for owner in await list_owners(store, tenant):
        for credential in await credentials.list_owned(owner):
            destroyed += sum(version.destroy_time is None for version in credential.versions)
            await credentials.delete(credential.name, how=how)
            deleted += 1
    async for version in find_materials(store, tenant):  # bytes whose document was lost in a crash
        await store.delete(material_of(version))
        destroyed += 1
    await store.shred_key(str(tenant))
    return Shredding(tenant, deleted, destroyed)
