"""Promise 14: what Vault's name means may change while the service runs, and its token still goes to no other host."""

import contextlib
import ipaddress
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.caller_certificates import HOUR, CallerAuthority
from tests.security.promises import count, tried
from tests.security.test_vault_token import calls_of, listening, respond
from vault_service.store.hashicorp import HashiCorpStore
from vault_service.store.store import Denied, Unavailable
from vault_service.store.vault_settings import TokenFile, VaultSettings

NAME = "vault.example"
TOKEN = "hvs.CANARY"
HERE, ELSEWHERE = "127.0.0.1", "127.0.0.2"
LOOKED_UP = b'{"data":{"ttl":3600,"renewable":false,"expire_time":"2100-01-01T00:00:00Z"}}'


class Names:
    """What a name means now, to this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._resolve: Callable[..., Any] = socket.getaddrinfo
        self.meaning = {NAME: HERE}
        self.asked = 0
        monkeypatch.setattr(socket, "getaddrinfo", self._getaddrinfo)

    def _getaddrinfo(self, host: Any, *arguments: Any, **options: Any) -> Any:
        self.asked += host in self.meaning
        return self._resolve(self.meaning.get(host, host), *arguments, **options)


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    return Names(monkeypatch)


def answer(head: bytes) -> bytes:
    """As a Vault whose connections each serve one request, so that the next one asks for the name again."""
    body = LOOKED_UP if b"lookup-self" in head else b'{"data":{"keys":[]}}'
    return respond(200, body).replace(b"\r\n", b"\r\nconnection: close\r\n", 1)


def secured(folder: Path, name: str, pair: tuple[bytes, bytes]) -> ssl.SSLContext:
    chain, key = folder / f"{name}.pem", folder / f"{name}-key.pem"
    chain.write_bytes(pair[0])
    key.write_bytes(pair[1])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain, key)
    return context


@asynccontextmanager
async def store_of(folder: Path, url: str, ca_file: Path | None = None) -> AsyncIterator[HashiCorpStore]:
    (folder / "token").write_text(TOKEN)
    settings = VaultSettings(url, TokenFile(folder / "token"), ca_file=ca_file, read_timeout_seconds=2.0)
    store = HashiCorpStore(settings)
    try:
        yield store
    finally:
        await store.close()


async def reach(store: HashiCorpStore) -> None:
    """A call that came to the server; what it makes of the answer is of no interest."""
    assert await store.list("a") == ()


@pytest.mark.timeout(300)
async def test_a_name_that_means_another_host_takes_the_token_nowhere(tmp_path: Path, names: Names) -> None:
    """The new host has no certificate of that name from that authority: it is sent nothing. When the name means Vault
    again, the same store goes on; where the new host has such a certificate, it is Vault."""
    authority, other = CallerAuthority("Vault's"), CallerAuthority("Another")
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    strangers = {
        "another authority": other.issue_for_host(NAME),
        "another name": authority.issue_for_host("elsewhere.example"),
        "an old certificate": authority.issue_for_host(NAME, ends=-HOUR),
        "a client's certificate": authority.issue(f"spiffe://{NAME}/vault"),
        "no TLS": None,
    }
    rounds, changes, refused = count(1, 5), 0, 0
    async with AsyncExitStack() as exits:
        own = secured(tmp_path, "own", authority.issue_for_host(NAME))
        port, seen = await exits.enter_async_context(listening(HERE, answer, own))
        store = await exits.enter_async_context(store_of(tmp_path, f"https://{NAME}:{port}", tmp_path / "ca.pem"))
        for kind, pair in strangers.items():
            context = None if pair is None else secured(tmp_path, kind, pair)
            async with listening(ELSEWHERE, answer, context, port) as (_, stolen):
                for _ in range(rounds):
                    names.meaning[NAME] = HERE
                    await reach(store)
                    asked, names.meaning[NAME] = names.asked, ELSEWHERE
                    changes += 1
                    for call in calls_of(store):
                        with pytest.raises(Unavailable):
                            await call()  # type: ignore[misc] # each gives an awaitable
                        refused += 1
                    assert names.asked > asked, "the name was looked up anew"
            assert stolen == [], kind
        context = secured(tmp_path, "moved", authority.issue_for_host(NAME))
        async with listening(ELSEWHERE, answer, context, port) as (_, moved):
            await reach(store)
        assert TOKEN.encode() in moved[0]
    assert all(TOKEN.encode() in head for head in seen)
    tried(
        14,
        "names that mean another host meanwhile, without the certificate",
        changes=changes,
        kinds=len(strangers),
        calls_refused=refused,
        tokens_elsewhere=0,
    )


async def test_plain_http_goes_to_this_machine_whatever_localhost_means(tmp_path: Path, names: Names) -> None:
    address = own_address()
    rounds, refused = count(3, 50), 0
    async with AsyncExitStack() as exits:
        port, seen = await exits.enter_async_context(listening(HERE, answer))
        _, stolen = await exits.enter_async_context(listening(address, answer, None, port))
        store = await exits.enter_async_context(store_of(tmp_path, f"http://localhost:{port}"))
        for _ in range(rounds):
            names.meaning["localhost"] = HERE
            await reach(store)
            names.meaning["localhost"] = address
            for call in calls_of(store):
                with pytest.raises((Unavailable, Denied)):
                    await call()  # type: ignore[misc] # each gives an awaitable
                refused += 1
    assert seen
    assert stolen == []
    tried(14, "localhost that means another address, over plain http", calls_refused=refused, tokens_elsewhere=0)


def own_address() -> str:
    """An address of this machine that is not a loopback one, and that another machine might have."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, contextlib.suppress(OSError):
        probe.connect(("192.0.2.1", 9))  # chooses a way, and sends nothing
        found = str(probe.getsockname()[0])
        if not ipaddress.ip_address(found).is_loopback:
            return found
    pytest.skip("this machine has no address but its loopback ones")
