"""Credentials that the environment of the service fixes, over every store that keeps anything, and as a process."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest
from keyswitch.vault.v1 import credential_pb2
from keyswitch.vault.v1 import credential_service_pb2 as pb

from tests.fakes.free_ports import free_ports
from tests.fakes.vault_server import VaultServer
from tests.service.test_vault_service_process import clients, running
from tests.service.vault_harness import Client, Router, Vault, make_home, running_vault
from tests.suites.fixed_credentials import (
    KEY,
    NAME,
    OTHER_KEY,
    FixedCredentialsSuite,
    OpenStore,
    changes_of,
    fixing,
    get,
    leased_key,
    variables,
    versions,
)
from vault_service.store.embedded import EmbeddedStore
from vault_service.store.hashicorp import HashiCorpStore
from vault_service.store.memory import MemoryStore
from vault_service.store.store import Store, Unavailable
from vault_service.store.vault_settings import AppRoleFiles, VaultSettings


def test_every_change_says_whether_it_is_meant() -> None:
    methods = pb.DESCRIPTOR.services_by_name["CredentialService"].methods
    asking = {one.input_type.name for one in methods if "override_environment" in one.input_type.fields_by_name}
    assert asking == {type(one).__name__ for one in changes_of("deployment/credentials/x")}
    others = {one.input_type.name for one in methods} - asking
    assert {one for one in others if not one.startswith(("Get", "List"))} == {
        "RevokeAllCredentialsRequest",  # in an emergency nothing is asked twice
        "SetCredentialPolicyRequest",
    }


class TestEmbedded(FixedCredentialsSuite):
    @pytest.fixture
    def open_store(self, tmp_path: Path) -> OpenStore:
        async def open_again() -> Store:
            return await EmbeddedStore.open(tmp_path / "vault")

        return open_again


@pytest.mark.vault
class TestVault(FixedCredentialsSuite):
    @pytest.fixture
    def open_store(self, own_vault_server: VaultServer, tmp_path: Path) -> OpenStore:
        async def open_again() -> Store:
            return open_vault_store(own_vault_server, tmp_path)

        return open_again

    async def test_two_instances_do_not_take_turns(self, own_vault_server: VaultServer, tmp_path: Path) -> None:
        old, new = fixing("fixed"), fixing("fixed", OTHER_KEY)
        homes = [tmp_path / "one", tmp_path / "two"]
        for home in homes:
            home.mkdir(mode=0o700)
        async with (
            running_vault(homes[0], store=open_vault_store(own_vault_server, tmp_path), fixed=old) as one,
            running_vault(
                homes[1], store=open_vault_store(own_vault_server, tmp_path), fixed=new, chain="vault-1",
                reissue_operator_token=True,
            ) as two,
        ):  # fmt: skip
            assert await leased_key(two, NAME) == OTHER_KEY
            first = await get(two.operator, NAME)
            assert first.source == credential_pb2.CREDENTIAL_SOURCE_ENVIRONMENT
            async with asyncio.timeout(60):  # the change feed forgets what is remembered
                while (await get(Client(one.operator.channel, two.operator.token), NAME)).etag != first.etag:
                    await asyncio.sleep(0)
        async with running_vault(
            homes[0], store=open_vault_store(own_vault_server, tmp_path), fixed=old, reissue_operator_token=True
        ) as one:
            assert await leased_key(one, NAME) == OTHER_KEY
            told = await get(one.operator, NAME)
            assert told.source == credential_pb2.CREDENTIAL_SOURCE_STORED_OVER_ENVIRONMENT
            assert len(await versions(one.operator, NAME)) == 2
        assert KEY not in own_vault_server.audit_log.read_text(encoding="utf-8")


def open_vault_store(server: VaultServer, folder: Path) -> HashiCorpStore:
    files = AppRoleFiles(*server.write_credentials(folder))
    return HashiCorpStore(VaultSettings(server.url, files, ca_file=server.ca_file))


class LateStore(MemoryStore):
    """Away when the service starts."""

    is_away = True

    async def check(self) -> None:
        if self.is_away:
            raise Unavailable


async def test_a_store_that_comes_later_gets_the_key_before_anybody_is_served(tmp_path: Path) -> None:
    store = LateStore()
    make_home(tmp_path)
    (tmp_path / "operator.token").write_text("none yet\n")
    async with running_vault(tmp_path, store=store, fixed=fixing("fixed")) as vault:
        served = [vault.service.is_serving]
        store.is_away = False
        async with asyncio.timeout(60):
            while not served[-1]:
                await asyncio.sleep(0)
                served.append(vault.service.is_serving)
        assert not served[0]
        operator = Client(vault.operator.channel, (tmp_path / "operator.token").read_text().strip())
        assert (await get(operator, "deployment/credentials/fixed")).active_version.endswith("/versions/1")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return make_home(tmp_path)


async def test_a_process_takes_its_key_and_hides_it(home: Path) -> None:
    ports = free_ports(3)
    given = variables("fixed")
    async with running(home, ports, **given) as process:
        shown = Path(f"/proc/{process.pid}/environ").read_bytes()
        assert b"KEYSWITCH_VAULT_FIXED_CREDENTIALS=fixed" in shown
        assert KEY.encode() not in shown
        async with clients(home, ports) as (operator, lease):
            vault = Vault(None, home, operator, lease, Router(home))  # type: ignore[arg-type] # another process
            assert await leased_key(vault, "deployment/credentials/fixed") == KEY
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(60):
            assert await process.wait() == 0
    for file in home.rglob("*"):
        assert not file.is_file() or KEY.encode() not in file.read_bytes(), file
    async with running(home, ports, **given), clients(home, ports) as (operator, _):
        assert len(await versions(operator, "deployment/credentials/fixed")) == 1


@pytest.mark.parametrize(
    ("changes", "problem", "status"),
    [
        ({"KEYSWITCH_VAULT_FIXED_FIXED_KEY": f"{KEY} "}, "FIXED_FIXED_KEY holds spaces", 78),
        ({"KEYSWITCH_VAULT_FIXED_FIXED_KEY": ""}, "must be set, and not be empty", 78),
        ({"KEYSWITCH_VAULT_FIXED_FIXED_PROVIDER": "Open AI"}, "FIXED_FIXED_PROVIDER must be", 78),
        ({"KEYSWITCH_VAULT_FIXED_FIXED_ORIGINS": "https://proxy.example"}, "is there already", 1),
    ],
)
async def test_a_process_that_cannot_take_it_says_why_and_ends(
    home: Path, changes: dict[str, str], problem: str, status: int
) -> None:
    async with running_vault(home, store=await EmbeddedStore.open(home / "vault"), fixed=fixing("fixed")):
        pass
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("GRPC_", "KEYSWITCH_"))},
        "PYTHONPATH": os.pathsep.join(str(Path(__file__).parents[2] / one) for one in (".", "protos/gen/python")),
        "KEYSWITCH_HOME": str(home),
        **{f"KEYSWITCH_VAULT_{one}_ADDRESS": "127.0.0.1:0" for one in ("MANAGEMENT", "LEASE", "HTTP")},
        **variables("fixed"),
        **changes,
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "vault_service", env=environment, cwd=home, stderr=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    assert process.returncode == status
    assert problem in (out + err).decode()
    assert b"CANARY" not in out + err
    assert b"Traceback" not in out + err
