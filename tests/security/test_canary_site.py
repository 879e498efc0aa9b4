"""The deployment's own secrets (promise 1): passwords of database and limits, what logs in to Vault, Vault's tokens.

Both services run as processes over a real Vault, PostgreSQL and Redis, under faults of each. What crosses the loopback
interface between them is captured. The way to Vault ends its TLS here, so that the test sees what Vault gave out.
"""

import asyncio
import os
import re
import resource
import signal
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest
import redis
import requests
from keyswitch.router.v1 import completion_service_pb2

from tests.fakes.caller_certificates import CallerAuthority
from tests.fakes.postgres_server import USER, PostgresServer
from tests.fakes.redis_server import RedisServer, running_redis
from tests.fakes.vault_server import ROLE, VaultServer, free_port
from tests.security import canary_upstream as answers
from tests.security.canary import Canary, Scanner, make_key
from tests.security.canary_deployment import CHAT, Watched, watched_deployment
from tests.security.loopback_capture import LoopbackCapture
from tests.security.promises import tried

GIVEN = re.compile(rb'"(secret_id|client_token)":"([^"]{20,})"')


class TlsWay:
    """A way to a server without TLS that ends TLS here, and learns the secrets that the server gives out."""

    def __init__(self, target: int, secured: ssl.SSLContext, scanner: Scanner) -> None:
        self._target = target
        self._secured = secured
        self._scanner = scanner
        self.learned: dict[str, set[str]] = {"secret_id": set(), "client_token": set()}
        self.port = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator["TlsWay"]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._secured)
        self.port = server.sockets[0].getsockname()[1]
        async with server:
            yield self

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, here = await asyncio.open_connection("127.0.0.1", self._target)
        await asyncio.gather(
            self._pass(reader, here, None), self._pass(there, writer, bytearray()), return_exceptions=True
        )

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: bytearray | None) -> None:
        try:
            while data := await reader.read(65536):
                if seen is not None:
                    self._learn(seen, data)
                writer.write(data)
                await writer.drain()
        finally:
            writer.close()

    def _learn(self, seen: bytearray, data: bytes) -> None:
        seen += data
        for kind, value in GIVEN.findall(bytes(seen)):
            text = value.decode()
            if text not in self.learned[kind.decode()]:
                self.learned[kind.decode()].add(text)
                name = f"Vault's {kind.decode()} {len(self.learned[kind.decode()])}"
                self._scanner.add(Canary(name, text, (text.replace("-", "") if "." in text else text,)))
        del seen[:-4096]


def wrap_secret_id(server: VaultServer, folder: Path) -> tuple[Path, Path, str]:
    """Files with the role id and a wrapping token, and that token."""
    role_id, _ = server.credentials()
    headers = {"X-Vault-Token": server.root_token, "X-Vault-Wrap-TTL": "300s"}
    path = f"{server.url}/v1/auth/approle/role/{ROLE}/secret-id"
    with requests.Session() as session:
        session.trust_env = False
        wrapped: str = session.post(path, headers=headers, timeout=10).json()["wrap_info"]["token"]
    files = folder / "role-id", folder / "wrapped-secret-id"
    for file, value in zip(files, (role_id, wrapped), strict=True):
        file.write_text(value)
        file.chmod(0o600)
    return *files, wrapped


@pytest.mark.vault
@pytest.mark.timeout(300)
async def test_no_secret_of_the_deployment_gets_out(
    own_vault_server: VaultServer, own_postgres_server: PostgresServer, redis_program: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o700)
    role_id_file, wrapped_file, wrapped = wrap_secret_id(own_vault_server, outside)
    authority, scanner = CallerAuthority("Vault's"), Scanner()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    for name, pem in zip(("chain", "key"), authority.issue_for_host("localhost"), strict=True):
        (outside / name).write_bytes(pem)
    (outside / "ca.pem").write_bytes(authority.pem)
    context.load_cert_chain(outside / "chain", outside / "key")
    database, redis_password = make_key("the database's password", ""), make_key("the limits' password", "")
    name = own_postgres_server.create_database()
    with own_postgres_server.connect() as connection:
        connection.execute(f"ALTER USER {USER} PASSWORD '{database.value}'")
    (outside / "database-password").write_text(database.value)
    allow_cores()
    async with (
        TlsWay(int(own_vault_server.url.rpartition(":")[2]), context, scanner).running() as way,
        running_limits(redis_program, outside, redis_password) as (own_redis_server, limits),
    ):
        environment = {
            "KEYSWITCH_VAULT_STORE": "hashicorp",
            "KEYSWITCH_VAULT_HASHICORP_URL": f"https://localhost:{way.port}",
            "KEYSWITCH_VAULT_HASHICORP_CA_FILE": str(outside / "ca.pem"),
            "KEYSWITCH_VAULT_HASHICORP_ROLE_ID_FILE": str(role_id_file),
            "KEYSWITCH_VAULT_HASHICORP_WRAPPED_SECRET_ID_FILE": str(wrapped_file),
            "KEYSWITCH_DATABASE_URL": own_postgres_server.url(name),
            "KEYSWITCH_DATABASE_PASSWORD_FILE": str(outside / "database-password"),
            "KEYSWITCH_LIMITS": limits,
            "PYTHONFAULTHANDLER": "1",
        }
        captures: list[LoopbackCapture] = []

        async def prepare(watched: Watched) -> None:
            scanner.add(*watched.scanner.canaries)
            watched.scanner = watched.calls.scanner = scanner
            watched.rightful_variable = limits
            scanner.add(database, redis_password, Canary("the wrapping token", wrapped, (wrapped,)))
            ends = [own_redis_server.port, own_postgres_server.port]
            captures.append(LoopbackCapture([*wire_ports(watched, way), *ends, watched.upstream.port]))
            captures[0].__enter__()

        async with watched_deployment(tmp_path, "debug", prepare, **environment) as watched:  # type: ignore[arg-type] # all are texts
            try:
                await drive(watched, own_vault_server, way)
                await spoil_limits(watched, own_redis_server, redis_password.value)
                await spoil_database(watched, own_postgres_server, name, database.value)
            finally:
                captures[0].__exit__()
            check_wire(watched, captures[0], [*wire_ports(watched, way), own_redis_server.port])
            database_bytes = captures[0].bytes_of(own_postgres_server.port)  # no TLS: a password that is never sent
            assert b"router" in database_bytes, "the capture sees what is there"
            scanner.scan("wire", "the wire to the database", database_bytes)
            await watched.search_everything()
            await crash(watched)
            watched.search_files()
    assert way.learned["secret_id"], "the wrapped secret id was opened"
    assert len(way.learned["client_token"]) > 1, "the service logged in again"
    assert not scanner.hits, "\n".join(sorted({str(hit) for hit in scanner.hits}))
    calls = watched.calls
    tried(
        1,
        "canaries of the deployment: passwords, wrapped and opened secret ids, Vault's tokens; the wire captured",
        secrets=len(scanner.canaries),
        calls=sum(calls.succeeded.values()) + sum(calls.failed.values()),
        wire_bytes=sum(len(captures[0].bytes_of(port)) for port in captures[0].ports),
        crashes=2,
        hits=0,
    )


def wire_ports(watched: Watched, way: TlsWay) -> list[int]:
    ports = watched.stack.ports
    return [ports.router, ports.management, ports.lease, way.port]


@asynccontextmanager
async def running_limits(program: Path, folder: Path, password: Canary) -> AsyncIterator[tuple[RedisServer, str]]:
    """A server of limits over TLS, with a password, and its address."""
    port = free_port()
    with running_redis(program, port, (folder / "chain", folder / "key")) as server:
        with server.connect() as client:
            client.config_set("requirepass", password.value)
        secret, authority = quote(password.value, safe=""), quote(str(folder / "ca.pem"), safe="")
        yield server, f"rediss://:{secret}@localhost:{port}/0?ssl_ca_certs={authority}"


def check_wire(watched: Watched, capture: LoopbackCapture, ports: list[int]) -> None:
    """Nothing in clear between the services, Vault and the server of limits; on the way to the provider, which has no
    TLS here, the key."""
    for port in ports:
        data = capture.bytes_of(port)
        assert len(data) > 5_000, "the capture saw the connection"
        watched.scanner.scan("wire", f"the wire at port {port}", data)
    assert watched.user_key.value.encode() in capture.bytes_of(watched.upstream.port), "the capture sees what is there"


async def complete(watched: Watched, calls: int) -> None:
    """Calls on her own key and on credits; under a fault they end as they may."""
    for number in range(calls):
        watched.upstream.script(*[answers.openai_stream()] * 2)
        call = watched.call_for(CHAT, "" if number % 2 else "CREDITS")
        request = completion_service_pb2.StreamCompleteRequest(call=call)
        await watched.calls.call("StreamComplete", request, watched.tokens["member"])


async def drive(watched: Watched, vault: VaultServer, way: TlsWay) -> None:
    """While everything is right, when Vault's token is revoked under the service, and while Vault does not answer."""
    await complete(watched, 10)
    for token in list(way.learned["client_token"]):
        vault.ask("POST", "auth/token/revoke", {"token": token})
    await watched.renew("", CHAT)
    await complete(watched, 2)
    vault.process.send_signal(signal.SIGSTOP)
    try:
        await complete(watched, 2)
    finally:
        vault.process.send_signal(signal.SIGCONT)


async def spoil_limits(watched: Watched, limits: RedisServer, password: str) -> None:
    """Another password, and then nobody who listens."""
    with redis.Redis(unix_socket_path=str(limits.socket), password=password) as client:
        client.config_set("requirepass", "changed-meanwhile")
        client.execute_command("CLIENT", "KILL", "TYPE", "normal")
    await complete(watched, 4)
    limits.stop()
    await complete(watched, 4)


async def spoil_database(watched: Watched, database: PostgresServer, name: str, password: str) -> None:
    """The same."""
    with psycopg.connect(database.url(), password=password, autocommit=True) as connection:
        connection.execute(f"ALTER USER {USER} PASSWORD 'changed-meanwhile'")
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,))
    await complete(watched, 4)
    database.stop()
    await complete(watched, 4)


def allow_cores() -> None:
    """Whatever limit this process had: a core must not be missing because of that."""
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))


async def crash(watched: Watched) -> None:
    """Both services abort: what they say then is searched, and the system has written no core."""
    for name in ("router", "vault"):
        process = watched.stack.processes[name]
        os.kill(process.pid, signal.SIGABRT)
        ended = await asyncio.to_thread(os.waitid, os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert ended is not None
        assert ended.si_code == os.CLD_KILLED, "killed, and no core was dumped"
        assert "Fatal Python error: Aborted" in watched.stack.log_path(name).read_text(), "it said where it was"
        process.wait()
