"""Who gets in: tokens, certificates, tenants, auditors."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from keyswitch.vault.v1 import (
    audit_pb2,
    audit_service_pb2,
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
    MAIN,
    Client,
    Feed,
    Vault,
    open_channel,
    refused,
    running_vault,
)


@pytest.fixture
async def vault(tmp_path: Path) -> AsyncIterator[Vault]:
    async with running_vault(tmp_path) as running:
        yield running


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
async def test_no_method_is_open(vault: Vault, monkeypatch: pytest.MonkeyPatch, token: str, cause: str) -> None:
    monkeypatch.setattr(
        "vault_service.core.refusal_limit.BURST", 1000.0
    )  # else a part of them would only be told to wait
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
            await method(request, timeout=60)
        assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await list_services(lease.channel)
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED
    assert "keyswitch.vault.v1.CredentialService" in await list_services(vault.operator.channel)


async def list_services(channel: grpc.aio.Channel) -> list[str]:
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
    call = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]), timeout=60)
    answer = await call.read()
    names = [service.name for service in answer.list_services_response.service]
    call.cancel()
    return names


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


async def test_requests_that_are_too_large_are_refused_with_a_reason(tmp_path: Path) -> None:
    async with running_vault(tmp_path, max_message_bytes=4096) as vault:
        refusal = await refused(
            vault.operator.call(
                vault.operator.credentials.GetCredential, credentials_pb.GetCredentialRequest(name="x" * 8000)
            )
        )
        assert refusal.fields == ("request",)
