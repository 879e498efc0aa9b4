"""Where the sealed bytes of a tenant are, found by listing the store: also those that no document names any longer."""

from collections.abc import AsyncIterator, Sequence

from vault_service.core.fixed import memory_name, memory_path
from vault_service.core.names import CredentialName, Owner
from vault_service.store.store import Store


async def list_tenants(store: Store) -> Sequence[Owner]:
    """Gives the deployment and every organization that has documents."""
    organizations = await _folders(store, "organizations")
    return (Owner(), *(Owner(organization) for organization in organizations))


async def list_owners(store: Store, tenant: Owner) -> Sequence[Owner]:
    """Gives the tenant and, of an organization, its users."""
    if tenant.is_deployment:
        return (tenant,)
    return (tenant, *(Owner(tenant.organization, user) for user in await _folders(store, f"{tenant}/users")))


async def find_materials(store: Store, tenant: Owner) -> AsyncIterator[str]:
    """Gives the names of versions, which are what their bytes are sealed for; `material_of` says where those stand.

    Beside them that of what was taken from the environment, which is sealed like a version (core/fixed.py).
    """
    for owner in await list_owners(store, tenant):
        for credential in await _folders(store, f"{owner}/credentials"):
            folder = f"{owner}/credentials/{credential}/versions"
            for number in await _folders(store, folder):
                yield f"{folder}/{number}"
            name = CredentialName(owner, credential)
            if owner.is_deployment and await store.read(memory_path(name)) is not None:
                yield memory_name(name)


def material_of(version: str) -> str:
    """Gives the path of a version's bytes."""
    return f"{version}/material"


async def _folders(store: Store, prefix: str) -> Sequence[str]:
    return [name.removesuffix("/") for name in await store.list(prefix) if name.endswith("/")]
