"""What the Vault store makes of answers, and where it sends its token, against a scripted server on loopback."""

import asyncio
import json
import logging
import os
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from vault_service.maintenance.__main__ import patient_store
from vault_service.store.hashicorp import HashiCorpStore
from vault_service.store.store import (
    AuditFailed,
    Conflict,
    Denied,
    Sealed,
    StoreError,
    Throttled,
    Unavailable,
    Uninitialised,
    Unsealable,
)
from vault_service.store.vault_settings import TokenFile, VaultSettings

TOKEN = "hvs.canary-token-7d1f"  # made up
CANARY = "canary-text-of-the-answer"


@dataclass
class ScriptedServer:
    """Answers every request with `status` and `body`, but for lookups of the token, and keeps what it was sent."""

    url: str
    status: int = 200
    body: Any = None
    location: str = ""
    silent: bool = False
    seen: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)


def _handler_of(box: list[ScriptedServer]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            server = box[0]
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            server.seen.append((self.command, self.path, dict(self.headers.items())))
            status, body = server.status, server.body
            if self.path.endswith("/lookup-self"):
                status, body = 200, {"data": {"ttl": 3600, "renewable": True, "expire_time": "2100-01-01T00:00:00Z"}}
            elif server.silent:
                server.released.wait(30)
            raw = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
            self.send_response(status)
            if server.location:
                self.send_header("Location", server.location)
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        do_GET = do_POST = do_PUT = do_DELETE = do_LIST = _answer  # noqa: N815  # the names that http.server looks for

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the base class names it so
            pass

    return Handler


class _QuietServer(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is what some tests are about."""


@pytest.fixture
def new_server() -> Iterator[Any]:
    running: list[tuple[ThreadingHTTPServer, ScriptedServer, threading.Thread]] = []

    def start(host: str = "127.0.0.1") -> ScriptedServer:
        box: list[ScriptedServer] = []
        http = _QuietServer((host, 0), _handler_of(box))
        box.append(ScriptedServer(f"http://{host}:{http.server_address[1]}"))
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        running.append((http, box[0], thread))
        return box[0]

    yield start
    for http, server, thread in running:
        server.released.set()
        http.shutdown()
        http.server_close()
        thread.join()


@pytest.fixture
def server(new_server: Any) -> ScriptedServer:
    made: ScriptedServer = new_server()
    return made


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    file = tmp_path / "token"
    file.write_text(TOKEN)
    return file


@pytest.fixture
async def store(server: ScriptedServer, token_file: Path) -> AsyncIterator[HashiCorpStore]:
    store = HashiCorpStore(VaultSettings(server.url, TokenFile(token_file)))
    yield store
    await store.close()


BY_STATUS: list[tuple[int, str, type[StoreError]]] = [
    (400, "some other complaint", StoreError),
    (403, "permission denied", Denied),
    (403, "permission denied, invalid token", Denied),
    (404, "no handler for route", Denied),
    (405, "unsupported operation", StoreError),
    (412, "required index state not present", Unavailable),
    (413, "too large", StoreError),
    (429, "request path: rate limit quota exceeded", Throttled),
    (472, "", Unavailable),
    (473, "", Unavailable),
    (474, "", Unavailable),
    (500, "1 error occurred: * no audit backend succeeded in logging the request", AuditFailed),
    (500, "internal error", Unavailable),
    (500, "local node not active but active cluster node not found", Unavailable),
    (501, "Vault is not initialized", Uninitialised),
    (502, "bad gateway", Unavailable),
    (503, "Vault is sealed", Sealed),
    (503, "upstream overloaded", Unavailable),
    (504, "", Unavailable),
    (530, "", Unavailable),
    (599, "", Unavailable),
]


@pytest.mark.parametrize(("status", "text", "kind"), BY_STATUS)
async def test_an_answer_s_status_decides_the_error(
    store: HashiCorpStore, server: ScriptedServer, status: int, text: str, kind: type[StoreError]
) -> None:
    server.status, server.body = status, {"errors": [f"{text} {CANARY}"], "request_id": "of-vault"}
    with pytest.raises(StoreError) as raised:
        await store.write("a", b"x", expected_revision=0)
    error = raised.value
    assert issubclass(type(error), kind)
    if kind is Unavailable:
        assert not isinstance(error, Sealed | Uninitialised | AuditFailed | Throttled)
    if kind is StoreError:
        assert not isinstance(error, Unavailable | Denied | Conflict | Unsealable)
    assert error.status == status
    assert error.vault_request_ids == ("of-vault",)
    assert store.last_request_ids()[-1] == "of-vault"
    chain: BaseException | None = error
    while chain is not None:  # what a log would show, and what it would show if it showed all
        assert CANARY not in str(chain) + repr(chain)
        assert TOKEN not in str(chain) + repr(chain)
        chain = chain.__cause__ or chain.__context__


async def test_a_lost_compare_and_set_is_a_conflict(store: HashiCorpStore, server: ScriptedServer) -> None:
    server.status = 400
    server.body = {"errors": ["check-and-set parameter did not match the current version"]}
    with pytest.raises(Conflict) as raised:
        await store.write("a", b"x", expected_revision=7)
    assert raised.value.status == 400


@pytest.mark.parametrize("body", [None, b"", b"<html>not vault</html>", b"\xff\xfe", [1], "text", {"errors": "text"}])
async def test_an_error_that_is_no_json_of_vault_is_an_error_all_the_same(
    store: HashiCorpStore, server: ScriptedServer, body: Any
) -> None:
    server.status, server.body = 503, body
    with pytest.raises(Unavailable) as raised:
        await store.read("a")
    assert not isinstance(raised.value, Sealed)


@pytest.mark.parametrize(
    "body",
    [
        {"errors": []},
        {
            "request_id": "r",
            "data": {"data": None, "metadata": {"deletion_time": "2026-01-01T00:00:00Z", "version": 2}},
        },
    ],
)
async def test_missing_and_deleted_documents_are_none(store: HashiCorpStore, server: ScriptedServer, body: Any) -> None:
    server.status, server.body = 404, body
    assert await store.read("a") is None
    assert await store.list("a") == ()
    await store.delete("a")


@pytest.mark.parametrize(
    "body",
    [
        {"data": {"data": {"value": "not base64!"}, "metadata": {"version": 1}}},
        {"data": {"data": {}, "metadata": {"version": 1}}},
        {"data": {"data": {"value": 5}, "metadata": {"version": 1}}},
    ],
)
async def test_a_document_of_another_writer_is_an_error(
    store: HashiCorpStore, server: ScriptedServer, body: Any
) -> None:
    server.body = body
    with pytest.raises(StoreError, match="something else writes"):
        await store.read("a")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_never_followed(
    store: HashiCorpStore, server: ScriptedServer, new_server: Any, status: int
) -> None:
    elsewhere = new_server("127.0.0.2")
    server.status, server.location = status, f"{elsewhere.url}/v1/keyswitch/data/a"
    for call in (store.read("a"), store.write("a", b"x", expected_revision=0), store.delete("a"), store.list("")):
        with pytest.raises(Unavailable) as raised:
            await call
        assert raised.value.status == status
    assert elsewhere.seen == []


async def test_the_environment_leads_nothing_astray(
    server: ScriptedServer, new_server: Any, token_file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    proxy = new_server()
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy", "VAULT_ADDR"):
        monkeypatch.setenv(name, proxy.url)
    monkeypatch.setenv("VAULT_TOKEN", "hvs.of-the-environment")
    monkeypatch.setenv("VAULT_NAMESPACE", "elsewhere")
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".vault-token").write_text("hvs.of-the-home")
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password secret\n")
    server.status = 404
    store = HashiCorpStore(VaultSettings(server.url, TokenFile(token_file)))
    try:
        assert await store.read("a") is None
    finally:
        await store.close()
    assert proxy.seen == []
    for _, _, headers in server.seen:
        assert headers["X-Vault-Token"] == TOKEN
        assert headers["X-Vault-Request"] == "true"
        assert "Authorization" not in headers
        assert "X-Vault-Namespace" not in headers


async def test_a_request_id_is_sent_and_cannot_break_out_of_its_header(
    store: HashiCorpStore, server: ScriptedServer
) -> None:
    server.status = 404
    for request_id in ("call-1", "a\r\nX-Vault-Token: other", "ü" * 500):
        await store.read("a", request_id=request_id)
    sent = [headers["X-Keyswitch-Request-Id"] for _, path, headers in server.seen if path.endswith("/data/a")]
    assert sent[0] == "call-1"
    assert sent[1] == "a%0D%0AX-Vault-Token:%20other"
    assert len(sent[2]) <= 128


async def test_a_server_that_is_not_there_is_unavailable(token_file: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: nobody else gets the port meanwhile
        store = HashiCorpStore(VaultSettings(f"http://127.0.0.1:{taken.getsockname()[1]}", TokenFile(token_file)))
        try:
            with pytest.raises(Unavailable, match="cannot be reached"):
                await store.read("a")
        finally:
            await store.close()


async def test_a_server_that_never_answers_is_given_up(server: ScriptedServer, token_file: Path) -> None:
    server.silent = True
    login = TokenFile(token_file)
    for settings in (
        VaultSettings(server.url, login, read_timeout_seconds=0.05),
        VaultSettings(server.url, login, call_timeout_seconds=0.1),
    ):
        store = HashiCorpStore(settings)
        try:
            with pytest.raises(Unavailable, match="did not answer in time"):
                await store.read("a")
        finally:
            await store.close()
    server.released.set()


async def test_maintenance_waits_for_a_server_that_a_call_gives_up(server: ScriptedServer, token_file: Path) -> None:
    server.silent, server.status = True, 404
    settings = VaultSettings(server.url, TokenFile(token_file), read_timeout_seconds=0.05, call_timeout_seconds=0.1)
    store, patient = HashiCorpStore(settings), patient_store(settings)
    try:
        waiting = asyncio.create_task(patient.read("a"))
        while not any(path.endswith("/data/a") for _, path, _ in server.seen):
            await asyncio.sleep(0)
        with pytest.raises(Unavailable, match="did not answer in time"):
            await store.read("a")
        assert not waiting.done()
        server.released.set()
        assert await waiting is None
    finally:
        await store.close()
        await patient.close()


async def test_a_certificate_of_nobody_is_told_apart(token_file: Path, server: ScriptedServer) -> None:
    url = server.url.replace("http:", "https:")  # answers TLS with something that is no TLS
    store = HashiCorpStore(VaultSettings(url, TokenFile(token_file)))
    try:
        with pytest.raises(Unavailable, match="certificate"):
            await store.read("a")
    finally:
        await store.close()


@pytest.mark.parametrize("content", [None, "", "  \n", "with\x00zero", "ünicode"])
async def test_an_empty_token_file_is_told(server: ScriptedServer, tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "none"
    if content is not None:
        file.write_text(content)
    store = HashiCorpStore(VaultSettings(server.url, TokenFile(file)))
    try:
        with pytest.raises(Denied, match="holds no credential"):
            await store.read("a")
    finally:
        await store.close()
    assert server.seen == []


async def test_nothing_is_logged_that_is_secret(
    store: HashiCorpStore, server: ScriptedServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    server.body = {"data": {"ciphertext": "vault:v1:AAAA", "version": 1}}
    await store.seal("deployment", b"sk-canary", context="c")
    await store.write("a", b"canary-value", expected_revision=0)
    assert TOKEN not in caplog.text
    assert "canary" not in caplog.text.replace(TOKEN, "")
    assert TOKEN not in repr(store) + repr(vars(store))


async def test_ids_are_kept_for_each_task_by_itself(store: HashiCorpStore, server: ScriptedServer) -> None:
    server.status, server.body = 404, {"errors": [], "request_id": "one"}
    await store.read("a")

    async def other() -> tuple[str, ...]:
        return tuple(store.last_request_ids())

    assert await asyncio.create_task(other()) == ()
    assert store.last_request_ids() == ("one",)
    assert store.last_request_ids() == ()


@pytest.mark.parametrize(
    "url",
    [
        "",
        "vault:8200",
        "ftp://vault",
        "http://vault.example:8200",
        "http://10.0.0.1",
        "https://u:p@vault",
        "https://v?x=1",
    ],
)
def test_an_address_that_would_leak_or_mislead_is_refused(url: str, token_file: Path) -> None:
    with pytest.raises(ValueError, match=r"vault\.example|must"):
        VaultSettings(url, TokenFile(token_file))


def test_the_client_is_imported_only_where_vault_is_configured() -> None:
    """It takes longer to import than everything else of the service."""
    program = (
        "import sys, vault_service.store.embedded, vault_service.store.memory, vault_service.store.vault_settings; "
        "print([name for name in ('hvac', 'requests') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": "."},
    )
    assert done.stdout.strip() == "[]"
