"""The local deployment: both services and the practice provider as processes, over one home folder.

`make run` uses it on the settled ports; tests use it on free ones. Nothing here is part of the services.
"""

import asyncio
import contextlib
import os
import secrets
import socket
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from keyswitch.vault.v1 import (
    credential_pb2,
    credential_service_pb2,
    token_service_pb2,
)
from keyswitch_client import AsyncClient, KeyswitchError

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 60.0
KEY_PREFIX = "sk-practice-"
ORGANIZATION = "organizations/demo"
USER = f"{ORGANIZATION}/users/ada"
APPLICATION = f"{ORGANIZATION}/applications/chat"

CONFIGURATION = """\
# The demonstration's configuration; docs/configuration.md explains every key. Keys of providers are never in it.
deployment: {{name: keyswitch, default_model: practice/echo, byok_enabled: true}}
organizations:
  demo:
    markup_basis_points: 500
    default_model: practice/echo
    users: [ada]
    applications:
      chat:
        payers: [USER_KEY, ORGANIZATION_KEY, SHARED_KEY, CREDITS]
        payer_failover_on: []
        default_model: practice/echo
        allowed_models: ["*"]
      claude:
        native_provider: anthropic
        byok_supported: true
        payers: [ORGANIZATION_KEY, CREDITS]
        default_model: anthropic/claude-sonnet-4.6
        bindings: {{ORGANIZATION_KEY: organizations/demo/credentials/anthropic-main}}
providers:
  practice:
    dialect: openai_chat
    base_url: "http://127.0.0.1:{practice_port}/v1"
    auth: bearer
    allowed_private_networks: [127.0.0.1/32]
  practice-anthropic:
    dialect: anthropic_messages
    base_url: "http://127.0.0.1:{practice_port}"
    auth: x-api-key
    allowed_private_networks: [127.0.0.1/32]
    quirks: {{counts_tokens: true}}
models:
  practice/echo:
    aliases: [echo]
    endpoints: [{{provider: practice, upstream_model: echo}}]
    price: {{input_usd_per_million: "0.10", output_usd_per_million: "0.40", checked: 2026-11-21}}
  practice/thinker:
    endpoints: [{{provider: practice, upstream_model: thinker}}]
    price: {{input_usd_per_million: "0.20", output_usd_per_million: "0.80", checked: 2026-11-21}}
  practice/tools:
    endpoints: [{{provider: practice, upstream_model: tools}}]
    price: {{input_usd_per_million: "0.10", output_usd_per_million: "0.40", checked: 2026-11-21}}
  practice/echo-anthropic:
    endpoints: [{{provider: practice-anthropic, upstream_model: echo}}]
    price: {{input_usd_per_million: "0.10", output_usd_per_million: "0.40", checked: 2026-11-21}}
  practice/thinker-responses:
    endpoints:
      - {{provider: practice, upstream_model: thinker, dialect: openai_responses, quirks: {{counts_tokens: true}}}}
    price: {{input_usd_per_million: "0.20", output_usd_per_million: "0.80", checked: 2026-11-27}}
  practice/embed:
    aliases: [embed]
    endpoints: [{{provider: practice, upstream_model: embed}}]
    price: {{input_usd_per_million: "0.02", checked: 2026-11-27}}
    embedding: {{dimensions: 256, is_shortenable: true, max_inputs: 2048}}
  practice/fail-404:
    endpoints: [{{provider: practice, upstream_model: fail-404}}]
    price: {{input_usd_per_million: "0.10", output_usd_per_million: "0.40", checked: 2026-11-21}}
  practice/stall:
    endpoints: [{{provider: practice, upstream_model: stall}}]
    price: {{input_usd_per_million: "0.10", output_usd_per_million: "0.40", checked: 2026-11-21}}
deployment_credentials:
  practice: {{provider: practice, payers: [SHARED_KEY, CREDITS]}}
"""


class StackError(Exception):
    """The deployment cannot start; the text says what to do."""


@dataclass(frozen=True, slots=True)
class Ports:
    """Where everything listens, on 127.0.0.1."""

    router: int = 8760
    router_http: int = 8761
    management: int = 8770
    lease: int = 8771
    vault_http: int = 8772
    practice: int = 8780

    def all(self) -> dict[str, int]:
        """By what listens there."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


@dataclass(slots=True)
class Stack:
    """A deployment over a home folder. `environment` is added to that of both services.

    `vault_environment` is the credential service's alone, as keys are that it takes from there.
    """

    home: Path
    ports: Ports = field(default_factory=Ports)
    environment: dict[str, str] = field(default_factory=dict)
    vault_environment: dict[str, str] = field(default_factory=dict, repr=False)
    configuration: str = CONFIGURATION
    gap_seconds: float = 0.04
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def router_target(self) -> str:
        """Where callers connect."""
        return f"127.0.0.1:{self.ports.router}"

    @property
    def vault_target(self) -> str:
        """Where keys are managed."""
        return f"127.0.0.1:{self.ports.management}"

    @property
    def ca_path(self) -> Path:
        """What verifies both."""
        return self.home / "ca.pem"

    def log_path(self, name: str) -> Path:
        """Where a process's output goes."""
        return self.home / "log" / f"{name}.log"

    async def start(self) -> None:
        """Starts everything and waits until it serves. Raises StackError."""
        self._check_ports()
        self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        (self.home / "log").mkdir(mode=0o700, exist_ok=True)
        make_ca = [sys.executable, "-m", "vault_service.devca", "--home", str(self.home)]
        await asyncio.to_thread(subprocess.run, make_ca, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        configuration = self.home / "keyswitch.yaml"
        if not configuration.exists():
            configuration.write_text(self.configuration.format(practice_port=self.ports.practice))
        self.start_process("practice", "deploy.local.practice_provider", "--port", str(self.ports.practice),
                           "--gap", str(self.gap_seconds))  # fmt: skip
        self.start_process("vault", "vault_service")
        await self.wait_until_serving("vault", self.vault_target)
        self.start_process("router", "router_service")
        await self.wait_until_serving("router", self.router_target)

    def start_process(self, name: str, module: str, *arguments: str) -> None:
        """Starts one of the programs; its output goes to a file."""
        environment = os.environ | self._addresses() | self.environment
        if name == "vault":
            environment |= self.vault_environment
        with self.log_path(name).open("ab") as output:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C is ours to handle: the services then end in order
            )

    def _addresses(self) -> dict[str, str]:
        ports = self.ports
        return {
            "KEYSWITCH_HOME": str(self.home),
            "KEYSWITCH_LISTEN": f"127.0.0.1:{ports.router}",
            "KEYSWITCH_HTTP_LISTEN": f"127.0.0.1:{ports.router_http}",
            "KEYSWITCH_LEASE_TARGET": f"127.0.0.1:{ports.lease}",
            "KEYSWITCH_VAULT_AUDIT_CHAIN": "vault-0",
            "KEYSWITCH_VAULT_MANAGEMENT_ADDRESS": f"127.0.0.1:{ports.management}",
            "KEYSWITCH_VAULT_LEASE_ADDRESS": f"127.0.0.1:{ports.lease}",
            "KEYSWITCH_VAULT_HTTP_ADDRESS": f"127.0.0.1:{ports.vault_http}",
        }

    def _check_ports(self) -> None:
        for name, port in self.ports.all().items():
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind(("127.0.0.1", port))
                except OSError:
                    raise StackError(
                        f"Port {port} ({name}) is in use. Stop what listens there: perhaps another `make run`."
                    ) from None

    async def wait_until_serving(self, name: str, target: str) -> None:
        """Waits for the health service of one of them."""
        credentials = grpc.ssl_channel_credentials(self.ca_path.read_bytes())
        channel = grpc.aio.secure_channel(target, credentials, options=[("grpc.enable_http_proxy", 0)])
        stub = health_pb2_grpc.HealthStub(channel)
        try:
            async with asyncio.timeout(START_SECONDS):
                while True:
                    self.check_alive()
                    with contextlib.suppress(grpc.aio.AioRpcError):
                        answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=2.0)
                        if answer.status == health_pb2.HealthCheckResponse.SERVING:
                            return
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise StackError(f"{name} does not serve after {START_SECONDS:g} s; see {self.log_path(name)}") from None
        finally:
            await channel.close()

    def check_alive(self) -> None:
        """Raises StackError when one of the programs has ended."""
        for name, process in self.processes.items():
            if process.poll() is not None:
                tail = self.log_path(name).read_text(errors="replace").strip().splitlines()[-3:]
                said = "\n  ".join(tail)
                raise StackError(f"{name} ended with status {process.returncode}. Its last words:\n  {said}")

    def client(self, token: str) -> AsyncClient:
        """A client of both services."""
        return AsyncClient(self.router_target, token, ca_path=self.ca_path, vault_target=self.vault_target)

    def operator_token(self) -> str:
        """The token that the first start of the credential service left."""
        return (self.home / "operator.token").read_text().strip()

    async def issue_token(
        self,
        client: AsyncClient,
        display_name: str,
        roles: list["token_service_pb2.CallerRole.ValueType"],
        *,
        parent: str = ORGANIZATION,
        user: str = "",
        application: str = "",
        scopes: list["token_service_pb2.TokenScope.ValueType"] | None = None,
    ) -> str:
        """The text of a new token."""
        token = token_service_pb2.Token(
            display_name=display_name, roles=roles, user=user, application=application, scopes=scopes or []
        )
        request = token_service_pb2.IssueTokenRequest(parent=parent, token=token)
        return (await client.call(client.tokens.IssueToken, request)).bearer_token

    async def save_key(self, client: AsyncClient, parent: str, credential_id: str, provider: str, key: str) -> str:
        """Creates a credential with an active version, as an operator does who knows the key to be good."""
        origin = f"http://127.0.0.1:{self.ports.practice}"
        credential = credential_pb2.Credential(
            provider=f"providers/{provider}",
            kind=credential_pb2.CREDENTIAL_KIND_API_KEY,
            allowed_origins=[origin],
        )
        create = credential_service_pb2.CreateCredentialRequest(
            parent=parent, credential_id=credential_id, credential=credential
        )
        await client.call(client.credentials.CreateCredential, create)
        name = f"{parent}/credentials/{credential_id}"
        add = credential_service_pb2.AddCredentialVersionRequest(
            parent=name, secret_material=credential_pb2.SecretMaterial(api_key=key)
        )
        added = await client.call(client.credentials.AddCredentialVersion, add)
        version = added.credential_version.name
        activate = credential_service_pb2.ActivateCredentialVersionRequest(name=version, force=True)
        await client.call(client.credentials.ActivateCredentialVersion, activate)
        return version

    async def furnish(self) -> bool:
        """The demonstration's tenant: the practice provider's credential and a member's token. False: it was there."""
        member_token = self.home / "ada.token"
        if member_token.exists():
            return False
        async with self.client(self.operator_token()) as client:
            key = KEY_PREFIX + secrets.token_hex(16)
            with contextlib.suppress(KeyswitchError):  # there already, from a start that was interrupted
                await self.save_key(client, "deployment", "practice", "practice", key)
            token = await self.issue_token(
                client, "ada's first chat", [token_service_pb2.CALLER_ROLE_MEMBER], user=USER, application=APPLICATION
            )
        handle = os.open(member_token, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w") as file:
            file.write(token + "\n")
        return True

    async def stop(self) -> None:
        """Ends everything in order: the router first, which still reports to the credential service."""
        for name in ("router", "vault", "practice"):
            process = self.processes.pop(name, None)
            if process is None or process.poll() is not None:
                continue
            process.terminate()
            try:
                await asyncio.to_thread(process.wait, 20.0)
            except subprocess.TimeoutExpired:
                process.kill()
                await asyncio.to_thread(process.wait)
