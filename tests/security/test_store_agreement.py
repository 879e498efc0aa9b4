"""The stores against each other: whatever is done to all of them, they answer the same."""

import random
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.openbao_server import openbao_binary, running_openbao
from tests.fakes.vault_server import MAINTENANCE, VaultServer
from tests.security.promises import count, tried
from vault_service.store.embedded import EmbeddedStore
from vault_service.store.hashicorp import HashiCorpStore
from vault_service.store.memory import MemoryStore
from vault_service.store.store import MaintainedStore, StoreError
from vault_service.store.vault_settings import AppRoleFiles, VaultSettings

__all__ = ["openbao_binary"]

TENANTS, NAMES, CONTEXTS = 2, ("a", "b/c", "b/d"), ("one", "two")


class Session:
    """One store, and what it gave that later steps need: sealed bytes by number."""

    def __init__(self, store: MaintainedStore) -> None:
        self.store = store
        self.sealed: list[bytes] = []

    async def do(self, step: dict[str, Any]) -> Any:
        """Gives what can be compared: a value, or the kind of the error."""
        store, tenant = self.store, step["tenant"]
        path = f"{tenant}/{step['name']}"
        try:
            match step["kind"]:
                case "read":
                    found = await store.read(path)
                    return None if found is None else (found.value, found.revision)
                case "write":
                    return await store.write(path, step["value"], expected_revision=step["revision"])
                case "delete":
                    return await store.delete(path)
                case "list":
                    return tuple(await store.list(tenant))
                case "seal":
                    self.sealed.append(await store.seal(tenant, step["value"], context=step["context"]))
                    return None
                case "unseal" if self.sealed:
                    one = self.sealed[step["index"] % len(self.sealed)]
                    return await store.unseal(tenant, one, context=step["context"])
                case "damage" if self.sealed:
                    one = bytearray(self.sealed[step["index"] % len(self.sealed)])
                    one[-3] ^= 1
                    return await store.unseal(tenant, bytes(one), context=step["context"])
                case "rotate":
                    return await store.rotate_key(tenant)
                case "retire":
                    return await store.retire_old_keys(tenant)
                case "shred":
                    return await store.shred_key(tenant)
                case _:
                    return "nothing to do"
        except StoreError as error:
            return type(error).__name__


def draw(chance: random.Random, tenants: list[str]) -> dict[str, Any]:
    """A step. What shreds is rare, so that there is something to open most of the time."""
    kinds = [
        "read",
        "write",
        "write",
        "delete",
        "list",
        "seal",
        "seal",
        "unseal",
        "unseal",
        "damage",
        "rotate",
        "retire",
    ]
    return {
        "kind": chance.choice([*kinds * 4, "shred"]),
        "tenant": chance.choice(tenants),
        "name": chance.choice(NAMES),
        "value": chance.randbytes(chance.choice((0, 1, 40, 3000))),
        "revision": chance.choice((0, 0, 1, 1, 2, 3)),
        "context": chance.choice(CONTEXTS),
        "index": chance.randrange(1000),
    }


def over_server(server: VaultServer, folder: Path) -> MaintainedStore:
    files = AppRoleFiles(*server.write_credentials(folder, MAINTENANCE))
    return HashiCorpStore(VaultSettings(server.url, files, namespace=server.namespace))


async def agree(stores: Sequence[MaintainedStore], steps: int) -> None:
    """Does the same steps of chance to all of them; every answer must be that of the others."""
    chance = random.Random(11)
    run = uuid.uuid4().hex[:8]
    sessions: list[Session] = []
    tenants: list[str] = []
    for number in range(steps):
        if number % 150 == 0:  # new tenants, where nothing stands yet
            sessions = [Session(store) for store in stores]
            tenants = [f"organizations/s-{run}-{number}-{one}" for one in range(TENANTS)]
        step = draw(chance, tenants)
        found = [await session.do(step) for session in sessions]
        assert found == found[:1] * len(found), f"step {number} {step['kind']}: {found}"


@asynccontextmanager
async def closing(*stores: MaintainedStore) -> AsyncIterator[Sequence[MaintainedStore]]:
    try:
        yield stores
    finally:
        for store in stores:
            await store.close()


@pytest.mark.vault
async def test_the_stores_agree_on_random_steps(vault_server: VaultServer, tmp_path: Path) -> None:
    embedded = await EmbeddedStore.open(tmp_path / "store")
    steps = count(300, 6000)
    async with closing(MemoryStore(), embedded, over_server(vault_server, tmp_path)) as stores:
        await agree(stores, steps)
    tried(20, "random steps on memory, embedded and a real Vault, answered the same", steps=steps, stores=3)


async def test_openbao_and_its_namespaces_agree_with_the_memory_store(openbao_binary: str, tmp_path: Path) -> None:
    steps = count(300, 3000)
    with running_openbao(openbao_binary) as root, running_openbao(openbao_binary, "team/part") as team:
        for folder in ("root", "team"):
            (tmp_path / folder).mkdir()
        over = over_server(root, tmp_path / "root"), over_server(team, tmp_path / "team")
        async with closing(MemoryStore(), *over) as stores:
            await agree(stores, steps)
    tried(20, "random steps on memory and a real OpenBao, in its root and in a namespace", steps=steps, stores=3)
