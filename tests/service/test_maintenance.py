"""Maintenance as the operator runs it: a program beside the service, over both stores, and what callers see of it."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from keyswitch.vault.v1 import token_service_pb2
from keyswitch_cli.audit_verification import Verdict, key_id_of, verify

from tests.fakes.vault_server import MAINTENANCE, VaultServer
from tests.service.vault_harness import ACME, ADA, KEY, MAIN, Client, Refused, Vault, refused, running_vault
from vault_service.store.embedded import EmbeddedStore
from vault_service.store.hashicorp import HashiCorpStore
from vault_service.store.store import Store
from vault_service.store.vault_settings import AppRoleFiles, VaultSettings

ROOT = Path(__file__).parents[2]
OWN = f"{ADA}/credentials/own"


async def maintain(home: Path, *arguments: str, settings: Mapping[str, str] | None = None) -> tuple[int, str, str]:
    """Runs the program over a home folder; gives its status and what it printed."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("GRPC_", "KEYSWITCH_"))},
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "protos" / "gen" / "python")]),
        "KEYSWITCH_HOME": str(home),
        **(settings or {}),
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "vault_service.maintenance", *arguments),
        cwd=home,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert KEY not in (out + err).decode()
    return process.returncode or 0, out.decode(), err.decode()


def vault_settings(server: VaultServer, folder: Path, role: str = MAINTENANCE) -> dict[str, str]:
    """The environment of a program over a Vault server."""
    role_id_file, secret_id_file = server.write_credentials(folder, role)
    return {
        "KEYSWITCH_VAULT_STORE": "hashicorp",
        "KEYSWITCH_VAULT_HASHICORP_URL": server.url,
        "KEYSWITCH_VAULT_HASHICORP_ROLE_ID_FILE": str(role_id_file),
        "KEYSWITCH_VAULT_HASHICORP_SECRET_ID_FILE": str(secret_id_file),
    }


def service_store(server: VaultServer, folder: Path) -> Store:
    return HashiCorpStore(VaultSettings(server.url, AppRoleFiles(*server.write_credentials(folder))))


async def furnish(vault: Vault) -> tuple[Client, Client]:
    """Two credentials of an organization, one with two versions; gives its admin and its user."""
    admin = await vault.issue(ACME, "ADMIN")
    ada = await vault.issue(ACME, "MEMBER", user=ADA)
    await vault.ready(admin)
    await vault.add(admin, key=f"{KEY}-2")
    await vault.ready(ada, OWN, f"{KEY}-own")
    return admin, ada


async def read_keys(vault: Vault, token: str) -> list[str]:
    leases = [await vault.take(f"{name}/versions/active", token) for name in (MAIN, OWN)]
    return [vault.router.open(lease).api_key for lease in leases]


@asynccontextmanager
async def embedded(home: Path) -> AsyncIterator[Vault]:
    """The service over the embedded store of a home folder."""
    async with running_vault(home, store=await EmbeddedStore.open(home / "vault")) as vault:
        yield vault


def maintenance_chain(home: Path) -> Path:
    (chain,) = (home / "audit").glob("maintenance-*/")
    return chain


async def read_public_keys(vault: Vault) -> list[Ed25519PublicKey]:
    operator = vault.operator
    answer = await operator.call(operator.tokens.GetSigningKeys, token_service_pb2.GetSigningKeysRequest())
    return [Ed25519PublicKey.from_public_bytes(key.public_key) for key in answer.signing_keys]


async def verified_chain(vault: Vault, *kept: Ed25519PublicKey) -> Verdict:
    """What somebody finds who has the chain, the public keys of now, and those that were kept."""
    public = [*kept, *await read_public_keys(vault)]
    return verify(maintenance_chain(vault.home), {key_id_of(key): key for key in public})


async def test_maintenance_does_not_go_on_with_a_chain_that_was_cut(home: Path) -> None:
    """The end of the chain and its checkpoints are removed together: the copy in the store still tells."""
    async with embedded(home) as vault:
        await furnish(vault)
    assert (await maintain(home, "rotate-root-key"))[0] == 0
    chain = maintenance_chain(home)
    kept = {path: path.read_bytes() for path in chain.glob("*.jsonl")}
    assert (await maintain(home, "rotate-root-key"))[0] == 0
    for path, content in kept.items():
        path.write_bytes(content)
    root_key = (home / "vault" / "root.key").read_bytes()
    status, out, err = await maintain(home, "rotate-root-key")
    assert (status, out) == (1, "")
    assert "it was cut" in err
    assert (home / "vault" / "root.key").read_bytes() == root_key


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    folder.mkdir(mode=0o700)
    return folder


async def test_keys_of_an_embedded_store_are_rotated(home: Path) -> None:
    async with embedded(home) as vault:
        _, ada = await furnish(vault)
    assert await maintain(home, "rotate-keys") == (0, f"deployment: has no key\n{ACME}: 3 values under a new key\n", "")
    assert (await maintain(home, "rotate-root-key"))[0] == 0
    status, out, _ = await maintain(home, "rotate-keys", "--tenant", ACME)
    assert (status, out) == (0, f"{ACME}: 3 values under a new key\n")
    async with embedded(home) as vault:
        assert await read_keys(vault, ada.token) == [KEY, f"{KEY}-own"]
        verdict = await verified_chain(vault)
    assert (verdict.findings, verdict.checkpoints) == ([], 3)
    assert verdict.covered_record == verdict.last_record == 8
    records = b"".join(file.read_bytes() for file in maintenance_chain(home).glob("[0-9]*.jsonl"))
    assert records.count(b"AUDIT_ACTION_ROTATE_TENANT_KEY") == 6  # an intent and an outcome for each tenant
    assert records.count(b"AUDIT_ACTION_ROTATE_ROOT_KEY") == 2


async def test_a_store_that_a_service_has_open_is_left_alone(home: Path) -> None:
    async with embedded(home) as vault:
        _, ada = await furnish(vault)
        status, _, err = await maintain(home, "rotate-root-key")
        assert status == 1
        assert "another process has the store open" in err
        assert await read_keys(vault, ada.token) == [KEY, f"{KEY}-own"]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("shred-tenant", ACME, "--confirm", "organizations/acne"), "--confirm"),
        (("rotate-keys", "--tenant", "organizations/../x"), "INVALID_REQUEST"),
        (("migrate-to-vault",), "must be hashicorp"),
    ],
)
async def test_what_cannot_be_done_is_said(home: Path, arguments: tuple[str, ...], problem: str) -> None:
    status, out, err = await maintain(home, *arguments)
    assert status != 0
    assert problem in err
    assert out == ""


@pytest.mark.vault
async def test_keys_in_vault_are_rotated_under_a_running_service(
    own_vault_server: VaultServer, home: Path, tmp_path: Path
) -> None:
    settings = vault_settings(own_vault_server, tmp_path)
    async with running_vault(home, store=service_store(own_vault_server, tmp_path)) as vault:
        _, ada = await furnish(vault)
        failures, is_done = [], asyncio.Event()

        async def keep_reading() -> int:
            count = 0
            while not is_done.is_set():
                try:
                    assert await read_keys(vault, ada.token) == [KEY, f"{KEY}-own"]
                except Refused as fault:
                    failures.append(fault)
                count += 1
            return count

        reader = asyncio.create_task(keep_reading())
        for _ in range(2):
            status, out, err = await maintain(home, "rotate-keys", "--tenant", ACME, settings=settings)
            assert (status, out, err) == (0, f"{ACME}: 3 values under a new key\n", "")
        is_done.set()
        assert await reader > 0
        assert failures == []
    key = own_vault_server.require("GET", "keyswitch-transit/keys/tenant-organizations-acme")["data"]
    assert (key["latest_version"], key["min_decryption_version"]) == (3, 3)


@pytest.mark.vault
async def test_a_tenant_is_shredded_under_a_running_service(
    own_vault_server: VaultServer, home: Path, tmp_path: Path
) -> None:
    settings = vault_settings(own_vault_server, tmp_path)
    async with running_vault(home, store=service_store(own_vault_server, tmp_path)) as vault:
        admin, ada = await furnish(vault)
        other = await vault.issue("organizations/other", "ADMIN")
        theirs = "organizations/other/credentials/main"
        await vault.ready(other, theirs)
        bob = await vault.issue("organizations/other", "MEMBER", user="organizations/other/users/bob")
        arguments = ("shred-tenant", ACME, "--confirm", ACME)
        status, out, _ = await maintain(home, *arguments, settings=settings)
        assert (status, out) == (0, f"{ACME}: 2 credentials deleted, 3 values and the key destroyed\n")
        for name in (MAIN, OWN):
            fault = await refused(vault.take(f"{name}/versions/active", ada.token))
            assert fault.reason == "ERROR_REASON_CREDENTIAL_DELETED"
        taken = await vault.take(f"{theirs}/versions/active", bob.token, principal="organizations/other/users/bob")
        assert vault.router.open(taken).api_key == KEY
        assert (await maintain(home, *arguments, settings=settings))[0] == 0, "it may be repeated"
        # The organization may begin anew. The running service learns only by being refused that the key is gone.
        await vault.create(admin)
        assert (await refused(vault.add(admin))).reason == "ERROR_REASON_VAULT_DENIED"
        await vault.activate(admin, (await vault.add(admin)).name)
        assert vault.router.open(await vault.take(f"{MAIN}/versions/active", ada.token)).api_key == KEY


@pytest.mark.vault
async def test_an_embedded_store_moves_into_vault_with_its_tokens(
    own_vault_server: VaultServer, home: Path, tmp_path: Path
) -> None:
    settings = vault_settings(own_vault_server, tmp_path)
    async with embedded(home) as vault:
        admin, ada = await furnish(vault)
        kept = await read_public_keys(vault)
    assert (await maintain(home, "rotate-root-key"))[0] == 0  # its chain goes on under Vault's key
    for written in (3, 0):  # once more: everything is there and the same
        status, out, err = await maintain(home, "migrate-to-vault", settings=settings)
        assert (status, err) == (0, "")
        assert out.startswith(f"{written} values")
        assert "; 3 and " in out
    async with running_vault(home, store=service_store(own_vault_server, tmp_path)) as vault:
        # Tokens of before hold: the key that signs them moved, too.
        assert await read_keys(vault, ada.token) == [KEY, f"{KEY}-own"]
        admin = vault.operator.with_token(admin.token)
        assert (await verified_chain(vault, *kept)).findings == []
        await vault.activate(admin, (await vault.add(admin, key=f"{KEY}-3")).name)
        assert (await read_keys(vault, ada.token))[0] == f"{KEY}-3"
    status, _, err = await maintain(home, "migrate-to-vault", settings=settings)
    assert status == 1
    assert "not the same in Vault" in err


@pytest.mark.vault
async def test_a_vault_with_tokens_of_its_own_is_not_migrated_into(
    own_vault_server: VaultServer, home: Path, tmp_path: Path
) -> None:
    async with embedded(home) as vault:
        await furnish(vault)
    store = service_store(own_vault_server, tmp_path)
    await store.signing_keys()
    await store.close()
    status, _, err = await maintain(home, "migrate-to-vault", settings=vault_settings(own_vault_server, tmp_path))
    assert status == 1
    assert "every token would become void" in err


@pytest.mark.vault
async def test_the_services_own_login_cannot_maintain(
    own_vault_server: VaultServer, home: Path, tmp_path: Path
) -> None:
    async with running_vault(home, store=service_store(own_vault_server, tmp_path)) as vault:
        await furnish(vault)
    settings = vault_settings(own_vault_server, tmp_path, "keyswitch")
    for arguments in (("rotate-keys",), ("shred-tenant", ACME, "--confirm", ACME)):
        status, _, err = await maintain(home, *arguments, settings=settings)
        assert status == 1
        assert "VAULT_DENIED" in err
