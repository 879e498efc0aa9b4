"""A deployment whose every secret is a canary: its own processes, home, temporary folder and scripted provider."""

import asyncio
import socket
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from keyswitch.router.v1 import completion_pb2, content_pb2, payer_pb2, route_policy_pb2
from keyswitch.vault.v1 import credential_pb2, credential_service_pb2, token_service_pb2

from deploy.local.stack import APPLICATION, ORGANIZATION, USER, Ports, Stack
from tests.fakes.free_ports import free_ports
from tests.fakes.scripted_upstream import ScriptedUpstream, scripted_upstream
from tests.security.canary import Canary, Scanner, make_key, token_canary
from tests.security.canary_calls import Calls, open_calls

OPERATOR = "the operator's token"
RIGHTFUL_FILES = {"operator.token": OPERATOR}
"""Files that hold a secret by purpose: the first start hands the operator's token over in this one, mode 0600."""

CHAT, CLAUDE, REFUSED, EMBED = "scripted/chat", "scripted/claude", "refused/chat", "scripted/embed"
AWS = "scripted/aws"

CONFIGURATION = """\
deployment: {name: keyswitch, default_model: scripted/chat, byok_enabled: true}
organizations:
  demo:
    markup_basis_points: 500
    default_model: scripted/chat
    users: [ada]
    applications:
      chat:
        payers: [USER_KEY, ORGANIZATION_KEY, SHARED_KEY, CREDITS]
        payer_failover_on: []
        default_model: scripted/chat
        allowed_models: ["*"]
providers:
  scripted:
    dialect: openai_chat
    base_url: "http://127.0.0.1:UPSTREAM/v1"
    auth: bearer
    breaker_failures: 0
    allowed_private_networks: [127.0.0.1/32]
  scripted-anthropic:
    dialect: anthropic_messages
    base_url: "http://127.0.0.1:UPSTREAM"
    auth: x-api-key
    key_test_path: /v1/models
    breaker_failures: 0
    allowed_private_networks: [127.0.0.1/32]
  scripted-aws:
    dialect: bedrock_converse
    base_url: "http://127.0.0.1:UPSTREAM"
    auth: aws
    key_test_path: ""
    breaker_failures: 0
    allowed_private_networks: [127.0.0.1/32]
  refused:
    dialect: openai_chat
    base_url: "http://127.0.0.1:CLOSED/v1"
    auth: bearer
    allowed_private_networks: [127.0.0.1/32]
models:
  scripted/chat:
    endpoints: [{provider: scripted, upstream_model: chat}]
    price: {input_usd_per_million: "0.10", output_usd_per_million: "0.40", checked: 2026-11-21}
  scripted/claude:
    endpoints: [{provider: scripted-anthropic, upstream_model: claude}]
    price: {input_usd_per_million: "0.10", output_usd_per_million: "0.40", checked: 2026-11-21}
  scripted/aws:
    endpoints: [{provider: scripted-aws, upstream_model: chat}]
    price: {input_usd_per_million: "0.10", output_usd_per_million: "0.40", checked: 2026-11-21}
  scripted/embed:
    endpoints: [{provider: scripted, upstream_model: embed}]
    embedding: {dimensions: 3}
    price: {input_usd_per_million: "0.10", output_usd_per_million: "0.40", checked: 2026-11-21}
  refused/chat:
    endpoints: [{provider: refused, upstream_model: chat}]
    price: {input_usd_per_million: "0.10", output_usd_per_million: "0.40", checked: 2026-11-21}
deployment_credentials:
  shared: {provider: scripted, payers: [SHARED_KEY, CREDITS]}
  fixed: {provider: scripted-anthropic, payers: [SHARED_KEY]}
"""


@dataclass(slots=True)
class Watched:
    """A running deployment, the canaries in it and the way to it."""

    stack: Stack
    upstream: ScriptedUpstream
    calls: Calls
    scanner: Scanner
    temporary: Path
    closed_port: int
    tokens: dict[str, str] = field(default_factory=dict, repr=False)
    rightful: dict[str, str] = field(default_factory=lambda: dict(RIGHTFUL_FILES))
    rightful_variable: str = field(default="", repr=False)
    user_key: Canary = field(default_factory=lambda: make_key("ada's key"))
    organization_key: Canary = field(default_factory=lambda: make_key("the organization's key", "sk-ant-api03-"))
    shared_key: Canary = field(default_factory=lambda: make_key("the deployment's key", ""))
    wrong_key: Canary = field(default_factory=lambda: make_key("a key in the wrong place", "AIza"))

    @property
    def origin(self) -> str:
        """Where the scripted provider's keys go."""
        return f"http://127.0.0.1:{self.upstream.port}"

    async def start(self) -> None:
        """Starts the services, and saves the keys."""
        await self.stack.start()
        self.tokens["operator"] = self.stack.operator_token()
        self.scanner.add(token_canary(OPERATOR, self.tokens["operator"]))
        roles = token_service_pb2.CallerRole
        for name, role, user in (("admin", "ADMIN", ""), ("member", "MEMBER", USER), ("auditor", "AUDITOR", "")):
            token = token_service_pb2.Token(
                display_name=name, roles=[roles.Value(f"CALLER_ROLE_{role}")], user=user,
                application=APPLICATION if user else "",
            )  # fmt: skip
            request = token_service_pb2.IssueTokenRequest(parent=ORGANIZATION, token=token)
            answer = (await self.calls.call("IssueToken", request, self.tokens["operator"])).answers[0]
            assert isinstance(answer, token_service_pb2.IssueTokenResponse)
            self.tokens[name] = answer.bearer_token
            self.scanner.add(token_canary(f"the {name}'s token", answer.bearer_token))
        await self.save_all()

    async def save_all(self) -> None:
        """Saves the keys of ada, the organization and the deployment."""
        refused_origin = f"http://127.0.0.1:{self.closed_port}"
        await self.save(USER, "own", "scripted", self.user_key, "member")
        await self.save(ORGANIZATION, "claude", "scripted-anthropic", self.organization_key, "admin")
        await self.save(ORGANIZATION, "refused", "refused", self.organization_key, "admin", refused_origin)
        await self.save("deployment", "shared", "scripted", self.shared_key, "operator")

    async def save(self, parent: str, name: str, provider: str, key: Canary, by: str, origin: str = "") -> str:
        """Creates a credential with an active version."""
        pb, token = credential_service_pb2, self.tokens[by]
        credential = credential_pb2.Credential(
            provider=f"providers/{provider}",
            kind=credential_pb2.CREDENTIAL_KIND_API_KEY,
            allowed_origins=[origin or self.origin],
        )
        create = pb.CreateCredentialRequest(parent=parent, credential_id=name, credential=credential)
        assert (await self.calls.call("CreateCredential", create, token)).is_ok
        full = f"{parent}/credentials/{name}"
        add = pb.AddCredentialVersionRequest(
            parent=full, secret_material=credential_pb2.SecretMaterial(api_key=key.value)
        )
        assert (await self.calls.call("AddCredentialVersion", add, token)).is_ok
        version = f"{full}/versions/1"
        activate = pb.ActivateCredentialVersionRequest(name=version, force=True)
        assert (await self.calls.call("ActivateCredentialVersion", activate, token)).is_ok
        return version

    async def renew(self, payer: str, model: str) -> None:
        """The same key as another version: what rests because of what the provider said of the one before is awake."""
        name, key, by = f"{USER}/credentials/own", self.user_key, "member"
        if payer:
            name, key, by = "deployment/credentials/shared", self.shared_key, "operator"
        elif model == CLAUDE:
            name, key, by = f"{ORGANIZATION}/credentials/claude", self.organization_key, "admin"
        pb, token = credential_service_pb2, self.tokens[by]
        add = pb.AddCredentialVersionRequest(
            parent=name, secret_material=credential_pb2.SecretMaterial(api_key=key.value)
        )
        added = (await self.calls.call("AddCredentialVersion", add, token)).answers[0]
        assert isinstance(added, pb.AddCredentialVersionResponse)
        activate = pb.ActivateCredentialVersionRequest(name=added.credential_version.name, force=True)
        assert (await self.calls.call("ActivateCredentialVersion", activate, token)).is_ok

    def call_for(self, model: str = CHAT, payer: str = "") -> completion_pb2.CompletionCall:
        """A completion that is asked for."""
        text = content_pb2.Part(text=content_pb2.TextPart(text="Hello."))
        call = completion_pb2.CompletionCall(
            spec=completion_pb2.CompletionSpec(
                model=model, messages=[content_pb2.Message(role=content_pb2.ROLE_USER, parts=[text])]
            ),
            application=APPLICATION,
        )
        if payer:
            call.route_policy.CopyFrom(
                route_policy_pb2.RoutePolicy(payers=[payer_pb2.Payer.Value(f"PAYER_{payer}")], max_attempts=1)
            )
        else:
            call.route_policy.max_attempts = 1
        return call

    async def search_everything(self) -> None:
        """Searches what lies about: files, processes, metrics. What came over the wire was searched as it came."""
        for name, process in self.stack.processes.items():
            if process.poll() is None:
                self.scanner.scan_process(name, process.pid, self.rightful_variable)
        for name, port in (("router", self.stack.ports.router_http), ("vault", self.stack.ports.vault_http)):
            for path in ("metrics", "healthz", "readyz"):
                self.scanner.scan("HTTP", f"/{path} of {name}", await asyncio.to_thread(_fetch, port, path))
        self.search_files()

    def search_files(self) -> None:
        """Searches the home with its logs, databases and audit segments, and the temporary folder."""
        self.scanner.scan_files("home", self.stack.home, self.rightful)
        self.scanner.scan_files("temporary files", self.temporary, {})


@asynccontextmanager
async def watched_deployment(
    folder: Path,
    log_level: str,
    prepare: Callable[[Watched], Awaitable[None]] | None = None,
    *,
    fixed: Callable[[str], dict[str, str]] = lambda _: {},
    **more: str,
) -> AsyncIterator[Watched]:
    """Runs one below a folder until the block ends; `more` goes to the environment.

    `prepare` is called before. `fixed` makes of the provider's origin what the credential service alone has in its
    environment.
    """
    temporary = folder / "tmp"
    temporary.mkdir(parents=True)
    environment = {"KEYSWITCH_LOG_LEVEL": log_level, "TMPDIR": str(temporary), **more}
    if log_level == "debug":
        environment["PYTHONASYNCIODEBUG"] = "1"  # what an operator who looks for a fault may set; it prints tasks
    async with scripted_upstream() as upstream:
        closed_port = _closed_port()
        configuration = CONFIGURATION.replace("UPSTREAM", str(upstream.port)).replace("CLOSED", str(closed_port))
        stack = Stack(
            folder / "home",
            Ports(*free_ports(6)),
            environment=environment,
            vault_environment=fixed(f"http://127.0.0.1:{upstream.port}"),
            configuration=configuration.replace("{", "{{").replace("}", "}}"),
        )
        scanner = Scanner()
        # The certificates are made by the start; the channels need them before the first call, so make them here.
        (folder / "home").mkdir(mode=0o700)
        await _make_certificates(folder / "home")
        calls = open_calls(
            scanner, folder / "home", stack.router_target, stack.vault_target, f"127.0.0.1:{stack.ports.lease}"
        )
        watched = Watched(stack, upstream, calls, scanner, temporary, closed_port)
        scanner.add(watched.user_key, watched.organization_key, watched.shared_key, watched.wrong_key)
        try:
            if prepare is not None:
                await prepare(watched)
            await watched.start()
            yield watched
        finally:
            await calls.close()
            await stack.stop()


async def _make_certificates(home: Path) -> None:
    import datetime as dt

    from vault_service.devca import make_development_certificates

    await asyncio.to_thread(make_development_certificates, home, dt.datetime.now(dt.UTC))


def _closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _fetch(port: int, path: str) -> bytes:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://127.0.0.1:{port}/{path}", timeout=10) as answer:
            data: bytes = answer.read()
    except urllib.error.HTTPError as error:
        with error:
            data = error.read()
    except OSError:
        return b""  # the process was stopped by the test
    assert data, f"/{path} is empty"
    return data
