"""Two routers and two credential services as processes of their own, over one real Vault and a scripted provider."""

import asyncio
import json
import os
import signal
import ssl
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import grpc
from keyswitch.vault.v1 import credential_pb2, credential_service_pb2

from tests.fakes.free_ports import free_ports
from tests.fakes.scripted_upstream import Action, Received, ScriptedUpstream, respond, scripted_upstream
from tests.fakes.vault_server import VaultServer
from tests.security.promises import count
from tests.service.router_answers import Json, answer, make_configuration
from tests.service.router_harness import ADA, CHAT, DEMO, Caller, copy_certificates
from tests.service.vault_harness import Client, Router, Vault, make_home, open_channel, running_vault
from vault_service.config import LeaseConfig

ROOT = Path(__file__).parents[2]
START_SECONDS = 180.0
MAIN = f"{DEMO}/credentials/first"
OTHER = "organizations/other"
EVE = f"{OTHER}/users/eve"
REJECTED: list[Action] = respond(b'{"error":{"message":"bad key","code":"invalid_api_key"}}', status=401)


@dataclass
class Program:
    """One of the services as a process; it may be ended and started again. Its output is in `home`/log."""

    module: str
    home: Path
    port: int
    http_port: int
    environment: dict[str, str]
    launcher: Sequence[str] = ()
    """What starts it instead of this machine's own way, and becomes it in the end."""
    process: "asyncio.subprocess.Process | None" = None

    async def start(self) -> None:
        """Returns when it is ready."""
        clean = {name: text for name, text in os.environ.items() if not name.startswith(("GRPC_", "KEYSWITCH_"))}
        paths = os.pathsep.join([str(ROOT), str(ROOT / "protos" / "gen" / "python")])
        environment = {**clean, "PYTHONPATH": paths, "KEYSWITCH_HOME": str(self.home), **self.environment}
        with (self.home / "log").open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *self.launcher,
                sys.executable,
                "-m",
                self.module,
                cwd=self.home,
                env=environment,
                stdout=log,
                stderr=log,
            )
        async with aiohttp.ClientSession() as session, asyncio.timeout(START_SECONDS):
            while self.process.returncode is None:
                with suppress(aiohttp.ClientError):
                    async with session.get(f"http://127.0.0.1:{self.http_port}/readyz") as response:
                        if response.status == 200:
                            return
                await asyncio.sleep(0.05)
        raise AssertionError(f"{self.module} ended before it was ready: {(self.home / 'log').read_text()[-2000:]}")

    def send(self, number: signal.Signals) -> None:
        """Signals it."""
        assert self.process is not None
        self.process.send_signal(number)

    async def ended(self) -> int:
        """Its exit status."""
        assert self.process is not None
        async with asyncio.timeout(START_SECONDS):
            return await self.process.wait()

    async def stop(self) -> None:
        """Ends it, however it is."""
        if self.process is not None and self.process.returncode is None:
            self.process.kill()
            await self.process.wait()

    @property
    def resident_bytes(self) -> int:
        """What it holds of the memory."""
        assert self.process is not None
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")


class Gate:
    """A way to a port that can be cut: what is sent then waits, as on a network that drops every packet."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._is_open = asyncio.Event()
        self._is_open.set()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> int:
        """Gives the port to connect to instead."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return int(self._server.sockets[0].getsockname()[1])

    def cut(self) -> None:
        """From now on nothing gets through."""
        self._is_open.clear()

    def mend(self) -> None:
        """What waited goes on its way."""
        self._is_open.set()

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._is_open.wait()
            there, here = await asyncio.open_connection("127.0.0.1", self._target)
            await asyncio.gather(self._pass(reader, here), self._pass(there, writer))
        except (OSError, asyncio.CancelledError):
            pass  # either side left, or the test is over
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                await self._is_open.wait()
                writer.write(data)
                await writer.drain()
        finally:
            writer.close()


@dataclass
class Site:
    """Everything that runs. `callers` are the same member at either router."""

    home: Path
    vaults: list[Program]
    routers: list[Program]
    gates: list[Gate]
    upstream: ScriptedUpstream
    ways: list[Vault] = field(default_factory=list)
    origin_start: str = "http://127.0.0.1"
    callers: list[Caller] = field(default_factory=list)
    admin: Client = field(init=False)
    member: Client = field(init=False)

    @property
    def vault(self) -> Vault:
        """The way to the first credential service."""
        return self.ways[0]

    @property
    def origin(self) -> str:
        return f"{self.origin_start}:{self.upstream.port}"

    async def save_key(self, client: Client, name: str, key: str, *, provider: str = "first") -> str:
        """Creates a credential with an active key; gives the version's name."""
        parent, _, credential_id = name.rpartition("/credentials/")
        credential = credential_pb2.Credential(
            provider=f"providers/{provider}",
            kind=credential_pb2.CREDENTIAL_KIND_API_KEY,
            allowed_origins=[self.origin],
        )
        request = credential_service_pb2.CreateCredentialRequest(
            parent=parent, credential_id=credential_id, credential=credential
        )
        await client.call(client.credentials.CreateCredential, request)
        version = await self.vault.add(client, name, key)
        await self.vault.activate(client, version.name)
        return str(version.name)

    async def delete_key(self, client: Client, name: str) -> None:
        request = credential_service_pb2.DeleteCredentialRequest(name=name)
        await client.call(client.credentials.DeleteCredential, request)

    def open_channel(self, options: Sequence[tuple[str, int]] = ()) -> grpc.aio.Channel:
        """A connection of its own to the first router; its windows do not grow while nobody reads."""
        own = (("grpc.use_local_subchannel_pool", 1), ("grpc.http2.bdp_probe", 0), *options)
        authority = grpc.ssl_channel_credentials((self.home / "ca.pem").read_bytes())
        return grpc.aio.secure_channel(f"localhost:{self.routers[0].port}", authority, options=own)

    async def until_served(self, callers: Sequence[Caller]) -> None:
        """Returns when each of them gets an answer."""
        async with asyncio.timeout(30):
            for caller in callers:
                while (await caller.stream()).error is not None:
                    await asyncio.sleep(0.02)

    def at_routers(self, token: str) -> list[Caller]:
        """Another caller, at either router."""
        return [Caller(channel, token) for channel in self._channels]

    _channels: list[grpc.aio.Channel] = field(default_factory=list)


class Provider:
    """A provider that takes some keys, and knows when it was sent which."""

    def __init__(self, site: Site, *keys: str) -> None:
        self.keys = set(keys)
        self.sent: list[tuple[float, str]] = []
        self.rejected: list[float] = []
        self.script: list[Action] | None = None
        site.upstream.choose = self.choose

    def choose(self, request: Received) -> list[Action]:
        now, key = time.monotonic(), request.headers["authorization"].removeprefix("Bearer ")
        self.sent.append((now, key))
        if key in self.keys:
            return answer() if self.script is None else self.script
        self.rejected.append(now)
        return REJECTED


class Load:
    """Callers that call without a pause; every end is kept."""

    def __init__(self, callers: Sequence[Caller], each: int = 3) -> None:
        self._callers = [caller for caller in callers for _ in range(each)]
        self._is_over = False
        self.failed: list[str] = []
        self.served = 0

    async def __aenter__(self) -> "Load":
        self._tasks = [asyncio.create_task(self._call(caller)) for caller in self._callers]
        return self

    async def _call(self, caller: Caller) -> None:
        while not self._is_over:
            found = await caller.stream()
            self.served += 1
            if found.error is not None:
                self.failed.append(found.error.reason)

    async def serve(self, calls: int) -> None:
        """Returns when so many more calls were answered."""
        until = self.served + calls
        async with asyncio.timeout(120):
            while self.served < until:
                await asyncio.sleep(0.005)

    async def __aexit__(self, *_: object) -> None:
        self._is_over = True
        await asyncio.gather(*self._tasks)


def _vault_program(base: Path, number: int, server: VaultServer) -> Program:
    home = copy_certificates(base, base / f"vault-{number}")
    role_id_file, secret_id_file = server.write_credentials(home)
    management, lease, http = free_ports(3)
    environment = {
        "KEYSWITCH_VAULT_MANAGEMENT_ADDRESS": f"127.0.0.1:{management}",
        "KEYSWITCH_VAULT_LEASE_ADDRESS": f"127.0.0.1:{lease}",
        "KEYSWITCH_VAULT_HTTP_ADDRESS": f"127.0.0.1:{http}",
        "KEYSWITCH_VAULT_DRAIN_SECONDS": "10",
        "KEYSWITCH_VAULT_AUDIT_CHAIN": f"vault-{number}",
        "KEYSWITCH_VAULT_STORE": "hashicorp",
        "KEYSWITCH_VAULT_HASHICORP_URL": server.url,
        "KEYSWITCH_VAULT_HASHICORP_ROLE_ID_FILE": str(role_id_file),
        "KEYSWITCH_VAULT_HASHICORP_SECRET_ID_FILE": str(secret_id_file),
    }
    return Program("vault_service", home, management, http, environment)


def _router_program(base: Path, number: int, lease_ports: Sequence[int]) -> Program:
    home = copy_certificates(base, base / f"router-{number}")
    port, http = free_ports(2)
    environment = {
        "KEYSWITCH_CONFIG": str(base / "keyswitch.yaml"),
        "KEYSWITCH_LISTEN": f"127.0.0.1:{port}",
        "KEYSWITCH_HTTP_LISTEN": f"127.0.0.1:{http}",
        "KEYSWITCH_LEASE_TARGET": ",".join(f"localhost:{lease_port}" for lease_port in lease_ports),
        "KEYSWITCH_DRAIN_SECONDS": "20",
        "KEYSWITCH_DISCONNECT_GRACE_SECONDS": str(count(10, 2)),  # in the plain run others hold heartbeats back, too
        "KEYSWITCH_RELOAD_INTERVAL_SECONDS": "0.2",
    }
    return Program("router_service", home, port, http, environment)


@asynccontextmanager
async def running_site(server: VaultServer, base: Path) -> AsyncIterator[Site]:
    """Runs it below a folder. The first router prefers the first credential service, the second the second, which it
    reaches through gates."""
    async with AsyncExitStack() as exits:
        make_home(base)
        upstream = await exits.enter_async_context(scripted_upstream())
        (base / "keyswitch.yaml").write_text(json.dumps(make_configuration(upstream.port, upstream.port)))
        vaults = [_vault_program(base, number, server) for number in range(2)]
        leases = [int(one.environment["KEYSWITCH_VAULT_LEASE_ADDRESS"].rpartition(":")[2]) for one in vaults]
        gates = [Gate(port) for port in leases]
        gated = []
        for gate in gates:
            gated.append(await gate.start())
            exits.push_async_callback(gate.stop)
        routers = [_router_program(base, 0, leases), _router_program(base, 1, gated[::-1])]
        for program in (*vaults, *routers):
            exits.push_async_callback(program.stop)
            await program.start()
        site = Site(base, vaults, routers, gates, upstream)
        await _open_ways(site, leases, exits)
        yield site


async def _open_ways(site: Site, lease_ports: Sequence[int], exits: AsyncExitStack) -> None:
    token = (site.vaults[0].home / "operator.token").read_text(encoding="ascii").strip()
    for program, lease_port in zip(site.vaults, lease_ports, strict=True):
        management = await exits.enter_async_context(open_channel(site.home, program.port))
        lease = await exits.enter_async_context(open_channel(site.home, lease_port, "router"))
        way = Vault(None, site.home, Client(management, token), Client(lease), Router(site.home))  # type: ignore[arg-type] # another process
        site.ways.append(way)
    await _meet_routers(site, exits)


async def _meet_routers(site: Site, exits: AsyncExitStack) -> None:
    for program in site.routers:
        site._channels.append(await exits.enter_async_context(open_channel(site.home, program.port)))
    site.admin = await site.vault.issue(DEMO, "ADMIN")
    site.member = await site.vault.issue(DEMO, "MEMBER", user=ADA, application=CHAT)
    site.callers = site.at_routers(site.member.token)


SECURED_ORIGIN = "https://localhost"


@asynccontextmanager
async def running_router(
    base: Path,
    configure: Callable[[Json], None] = lambda _: None,
    launch: Callable[[Path], Sequence[str]] = lambda _: (),
) -> AsyncIterator[Site]:
    """One router as a process of its own, before a credential service in this one and a provider that speaks TLS.
    `launch` gives what starts it, of its home."""
    async with AsyncExitStack() as exits:
        make_home(base)
        secured = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        secured.load_cert_chain(base / "vault.pem", base / "vault-key.pem")
        upstream = await exits.enter_async_context(scripted_upstream(secured=secured))
        made = make_configuration(upstream.port, upstream.port)
        made["providers"]["first"]["base_url"] = f"{SECURED_ORIGIN}:{upstream.port}/v1"
        configure(made)
        (base / "keyswitch.yaml").write_text(json.dumps(made))
        # It shares its process with all callers, who may keep it longer than a second from reading the changes.
        vault = await exits.enter_async_context(running_vault(base, leases=LeaseConfig(change_fresh_seconds=10.0)))
        router = _router_program(base, 0, [vault.service.lease_port])
        router.launcher = launch(router.home)
        router.environment["SSL_CERT_FILE"] = str(base / "ca.pem")
        exits.push_async_callback(router.stop)
        await router.start()
        site = Site(base, [], [router], [], upstream, ways=[vault], origin_start=SECURED_ORIGIN)
        await _meet_routers(site, exits)
        yield site
