"""Keyswitch under measurement: both services as their users start them, the embedded default, everything on.

The call is paid with the organization's own key: recorded, not reserved. The CPU that counts is the router's.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import grpc.aio
from keyswitch.router.v1 import completion_pb2, completion_service_pb2, content_pb2
from keyswitch.router.v1.completion_service_pb2_grpc import CompletionServiceStub
from keyswitch.vault.v1 import credential_pb2, credential_service_pb2, token_service_pb2
from keyswitch.vault.v1.credential_service_pb2_grpc import CredentialServiceStub
from keyswitch.vault.v1.token_service_pb2_grpc import TokenServiceStub

from tests.bench import upstream
from tests.bench.names import KEYSWITCH
from tests.bench.processes import ROOT, WORK, Program, free_port, start_program, wait_for_port

if TYPE_CHECKING:  # these classes are only in the stubs' type information
    from keyswitch.router.v1.completion_service_pb2_grpc import CompletionServiceAsyncStub
    from keyswitch.vault.v1.credential_service_pb2_grpc import CredentialServiceAsyncStub
    from keyswitch.vault.v1.token_service_pb2_grpc import TokenServiceAsyncStub

HOME = WORK / "keyswitch-home"
PYTHON = sys.executable
KEY = "sk-bench-0123456789abcdef0123456789abcdef"
CONNECT_OPTIONS = [("grpc.initial_reconnect_backoff_ms", 20), ("grpc.max_reconnect_backoff_ms", 20)]
DEADLINE_SECONDS = 120.0


def make_configuration(upstream_port: int, payer: str, organization: Mapping[str, object]) -> dict[str, object]:
    """The configuration file of a run; `organization` is what is said of it besides."""
    price = {"input_usd_per_million": "0.10", "output_usd_per_million": "0.40", "checked": "2026-11-21"}
    application = {"payers": [payer], "default_model": "bench/bench-unary", "allowed_models": ["*"]}
    provider = {
        "dialect": "openai_chat",
        "base_url": f"http://127.0.0.1:{upstream_port}/v1",
        "auth": "bearer",
        "allowed_private_networks": ["127.0.0.1/32"],
    }
    demo = {"users": ["ada"], "applications": {"bench": application}, **organization}
    models = {
        f"bench/{model}": {"endpoints": [{"provider": "bench", "upstream_model": model}], "price": price}
        for model in upstream.MODELS
    }
    return {
        "deployment": {"name": "keyswitch", "default_model": "bench/bench-unary", "byok_enabled": True},
        "organizations": {"demo": demo},
        "providers": {"bench": provider},
        "models": models,
    }


class KeyswitchPeer:
    """The router, with the credential service beside it."""

    def __init__(self, home: Path = HOME) -> None:
        self.name = KEYSWITCH
        self.program: Program | None = None
        self._home = home
        self._ports = {name: free_port() for name in ("router", "router-http", "management", "lease", "vault-http")}
        self._vault: Program | None = None
        self._metadata: tuple[tuple[str, str], ...] = ()
        self._channel: grpc.aio.Channel | None = None
        self._stub: CompletionServiceAsyncStub

    async def start(self, upstream_port: int) -> None:
        shutil.rmtree(self._home, ignore_errors=True)
        self._home.mkdir(mode=0o700, parents=True)
        (self._home / "keyswitch.yaml").write_text(json.dumps(self._configuration(upstream_port)))  # JSON is YAML
        certificates = [PYTHON, "-m", "vault_service.devca", "--home", str(self._home)]
        await asyncio.to_thread(start_program("devca", certificates).process.wait, 30)
        self._vault = self._start_vault()
        await wait_for_port(self._vault, self._ports["management"])
        while not (self._home / "operator.token").exists():  # written just after the listeners have opened
            self._vault.check()
            await asyncio.sleep(0.01)
        await self._store_key(upstream_port)
        self.program = self._start_router()
        await wait_for_port(self.program, self._ports["router"])
        await self._connect()
        await self.complete("bench-unary")

    def _configuration(self, upstream_port: int) -> dict[str, object]:
        return make_configuration(upstream_port, "ORGANIZATION_KEY", {})

    def _router_environment(self) -> dict[str, str]:
        """What the router's environment has besides."""
        return {}

    @property
    def _operator(self) -> str:
        return (self._home / "operator.token").read_text().strip()

    def _start(self, name: str, module: str, environment: Mapping[str, str]) -> Program:
        return start_program(f"{self._home.name}-{name}", [PYTHON, "-m", module], environment)

    def _address(self, port: str) -> str:
        return f"127.0.0.1:{self._ports[port]}"

    def _start_vault(self) -> Program:
        environment = {
            "KEYSWITCH_HOME": str(self._home),
            "KEYSWITCH_VAULT_MANAGEMENT_ADDRESS": self._address("management"),
            "KEYSWITCH_VAULT_LEASE_ADDRESS": self._address("lease"),
            "KEYSWITCH_VAULT_HTTP_ADDRESS": self._address("vault-http"),
        }
        return self._start("vault-service", "vault_service", environment)

    def _start_router(self) -> Program:
        environment = {
            "KEYSWITCH_HOME": str(self._home),
            "KEYSWITCH_LISTEN": self._address("router"),
            "KEYSWITCH_HTTP_LISTEN": self._address("router-http"),
            "KEYSWITCH_LEASE_TARGET": self._address("lease"),
            **self._router_environment(),
        }
        return self._start("router-service", "router_service", environment)

    def _open(self, port: str) -> grpc.aio.Channel:
        authority = grpc.ssl_channel_credentials((self._home / "ca.pem").read_bytes())
        return grpc.aio.secure_channel(self._address(port), authority, options=CONNECT_OPTIONS)

    async def _connect(self) -> None:
        if self._channel is not None:
            await self._channel.close()
        self._channel = self._open("router")
        self._stub = CompletionServiceStub(self._channel)

    async def _store_key(self, upstream_port: int) -> None:
        """Puts the key in and gets a member's token, as an operator and an administrator do."""
        operator = self._operator
        async with self._open("management") as channel:
            tokens = TokenServiceStub(channel)
            admin = await _issue(tokens, operator, token_service_pb2.CALLER_ROLE_ADMIN)
            member = await _issue(
                tokens,
                admin,
                token_service_pb2.CALLER_ROLE_MEMBER,
                user="organizations/demo/users/ada",
                application="organizations/demo/applications/bench",
            )
            parent, holder = self._place_of_key(operator, admin)
            await _create_key(CredentialServiceStub(channel), parent, holder, f"http://127.0.0.1:{upstream_port}")
        self._metadata = bearer(member)

    def _place_of_key(self, operator: str, admin: str) -> tuple[str, str]:
        """Whose the key is, and the token of who puts it in."""
        del operator
        return "organizations/demo", admin

    async def stop(self) -> None:
        if self._channel is not None:
            await self._channel.close()
        for program in (self.program, self._vault):
            if program is not None:
                await program.stop()

    def _call(self, model: str, mark: str) -> completion_pb2.CompletionCall:
        said = ((content_pb2.ROLE_SYSTEM, "You are brief."), (content_pb2.ROLE_USER, f"Say it. {mark}"))
        messages = [
            content_pb2.Message(role=role, parts=[content_pb2.Part(text=content_pb2.TextPart(text=text))])
            for role, text in said
        ]
        return completion_pb2.CompletionCall(
            spec=completion_pb2.CompletionSpec(model=f"bench/{model}", messages=messages)
        )

    async def complete(self, model: str) -> str:
        answer = await self._stub.Complete(
            completion_service_pb2.CompleteRequest(call=self._call(model, "")),
            metadata=self._metadata,
            timeout=DEADLINE_SECONDS,
            wait_for_ready=True,
        )
        return "".join(part.text.text for part in answer.message.parts)

    async def stream(self, model: str, mark: str = "") -> AsyncGenerator[str, None]:
        call = self._stub.StreamComplete(
            completion_service_pb2.StreamCompleteRequest(call=self._call(model, mark)),
            metadata=self._metadata,
            timeout=DEADLINE_SECONDS,
        )
        try:
            async for response in call:
                if text := "".join(event.part_delta.text.text for event in response.events):
                    yield text
        finally:
            call.cancel()

    async def restart_router(self) -> float:
        """Seconds from the start of the router's process to the first answer; the credential service runs."""
        assert self.program is not None
        await self.program.stop()
        return await self._time_start()

    async def restart_all(self) -> float:
        """Seconds from starting both services to the first answer."""
        assert self.program is not None
        assert self._vault is not None
        await self.program.stop()
        await self._vault.stop()
        begin = time.monotonic()
        self._vault = self._start_vault()
        return await self._time_start(begin)

    async def _time_start(self, begin: float | None = None) -> float:
        begin = time.monotonic() if begin is None else begin
        self.program = self._start_router()
        await self._connect()
        while True:
            self.program.check()
            try:
                await self.complete("bench-unary")
            except grpc.aio.AioRpcError as error:
                # Not ready yet is the only answer that a start may give.
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise
                await asyncio.sleep(0.01)
            else:
                return time.monotonic() - begin

    async def time_import(self) -> float:
        """Seconds that importing the router's program takes, beyond the interpreter's own start."""
        code = "import time; t = time.perf_counter(); import router_service.app; print(time.perf_counter() - t)"
        done = await asyncio.to_thread(
            subprocess.run, [PYTHON, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
        )
        return float(done.stdout)


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    """A caller's token, as its calls bring it."""
    return (("authorization", f"Bearer {token}"),)


async def _issue(
    tokens: TokenServiceAsyncStub,
    issuer: str,
    role: token_service_pb2.CallerRole.ValueType,
    user: str = "",
    application: str = "",
) -> str:
    token = token_service_pb2.Token(display_name="bench", user=user, application=application, roles=[role])
    request = token_service_pb2.IssueTokenRequest(parent="organizations/demo", token=token)
    return (await tokens.IssueToken(request, metadata=bearer(issuer), wait_for_ready=True)).bearer_token


async def _create_key(credentials: CredentialServiceAsyncStub, parent: str, admin: str, origin: str) -> None:
    credential = credential_pb2.Credential(
        provider="providers/bench", kind=credential_pb2.CREDENTIAL_KIND_API_KEY, allowed_origins=[origin]
    )
    created = await credentials.CreateCredential(
        credential_service_pb2.CreateCredentialRequest(parent=parent, credential_id="bench", credential=credential),
        metadata=bearer(admin),
    )
    added = await credentials.AddCredentialVersion(
        credential_service_pb2.AddCredentialVersionRequest(
            parent=created.credential.name, secret_material=credential_pb2.SecretMaterial(api_key=KEY)
        ),
        metadata=bearer(admin),
    )
    # Forced, because the test of a key is the router's, which has not started.
    await credentials.ActivateCredentialVersion(
        credential_service_pb2.ActivateCredentialVersionRequest(name=added.credential_version.name, force=True),
        metadata=bearer(admin),
    )
