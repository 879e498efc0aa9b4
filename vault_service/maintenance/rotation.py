"""A new version of a tenant's key, and everything of the tenant under it.

Vault's `rewrap` would not show the plaintext to anybody, but it knows no associated data (Vault 1.21), and that is what
binds a ciphertext to its credential. So each value is opened and sealed again, in this process alone.
"""

from dataclasses import dataclass

from vault_service.core.names import Owner
from vault_service.maintenance.materials import find_materials, material_of
from vault_service.store.store import Conflict, MaintainedStore, Unsealable


@dataclass(frozen=True, slots=True)
class Rotation:
    """What was done. A tenant without a key has nothing to rotate."""

    tenant: Owner
    resealed: int
    had_key: bool


async def rotate_tenant(store: MaintainedStore, tenant: Owner) -> Rotation:
    """Rotates. A service may run meanwhile where the store allows it: what it seals is under the new version already.

    Raises Unsealable, before anything is retired, where a value does not open: it was moved or changed.
    """
    try:
        await store.rotate_key(str(tenant))
    except Unsealable:
        return Rotation(tenant, 0, had_key=False)
    resealed = 0
    async for version in find_materials(store, tenant):
        resealed += await _reseal(store, tenant, version)
    await store.retire_old_keys(str(tenant))
    return Rotation(tenant, resealed, had_key=True)


async def _reseal(store: MaintainedStore, tenant: Owner, version: str) -> int:
    path = material_of(version)
    document = await store.read(path)
    if document is None:
        return 0  # destroyed meanwhile
    plaintext = await store.unseal(str(tenant), document.value, context=version)
    sealed = await store.seal(str(tenant), plaintext, context=version)
    try:
        await store.write(path, sealed, expected_revision=document.revision)
    except Conflict:
        # Bytes of a version are written once; only another rotation or a deletion can have come in between.
        return await _reseal(store, tenant, version)
    return 1
