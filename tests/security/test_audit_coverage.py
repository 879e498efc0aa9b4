"""Every method of the credential service leaves a record, done or refused; a flood of strangers leaves few."""

import asyncio
import json
import uuid
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import grpc
import pytest
from keyswitch.vault.v1 import audit_pb2, credential_pb2, credential_test_pb2, lease_pb2
from keyswitch.vault.v1 import audit_service_pb2 as audits
from keyswitch.vault.v1 import credential_service_pb2 as credentials
from keyswitch.vault.v1 import lease_service_pb2 as leases
from keyswitch.vault.v1 import token_service_pb2 as tokens

from tests.security.promises import count, tried
from tests.service.vault_harness import (
    ACME,
    ADA,
    KEY,
    MAIN,
    ORIGIN,
    Client,
    Refused,
    Vault,
    make_home,
    open_channel,
    refused,
    running_vault,
)
from vault_service.transport.interceptors.records import ACTIONS

SERVICES = {"CredentialService": credentials, "TokenService": tokens, "AuditService": audits, "LeaseService": leases}
METHODS = {
    f"{service}/{method.name}"
    for service, module in SERVICES.items()
    for method in module.DESCRIPTOR.services_by_name[service].methods
}
OPEN = {"TokenService/GetSigningKeys": "public keys, for anybody"}
VERSION = f"{MAIN}/versions/1"
Make = Callable[[], Awaitable[Any]]


def test_the_table_names_every_method() -> None:
    named = {name.removeprefix("/keyswitch.vault.v1.") for name in ACTIONS}
    assert named == METHODS - set(OPEN)


def draft() -> credential_pb2.Credential:
    kind = credential_pb2.CREDENTIAL_KIND_API_KEY
    return credential_pb2.Credential(provider="providers/openai", kind=kind, allowed_origins=[ORIGIN])


def stub(client: Client, service: str) -> Any:
    return {
        "CredentialService": client.credentials,
        "TokenService": client.tokens,
        "AuditService": client.audit,
        "LeaseService": client.leases,
    }[service]


async def requests(vault: Vault, admin: Client, ada: Client) -> Mapping[str, Make]:
    """A right request for each method, made when it is its turn; the order is one in which all succeed."""

    def fixed(request: Any) -> Make:
        async def make() -> Any:
            return request

        return make

    async def update() -> Any:
        request = credentials.UpdateCredentialRequest(credential=draft())
        request.credential.name, request.credential.display_name = MAIN, "new"
        request.update_mask.paths.append("display_name")
        return request

    async def use() -> Any:
        lease = await vault.take(f"{MAIN}/versions/active", ada.token)
        request = leases.ReportUsesRequest()
        request.uses.add(
            lease_id=lease.lease_id,
            request_id="response-1",
            principal=ADA,
            attempt=1,
            outcome=lease_pb2.CREDENTIAL_USE_OUTCOME_SUCCEEDED,
        ).use_time.GetCurrentTime()
        return request

    async def test() -> Any:
        lease = await vault.take(VERSION, ada.token, purpose=lease_pb2.LEASE_PURPOSE_TEST)
        outcome = credential_test_pb2.CREDENTIAL_TEST_OUTCOME_PASSED
        made = credential_test_pb2.CredentialTest(credential_version=VERSION, outcome=outcome)
        return leases.ReportTestRequest(lease_id=lease.lease_id, test=made)

    async def revoke() -> Any:
        token = tokens.Token(display_name="t", roles=[tokens.CALLER_ROLE_AUDITOR])
        issued = await admin.call(admin.tokens.IssueToken, tokens.IssueTokenRequest(parent=ACME, token=token))
        return tokens.RevokeTokenRequest(name=issued.token.name)

    token = tokens.Token(display_name="t", roles=[tokens.CALLER_ROLE_AUDITOR])
    material = credential_pb2.SecretMaterial(api_key=KEY)
    policy = f"{ACME}/credentialPolicy"
    return {
        "CredentialService/CreateCredential": fixed(
            credentials.CreateCredentialRequest(parent=ACME, credential_id="main", credential=draft())
        ),
        "CredentialService/AddCredentialVersion": fixed(
            credentials.AddCredentialVersionRequest(parent=MAIN, secret_material=material)
        ),
        "CredentialService/ActivateCredentialVersion": fixed(
            credentials.ActivateCredentialVersionRequest(name=VERSION, force=True)
        ),
        "CredentialService/GetCredential": fixed(credentials.GetCredentialRequest(name=MAIN)),
        "CredentialService/ListCredentials": fixed(credentials.ListCredentialsRequest(parent=ACME)),
        "CredentialService/GetCredentialVersion": fixed(credentials.GetCredentialVersionRequest(name=VERSION)),
        "CredentialService/ListCredentialVersions": fixed(credentials.ListCredentialVersionsRequest(parent=MAIN)),
        "CredentialService/UpdateCredential": update,
        "CredentialService/GetCredentialPolicy": fixed(credentials.GetCredentialPolicyRequest(name=policy)),
        "CredentialService/SetCredentialPolicy": fixed(
            credentials.SetCredentialPolicyRequest(credential_policy=credentials.CredentialPolicy(name=policy))
        ),
        "LeaseService/LeaseCredential": fixed(vault.router.request(f"{MAIN}/versions/active", ada.token)),
        "LeaseService/BatchLeaseCredentials": fixed(
            vault.router.batch([vault.router.request(f"{MAIN}/versions/active", ada.token)])
        ),
        "LeaseService/ListLeasable": fixed(leases.ListLeasableRequest(parent=ACME, caller_proof=ada.token)),
        "LeaseService/ReportUses": use,
        "LeaseService/ReportRefusals": fixed(
            leases.ReportRefusalsRequest(
                refusals=[
                    leases.CallerRefusals(
                        method="CompletionService/Complete", cause="token_invalid", count=2, address_count=1
                    )
                ]
            )
        ),
        "LeaseService/ReportTest": test,
        "LeaseService/WatchCredentialChanges": fixed(leases.WatchCredentialChangesRequest()),
        "TokenService/IssueToken": fixed(tokens.IssueTokenRequest(parent=ACME, token=token)),
        "TokenService/ListTokens": fixed(tokens.ListTokensRequest(parent=ACME)),
        "TokenService/RevokeToken": revoke,
        "AuditService/ListAuditRecords": fixed(audits.ListAuditRecordsRequest(parent="chains/-")),
        "AuditService/GetAuditRecord": fixed(audits.GetAuditRecordRequest(name="chains/vault-0/records/1")),
        "AuditService/TailAuditRecords": fixed(audits.TailAuditRecordsRequest(parent="chains/-")),
        "AuditService/ExportAuditRecords": fixed(audits.ExportAuditRecordsRequest(parent="chains/vault-0")),
        "AuditService/ListAuditCheckpoints": fixed(audits.ListAuditCheckpointsRequest(parent="chains/vault-0")),
        "AuditService/GetAuditCheckpoint": fixed(audits.GetAuditCheckpointRequest(parent="chains/vault-0")),
        "CredentialService/DisableCredential": fixed(credentials.DisableCredentialRequest(name=MAIN)),
        "CredentialService/EnableCredential": fixed(credentials.EnableCredentialRequest(name=MAIN)),
        "CredentialService/DisableCredentialVersion": fixed(credentials.DisableCredentialVersionRequest(name=VERSION)),
        "CredentialService/DestroyCredentialVersion": fixed(credentials.DestroyCredentialVersionRequest(name=VERSION)),
        "CredentialService/RevokeAllCredentials": fixed(credentials.RevokeAllCredentialsRequest(parent=ACME)),
        "CredentialService/DeleteCredential": fixed(credentials.DeleteCredentialRequest(name=MAIN)),
    }


def records_after(vault: Vault, number: int) -> list[dict[str, Any]]:
    return [json.loads(line) for line in vault.audit_bytes().splitlines()[number:]]


def check(records: list[dict[str, Any]], name: str, outcomes: set[str]) -> None:
    action = audit_pb2.AuditAction.Name(ACTIONS[f"/keyswitch.vault.v1.{name}"])
    if name.endswith("/ActivateCredentialVersion"):
        action = "AUDIT_ACTION_FORCE_ACTIVATE_VERSION"
    found = [one for one in records if one["action"] in (action, "AUDIT_ACTION_AUTHENTICATE")]
    assert found, f"{name} left no record of {action}: {records}"
    assert found[-1]["outcome"] in outcomes, f"{name}: {found[-1]}"
    assert all(one["callId"] == found[-1]["callId"] for one in found), "one id for the whole call"
    assert len(found[-1]["callId"].removesuffix("-0")) == 32


REFUSED = {"AUDIT_OUTCOME_DENIED", "AUDIT_OUTCOME_FAILED"}


async def test_every_method_leaves_a_record(tmp_path: Path) -> None:
    refusals = 0
    async with running_vault(tmp_path) as vault:
        admin = await vault.issue(ACME, "ADMIN")
        ada = await vault.issue(ACME, "MEMBER", user=ADA)
        stranger = await vault.issue("organizations/harbor", "MEMBER", user="organizations/harbor/users/eve")
        steps = await requests(vault, admin, ada)
        assert set(steps) | set(OPEN) == METHODS
        for name, make in steps.items():
            service, _, method = name.partition("/")
            request = await make()
            is_lease = service == "LeaseService"
            for caller in (vault.lease,) if is_lease else (stranger, vault.operator.with_token("x.y.z")):
                before = len(vault.audit_bytes().splitlines())
                wrong = type(request)() if is_lease else request
                if name == "LeaseService/WatchCredentialChanges":
                    wrong = leases.WatchCredentialChangesRequest(after_revision=-1)
                await refused(caller.call(getattr(stub(caller, service), method), wrong))
                check(records_after(vault, before), name, REFUSED)
                refusals += 1
            by = vault.lease if is_lease else vault.operator if service == "AuditService" else admin
            before = len(vault.audit_bytes().splitlines())
            await by.call(getattr(stub(by, service), method), request)
            done = "AUDIT_OUTCOME_DENIED" if name.endswith("/ReportRefusals") else "AUDIT_OUTCOME_SUCCEEDED"
            check(records_after(vault, before), name, {done})
    tried(9, "every method refused and done, each with its record", methods=len(steps), refusals=refusals)


async def test_forged_identities_are_refused_and_recorded(tmp_path: Path) -> None:
    make_home(tmp_path)
    async with running_vault(tmp_path) as vault:
        admin = await vault.issue(ACME, "ADMIN")
        header, payload, signature = admin.token.split(".")
        forged = {
            "no token": "",
            "no JWT": "x.y.z",
            "unsigned": f"eyJhbGciOiJub25lIn0.{payload}.",
            "changed": f"{header}.{payload[:-2]}AA.{signature}",
            "cut": admin.token[:-8],
        }
        for token in forged.values():
            before = len(vault.audit_bytes().splitlines())
            client = vault.operator.with_token(token)
            request = credentials.ListCredentialsRequest(parent=ACME)
            refusal = await refused(client.call(client.credentials.ListCredentials, request))
            assert refusal.code == grpc.StatusCode.UNAUTHENTICATED
            (record,) = records_after(vault, before)
            assert record["action"] == "AUDIT_ACTION_AUTHENTICATE"
            assert "subject" not in record.get("identity", {})
        async with open_channel(tmp_path, vault.service.lease_port, "vault") as channel:
            before = len(vault.audit_bytes().splitlines())
            client = Client(channel)
            wrong = await refused(client.call(client.leases.LeaseCredential, vault.router.request(MAIN, admin.token)))
            assert wrong.metadata == {"cause": "identity"}
            (record,) = records_after(vault, before)
            assert record["identity"]["subject"] == "spiffe://keyswitch/vault"
            assert record["identity"]["certificateHash"]
    tried(9, "forged tokens and a certificate of another service, each recorded", forgeries=len(forged) + 1)


async def test_a_flood_of_strangers_cannot_fill_the_disk(tmp_path: Path) -> None:
    calls = count(1_000, 10_000)
    now = [0.0]
    async with running_vault(tmp_path, monotonic=lambda: now[0]) as vault:
        nobody = vault.operator.with_token("x.y.z")
        before = len(vault.audit_bytes().splitlines())

        async def call() -> None:
            request = credentials.GetCredentialRequest(name=f"{ACME}/credentials/c-{uuid.uuid4().hex[:8]}")
            with pytest.raises(Refused):
                await nobody.call(nobody.credentials.GetCredential, request)

        for _ in range(calls // 100):
            await asyncio.gather(*(call() for _ in range(100)))
    records = [one for one in records_after(vault, before) if one["action"] == "AUDIT_ACTION_AUTHENTICATE"]
    assert len(records) <= 120  # the first hundred, and one for each interval
    assert sum(int(one.get("refusedCount", 1)) for one in records) == calls
    assert any("from 1 addresses" in one.get("note", "") for one in records)
    tried(9, "a flood of unknown callers, counted exactly", calls=calls, records=len(records))
