"""The credential service from end to end: real TLS, real gRPC, the store in memory."""

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
from cryptography.exceptions import InvalidTag
from google.protobuf import timestamp_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from keyswitch.vault.v1 import (
    audit_pb2,
    audit_service_pb2,
    credential_pb2,
    lease_pb2,
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
    Refused,
    Router,
    Vault,
    is_private,
    open_channel,
    running_vault,
)
from vault_service.audit.sink import SystemFiles
from vault_service.observe.logs import configure_logs
from vault_service.store.embedded import EmbeddedStore
from vault_service.store.memory import MemoryStore
from vault_service.store.store import Unavailable


@pytest.fixture
async def vault(tmp_path: Path) -> AsyncIterator[Vault]:
    async with running_vault(tmp_path) as running:
        yield running


class Feed:
    """The change feed, read message by message."""

    def __init__(self, vault: Vault, after_revision: int = 0) -> None:
        request = leases_pb.WatchCredentialChangesRequest(after_revision=after_revision)
        self._call = vault.lease.leases.WatchCredentialChanges(request)

    async def __aenter__(self) -> "Feed":
        return self

    async def __aexit__(self, *_: object) -> None:
        self._call.cancel()

    async def read(self) -> Any:
        async with asyncio.timeout(5):
            return await self._call.read()

    async def read_changes(self) -> list[Any]:
        while True:
            message = await self.read()
            if message.changes:
                return list(message.changes)


async def refused(awaitable: Any) -> Refused:
    with pytest.raises(Refused) as caught:
        await awaitable
    return caught.value


async def test_the_whole_way_of_a_key(vault: Vault) -> None:
    admin = await vault.issue(ACME, "ADMIN")
    ada = await vault.issue(ACME, "MEMBER", issuer=admin, user=ADA)
    created = await vault.create(admin)
    assert created.state == credential_pb2.CREDENTIAL_STATE_ENABLED
    assert created.active_version == ""
    version = await vault.add(admin)
    assert version.name == f"{MAIN}/versions/1"
    assert version.state == credential_pb2.CREDENTIAL_VERSION_STATE_PENDING
    assert version.fingerprint == "sk-…9f3c"

    not_active = await refused(vault.take(f"{MAIN}/versions/active", ada.token))
    assert not_active.reason == "ERROR_REASON_VERSION_NOT_ACTIVE"
    untested = await refused(vault.activate(admin, version.name, force=False))
    assert untested.reason == "ERROR_REASON_TEST_REQUIRED"

    lease = await vault.take(version.name, ada.token, purpose=lease_pb2.LEASE_PURPOSE_TEST)
    assert vault.router.open(lease).api_key == KEY
    tested = await vault.report_test(lease)
    assert tested.last_test.credential_version == version.name
    active = await vault.activate(admin, version.name, force=False)
    assert active.state == credential_pb2.CREDENTIAL_VERSION_STATE_ACTIVE

    lease = await vault.take(f"{MAIN}/versions/active", ada.token)
    assert vault.router.open(lease).api_key == KEY
    assert lease.credential_version == version.name
    assert lease.provider == "providers/openai"
    assert len(lease.lease_id) == 22

    listed = await vault.lease.call(
        vault.lease.leases.ListLeasable, leases_pb.ListLeasableRequest(parent=ACME, caller_proof=ada.token)
    )
    assert [one.active_version for one in listed.credentials] == [version.name]
    assert listed.user_credentials_enabled
    assert KEY.encode() not in vault.audit_bytes()


async def test_sealed_material_opens_for_nothing_else_than_what_was_asked(vault: Vault) -> None:
    admin = await vault.issue(ACME, "ADMIN")
    ada = await vault.issue(ACME, "MEMBER", user=ADA)
    await vault.ready(admin)
    lease = await vault.take(f"{MAIN}/versions/active", ada.token)
    other = Router(vault.home)
    with pytest.raises((InvalidTag, ValueError)):
        vault.router.open(lease, origin="https://example.com")
    with pytest.raises((InvalidTag, ValueError)):
        other.open(lease)
    lease.credential_version = f"{MAIN}/versions/2"
    with pytest.raises((InvalidTag, ValueError)):
        vault.router.open(lease)


async def test_disabling_is_told_and_ends_leasing(vault: Vault) -> None:
    admin = await vault.issue(ACME, "ADMIN")
    ada = await vault.issue(ACME, "MEMBER", user=ADA)
    version = await vault.ready(admin)
    async with Feed(vault) as feed:
        first = await feed.read()
        assert first.is_reset
        assert first.heartbeat_interval.ToMilliseconds() == 500
        request = credentials_pb.DisableCredentialRequest(
            name=MAIN, revocation=credentials_pb.Revocation(kill_in_flight=True, note="leaked")
        )
        disabled = await admin.call(admin.credentials.DisableCredential, request)
        assert disabled.credential.state == credential_pb2.CREDENTIAL_STATE_DISABLED
        (change,) = await feed.read_changes()
        assert change.revision == first.revision + 1
        assert change.credential.type == leases_pb.CREDENTIAL_CHANGE_TYPE_DISABLED
        assert change.credential.credential == MAIN
        assert change.credential.kill_in_flight
        assert change.credential.active_version == ""
    refusal = await refused(vault.take(version, ada.token))
    assert refusal.reason == "ERROR_REASON_CREDENTIAL_DISABLED"
    assert refusal.metadata == {"name": MAIN, "cause": "disabled"}
    enabled = await admin.call(admin.credentials.EnableCredential, credentials_pb.EnableCredentialRequest(name=MAIN))
    assert enabled.credential.active_version == version
    assert vault.router.open(await vault.take(version, ada.token)).api_key == KEY
    assert b'"note":"leaked"' in vault.audit_bytes()


async def test_the_feed_beats_and_goes_on_from_a_revision(vault: Vault) -> None:
    admin = await vault.issue(ACME, "ADMIN")
    await vault.create(admin)
    async with Feed(vault) as feed:
        first = await feed.read()
        beat = await feed.read()
        assert not beat.changes
        assert not beat.is_reset
        assert beat.revision == first.revision
    await vault.add(admin)
    async with Feed(vault, after_revision=first.revision) as feed:
        again = await feed.read()
        assert not again.is_reset
        assert [one.revision for one in again.changes] == [first.revision + 1]
    async with Feed(vault, after_revision=10_000) as feed:
        assert (await feed.read()).is_reset


async def test_a_feed_that_saw_an_empty_log_gets_the_first_change(vault: Vault) -> None:
    async with Feed(vault) as feed:
        first = await feed.read()
        assert (first.revision, first.is_reset) == (0, True)
        admin = await vault.issue(ACME, "ADMIN")
        await vault.create(admin)
        (change,) = await feed.read_changes()
        assert change.revision == 1


async def test_other_tenants_see_what_does_not_exist(vault: Vault) -> None:
    admin = await vault.issue(ACME, "ADMIN")
    version = await vault.ready(admin)
    stranger = await vault.issue("organizations/other", "ADMIN")
    for name in (MAIN, f"{ACME}/credentials/nothing"):
        get = await refused(
            stranger.call(stranger.credentials.GetCredential, credentials_pb.GetCredentialRequest(name=name))
        )
        assert (get.code, get.reason) == (grpc.StatusCode.NOT_FOUND, "ERROR_REASON_CREDENTIAL_UNKNOWN")
        assert get.metadata == {"name": name}
        delete = await refused(
            stranger.call(stranger.credentials.DeleteCredential, credentials_pb.DeleteCredentialRequest(name=name))
        )
        assert delete.reason == "ERROR_REASON_CREDENTIAL_UNKNOWN"
        create = await refused(vault.create(stranger, name))
        assert create.reason == "ERROR_REASON_CREDENTIAL_UNKNOWN"
    listing = await refused(
        stranger.call(stranger.credentials.ListCredentials, credentials_pb.ListCredentialsRequest(parent=ACME))
    )
    assert listing.reason == "ERROR_REASON_CREDENTIAL_UNKNOWN"
    lease = await refused(vault.take(version, stranger.token))
    assert (lease.reason, lease.metadata) == ("ERROR_REASON_CALLER_PROOF_REQUIRED", {"cause": "other_owner"})


def management_methods() -> list[tuple[str, str, Any]]:
    modules = (
        (credentials_pb, "CredentialService"),
        (tokens_pb, "TokenService"),
        (audit_service_pb2, "AuditService"),
    )
    return [
        (service, method.name, getattr(module, method.input_type.name))
        for module, service in modules
        for method in module.DESCRIPTOR.services_by_name[service].methods
    ]


@pytest.mark.parametrize(
    ("token", "cause"),
    [("", "token_missing"), ("x.y.z", "token_malformed"), ("eyJhbGciOiJub25lIn0.e30.", "token_key")],
)
async def test_no_method_is_open(vault: Vault, token: str, cause: str) -> None:
    nobody = vault.operator.with_token(token)
    stubs = {"CredentialService": nobody.credentials, "TokenService": nobody.tokens, "AuditService": nobody.audit}
    for service, method, request in management_methods():
        if method == "GetSigningKeys":
            assert (await nobody.call(nobody.tokens.GetSigningKeys, request())).signing_keys
            continue
        refusal = await refused(nobody.call(getattr(stubs[service], method), request()))
        assert refusal.code == grpc.StatusCode.UNAUTHENTICATED, method
        assert refusal.reason == "ERROR_REASON_CALLER_UNKNOWN"
        assert refusal.metadata["cause"] == cause
    assert b"AUDIT_ACTION_AUTHENTICATE" in vault.audit_bytes()


async def test_a_revoked_token_is_refused_and_told(vault: Vault) -> None:
    admin = await vault.issue(ACME, "ADMIN")
    tokens = await vault.operator.call(vault.operator.tokens.ListTokens, tokens_pb.ListTokensRequest(parent=ACME))
    (token,) = tokens.tokens
    async with Feed(vault) as feed:
        await feed.read()
        await vault.operator.call(
            vault.operator.tokens.RevokeToken, tokens_pb.RevokeTokenRequest(name=token.name, note="left")
        )
        (change,) = await feed.read_changes()
        assert change.token_revocation.token_id == token.name.rpartition("/")[2]
    refusal = await refused(vault.create(admin))
    assert refusal.metadata == {"cause": "token_revoked"}
    proof = await refused(vault.take(f"{MAIN}/versions/1", admin.token))
    assert (proof.reason, proof.metadata) == ("ERROR_REASON_CALLER_PROOF_REQUIRED", {"cause": "token_revoked"})
    async with Feed(vault) as feed:
        first = await feed.read()
        assert [one.token_revocation.token_id for one in first.changes] == [token.name.rpartition("/")[2]]
    left = await vault.operator.call(vault.operator.tokens.ListTokens, tokens_pb.ListTokensRequest(parent=ACME))
    assert not left.tokens


async def test_only_the_routers_certificate_gets_leases(vault: Vault) -> None:
    async with open_channel(vault.home, vault.service.lease_port, "vault") as channel:
        client = Client(channel)
        refusal = await refused(
            client.call(client.leases.ListLeasable, leases_pb.ListLeasableRequest(parent="deployment"))
        )
        assert (refusal.code, refusal.reason) == (
            grpc.StatusCode.PERMISSION_DENIED,
            "ERROR_REASON_CALLER_NOT_ALLOWED",
        )
        assert (await client.call(client.tokens.GetSigningKeys, tokens_pb.GetSigningKeysRequest())).signing_keys
    async with open_channel(vault.home, vault.service.lease_port) as channel:
        stub: Any = Client(channel).leases
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.ListLeasable(leases_pb.ListLeasableRequest(parent="deployment"), timeout=3)
        assert caught.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


async def test_the_lease_listener_has_neither_reflection_nor_management(vault: Vault) -> None:
    lease = vault.lease
    for method, request in (
        (lease.credentials.GetCredential, credentials_pb.GetCredentialRequest(name=MAIN)),
        (lease.tokens.IssueToken, tokens_pb.IssueTokenRequest()),
        (lease.audit.ListAuditRecords, audit_service_pb2.ListAuditRecordsRequest()),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await method(request, timeout=5)
        assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await list_services(lease.channel)
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED
    assert "keyswitch.vault.v1.CredentialService" in await list_services(vault.operator.channel)


async def list_services(channel: grpc.aio.Channel) -> list[str]:
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
    call = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]), timeout=5)
    answer = await call.read()
    names = [service.name for service in answer.list_services_response.service]
    call.cancel()
    return names


async def test_a_lease_needs_a_deadline_a_proof_and_an_allowed_origin(vault: Vault) -> None:
    admin = await vault.issue(ACME, "ADMIN")
    ada = await vault.issue(ACME, "MEMBER", user=ADA)
    version = await vault.ready(admin)
    request = vault.router.request(version, ada.token)
    no_deadline = await refused(vault.lease.call(vault.lease.leases.LeaseCredential, request, timeout=None))
    assert (no_deadline.reason, no_deadline.metadata) == (
        "ERROR_REASON_DEADLINE_REQUIRED",
        {"method": "LeaseCredential"},
    )
    no_proof = await refused(vault.take(version, ""))
    assert no_proof.metadata == {"cause": "missing"}
    elsewhere = await refused(vault.take(version, ada.token, origin="https://example.com"))
    assert elsewhere.reason == "ERROR_REASON_ORIGIN_NOT_ALLOWED"
    assert elsewhere.metadata == {"name": MAIN, "origin": "https://example.com"}
    forged = await refused(vault.take(version, ada.token, recipient_public_key=bytes(range(32))))
    assert (forged.reason, forged.metadata) == ("ERROR_REASON_RECIPIENT_KEY_REJECTED", {"cause": "signature"})
    aimless = await refused(vault.take(version, ada.token, purpose=0))
    assert aimless.fields == ("purpose",)


async def test_a_refused_lease_has_both_records(vault: Vault) -> None:
    admin = await vault.issue(ACME, "ADMIN")
    version = await vault.ready(admin)
    await refused(vault.take(version, "", request_id="refused-1"))
    lease = await vault.take(version, (await vault.issue(ACME, "MEMBER", user=ADA)).token, request_id="given-1")
    denied = await read_records(admin, "refused-1")
    given = await read_records(admin, "given-1")
    for (ended, intended), outcome in (
        (denied, audit_pb2.AUDIT_OUTCOME_DENIED),
        (given, audit_pb2.AUDIT_OUTCOME_SUCCEEDED),
    ):
        assert (ended.outcome, intended.outcome) == (outcome, audit_pb2.AUDIT_OUTCOME_INTENDED)
        assert ended.intent_record == intended.name
        assert ended.identity.subject == "spiffe://keyswitch/router"
        assert ended.identity.proof == audit_pb2.AUDIT_IDENTITY_PROOF_CERTIFICATE
        assert len(ended.identity.certificate_hash) == 32
        assert ended.purpose == lease_pb2.LEASE_PURPOSE_COMPLETION
        assert ended.peer.startswith(("127.0.0.1:", "[::1]:"))
    assert lease.audit_record == given[0].name
    got = await admin.call(admin.audit.GetAuditRecord, audit_service_pb2.GetAuditRecordRequest(name=lease.audit_record))
    assert got.audit_record == given[0]


async def read_records(client: Client, request_id: str) -> list[Any]:
    wanted = audit_service_pb2.AuditFilter(request_id=request_id)
    request = audit_service_pb2.ListAuditRecordsRequest(parent="chains/vault-0", filter=wanted)
    return list((await client.call(client.audit.ListAuditRecords, request)).audit_records)


async def test_every_use_is_recorded_once(vault: Vault) -> None:
    admin = await vault.issue(ACME, "ADMIN")
    version = await vault.ready(admin)
    lease = await vault.take(version, (await vault.issue(ACME, "MEMBER", user=ADA)).token)
    use = lease_pb2.CredentialUse(
        lease_id=lease.lease_id,
        request_id="response-1",
        attempt=1,
        principal=ADA,
        outcome=lease_pb2.CREDENTIAL_USE_OUTCOME_SUCCEEDED,
        use_time=timestamp_pb2.Timestamp(seconds=1_795_000_000),
    )
    for _ in range(2):
        await vault.lease.call(vault.lease.leases.ReportUses, leases_pb.ReportUsesRequest(uses=[use, use]))
    assert vault.audit_bytes().count(b"AUDIT_ACTION_USE") == 1
    got = await admin.call(admin.credentials.GetCredential, credentials_pb.GetCredentialRequest(name=MAIN))
    assert got.credential.last_use_time.seconds == 1_795_000_000
    empty = await refused(vault.lease.call(vault.lease.leases.ReportUses, leases_pb.ReportUsesRequest()))
    assert empty.fields == ("uses",)


async def test_rotation_keeps_one_active_version(vault: Vault) -> None:
    admin = await vault.issue(ACME, "ADMIN")
    ada = await vault.issue(ACME, "MEMBER", user=ADA)
    first = await vault.ready(admin)
    second = (await vault.add(admin, key="sk-second-0123456789abcdefghijklmnop")).name
    await vault.activate(admin, second)
    assert (await vault.take(f"{MAIN}/versions/active", ada.token)).credential_version == second
    superseded = await refused(vault.take(first, ada.token))
    assert superseded.metadata["state"] == "CREDENTIAL_VERSION_STATE_SUPERSEDED"
    listed = await admin.call(
        admin.credentials.ListCredentialVersions, credentials_pb.ListCredentialVersionsRequest(parent=MAIN, page_size=1)
    )
    assert [one.name for one in listed.credential_versions] == [second]
    rest = await admin.call(
        admin.credentials.ListCredentialVersions,
        credentials_pb.ListCredentialVersionsRequest(parent=MAIN, page_size=1, page_token=listed.next_page_token),
    )
    assert [one.name for one in rest.credential_versions] == [first]
    assert rest.next_page_token == ""
    await admin.call(
        admin.credentials.DestroyCredentialVersion, credentials_pb.DestroyCredentialVersionRequest(name=second)
    )
    destroyed = await refused(vault.activate(admin, second))
    assert destroyed.reason == "ERROR_REASON_CREDENTIAL_DESTROYED"


async def test_revoke_all_reaches_the_users(vault: Vault) -> None:
    admin = await vault.issue(ACME, "ADMIN")
    ada = await vault.issue(ACME, "MEMBER", user=ADA)
    await vault.ready(admin)
    own = await vault.ready(ada, f"{ADA}/credentials/mine", key="sk-ada-0123456789abcdefghijklmnop")
    assert vault.router.open(await vault.take(own, ada.token)).api_key.startswith("sk-ada")
    async with Feed(vault) as feed:
        await feed.read()
        answer = await vault.operator.call(
            vault.operator.credentials.RevokeAllCredentials, credentials_pb.RevokeAllCredentialsRequest(parent=ACME)
        )
        assert answer.disabled_count == 2
        (change,) = await feed.read_changes()
        assert change.owner_revocation.owner == ACME
    assert (await refused(vault.take(own, ada.token))).reason == "ERROR_REASON_CREDENTIAL_DISABLED"


async def test_own_keys_can_be_switched_off(vault: Vault) -> None:
    ada = await vault.issue(ACME, "MEMBER", user=ADA)
    own = await vault.ready(ada, f"{ADA}/credentials/mine")
    policy = credentials_pb.CredentialPolicy(name=f"{ACME}/credentialPolicy", user_credentials_enabled=False)
    admin = await vault.issue(ACME, "ADMIN")
    await admin.call(
        admin.credentials.SetCredentialPolicy, credentials_pb.SetCredentialPolicyRequest(credential_policy=policy)
    )
    for awaitable in (vault.take(own, ada.token), vault.add(ada, f"{ADA}/credentials/mine")):
        refusal = await refused(awaitable)
        assert (refusal.reason, refusal.metadata) == ("ERROR_REASON_BYOK_DISABLED", {"parent": ADA})
    listed = await vault.lease.call(
        vault.lease.leases.ListLeasable, leases_pb.ListLeasableRequest(parent=ADA, caller_proof=ada.token)
    )
    assert not listed.user_credentials_enabled
    await ada.call(
        ada.credentials.DeleteCredential, credentials_pb.DeleteCredentialRequest(name=f"{ADA}/credentials/mine")
    )
    deleted = await refused(vault.take(own, ada.token))
    assert deleted.reason == "ERROR_REASON_BYOK_DISABLED"


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
            store.error = Unavailable(f"boom {KEY}", status=473)
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
        answer = await stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=5)
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
        stopping = asyncio.create_task(vault.service.stop(grace_seconds=5))
        while (message := await feed.read()) is not grpc.aio.EOF:
            assert not message.is_reset
        async with asyncio.timeout(4):
            await stopping
    assert b"AUDIT_ACTION_STOP" in vault.audit_bytes()


async def test_requests_that_are_too_large_are_refused_with_a_reason(tmp_path: Path) -> None:
    async with running_vault(tmp_path, max_message_bytes=4096) as vault:
        refusal = await refused(
            vault.operator.call(
                vault.operator.credentials.GetCredential, credentials_pb.GetCredentialRequest(name="x" * 8000)
            )
        )
        assert refusal.fields == ("request",)


async def test_an_organizations_auditor_sees_its_records_only(vault: Vault) -> None:
    admin = await vault.issue(ACME, "ADMIN")
    await vault.create(admin)
    other = await vault.issue("organizations/other", "AUDITOR")
    auditor = await vault.issue(ACME, "AUDITOR")
    everything = audit_service_pb2.ListAuditRecordsRequest(parent="chains/-", page_size=1000)
    own = await auditor.call(auditor.audit.ListAuditRecords, everything)
    assert own.audit_records
    assert all(record.resource.startswith(f"{ACME}") for record in own.audit_records)
    others = await other.call(other.audit.ListAuditRecords, everything)
    assert not any(record.resource.startswith(ACME) for record in others.audit_records)
    hidden = own.audit_records[0].name
    refusal = await refused(
        other.call(other.audit.GetAuditRecord, audit_service_pb2.GetAuditRecordRequest(name=hidden))
    )
    assert refusal.reason == "ERROR_REASON_AUDIT_RECORD_UNKNOWN"
    member = await vault.issue(ACME, "MEMBER", user=ADA)
    denied = await refused(member.call(member.audit.ListAuditRecords, everything))
    assert (denied.reason, denied.metadata) == ("ERROR_REASON_CALLER_NOT_ALLOWED", {"missingRole": "admin"})


async def test_audit_pages_hold_every_record_once(vault: Vault) -> None:
    admin = await vault.issue(ACME, "ADMIN")
    for i in range(3):
        await vault.create(admin, f"{ACME}/credentials/c{i}")
    names: list[str] = []
    token = ""
    wanted = audit_service_pb2.AuditFilter(actions=[audit_pb2.AUDIT_ACTION_CREATE_CREDENTIAL])
    while True:
        page = await admin.call(
            admin.audit.ListAuditRecords,
            audit_service_pb2.ListAuditRecordsRequest(parent="chains/-", page_size=4, page_token=token, filter=wanted),
        )
        names += [record.name for record in page.audit_records]
        token = page.next_page_token
        if not token:
            break
    numbers = [int(name.rpartition("/")[2]) for name in names]
    assert len(numbers) == 6
    assert numbers == sorted(numbers, reverse=True)


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
        call = stub.Watch(health_pb2.HealthCheckRequest(service=""), timeout=10)
        await read_until(call, health_pb2.HealthCheckResponse.NOT_SERVING)
        files.is_full = False
        await read_until(call, health_pb2.HealthCheckResponse.SERVING)
        call.cancel()
        assert vault.router.open(await vault.take(version, ada.token)).api_key == KEY


async def read_until(call: Any, status: int) -> None:
    while (await call.read()).status != status:
        pass


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
