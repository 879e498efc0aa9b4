"""The ways to log in to a real Vault server, besides an AppRole with plain files: wrapped, by a pod, by an agent."""

import asyncio
import subprocess
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event

import pytest
import requests

from tests.fakes.kubernetes_api import ACCOUNT, NAMESPACE, KubernetesApi, running_kubernetes_api
from tests.fakes.vault_server import POLICY, ROLE, VaultServer, find_binary, free_port, running_server
from vault_service.store.hashicorp import HashiCorpStore
from vault_service.store.store import Denied
from vault_service.store.vault_settings import (
    AgentListener,
    AppRoleFiles,
    KubernetesRole,
    Login,
    TokenFile,
    VaultSettings,
)

pytestmark = pytest.mark.vault

Opener = Callable[..., HashiCorpStore]


@pytest.fixture
async def open_store() -> AsyncIterator[Opener]:
    """Opens stores, and closes them at the end."""
    stores: list[HashiCorpStore] = []

    def open_one(url: str, login: Login, namespace: str = "") -> HashiCorpStore:
        stores.append(HashiCorpStore(VaultSettings(url, login, namespace=namespace)))
        return stores[-1]

    yield open_one
    for store in stores:
        await store.close()


# --- wrapped secret ids ----------------------------------------------------------------------------------------------


def wrap(server: VaultServer, path: str, body: object = None, *, token: str | None = None) -> str:
    """Asks for something wrapped, as an orchestrator does, and gives the wrapping token."""
    answer = requests.post(
        f"{server.url}/v1/{path}",
        json=body,
        headers={"X-Vault-Token": token or server.root_token, "X-Vault-Wrap-TTL": "60s"},
        timeout=60,
    )
    return str(answer.json()["wrap_info"]["token"])


@pytest.fixture
def wrapped(vault_server: VaultServer, tmp_path: Path) -> AppRoleFiles:
    role_id_file, _ = vault_server.write_credentials(tmp_path)
    file = tmp_path / "wrapped-secret-id"
    file.write_text(wrap(vault_server, f"auth/approle/role/{ROLE}/secret-id"))
    return AppRoleFiles(role_id_file, file, is_wrapped=True)


async def test_a_wrapped_secret_id_is_opened_once_and_serves_later_logins(
    vault_server: VaultServer, wrapped: AppRoleFiles, open_store: Opener
) -> None:
    store = open_store(vault_server.url, wrapped)
    await store.check()
    vault_server.require("POST", "auth/token/revoke", {"token": store._keeper._token})
    await store.check()
    with pytest.raises(Denied, match="somebody else has it"):
        await open_store(vault_server.url, wrapped).check()


async def test_a_fresh_wrapping_is_opened_when_the_secret_id_is_gone(
    vault_server: VaultServer, wrapped: AppRoleFiles, open_store: Opener
) -> None:
    store = open_store(vault_server.url, wrapped)
    await store.check()
    wrapped.secret_id_file.write_text(wrap(vault_server, f"auth/approle/role/{ROLE}/secret-id"))
    vault_server.require("POST", "auth/token/revoke", {"token": store._keeper._token})
    await store.check()
    with pytest.raises(Denied):
        await open_store(vault_server.url, wrapped).check()


async def test_something_else_that_is_wrapped_is_not_taken_for_a_secret_id(
    vault_server: VaultServer, wrapped: AppRoleFiles, open_store: Opener
) -> None:
    swapped = wrap(vault_server, "sys/wrapping/wrap", {"secret_id": str(uuid.uuid4())})
    wrapped.secret_id_file.write_text(swapped)
    with pytest.raises(Denied, match="swapped"):
        await open_store(vault_server.url, wrapped).check()
    looked_up = vault_server.ask("POST", "sys/wrapping/lookup", {"token": swapped})
    assert looked_up.ok, "it was not opened, so that whoever looks into it can"


async def test_a_wrapping_token_that_never_was_is_denied(
    vault_server: VaultServer, wrapped: AppRoleFiles, open_store: Opener
) -> None:
    wrapped.secret_id_file.write_text("hvs.made-up")
    with pytest.raises(Denied, match="expired or was opened before") as refused:
        await open_store(vault_server.url, wrapped).check()
    assert "made-up" not in str(refused.value)


# --- a pod -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def kubernetes() -> Iterator[KubernetesApi]:
    with running_kubernetes_api() as api:
        yield api


@pytest.fixture(scope="module")
def pod_vault_server(vault_binary: str, kubernetes: KubernetesApi) -> Iterator[VaultServer]:
    """A server with the Kubernetes login, which asks our API server who a pod is."""
    plugin = Path(find_binary("--kubernetes"))
    with running_server(vault_binary, plugins=plugin.parent) as server:
        server.require("POST", "sys/auth/kubernetes", {"type": plugin.name})
        settings = {"kubernetes_host": kubernetes.url, "disable_local_ca_jwt": True, "disable_iss_validation": True}
        server.require("POST", "auth/kubernetes/config", settings)
        role = {
            "bound_service_account_names": [ACCOUNT],
            "bound_service_account_namespaces": [NAMESPACE],
            "token_policies": [POLICY],
            "token_no_default_policy": True,
            "token_ttl": "20m",
        }
        server.require("POST", "auth/kubernetes/role/keyswitch", role)
        yield server


async def test_a_pod_logs_in_by_its_service_account(
    pod_vault_server: VaultServer, kubernetes: KubernetesApi, tmp_path: Path, open_store: Opener
) -> None:
    file = tmp_path / "token"
    file.write_text(kubernetes.issue())
    store = open_store(pod_vault_server.url, KubernetesRole("keyswitch", file))
    sealed = await store.seal("organizations/acme", b"secret", context="c")
    assert await store.unseal("organizations/acme", sealed, context="c") == b"secret"
    # The kubelet replaces the file; a login after that must send the new token.
    kubernetes.tokens.clear()
    file.write_text(kubernetes.issue())
    first = store._keeper._token
    pod_vault_server.require("POST", "auth/token/revoke", {"token": first})
    await store.check()
    second = store._keeper._token
    await store.close()
    assert second != first
    assert pod_vault_server.ask("GET", "auth/token/lookup-self", token=second).status_code == 403


async def test_another_pod_is_denied(
    pod_vault_server: VaultServer, kubernetes: KubernetesApi, tmp_path: Path, open_store: Opener
) -> None:
    file = tmp_path / "token"
    for token in (kubernetes.issue("somebody-else"), "not.a.token"):
        file.write_text(token)
        with pytest.raises(Denied, match="service account") as refused:
            await open_store(pod_vault_server.url, KubernetesRole("keyswitch", file)).check()
        assert token not in str(refused.value)
    file.unlink()
    with pytest.raises(Denied, match="cannot be read"):
        await open_store(pod_vault_server.url, KubernetesRole("keyswitch", file)).check()


async def test_a_role_for_an_audience_wants_a_token_that_is_projected_for_it(
    pod_vault_server: VaultServer, kubernetes: KubernetesApi, tmp_path: Path, open_store: Opener
) -> None:
    role = {
        "bound_service_account_names": [ACCOUNT],
        "bound_service_account_namespaces": [NAMESPACE],
        "audience": "vault",
        "token_policies": [POLICY],
        "token_no_default_policy": True,
    }
    pod_vault_server.require("POST", "auth/kubernetes/role/for-vault", role)
    file = tmp_path / "token"
    file.write_text(kubernetes.issue())
    with pytest.raises(Denied, match="audience"):
        await open_store(pod_vault_server.url, KubernetesRole("for-vault", file)).check()
    file.write_text(kubernetes.issue(audience="vault"))
    await open_store(pod_vault_server.url, KubernetesRole("for-vault", file)).check()


# --- an agent --------------------------------------------------------------------------------------------------------


SINK = "agent.token"


def read_other(file: Path, old: str) -> str:
    """What the agent has put into its file in place of `old`; it tells nobody when."""
    pause = Event()
    for _ in range(600):
        text = file.read_text() if file.exists() else ""
        if text not in ("", old):
            return text
        pause.wait(0.05)
    raise AssertionError("the agent has not written its file")


@contextmanager
def running_agent(binary: str, server: VaultServer, folder: Path) -> Iterator[str]:
    """A Vault Proxy that logs in by AppRole, adds its token to what it is asked and keeps it in a file; its URL."""
    role_id_file, secret_id_file = server.write_credentials(folder)
    port = free_port()
    configuration = folder / "proxy.hcl"
    configuration.write_text(f"""
vault {{ address = "{server.url}" }}
auto_auth {{
  method "approle" {{
    config = {{ role_id_file_path = "{role_id_file}", secret_id_file_path = "{secret_id_file}" }}
  }}
  sink "file" {{
    config = {{ path = "{folder / SINK}", mode = 0600 }}
  }}
}}
api_proxy {{ use_auto_auth_token = "force" }}
listener "tcp" {{
  address = "127.0.0.1:{port}"
  tls_disable = true
}}
""")
    with (folder / "proxy.log").open("wb") as log:
        process = subprocess.Popen(
            [binary, "proxy", f"-config={configuration}"],
            stdout=log,
            stderr=subprocess.STDOUT,
            env={"PATH": "", "HOME": str(folder)},
        )
    url, pause = f"http://127.0.0.1:{port}", Event()
    try:
        for _ in range(600):
            with suppress(requests.RequestException):
                if requests.get(f"{url}/v1/auth/token/lookup-self", timeout=60).ok:
                    break
            pause.wait(0.05)
        else:
            raise AssertionError((folder / "proxy.log").read_text()[-2000:])
        yield url
    finally:
        process.terminate()
        process.wait(10)


async def test_an_agent_lends_its_token(
    vault_binary: str, vault_server: VaultServer, tmp_path: Path, open_store: Opener
) -> None:
    with running_agent(vault_binary, vault_server, tmp_path) as url:
        store = open_store(url, AgentListener())
        await store.check()
        request_id = f"call-{uuid.uuid4()}"
        path = f"organizations/t-{uuid.uuid4().hex[:12]}/a"
        await store.write(path, b"x", expected_revision=0, request_id=request_id)
        found = await store.read(path, request_id=request_id)
        assert found is not None
        assert found.value == b"x"
        # Vault's own log names the call all the same: the agent passes our header on.
        assert {record["request"]["path"] for record in vault_server.audit_records(request_id)} == {
            f"keyswitch/data/{path}"
        }
        await store.close()
        assert requests.get(f"{url}/v1/auth/token/lookup-self", timeout=60).ok, "its token is not ours to revoke"


async def test_a_token_that_an_agent_keeps_in_a_file_is_read_anew(
    vault_binary: str, vault_server: VaultServer, tmp_path: Path, open_store: Opener
) -> None:
    file = tmp_path / SINK
    with running_agent(vault_binary, vault_server, tmp_path):
        old = read_other(file, "")
        store = open_store(vault_server.url, TokenFile(file))
        await store.check()
        vault_server.require("POST", "auth/token/revoke", {"token": old})
        with pytest.raises(Denied, match="put a fresh one there"):
            await store.check()
    with running_agent(vault_binary, vault_server, tmp_path):
        token = read_other(file, old)
        async with asyncio.timeout(20):  # it looks again after a second or so
            while store._keeper._token != token:
                with suppress(Denied):
                    await store.check()
                await asyncio.sleep(0.05)
        await store.close()
        vault_server.require("POST", "auth/token/lookup", {"token": token})  # it is not ours to revoke


# --- namespaces ------------------------------------------------------------------------------------------------------


async def test_a_namespace_is_refused_where_the_server_would_ignore_it(
    vault_server: VaultServer, tmp_path: Path, open_store: Opener
) -> None:
    login = AppRoleFiles(*vault_server.write_credentials(tmp_path))
    store = open_store(vault_server.url, login, "team")
    with pytest.raises(Denied, match="no namespaces"):
        await store.check()
    with pytest.raises(Denied):
        await store.read("a")
