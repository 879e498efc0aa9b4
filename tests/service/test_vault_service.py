"""The credential service from end to end: real TLS, real gRPC, the store in memory."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidTag
from google.protobuf import timestamp_pb2
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

from tests.service.vault_harness import (
    ACME,
    ADA,
    KEY,
    MAIN,
    Client,
    Feed,
    Router,
    Vault,
    refused,
    running_vault,
)


@pytest.fixture
async def vault(tmp_path: Path) -> AsyncIterator[Vault]:
    async with running_vault(tmp_path) as running:
        yield running


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


async def test_a_use_says_what_it_was_for_whatever_its_lease_says(vault: Vault) -> None:
    admin = await vault.issue(ACME, "ADMIN")
    version = await vault.ready(admin)
    lease = await vault.take(version, (await vault.issue(ACME, "MEMBER", user=ADA)).token)

    async def report(request_id: str, purpose: int) -> None:
        use = lease_pb2.CredentialUse(
            lease_id=lease.lease_id,
            request_id=request_id,
            attempt=1,
            principal=ADA,
            outcome=lease_pb2.CREDENTIAL_USE_OUTCOME_SUCCEEDED,
            use_time=timestamp_pb2.Timestamp(seconds=1_795_000_000),
            purpose=purpose,  # type: ignore[arg-type] # also one that is none
        )
        await vault.lease.call(vault.lease.leases.ReportUses, leases_pb.ReportUsesRequest(uses=[use]))

    for request_id, purpose in (
        ("counted", lease_pb2.LEASE_PURPOSE_TOKEN_COUNT),
        ("unsaid", lease_pb2.LEASE_PURPOSE_UNSPECIFIED),  # a router of before
    ):
        await report(request_id, purpose)
        (found,) = await read_records(admin, request_id)
        assert (found.action, found.purpose) == (audit_pb2.AUDIT_ACTION_USE, purpose)
    assert (await refused(report("odd", 99))).fields == ("uses[0].purpose",)
    assert await read_records(admin, "odd") == []


async def test_models_may_be_asked_for_with_a_key_that_is_not_active_yet(vault: Vault) -> None:
    """As it may be tested; but what comes of it is no test."""
    admin = await vault.issue(ACME, "ADMIN")
    ada = await vault.issue(ACME, "MEMBER", user=ADA)
    await vault.create(admin)
    pending = (await vault.add(admin)).name
    lease = await vault.take(pending, ada.token, purpose=lease_pb2.LEASE_PURPOSE_DISCOVERY)
    assert vault.router.open(lease).api_key == KEY
    assert (await refused(vault.report_test(lease))).fields == ("lease_id",)
    for purpose in (lease_pb2.LEASE_PURPOSE_COMPLETION, lease_pb2.LEASE_PURPOSE_TOKEN_COUNT):
        assert (await refused(vault.take(pending, ada.token, purpose=purpose))).reason == (
            "ERROR_REASON_VERSION_NOT_ACTIVE"
        )


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
