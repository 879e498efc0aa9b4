"""A move from the embedded store into Vault, proven document by document.

Values are opened here and sealed under Vault's keys; every other document goes over as it is; the tokens' signing key
is imported, so that no token becomes void. It may be repeated: what is there already is compared and not written.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass

from vault_service.audit.notary import WITNESSES
from vault_service.core.names import Owner
from vault_service.maintenance.materials import find_materials, list_tenants, material_of
from vault_service.store.embedded import EmbeddedStore
from vault_service.store.hashicorp import HashiCorpStore
from vault_service.store.store import Conflict, Store, StoreError


class NotTheSame(StoreError):
    """The target holds something else at a path of the source; the text names the path."""


@dataclass(slots=True)
class Migration:
    """What was done: counts of what was written and of what the comparison at the end found equal."""

    written_values: int = 0
    written_documents: int = 0
    verified_values: int = 0
    verified_documents: int = 0


async def migrate(source: EmbeddedStore, target: HashiCorpStore) -> Migration:
    """Copies everything, then reads everything back. Raises NotTheSame; the source is only read."""
    done = Migration()
    await _move_signing_key(source, target)
    values = await _values(source)
    async for path in _paths(source, ""):
        document = await source.read(path)
        if document is None:
            continue
        if (version := values.get(path)) is not None:
            done.written_values += await _copy_value(source, target, version, path)
        else:
            done.written_documents += await _write_once(target, path, document.value)
    await _verify(source, target, values, done)
    return done


async def _move_signing_key(source: EmbeddedStore, target: HashiCorpStore) -> None:
    try:
        await target.import_signing_key(await source.export_signing_key())
    except Conflict:
        known = {key.key_id for key in await target.signing_keys()}
        if {key.key_id for key in await source.signing_keys()} - known:
            raise NotTheSame(
                "Vault has a signing key of its own already, so every token would become void; "
                "use a fresh transit mount"
            ) from None


async def _values(source: Store) -> dict[str, tuple[Owner, str]]:
    found: dict[str, tuple[Owner, str]] = {}
    for tenant in await list_tenants(source):
        async for version in find_materials(source, tenant):
            found[material_of(version)] = (tenant, version)
    return found


async def _paths(store: Store, folder: str) -> AsyncIterator[str]:
    for name in await store.list(folder):
        path = f"{folder}/{name}".removeprefix("/")
        if path.endswith("/"):
            async for below in _paths(store, path.removesuffix("/")):
                yield below
        else:
            yield path


async def _copy_value(source: Store, target: Store, value: tuple[Owner, str], path: str) -> int:
    if await target.read(path) is not None:
        return 0  # of an earlier run; the comparison at the end opens it
    tenant, version = value
    await target.write(
        path,
        await target.seal(str(tenant), await _open(source, value, path), context=version),
        expected_revision=0,
    )
    return 1


async def _write_once(target: Store, path: str, value: bytes) -> int:
    if await target.read(path) is not None:
        return 0
    await target.write(path, value, expected_revision=0)
    return 1


async def _verify(source: Store, target: Store, values: dict[str, tuple[Owner, str]], done: Migration) -> None:
    async for path in _paths(source, ""):
        value = values.get(path)
        if value is not None:
            is_same = await _open(source, value, path) == await _open(target, value, path)
            done.verified_values += 1
        else:
            before, after = await source.read(path), await target.read(path)
            is_same = before is not None and after is not None and _agree(path, before.value, after.value)
            done.verified_documents += 1
        if not is_same:
            raise NotTheSame(f"{path} is not the same in Vault; empty the mount, or keep to what it holds")


def _agree(path: str, before: bytes, after: bytes) -> bool:
    """The copy of a chain's newest checkpoint goes on with its chain, which is held against it at each start."""
    return before == after or path.startswith(WITNESSES)


async def _open(store: Store, value: tuple[Owner, str], path: str) -> bytes:
    tenant, version = value
    document = await store.read(path)
    if document is None:
        raise NotTheSame(f"{path} is gone; does a service still run over this store?")
    return await store.unseal(str(tenant), document.value, context=version)
