"""A real HashiCorp Vault server for tests: started once, in memory, set up the way an operator would set it up.

A conftest.py that imports the fixtures at the end of this file makes them known to the tests beside and below it.
Where no server can be had its tests fail; KEYSWITCH_SKIP_VAULT=1 skips them instead, and says so in the summary.
"""

import json
import os
import secrets
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import requests

from tests.fakes.free_ports import free_ports

REPOSITORY = Path(__file__).resolve().parents[2]
BUILD_SCRIPT = REPOSITORY / "tests" / "tools" / "vault" / "build"
POLICIES = REPOSITORY / "deploy" / "vault" / "policies"
POLICY_FILE = POLICIES / "keyswitch.hcl"
MAINTENANCE_POLICY_FILE = POLICIES / "keyswitch-maintenance.hcl"

KV_MOUNT = "keyswitch"
TRANSIT_MOUNT = "keyswitch-transit"
POLICY = "keyswitch"
ROLE = "keyswitch"
MAINTENANCE = "keyswitch-maintenance"  # both the policy and the role
START_TIMEOUT_SECONDS = 30


@dataclass(frozen=True)
class VaultServer:
    """A running server. `root_token` is the operator's; a service under test gets AppRole files."""

    url: str
    root_token: str = field(repr=False)
    folder: Path
    ca_file: Path | None
    process: "subprocess.Popen[bytes]" = field(repr=False)
    namespace: str = ""
    """Where everything is asked and set up; empty is the root, which the audit device and the server's state are of."""

    @property
    def audit_log(self) -> Path:
        return self.folder / "audit.log"

    def ask(self, method: str, path: str, body: Any = None, *, token: str | None = None) -> requests.Response:
        """Sends one request, as the operator unless a token is given; gives the answer whatever its status."""
        with requests.Session() as session:
            session.trust_env = False
            session.verify = str(self.ca_file) if self.ca_file else True
            return session.request(
                method,
                f"{self.url}/v1/{path}",
                json=body,
                headers=self._headers(self.root_token if token is None else token),
                timeout=60,
            )

    def _headers(self, token: str) -> dict[str, str]:
        return {"X-Vault-Token": token, **({"X-Vault-Namespace": self.namespace} if self.namespace else {})}

    def require(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        """As `ask`, for what must work. The error names the path and not the body."""
        answer = self.ask(method, path, body)
        if not answer.ok:
            raise AssertionError(f"the Vault server answered {method} {path} with {answer.status_code}")
        return dict(answer.json()) if answer.content else {}

    def make_role(self, name: str = ROLE, *policies: str, ttl: str = "20m", max_ttl: str = "24h") -> None:
        self.require(
            "POST",
            f"auth/approle/role/{name}",
            {
                "token_policies": policies or [POLICY],
                "token_no_default_policy": True,
                "token_ttl": ttl,
                "token_max_ttl": max_ttl,
            },
        )

    def credentials(self, role: str = ROLE) -> tuple[str, str]:
        """Gives a role id and a fresh secret id."""
        role_id = self.require("GET", f"auth/approle/role/{role}/role-id")["data"]["role_id"]
        secret_id = self.require("POST", f"auth/approle/role/{role}/secret-id")["data"]["secret_id"]
        return role_id, secret_id

    def write_credentials(self, folder: Path, role: str = ROLE) -> tuple[Path, Path]:
        """Writes a role id and a fresh secret id into files, as a deployment mounts them."""
        files = folder / f"{role}-role-id", folder / f"{role}-secret-id"
        for file, value in zip(files, self.credentials(role), strict=True):
            file.touch(mode=0o600)
            file.write_text(value)
        return files

    def login(self, role: str = ROLE) -> str:
        """Gives a service token."""
        role_id, secret_id = self.credentials(role)
        answer = self.require("POST", "auth/approle/login", {"role_id": role_id, "secret_id": secret_id})
        return str(answer["auth"]["client_token"])

    def audit_records(self, containing: str = "") -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.audit_log.read_text().splitlines() if containing in line]


def find_binary(*options: str, script: Path = BUILD_SCRIPT) -> str:
    """Gives the path of a server's binary. It builds none: that takes longer than a test may, and must be seen."""
    done = subprocess.run([script, "--find", *options], check=False, capture_output=True, text=True, timeout=30)
    if done.returncode:
        raise AssertionError(done.stderr.strip())
    return done.stdout.strip()


@contextmanager
def running_server(
    binary: str, *, port: int = 0, tls: bool = False, plugins: Path | None = None, settings: str = ""
) -> Iterator[VaultServer]:
    """Starts a development server (in memory, unsealed, loopback), sets it up, and ends it. `settings` are the text of
    a configuration file."""
    with tempfile.TemporaryDirectory(prefix="keyswitch-vault-") as name:
        folder = Path(name)
        root_token = secrets.token_urlsafe(24)
        port = port or free_port()
        # HOME: with -dev-no-store-token nothing is written there, and this proves that nothing needs to be.
        (folder / "server.hcl").write_text(settings)
        environment = {"PATH": os.environ["PATH"], "HOME": name}
        with (folder / "server.log").open("wb") as log:
            process = subprocess.Popen(
                [
                    binary,
                    "server",
                    "-dev",
                    "-dev-no-store-token",
                    f"-dev-root-token-id={root_token}",
                    f"-dev-listen-address=127.0.0.1:{port}",
                    *(["-dev-tls", f"-dev-tls-cert-dir={name}"] if tls else []),
                    *([f"-dev-plugin-dir={plugins}"] if plugins else []),
                    *([f"-config={folder / 'server.hcl'}"] if settings else []),
                ],
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=folder,
                env=environment,
            )
        ca_file = folder / "vault-ca.pem" if tls else None
        server = VaultServer(f"http{'s' if tls else ''}://127.0.0.1:{port}", root_token, folder, ca_file, process)
        try:
            _await_ready(server)
            set_up(server)
            yield server
        finally:
            stop(server)


def stop(server: VaultServer) -> None:
    if server.process.poll() is None:
        server.process.send_signal(signal.SIGTERM)
        try:
            server.process.wait(10)
        except subprocess.TimeoutExpired:
            server.process.kill()
            server.process.wait()


def set_up(server: VaultServer) -> None:
    """Does the operator's part: audit device, mounts, policy, AppRole. See the head of the policy file."""
    set_up_audit(server)
    set_up_namespace(server)


def set_up_audit(server: VaultServer) -> None:
    """The audit device, and the header that it writes down: the server's own, in no namespace."""
    server.require(
        "PUT",
        "sys/audit/file",
        {"type": "file", "options": {"file_path": str(server.audit_log), "mode": "0600"}},
    )
    server.require("POST", "sys/config/auditing/request-headers/X-Keyswitch-Request-Id", {"hmac": False})


def set_up_namespace(server: VaultServer) -> None:
    """What each namespace has of its own."""
    server.require("POST", f"sys/mounts/{KV_MOUNT}", {"type": "kv", "options": {"version": "2"}})
    server.require("POST", f"sys/mounts/{TRANSIT_MOUNT}", {"type": "transit"})
    _await_answer(server, f"{KV_MOUNT}/config")
    server.require("POST", f"{KV_MOUNT}/config", {"max_versions": 1, "cas_required": True})
    server.require("PUT", f"sys/policies/acl/{POLICY}", {"policy": POLICY_FILE.read_text()})
    server.require("POST", "sys/auth/approle", {"type": "approle"})
    server.make_role()
    server.require("PUT", f"sys/policies/acl/{MAINTENANCE}", {"policy": MAINTENANCE_POLICY_FILE.read_text()})
    server.make_role(MAINTENANCE, POLICY, MAINTENANCE)


def _await_ready(server: VaultServer, *, status: int = 200) -> None:
    pause = Event()
    for _ in range(START_TIMEOUT_SECONDS * 20):
        if server.process.poll() is not None:
            raise AssertionError(
                "the Vault server ended at once: " + (server.folder / "server.log").read_text()[-2000:]
            )
        with suppress(requests.RequestException, OSError):  # OSError: the CA's file is not written yet
            if server.ask("GET", "sys/health").status_code == status:
                return
        pause.wait(0.05)
    raise AssertionError(f"the Vault server was not ready after {START_TIMEOUT_SECONDS} s")


@contextmanager
def running_uninitialised(binary: str) -> Iterator[VaultServer]:
    """A server that nobody has initialised."""
    with tempfile.TemporaryDirectory(prefix="keyswitch-vault-") as name:
        folder, port = Path(name), free_port()
        listener = f'listener "tcp" {{\n  address = "127.0.0.1:{port}"\n  tls_disable = true\n}}\n'
        (folder / "server.hcl").write_text(f'storage "inmem" {{}}\ndisable_mlock = true\n{listener}')
        with (folder / "server.log").open("wb") as log:
            command = [binary, "server", f"-config={folder / 'server.hcl'}"]
            environment = {"PATH": os.environ["PATH"], "HOME": name}
            process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=folder, env=environment)
        server = VaultServer(f"http://127.0.0.1:{port}", "none", folder, None, process)
        try:
            _await_ready(server, status=501)
            yield server
        finally:
            stop(server)


def _await_answer(server: VaultServer, path: str) -> None:
    """A fresh KV v2 mount answers 400 for a moment, while it upgrades itself."""
    pause = Event()
    for _ in range(START_TIMEOUT_SECONDS * 20):
        if server.ask("GET", path).ok:
            return
        pause.wait(0.05)
    raise AssertionError(f"the Vault server did not answer {path}")


def free_port() -> int:
    return free_ports(1)[0]


@pytest.fixture(scope="session")
def vault_binary() -> str:
    if os.environ.get("KEYSWITCH_SKIP_VAULT") == "1":
        pytest.skip("KEYSWITCH_SKIP_VAULT=1: NOTHING WAS TESTED AGAINST A REAL VAULT SERVER")
    return find_binary()


@pytest.fixture(scope="session")
def vault_server(vault_binary: str) -> Iterator[VaultServer]:
    """One server for all tests of a run. Tests keep apart by organization ids; none may change the server's setup."""
    with running_server(vault_binary) as server:
        yield server


@pytest.fixture
def own_vault_server(vault_binary: str) -> Iterator[VaultServer]:
    """A server of the test's own, to seal, stop or misconfigure."""
    with running_server(vault_binary) as server:
        yield server
