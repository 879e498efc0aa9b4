"""Two credential services over one real Vault server: what one remembers does not outlive what is done at the other."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from keyswitch.vault.v1 import credential_service_pb2 as messages

from tests.fakes.vault_server import VaultServer
from tests.security.promises import is_thorough, tried
from tests.service.vault_harness import ACME, ADA, MAIN, Client, Refused, Vault, running_vault
from vault_service.store.hashicorp import HashiCorpStore
from vault_service.store.vault_settings import AppRoleFiles, VaultSettings

pytestmark = [pytest.mark.vault, pytest.mark.timeout(300)]

BOUND_SECONDS = 2.0 if is_thorough() else 20.0
ACTIVE = f"{MAIN}/versions/active"
REVOCATIONS: dict[str, Any] = {
    "DisableCredential": messages.DisableCredentialRequest(name=MAIN),
    "DisableCredentialVersion": messages.DisableCredentialVersionRequest(name=f"{MAIN}/versions/1"),
    "DestroyCredentialVersion": messages.DestroyCredentialVersionRequest(name=f"{MAIN}/versions/1"),
    "DeleteCredential": messages.DeleteCredentialRequest(name=MAIN),
    "RevokeAllCredentials": messages.RevokeAllCredentialsRequest(
        parent=ACME, revocation=messages.Revocation(kill_in_flight=True, deny_locally=True)
    ),
}

# What the other service knows first of it: that it happened, or what it left.
REASONS = {
    "DisableCredential": {"CREDENTIAL_DISABLED"},
    "DisableCredentialVersion": {"CREDENTIAL_DISABLED", "VERSION_NOT_ACTIVE"},
    "DestroyCredentialVersion": {"CREDENTIAL_DISABLED", "VERSION_NOT_ACTIVE", "CREDENTIAL_DESTROYED"},
    "DeleteCredential": {"CREDENTIAL_DISABLED", "CREDENTIAL_DELETED", "CREDENTIAL_DESTROYED"},
    "RevokeAllCredentials": {"CREDENTIAL_DISABLED"},
}


def open_store(server: VaultServer, folder: Path) -> HashiCorpStore:
    folder.mkdir()
    files = AppRoleFiles(*server.write_credentials(folder))
    return HashiCorpStore(VaultSettings(server.url, files, ca_file=server.ca_file))


@pytest.fixture
async def pair(own_vault_server: VaultServer, tmp_path: Path) -> AsyncIterator[tuple[Vault, Vault, Client, str]]:
    """Where things are changed, where they are leased, an administrator, and a member's token."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir(mode=0o700)
    first = open_store(own_vault_server, tmp_path / "s0")
    async with running_vault(tmp_path / "a", store=first, chain="vault-0") as here:
        (tmp_path / "b" / "operator.token").write_bytes((tmp_path / "a" / "operator.token").read_bytes())
        async with running_vault(
            tmp_path / "b", store=open_store(own_vault_server, tmp_path / "s1"), chain="vault-1"
        ) as there:
            admin = await here.issue(ACME, "ADMIN")
            member = await here.issue(ACME, "MEMBER", user=ADA)
            await here.ready(admin)
            await there.service._parts.changes.refresh()
            for _ in range(3):
                assert (await there.take(ACTIVE, member.token)).credential_version == f"{MAIN}/versions/1"
            yield here, there, admin, member.token


async def lease_until_refused(service: Vault, token: str) -> None:
    async with asyncio.timeout(BOUND_SECONDS):
        while True:
            await service.take(ACTIVE, token)


@pytest.mark.parametrize("method", REVOCATIONS)
async def test_what_was_revoked_elsewhere_is_not_leased_from_memory(
    pair: tuple[Vault, Vault, Client, str], method: str
) -> None:
    _, there, admin, token = pair
    await admin.call(getattr(admin.credentials, method), REVOCATIONS[method])
    with pytest.raises(Refused) as refused:
        await lease_until_refused(there, token)
    assert refused.value.reason.removeprefix("ERROR_REASON_") in REASONS[method]
    tried(12, "revoked at one service, no lease from the memory of the other", ways=1)


async def test_a_rotation_elsewhere_is_leased(pair: tuple[Vault, Vault, Client, str]) -> None:
    here, there, admin, token = pair
    version = await here.add(admin, MAIN, "sk-CANARY-second-0123456789abcdef")
    await here.activate(admin, version.name)
    leased = ""
    async with asyncio.timeout(BOUND_SECONDS):
        while leased != version.name:
            try:
                leased = (await there.take(ACTIVE, token)).credential_version
            except Refused as refused:  # overtaken by the change on its way: the router asks again
                if refused.reason != "ERROR_REASON_VERSION_NOT_ACTIVE":
                    raise
    tried(11, "a rotation at one service, leased from the other with its memory warm", rotations=1)
