"""Whoever may write the store but not open it moves and changes what is in it: nothing is leased by that, and it is
recorded. Ciphertexts and documents are put where they do not belong, cut, flipped and taken away."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from keyswitch.vault.v1 import credential_service_pb2 as credentials
from keyswitch.vault.v1 import lease_service_pb2 as leases

from tests.fakes.vault_server import VaultServer
from tests.security.promises import tried
from tests.service.vault_harness import ACME, ADA, KEY, MAIN, Client, Refused, Vault, refused, running_vault
from vault_service.store.embedded import EmbeddedStore
from vault_service.store.hashicorp import HashiCorpStore
from vault_service.store.store import Store
from vault_service.store.vault_settings import AppRoleFiles, VaultSettings

HARBOR = "organizations/harbor"
THEIRS = f"{HARBOR}/credentials/main"
SECOND = f"{ACME}/credentials/second"
OWN = f"{ADA}/credentials/own"
HARBORS_KEY = "sk-CANARY-harbor-0123456789abcdefghij"
OTHER_KEY = "sk-CANARY-other-0123456789abcdefghijk"
VERSION = f"{MAIN}/versions/1"
MATERIAL = f"{VERSION}/material"

Open = Callable[[], Awaitable[Store]]


@dataclass(frozen=True)
class Place:
    """A store that can be opened again, and who calls the service over it."""

    home: Path
    open: Open

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Vault]:
        """A service that has just started, and remembers nothing."""
        async with running_vault(self.home, store=await self.open()) as vault:
            yield vault

    async def put(self, path: str, value: bytes | None) -> bytes | None:
        """Writes as somebody who has the right to write; gives what stood there."""
        store = await self.open()
        try:
            before = await store.read(path)
            if value is None:
                await store.delete(path)
            else:
                await store.write(path, value, expected_revision=before.revision if before else 0)
            return before.value if before else None
        finally:
            await store.close()

    async def read(self, path: str) -> bytes:
        store = await self.open()
        try:
            found = await store.read(path)
            assert found is not None
            return found.value
        finally:
            await store.close()


async def furnish(place: Place) -> Client:
    """Two tenants with their keys, one of them with several; gives a member of the latter."""
    async with place.running() as vault:
        admin, ada = await vault.issue(ACME, "ADMIN"), await vault.issue(ACME, "MEMBER", user=ADA)
        await vault.ready(admin)
        await vault.add(admin, key=OTHER_KEY)
        await vault.ready(admin, SECOND, key=OTHER_KEY)
        await vault.ready(ada, OWN, key=OTHER_KEY)
        await vault.ready(await vault.issue(HARBOR, "ADMIN"), THEIRS, key=HARBORS_KEY)
        return ada


def flipped(value: bytes) -> bytes:
    return value[:-3] + bytes([value[-3] ^ 1]) + value[-2:]


async def materials(place: Place) -> dict[str, bytes | None]:
    """What is put in the place of the organization's sealed key, by how it is said."""
    own = await place.read(MATERIAL)
    return {
        "another tenant's ciphertext": await place.read(f"{THEIRS}/versions/1/material"),
        "a colleague's": await place.read(f"{OWN}/versions/1/material"),
        "another credential's": await place.read(f"{SECOND}/versions/1/material"),
        "another version's": await place.read(f"{MAIN}/versions/2/material"),
        "a flipped bit": flipped(own),
        "cut": own[: len(own) // 2],
        "nothing": b"",
        "a key in clear": OTHER_KEY.encode(),
        "taken away": None,
    }


async def documents(place: Place) -> dict[str, bytes | None]:
    """The same for the document of the credential, which is not secret."""
    return {
        "another tenant's document": await place.read(THEIRS),
        "a colleague's": await place.read(OWN),
        "another credential's": await place.read(SECOND),
        "no JSON": b"\xff{",
        "JSON of another shape": b"[1]",
        "cut": (await place.read(MAIN))[:40],
    }


async def take(vault: Vault, ada: Client) -> str:
    return vault.router.open(await vault.take(f"{MAIN}/versions/active", ada.token)).api_key


def lease_records(vault: Vault, before: int) -> list[dict[str, Any]]:
    lines = vault.audit_bytes().splitlines()[before:]
    return [one for one in map(json.loads, lines) if one["action"] == "AUDIT_ACTION_LEASE"]


async def check_refused(place: Place, ada: Client, reason: str) -> None:
    """The lease is refused without saying why, its record says that it failed, and nobody else's things are shown."""
    async with place.running() as vault:
        before = len(vault.audit_bytes().splitlines())
        refusal = await refused(vault.take(f"{MAIN}/versions/active", ada.token))
        assert refusal.reason == f"ERROR_REASON_{reason}"
        assert "CANARY" not in repr(refusal)
        assert "harbor" not in repr(refusal)
        intended, ended = lease_records(vault, before)
        assert intended["outcome"] == "AUDIT_OUTCOME_INTENDED"
        assert ended["outcome"] in {"AUDIT_OUTCOME_FAILED", "AUDIT_OUTCOME_DENIED"}
        assert ended["resource"] == f"{MAIN}/versions/active"
        await check_shown(vault, vault.operator.with_token(ada.token))


async def check_shown(vault: Vault, ada: Client) -> None:
    """What is read of the organization's credentials is theirs or refused."""
    list_leasable = leases.ListLeasableRequest(parent=ACME, caller_proof=ada.token)
    for caller, method, request in (
        (ada, ada.credentials.GetCredential, credentials.GetCredentialRequest(name=MAIN)),
        (ada, ada.credentials.ListCredentials, credentials.ListCredentialsRequest(parent=ACME)),
        (ada, ada.credentials.ListCredentialVersions, credentials.ListCredentialVersionsRequest(parent=MAIN)),
        (vault.lease, vault.lease.leases.ListLeasable, list_leasable),
    ):
        shown = ""
        with suppress(Refused):
            shown = str(await caller.call(method, request))
        assert "harbor" not in shown


async def check_all(place: Place) -> None:
    ada, tries = await furnish(place), 0
    for path, make in ((MATERIAL, materials), (MAIN, documents)):
        for how, value in (await make(place)).items():
            kept = await place.put(path, value)
            await check_refused(place, ada, "CREDENTIAL_DESTROYED" if how == "taken away" else "INTERNAL")
            await place.put(path, kept)
            async with place.running() as vault:
                assert await take(vault, ada) == KEY, how
            tries += 1
    tried(8, "ciphertexts and documents moved or changed by who may write the store, refused and recorded", ways=tries)


async def test_an_embedded_store_that_was_tampered_with_gives_nothing_away(tmp_path: Path) -> None:
    await check_all(Place(tmp_path, lambda: EmbeddedStore.open(tmp_path / "vault")))


@pytest.mark.vault
@pytest.mark.timeout(300)
async def test_a_vault_that_was_tampered_with_gives_nothing_away(own_vault_server: VaultServer, tmp_path: Path) -> None:
    files = AppRoleFiles(*own_vault_server.write_credentials(tmp_path))

    async def open_store() -> Store:
        return HashiCorpStore(VaultSettings(own_vault_server.url, files, ca_file=own_vault_server.ca_file))

    await check_all(Place(tmp_path, open_store))
