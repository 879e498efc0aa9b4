"""What the credential service does when something fails, ends, or begins."""

import asyncio
import base64
import errno
import hashlib
import io
import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from keyswitch.vault.v1 import (
    credential_pb2,
)
from keyswitch.vault.v1 import (
    credential_service_pb2 as credentials_pb,
)
from keyswitch.vault.v1 import (
    lease_service_pb2 as leases_pb,
)
from keyswitch.vault.v1 import (
    token_service_pb2 as tokens_pb,
)

from tests.service.vault_harness import (
    ACME,
    ADA,
    KEY,
    MAIN,
    Client,
    Feed,
    Router,
    Vault,
    is_private,
    make_home,
    make_test_config,
    open_channel,
    read_until,
    refused,
    running_vault,
)
from vault_service.app import serve
from vault_service.audit.sink import SystemFiles
from vault_service.observe.logs import configure_logs
from vault_service.prerequisites import CannotStart
from vault_service.store.embedded import EmbeddedStore
from vault_service.store.memory import MemoryStore
from vault_service.store.store import Unavailable


@pytest.fixture
async def vault(tmp_path: Path) -> AsyncIterator[Vault]:
    async with running_vault(tmp_path) as running:
        yield running


class BrokenStore(MemoryStore):
    """A store that fails with whatever it is given, once it is armed."""

    error: Exception | None = None

    async def read(self, path: str, *, request_id: str = "") -> Any:
        if self.error is not None and "credentials" in path:
            raise self.error
        return await super().read(path, request_id=request_id)


async def test_the_text_of_an_exception_reaches_nobody(tmp_path: Path) -> None:
    store, stream = BrokenStore(), io.StringIO()
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    configure_logs(stream, logging.DEBUG)
    try:
        async with running_vault(tmp_path, store=store) as vault:
            admin = await vault.issue(ACME, "ADMIN")
            ada = await vault.issue(ACME, "MEMBER", user=ADA)
            version = await vault.ready(admin)
            store.error = RuntimeError(f"boom {KEY}")
            for awaitable in (
                vault.take(version, ada.token),
                vault.add(admin),
                admin.call(admin.credentials.GetCredential, credentials_pb.GetCredentialRequest(name=MAIN)),
            ):
                refusal = await refused(awaitable)
                assert (refusal.code, refusal.reason) == (grpc.StatusCode.INTERNAL, "ERROR_REASON_INTERNAL")
                assert KEY not in repr(refusal)
                assert refusal.metadata["incidentId"] in stream.getvalue()
            store.error = Unavailable("boom", status=473)
            refusal = await refused(vault.take(version, ada.token))
            assert (refusal.reason, refusal.metadata) == ("ERROR_REASON_VAULT_NOT_READY", {"vaultStatus": "473"})
            assert refusal.has_retry
            store.error = None
            assert KEY.encode() not in vault.audit_bytes()
            secrets = (KEY, admin.token, ada.token, vault.operator.token)
        logged = stream.getvalue()
        assert "RuntimeError" in logged
        assert not any(secret in logged or secret[-24:] in logged for secret in secrets)
        audit = vault.audit_bytes().decode()
        assert not any(secret in audit or secret[-24:] in audit for secret in secrets)
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)


async def test_health_and_http(vault: Vault) -> None:
    for channel, service in (
        (vault.operator.channel, "keyswitch.vault.v1.CredentialService"),
        (vault.lease.channel, "keyswitch.vault.v1.LeaseService"),
    ):
        stub: Any = health_pb2_grpc.HealthStub(channel)
        answer = await stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=60)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    async with aiohttp.ClientSession() as session:
        for path, text in (("healthz", "ok"), ("readyz", "ready"), ("metrics", "keyswitch_vault_serving 1.0")):
            async with session.get(f"http://127.0.0.1:{vault.service.http_port}/{path}") as response:
                assert response.status == 200
                assert text in await response.text()


async def test_the_first_start_leaves_one_private_token_and_a_restart_goes_on(tmp_path: Path) -> None:
    store = MemoryStore()
    async with running_vault(tmp_path, store=store) as vault:
        assert is_private(tmp_path / "operator.token")
        first = vault.operator.token
        admin = await vault.issue(ACME, "ADMIN")
        await vault.ready(admin)
    async with running_vault(tmp_path, store=store) as vault:
        assert vault.operator.token == first
        ada = await vault.issue(ACME, "MEMBER", user=ADA)
        assert vault.router.open(await vault.take(f"{MAIN}/versions/active", ada.token)).api_key == KEY
    lines = vault.audit_bytes().splitlines()
    previous = bytes(32)
    for number, line in enumerate(lines, 1):
        record = json.loads(line)
        assert record["name"] == f"chains/vault-0/records/{number}"
        assert record["previousHash"] == base64.b64encode(previous).decode()
        previous = hashlib.sha256(line).digest()
    assert [json.loads(line)["action"] for line in lines].count("AUDIT_ACTION_START") == 2


async def test_watchers_are_let_go_when_the_service_ends(tmp_path: Path) -> None:
    async with running_vault(tmp_path) as vault, Feed(vault) as feed:
        await feed.read()
        stopping = asyncio.create_task(vault.service.stop(grace_seconds=600))
        while (message := await feed.read()) is not grpc.aio.EOF:
            assert not message.is_reset
        async with asyncio.timeout(60):
            await stopping
    assert b"AUDIT_ACTION_STOP" in vault.audit_bytes()


class ReadOnlyStore(MemoryStore):
    """A store that takes no writes while it is away."""

    is_away = False

    async def write(self, path: str, value: bytes, *, expected_revision: int, request_id: str = "") -> int:
        if self.is_away:
            raise Unavailable("away", status=473)
        return await super().write(path, value, expected_revision=expected_revision, request_id=request_id)


async def test_a_revocation_can_hold_here_while_the_store_is_away(tmp_path: Path) -> None:
    store = ReadOnlyStore()
    async with running_vault(tmp_path, store=store, denial_retry_seconds=0.02) as vault:
        admin = await vault.issue(ACME, "ADMIN")
        ada = await vault.issue(ACME, "MEMBER", user=ADA)
        version = await vault.ready(admin)
        store.is_away = True
        plain = credentials_pb.DisableCredentialRequest(name=MAIN)
        refusal = await refused(admin.call(admin.credentials.DisableCredential, plain))
        assert refusal.reason == "ERROR_REASON_VAULT_NOT_READY"
        assert vault.router.open(await vault.take(version, ada.token)).api_key == KEY
        locally = credentials_pb.DisableCredentialRequest(
            name=MAIN, revocation=credentials_pb.Revocation(deny_locally=True)
        )
        answer = await admin.call(admin.credentials.DisableCredential, locally)
        assert answer.is_local_only
        assert (await refused(vault.take(version, ada.token))).reason == "ERROR_REASON_CREDENTIAL_DISABLED"
        async with Feed(vault) as feed:
            await feed.read()
            store.is_away = False
            (change,) = await feed.read_changes()
            assert change.credential.type == leases_pb.CREDENTIAL_CHANGE_TYPE_DISABLED
        got = await admin.call(admin.credentials.GetCredential, credentials_pb.GetCredentialRequest(name=MAIN))
        assert got.credential.state == credential_pb2.CREDENTIAL_STATE_DISABLED


async def test_leasing_stops_and_resumes_with_the_audit_log(tmp_path: Path) -> None:
    files = FullDisk()
    async with running_vault(tmp_path, files=files, health_interval_seconds=0.02) as vault:
        admin = await vault.issue(ACME, "ADMIN")
        ada = await vault.issue(ACME, "MEMBER", user=ADA)
        version = await vault.ready(admin)
        files.is_full = True
        refusal = await refused(vault.take(version, ada.token))
        assert (refusal.code, refusal.reason, refusal.metadata) == (
            grpc.StatusCode.UNAVAILABLE,
            "ERROR_REASON_AUDIT_FAILED",
            {"cause": "no_space"},
        )
        stub: Any = health_pb2_grpc.HealthStub(vault.lease.channel)
        call = stub.Watch(health_pb2.HealthCheckRequest(service=""), timeout=60)
        await read_until(call, health_pb2.HealthCheckResponse.NOT_SERVING)
        files.is_full = False
        await read_until(call, health_pb2.HealthCheckResponse.SERVING)
        call.cancel()
        assert vault.router.open(await vault.take(version, ada.token)).api_key == KEY


class FullDisk(SystemFiles):
    """A file system that is full while it is told so, half way through a line."""

    is_full = False

    def write(self, descriptor: int, data: bytes) -> int:
        if self.is_full:
            if len(data) > 1:
                return super().write(descriptor, data[: len(data) // 2])
            raise OSError(errno.ENOSPC, "full")
        return super().write(descriptor, data)


async def test_a_revocation_that_comes_while_a_lease_is_made_wins(tmp_path: Path) -> None:
    store = GateStore()
    async with running_vault(tmp_path, store=store) as vault:
        admin = await vault.issue(ACME, "ADMIN")
        ada = await vault.issue(ACME, "MEMBER", user=ADA)
        version = await vault.ready(admin)
        store.is_shut = True
        leasing = asyncio.create_task(vault.take(version, ada.token))
        await store.reached.wait()
        await admin.call(admin.credentials.DisableCredential, credentials_pb.DisableCredentialRequest(name=MAIN))
        store.opened.set()
        assert (await refused(leasing)).reason == "ERROR_REASON_CREDENTIAL_DISABLED"


class GateStore(MemoryStore):
    """Holds an unsealing back until it is told to go on."""

    def __init__(self) -> None:
        super().__init__()
        self.is_shut = False
        self.reached, self.opened = asyncio.Event(), asyncio.Event()

    async def unseal(self, tenant: str, ciphertext: bytes, *, context: str, request_id: str = "") -> bytes:
        plaintext = await super().unseal(tenant, ciphertext, context=context, request_id=request_id)
        if self.is_shut:
            self.reached.set()
            await self.opened.wait()
        return plaintext


async def test_the_embedded_store_keeps_everything_over_a_restart(tmp_path: Path) -> None:
    async with running_vault(tmp_path, store=await EmbeddedStore.open(tmp_path / "vault")) as vault:
        admin = await vault.issue(ACME, "ADMIN")
        ada = await vault.issue(ACME, "MEMBER", user=ADA)
        await vault.ready(admin)
        revoked = await vault.issue(ACME, "ADMIN")
        tokens = await vault.operator.call(vault.operator.tokens.ListTokens, tokens_pb.ListTokensRequest(parent=ACME))
        names = [one.name for one in tokens.tokens if one.name.endswith(token_id(revoked.token))]
        await vault.operator.call(vault.operator.tokens.RevokeToken, tokens_pb.RevokeTokenRequest(name=names[0]))
    async with running_vault(tmp_path, store=await EmbeddedStore.open(tmp_path / "vault")) as vault:
        lease = await vault.take(f"{MAIN}/versions/active", ada.token)
        assert vault.router.open(lease).api_key == KEY
        again = vault.operator.with_token(revoked.token)
        refusal = await refused(again.call(again.tokens.ListTokens, tokens_pb.ListTokensRequest(parent=ACME)))
        assert refusal.metadata == {"cause": "token_revoked"}
    found = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert KEY.encode() not in found
    assert ada.token.encode() not in found


def token_id(token: str) -> str:
    claims = token.split(".")[1]
    return str(json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))["jti"])


class LateStore(MemoryStore):
    """A store that is not there at first."""

    is_away = True

    async def check(self) -> None:
        if self.is_away:
            raise Unavailable("away")


async def test_a_store_that_comes_late_is_waited_for(tmp_path: Path) -> None:
    make_home(tmp_path)
    store = LateStore()
    service = await serve(make_test_config(tmp_path, health_interval_seconds=0.02), store=store)
    try:
        assert not service.is_serving
        assert not (tmp_path / "operator.token").exists()
        async with open_channel(tmp_path, service.management_port) as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            call = stub.Watch(health_pb2.HealthCheckRequest(service=""), timeout=60)
            await read_until(call, health_pb2.HealthCheckResponse.NOT_SERVING)
            store.is_away = False
            await read_until(call, health_pb2.HealthCheckResponse.SERVING)
            call.cancel()
        assert is_private(tmp_path / "operator.token")
    finally:
        await service.stop(grace_seconds=0)


async def test_abandoned_feeds_leave_nothing_behind(vault: Vault) -> None:
    for _ in range(20):
        async with Feed(vault) as feed:
            await feed.read()
    async with aiohttp.ClientSession() as session, asyncio.timeout(60):
        text = ""
        while "keyswitch_vault_watchers 0.0" not in text:
            async with session.get(f"http://127.0.0.1:{vault.service.http_port}/metrics") as response:
                text = await response.text()
    assert 'method="WatchCredentialChanges"' in text
    assert 'code="INTERNAL"' not in text


async def test_new_connections_get_new_certificates(vault: Vault) -> None:
    kept = vault.operator
    for connected in (kept, vault.lease):  # before the certificates change
        await connected.call(connected.tokens.GetSigningKeys, tokens_pb.GetSigningKeysRequest())
    for file in ("ca.pem", "ca-key.pem"):
        (vault.home / file).unlink()
    make_home(vault.home)
    async with (
        open_channel(vault.home, vault.service.management_port) as management,
        open_channel(vault.home, vault.service.lease_port, "router") as lease,
    ):
        renewed = Vault(vault.service, vault.home, Client(management, kept.token), Client(lease), Router(vault.home))
        admin = await renewed.issue(ACME, "ADMIN")
        ada = await renewed.issue(ACME, "MEMBER", user=ADA)
        await renewed.ready(admin)
        lease_of_new = await renewed.take(f"{MAIN}/versions/active", ada.token)
        assert renewed.router.open(lease_of_new).api_key == KEY
    await kept.call(kept.tokens.ListTokens, tokens_pb.ListTokensRequest(parent=ACME))
    old = await refused(vault.take(f"{MAIN}/versions/active", ada.token))
    assert (old.reason, old.metadata) == ("ERROR_REASON_RECIPIENT_KEY_REJECTED", {"cause": "chain"})


async def test_a_port_that_is_taken_is_said(vault: Vault, tmp_path_factory: pytest.TempPathFactory) -> None:
    home = make_home(tmp_path_factory.mktemp("second"))
    address = f"127.0.0.1:{vault.service.management_port}"
    with pytest.raises(CannotStart, match="another instance"):
        await serve(make_test_config(home, management_address=address), store=MemoryStore())


class SlowStore(MemoryStore):
    """Holds the write of the change log back until it is told to go on."""

    def __init__(self) -> None:
        super().__init__()
        self.is_shut = False
        self.reached, self.opened = asyncio.Event(), asyncio.Event()

    async def write(self, path: str, value: bytes, *, expected_revision: int, request_id: str = "") -> int:
        if self.is_shut and path.startswith("changes/"):
            self.reached.set()
            await self.opened.wait()
        return await super().write(path, value, expected_revision=expected_revision, request_id=request_id)


async def test_a_revocation_is_told_although_the_caller_went_away(tmp_path: Path) -> None:
    store = SlowStore()
    async with running_vault(tmp_path, store=store) as vault:
        admin = await vault.issue(ACME, "ADMIN")
        await vault.ready(admin)
        async with Feed(vault) as feed:
            await feed.read()
            store.is_shut = True
            call = admin.credentials.DisableCredential(
                credentials_pb.DisableCredentialRequest(name=MAIN),
                metadata=(("authorization", f"Bearer {admin.token}"),),
            )
            waiting = asyncio.ensure_future(call.wait_for_connection())
            await store.reached.wait()
            call.cancel()
            waiting.cancel()
            store.opened.set()
            (change,) = await feed.read_changes()
            assert change.credential.type == leases_pb.CREDENTIAL_CHANGE_TYPE_DISABLED
    records = [json.loads(line) for line in vault.audit_bytes().splitlines()]
    outcomes = [one["outcome"] for one in records if one["action"] == "AUDIT_ACTION_DISABLE_CREDENTIAL"]
    assert outcomes == ["AUDIT_OUTCOME_INTENDED", "AUDIT_OUTCOME_SUCCEEDED"]
