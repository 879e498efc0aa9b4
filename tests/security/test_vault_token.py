"""The credential service's own token in Vault: it goes nowhere else, and its renewal leaves no gap."""

import asyncio
import itertools
import random
import ssl
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.fakes.vault_server import VaultServer
from tests.security.promises import count, tried
from vault_service.store.hashicorp import HashiCorpStore
from vault_service.store.store import Unavailable
from vault_service.store.vault_settings import AppRoleFiles, TokenFile, VaultSettings

Answer = Callable[[bytes], bytes]
REDIRECTS = (301, 302, 303, 307, 308)


@asynccontextmanager
async def listening(
    host: str, answer: Answer, secured: ssl.SSLContext | None = None, port: int = 0
) -> AsyncIterator[tuple[int, list[bytes]]]:
    """A server that answers each request's head; gives its port and the heads that came."""
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                heads.append(head)
                writer.write(answer(head))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, host, port, ssl=secured)
    async with server:
        yield server.sockets[0].getsockname()[1], heads


def respond(status: int, body: bytes = b"{}", location: str = "") -> bytes:
    lines = [f"HTTP/1.1 {status} X", f"content-length: {len(body)}", *([f"location: {location}"] if location else [])]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def calls_of(store: HashiCorpStore) -> list[Callable[[], object]]:
    return [
        lambda: store.read("a"),
        lambda: store.list("a"),
        lambda: store.delete("a"),
        lambda: store.sign(b"x"),
        store.signing_keys,
        store.check,
    ]


async def test_a_redirect_takes_the_token_nowhere(tmp_path: Path) -> None:
    token_file = tmp_path / "token"
    token_file.write_text("hvs.CANARY")
    looked_up = b'{"data":{"ttl":3600,"renewable":false,"expire_time":"2100-01-01T00:00:00Z"}}'
    redirected = 0
    async with listening("127.0.0.2", lambda _: respond(200)) as (elsewhere, stolen):
        for status in REDIRECTS:

            def answer(head: bytes, status: int = status) -> bytes:
                if b"lookup-self" in head:
                    return respond(200, looked_up)
                return respond(status, location=f"http://127.0.0.2:{elsewhere}/v1/keyswitch/data/a")

            async with listening("127.0.0.1", answer) as (port, seen):
                store = HashiCorpStore(VaultSettings(f"http://127.0.0.1:{port}", TokenFile(token_file)))
                for call in calls_of(store):
                    with pytest.raises(Unavailable):
                        await call()  # type: ignore[misc] # each gives an awaitable
                    redirected += 1
                await store.close()
                assert any(b"hvs.CANARY" in head for head in seen), "the token was sent to Vault itself"
    assert stolen == []
    tried(14, "redirects to another host, none followed", redirects=redirected, tokens_elsewhere=0)


@pytest.mark.vault
async def test_no_variable_of_the_environment_sees_the_token(
    vault_server: VaultServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with listening("127.0.0.2", lambda _: respond(200)) as (port, stolen):
        for name in (
            "HTTP_PROXY",
            "http_proxy",
            "HTTPS_PROXY",
            "ALL_PROXY",
            "all_proxy",
            "VAULT_ADDR",
            "VAULT_AGENT_ADDR",
        ):
            monkeypatch.setenv(name, f"http://127.0.0.2:{port}")
        monkeypatch.setenv("NO_PROXY", "")
        store = HashiCorpStore(VaultSettings(vault_server.url, AppRoleFiles(*vault_server.write_credentials(tmp_path))))
        rounds = count(5, 200)
        for _ in range(rounds):
            await store.check()
            await store.list("")
        await store.close()
    assert stolen == []
    tried(14, "a real server under hostile proxy variables", requests=2 * rounds, tokens_elsewhere=0)


@asynccontextmanager
async def flaky_way_to(server: VaultServer, chance: random.Random) -> AsyncIterator[str]:
    """A way to the server on which connections are cut now and then; gives its URL."""
    port = int(server.url.rpartition(":")[2])

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                if chance.random() < 0.02:
                    break
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if chance.random() < 0.02:
            writer.close()
            return
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(pump(reader, inner_writer), pump(inner_reader, writer), return_exceptions=True)

    front = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with front:
        yield f"http://127.0.0.1:{front.sockets[0].getsockname()[1]}"


@pytest.mark.vault
async def test_short_tokens_are_renewed_and_replaced_over_a_flaky_way(
    vault_server: VaultServer, tmp_path: Path
) -> None:
    """Several instances with tokens of few seconds: Vault never sees one that has ended."""
    role = f"short-{uuid.uuid4().hex[:8]}"
    shortest, longest = count(4, 2), count(9, 5)  # in the plain run others use the machine, too
    vault_server.make_role(role, ttl=f"{shortest}s", max_ttl=f"{longest}s")
    files = AppRoleFiles(*vault_server.write_credentials(tmp_path, role))
    request_id = f"gap-{uuid.uuid4()}"
    instances, seconds = count(3, 12), count(11, 60)  # more would be late for want of CPU in this one process
    loop = asyncio.get_running_loop()
    calls = cuts = 0
    async with flaky_way_to(vault_server, random.Random(7)) as url:
        stores = [HashiCorpStore(VaultSettings(url, files)) for _ in range(instances)]
        end = loop.time() + seconds

        async def use(store: HashiCorpStore) -> None:
            nonlocal calls, cuts
            while loop.time() < end:
                try:
                    await store.list("", request_id=request_id)
                except Unavailable:  # a cut connection; a refusal would end the test
                    cuts += 1
                calls += 1
                await asyncio.sleep(0.05)

        await asyncio.gather(*(use(store) for store in stores))
        await asyncio.gather(*(store.close() for store in stores))
    records = [record for record in vault_server.audit_records(request_id) if record["type"] == "response"]
    refused = [record for record in records if record.get("error")]
    assert records
    assert refused == []
    logins = sorted(
        record["time"]
        for record in vault_server.audit_records("auth/approle/login")
        if record["type"] == "response" and role in str(record)
    )
    assert len(set(logins)) == len(logins), "no two instances log in at the same moment"
    tried(
        15,
        f"tokens of {shortest} to {longest} s over a way that cuts connections",
        seconds=seconds,
        instances=instances,
        calls=calls,
        cut=cuts,
        requests_with_a_dead_token=0,
    )


def test_jitter_keeps_instances_apart() -> None:
    """Fifty instances that started at once spread their renewals over at least a tenth of the token's life."""
    from vault_service.store.renewal import Renew, new_lifetime, next_step

    chance = random.Random(3)
    times = []
    for _ in range(50):
        lifetime = new_lifetime(0.0, 1200.0, renewable=True, jitter=chance.random())
        step = next_step(lifetime, 0.0, jitter=chance.random())
        assert isinstance(step, Renew)
        times.append(step.after_seconds)
    gaps = [later - earlier for earlier, later in itertools.pairwise(sorted(times))]
    assert max(gaps) < 30.0
    assert max(times) - min(times) > 30.0
    tried(
        15, "first renewals of instances that started at once", instances=50, spread_seconds_max=max(times) - min(times)
    )
