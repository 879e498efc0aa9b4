"""What the policies of deploy/vault/policies give: each right is taken away in turn; what they do not give is tried."""

import asyncio
import re
import uuid
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.fakes.vault_server import (
    MAINTENANCE,
    MAINTENANCE_POLICY_FILE,
    POLICY,
    POLICY_FILE,
    VaultServer,
)
from tests.service.test_hashicorp_store import new_store
from vault_service.store.hashicorp import HashiCorpStore
from vault_service.store.store import Denied, MaintainedStore, Purpose, Store
from vault_service.store.vault_settings import AppRoleFiles, TokenFile, VaultSettings

pytestmark = pytest.mark.vault


async def exercise(store: Store, organization: str) -> None:
    """Uses everything that the service needs of Vault."""
    tenant = f"organizations/{organization}"
    await store.check()
    revision = await store.write(f"{tenant}/a", b"1", expected_revision=0)
    await store.write(f"{tenant}/a", b"2", expected_revision=revision)
    await store.read(f"{tenant}/a")
    await store.list(tenant)
    await store.delete(f"{tenant}/a")
    sealed = await store.seal(tenant, b"secret", context="c")
    await store.unseal(tenant, sealed, context="c")
    await store.sign(b"x")
    await store.sign(b"x", purpose=Purpose.AUDIT)


# (path, right) for each right of the policy that a call of the store needs; those on the token itself are tested below.
NEEDED_RIGHTS = [
    ("keyswitch/data/*", "create"),
    ("keyswitch/data/*", "read"),
    ("keyswitch/data/*", "update"),
    ("keyswitch/metadata/*", "list"),
    ("keyswitch/metadata/*", "delete"),
    ("keyswitch/config", "read"),
    ("keyswitch-transit/keys/+", "update"),
    ("keyswitch-transit/encrypt/+", "update"),
    ("keyswitch-transit/decrypt/+", "update"),
    ("keyswitch-transit/keys/keyswitch-signing", "read"),
    ("keyswitch-transit/sign/keyswitch-signing", "update"),
    ("keyswitch-transit/keys/keyswitch-audit", "read"),
    ("keyswitch-transit/sign/keyswitch-audit", "update"),
]


# Needed once, where the server has no such keys yet.
RIGHTS_TO_MAKE_KEYS = [
    ("keyswitch-transit/keys/keyswitch-signing", "update", Purpose.TOKEN),
    ("keyswitch-transit/keys/keyswitch-audit", "update", Purpose.AUDIT),
]
TOKEN_RIGHTS = [
    ("auth/token/renew-self", "update"),
    ("auth/token/lookup-self", "read"),
    ("auth/token/revoke-self", "update"),
]
MAINTENANCE_RIGHTS = [
    ("keyswitch-transit/keys/+", "read"),
    ("keyswitch-transit/keys/+", "delete"),
    ("keyswitch-transit/keys/+/rotate", "update"),
    ("keyswitch-transit/keys/+/config", "update"),
]

IMPORT_RIGHTS = [
    ("keyswitch-transit/wrapping_key", "read"),
    ("keyswitch-transit/keys/keyswitch-signing/import", "update"),
]


def make_role_without(server: VaultServer, file: Path, path: str, right: str, *others: str, **ttl: str) -> str:
    """A role whose policy is that of the file but for one right."""
    role = f"without-{uuid.uuid4().hex[:12]}"
    server.require("PUT", f"sys/policies/acl/{role}", {"policy": _without(file.read_text(), path, right)})
    server.make_role(role, role, *others, **ttl)
    return role


def rights_of(policy: str) -> list[tuple[str, str]]:
    """Each right that a policy gives."""
    rights = re.findall(r'^path "([^"]+)" \{\s+capabilities = \[([^\]]*)\]', policy, re.MULTILINE)
    return sorted(
        (path, right) for path, listed in rights for right in re.findall(r'"(\w+)"', listed) if right != "deny"
    )


def test_every_right_of_the_policies_is_taken_away_here() -> None:
    made = [(path, right) for path, right, _ in RIGHTS_TO_MAKE_KEYS]
    assert rights_of(POLICY_FILE.read_text()) == sorted([*NEEDED_RIGHTS, *made, *TOKEN_RIGHTS])
    assert rights_of(MAINTENANCE_POLICY_FILE.read_text()) == sorted([*MAINTENANCE_RIGHTS, *IMPORT_RIGHTS])


@pytest.mark.parametrize(("path", "right", "purpose"), RIGHTS_TO_MAKE_KEYS)
async def test_each_right_to_make_a_key_is_needed(
    own_vault_server: VaultServer, tmp_path: Path, path: str, right: str, purpose: Purpose
) -> None:
    lacking = new_store(own_vault_server, tmp_path, role=make_role_without(own_vault_server, POLICY_FILE, path, right))
    try:
        with pytest.raises(Denied) as refused:
            await lacking.sign(b"x", purpose=purpose)
        assert refused.value.status == 403
    finally:
        await lacking.close()


async def test_without_the_right_to_renew_it_logs_in_anew(vault_server: VaultServer, tmp_path: Path) -> None:
    role = make_role_without(vault_server, POLICY_FILE, *TOKEN_RIGHTS[0], ttl="4s", max_ttl="1h")
    store = new_store(vault_server, tmp_path, role=role)
    try:
        await store.list("")
        first = store._keeper._token
        while store._keeper._token == first:
            await store.list("")
            await asyncio.sleep(0.05)
    finally:
        await store.close()


async def test_without_the_right_to_look_itself_up_a_token_from_a_file_is_denied(
    vault_server: VaultServer, tmp_path: Path
) -> None:
    role = make_role_without(vault_server, POLICY_FILE, *TOKEN_RIGHTS[1])
    (tmp_path / "token").write_text(vault_server.login(role))
    store = HashiCorpStore(
        VaultSettings(vault_server.url, TokenFile(tmp_path / "token"), namespace=vault_server.namespace)
    )
    try:
        with pytest.raises(Denied):
            await store.check()
    finally:
        await store.close()


async def test_without_the_right_to_revoke_itself_a_token_outlives_its_service(
    vault_server: VaultServer, tmp_path: Path
) -> None:
    store = new_store(vault_server, tmp_path, role=make_role_without(vault_server, POLICY_FILE, *TOKEN_RIGHTS[2]))
    await store.check()
    token = store._keeper._token
    await store.close()
    assert vault_server.ask("GET", "auth/token/lookup-self", token=token).ok


async def maintain(store: MaintainedStore, tenant: str) -> None:
    """Uses everything that maintenance needs of a tenant's key."""
    await store.seal(tenant, b"secret", context="c")
    await store.rotate_key(tenant)
    await store.retire_old_keys(tenant)
    await store.shred_key(tenant)


@pytest.mark.parametrize(("path", "right"), MAINTENANCE_RIGHTS)
async def test_each_right_of_maintenance_is_needed(
    vault_server: VaultServer, tmp_path: Path, path: str, right: str
) -> None:
    tenant = f"organizations/t-{uuid.uuid4().hex[:12]}"
    role = make_role_without(vault_server, MAINTENANCE_POLICY_FILE, path, right, POLICY)
    full, lacking = new_store(vault_server, tmp_path, role=MAINTENANCE), new_store(vault_server, tmp_path, role=role)
    try:
        await maintain(full, tenant)
        with pytest.raises(Denied) as refused:
            await maintain(lacking, f"{tenant}-2")
        assert refused.value.status == 403
    finally:
        await full.close()
        await lacking.close()


@pytest.mark.parametrize(("path", "right"), IMPORT_RIGHTS)
async def test_each_right_to_import_a_key_is_needed(
    own_vault_server: VaultServer, tmp_path: Path, path: str, right: str
) -> None:
    role = make_role_without(own_vault_server, MAINTENANCE_POLICY_FILE, path, right, POLICY)
    login = AppRoleFiles(*own_vault_server.write_credentials(tmp_path, role))
    # Vault finds an RSA key of 4,096 bits first.
    lacking = HashiCorpStore(
        VaultSettings(own_vault_server.url, login, read_timeout_seconds=60.0, call_timeout_seconds=60.0)
    )
    try:
        with pytest.raises(Denied) as refused:
            await lacking.import_signing_key(Ed25519PrivateKey.generate())
        assert refused.value.status == 403
    finally:
        await lacking.close()


@pytest.mark.parametrize(("path", "right"), NEEDED_RIGHTS)
async def test_each_right_of_the_policy_is_needed(
    vault_server: VaultServer, tmp_path: Path, path: str, right: str
) -> None:
    organization = f"t-{uuid.uuid4().hex[:12]}"
    role = make_role_without(vault_server, POLICY_FILE, path, right)
    full, lacking = new_store(vault_server, tmp_path), new_store(vault_server, tmp_path, role=role)
    try:
        await exercise(full, organization)
        with pytest.raises(Denied) as refused:
            await exercise(lacking, organization)
        assert refused.value.status == 403
    finally:
        await full.close()
        await lacking.close()


async def test_makes_the_signing_key_under_its_own_policy(own_vault_server: VaultServer, tmp_path: Path) -> None:
    store = new_store(own_vault_server, tmp_path)
    try:
        assert len(await store.signing_keys()) == 1
    finally:
        await store.close()


FORBIDDEN: list[tuple[str, str, Any]] = [
    ("GET", "keyswitch/metadata/organizations/demo/a", None),
    ("POST", "keyswitch/metadata/organizations/demo/a", {"max_versions": 10}),
    ("DELETE", "keyswitch/data/organizations/demo/a", None),
    ("POST", "keyswitch/undelete/organizations/demo/a", {"versions": [1]}),
    ("POST", "keyswitch/destroy/organizations/demo/a", {"versions": [1]}),
    ("GET", "keyswitch/subkeys/organizations/demo/a", None),
    ("POST", "keyswitch/config", {"max_versions": 10}),
    ("GET", "secret/data/anything", None),
    ("POST", "keyswitch-transit/encrypt/never-made", {"plaintext": "eA=="}),
    ("POST", "keyswitch-transit/keys/tenant-exportable", {"type": "aes256-gcm96", "exportable": True}),
    ("POST", "keyswitch-transit/keys/tenant-plain", {"type": "aes256-gcm96", "allow_plaintext_backup": True}),
    ("POST", "keyswitch-transit/keys/tenant-derived", {"type": "aes256-gcm96", "derived": True}),
    ("POST", "keyswitch-transit/keys/tenant-weak", {"type": "rsa-2048"}),
    ("GET", "keyswitch-transit/keys/tenant-deployment", None),
    ("DELETE", "keyswitch-transit/keys/tenant-deployment", None),
    ("LIST", "keyswitch-transit/keys", None),
    ("POST", "keyswitch-transit/keys/tenant-deployment/config", {"deletion_allowed": True}),
    ("POST", "keyswitch-transit/keys/tenant-deployment/rotate", None),
    ("POST", "keyswitch-transit/keys/tenant-deployment/trim", {"min_available_version": 1}),
    ("GET", "keyswitch-transit/export/encryption-key/tenant-deployment", None),
    ("GET", "keyswitch-transit/backup/tenant-deployment", None),
    ("POST", "keyswitch-transit/datakey/plaintext/tenant-deployment", None),
    ("POST", "keyswitch-transit/sign/tenant-deployment", {"input": "eA=="}),
    ("GET", "sys/mounts", None),
    ("GET", "sys/policies/acl/keyswitch", None),
    ("PUT", "sys/policies/acl/keyswitch", {"policy": ""}),
    ("GET", "sys/audit", None),
    ("DELETE", "sys/audit/file", None),
    ("GET", "auth/approle/role/keyswitch", None),
    ("POST", "auth/approle/role/keyswitch/secret-id", None),
    ("POST", "auth/token/create", None),
    ("PUT", "sys/seal", None),
]


async def test_the_policy_gives_no_other_right(vault_server: VaultServer, tmp_path: Path) -> None:
    store = new_store(vault_server, tmp_path)
    await store.seal("deployment", b"x", context="c")
    await store.close()
    token = vault_server.login()
    assert _allowed(vault_server, FORBIDDEN, token) == []


SIGNING = "keyswitch-transit/keys/keyswitch-signing"
FORBIDDEN_TO_MAINTENANCE: list[tuple[str, str, Any]] = [
    *(entry for entry in FORBIDDEN if not re.search(r"keys/tenant-deployment(/(config|rotate))?$", entry[1])),
    ("DELETE", SIGNING, None),
    ("POST", f"{SIGNING}/config", {"deletion_allowed": True}),
    ("POST", "keyswitch-transit/keys/tenant-deployment/config", {"exportable": True}),
    ("POST", "keyswitch-transit/keys/tenant-deployment/config", {"allow_plaintext_backup": True}),
]


async def test_maintenance_has_no_other_right(vault_server: VaultServer, tmp_path: Path) -> None:
    store = new_store(vault_server, tmp_path)
    await store.seal("deployment", b"x", context="c")
    await store.signing_keys()
    await store.close()
    token = vault_server.login(MAINTENANCE)
    assert _allowed(vault_server, FORBIDDEN_TO_MAINTENANCE, token) == []


def _allowed(server: VaultServer, forbidden: list[tuple[str, str, Any]], token: str) -> list[str]:
    """What is refused neither by the policy nor because only a server's root namespace has such a thing."""
    allowed = []
    for method, path, body in forbidden:
        answer = server.ask(method, path, body, token=token)
        is_of_root = answer.status_code == 400 and "namespace" in answer.text
        if answer.status_code != 403 and not is_of_root:
            allowed.append(f"{method} {path} {body}")
    return allowed


def _without(policy: str, path: str, right: str) -> str:
    """Gives the policy with one right less."""
    head, start, rest = policy.partition(f'path "{path}" {{')
    assert start
    line, end, tail = rest.partition("]")
    rights = line.replace(f'"{right}"', "").replace(", ,", ",").replace("[, ", "[")
    assert rights != line
    return head + start + rights + end + tail
