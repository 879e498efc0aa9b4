"""One right request for every method, in an order in which all of them succeed, each with a caller that may make it."""

import uuid
from collections.abc import Iterator
from dataclasses import dataclass

from google.protobuf import duration_pb2, field_mask_pb2
from google.protobuf.message import Message
from keyswitch.router.v1 import (
    budget_service_pb2,
    completion_service_pb2,
    credential_test_service_pb2,
    model_service_pb2,
    provider_service_pb2,
    usage_service_pb2,
)
from keyswitch.vault.v1 import (
    audit_service_pb2,
    credential_pb2,
    credential_service_pb2,
    credential_test_pb2,
    lease_pb2,
    lease_service_pb2,
    token_service_pb2,
)

from deploy.local.stack import APPLICATION, ORGANIZATION, USER
from tests.fakes.scripted_upstream import Action
from tests.security import canary_upstream as answers
from tests.security.canary_deployment import CHAT, Watched
from tests.service.vault_harness import Router

SPARE = f"{ORGANIZATION}/credentials/spare"
OWN = f"{USER}/credentials/own"
FROM_THE_BEGINNING = "eyJ2YXVsdC0wIjogMX0="  # {"vault-0": 1}


@dataclass(frozen=True, slots=True)
class Step:
    """A request that succeeds, and what the provider is to answer meanwhile."""

    method: str
    request: Message
    caller: str = "admin"
    scripts: tuple[list[Action], ...] = ()
    most_answers: int = 10_000


def credential_steps(watched: Watched) -> Iterator[Step]:
    """CredentialService, on a credential of its own."""
    pb, key = credential_service_pb2, watched.organization_key.value
    policy = f"{ORGANIZATION}/credentialPolicy"
    spare = credential_pb2.Credential(
        provider="providers/scripted", kind=credential_pb2.CREDENTIAL_KIND_API_KEY, allowed_origins=[watched.origin]
    )
    yield Step("CreateCredential", pb.CreateCredentialRequest(
        parent=ORGANIZATION, credential_id="spare", credential=spare, request_id=str(uuid.uuid4())))  # fmt: skip
    for _ in range(2):
        yield Step("AddCredentialVersion", pb.AddCredentialVersionRequest(
            parent=SPARE, secret_material=credential_pb2.SecretMaterial(api_key=key)))  # fmt: skip
    yield Step("GetCredential", pb.GetCredentialRequest(name=SPARE))
    yield Step("ListCredentials", pb.ListCredentialsRequest(parent=ORGANIZATION))
    yield Step("GetCredentialVersion", pb.GetCredentialVersionRequest(name=f"{SPARE}/versions/1"))
    yield Step("ListCredentialVersions", pb.ListCredentialVersionsRequest(parent=SPARE))
    yield Step("UpdateCredential", pb.UpdateCredentialRequest(
        credential=credential_pb2.Credential(name=SPARE, max_concurrent_requests=3),
        update_mask=field_mask_pb2.FieldMask(paths=["max_concurrent_requests"])))  # fmt: skip
    yield Step("ActivateCredentialVersion", pb.ActivateCredentialVersionRequest(
        name=f"{SPARE}/versions/1", force=True))  # fmt: skip
    yield Step("DisableCredential", pb.DisableCredentialRequest(name=SPARE))
    yield Step("EnableCredential", pb.EnableCredentialRequest(name=SPARE))
    yield Step("GetCredentialPolicy", pb.GetCredentialPolicyRequest(name=policy))
    yield Step("SetCredentialPolicy", pb.SetCredentialPolicyRequest(
        credential_policy=pb.CredentialPolicy(name=policy, user_credentials_enabled=True)))  # fmt: skip


def ending_steps() -> Iterator[Step]:
    """What ends things, last."""
    pb = credential_service_pb2
    revocation = pb.Revocation(kill_in_flight=True)
    yield Step("DisableCredentialVersion", pb.DisableCredentialVersionRequest(
        name=f"{SPARE}/versions/1", revocation=revocation))  # fmt: skip
    yield Step("DestroyCredentialVersion", pb.DestroyCredentialVersionRequest(
        name=f"{SPARE}/versions/1", revocation=revocation))  # fmt: skip
    yield Step("DeleteCredential", pb.DeleteCredentialRequest(name=SPARE, revocation=revocation))
    yield Step("RevokeAllCredentials", pb.RevokeAllCredentialsRequest(parent=USER, revocation=revocation))
    yield Step("EnableCredential", pb.EnableCredentialRequest(name=OWN))


def token_steps() -> Iterator[Step]:
    """TokenService; the token that RevokeToken ends is made by whoever runs the steps."""
    pb = token_service_pb2
    token = pb.Token(display_name="short", roles=[pb.CALLER_ROLE_AUDITOR])
    yield Step("IssueToken", pb.IssueTokenRequest(
        parent=ORGANIZATION, token=token, lifetime=duration_pb2.Duration(seconds=3600)))  # fmt: skip
    yield Step("ListTokens", pb.ListTokensRequest(parent=ORGANIZATION, show_inactive=True))
    yield Step("GetSigningKeys", pb.GetSigningKeysRequest(), "")


def audit_steps() -> Iterator[Step]:
    """AuditService."""
    pb = audit_service_pb2
    yield Step("ListAuditRecords", pb.ListAuditRecordsRequest(parent="chains/-", page_size=1000), "operator")
    yield Step("ListAuditRecords", pb.ListAuditRecordsRequest(
        parent="chains/-", filter=pb.AuditFilter(resource=ORGANIZATION)), "auditor")  # fmt: skip
    tail = pb.TailAuditRecordsRequest(parent="chains/-", resume_token=FROM_THE_BEGINNING)
    yield Step("TailAuditRecords", tail, "operator", most_answers=2)
    yield Step("ExportAuditRecords", pb.ExportAuditRecordsRequest(parent="chains/vault-0"), "operator")
    yield Step("ListAuditCheckpoints", pb.ListAuditCheckpointsRequest(parent="chains/vault-0"), "auditor")
    yield Step("GetAuditCheckpoint", pb.GetAuditCheckpointRequest(parent="chains/vault-0"), "auditor")
    yield Step("GetAuditRecord", pb.GetAuditRecordRequest(name="chains/vault-0/records/1"), "operator")


def router_steps(watched: Watched) -> Iterator[Step]:
    """The services of the router."""
    complete = completion_service_pb2.CompleteRequest(call=watched.call_for())
    streamed = completion_service_pb2.StreamCompleteRequest(call=watched.call_for())
    streamed.call.request_id = str(uuid.uuid4())
    yield Step("Complete", complete, "member", (answers.openai_body(),))
    yield Step("StreamComplete", streamed, "member", (answers.openai_stream(),))
    yield Step("GetReceipt", usage_service_pb2.GetReceiptRequest(request_id=streamed.call.request_id), "member")
    yield Step("GetBalance", budget_service_pb2.GetBalanceRequest(organization=ORGANIZATION))
    yield Step("AddCredits", budget_service_pb2.AddCreditsRequest(
        organization=ORGANIZATION, amount_usd_nanos=10**9, request_id=str(uuid.uuid4())), "operator")  # fmt: skip
    yield Step("ListModels", model_service_pb2.ListModelsRequest(application=APPLICATION), "member")
    yield Step("ListProviders", provider_service_pb2.ListProvidersRequest(), "member")
    yield Step("GetKeyStatus", credential_test_service_pb2.GetKeyStatusRequest(application=APPLICATION), "member")
    test = credential_test_service_pb2.TestCredentialRequest(credential_version=f"{OWN}/versions/1", model=CHAT)
    yield Step("TestCredential", test, "member", (answers.model_list("chat"), answers.openai_body()))


async def lease_steps(watched: Watched) -> list[Step]:
    """LeaseService, called as the router calls it: with its certificate, for a caller's token."""
    pb, calls = lease_service_pb2, watched.calls
    router = Router(watched.stack.home)
    lease = router.request(
        f"{OWN}/versions/1", watched.tokens["member"], principal=USER, origin=watched.origin,
        purpose=lease_pb2.LEASE_PURPOSE_TEST,
    )  # fmt: skip
    given = (await calls.call("LeaseCredential", lease)).answers[0]
    assert isinstance(given, pb.LeaseCredentialResponse)
    assert router.open(given, watched.origin).api_key == watched.user_key.value, "the lease holds the canary"
    use = lease_pb2.CredentialUse(
        lease_id=given.lease_id, request_id="response-1", attempt=1, principal=USER,
        outcome=lease_pb2.CREDENTIAL_USE_OUTCOME_SUCCEEDED, purpose=lease_pb2.LEASE_PURPOSE_TEST,
    )  # fmt: skip
    use.use_time.GetCurrentTime()
    tested = credential_test_pb2.CredentialTest(
        credential_version=given.credential_version, outcome=credential_test_pb2.CREDENTIAL_TEST_OUTCOME_PASSED
    )
    return [
        Step("LeaseCredential", lease, ""),
        Step("BatchLeaseCredentials", router.batch([lease, lease]), ""),
        Step("ListLeasable", pb.ListLeasableRequest(parent=USER, caller_proof=watched.tokens["member"]), ""),
        Step("ReportUses", pb.ReportUsesRequest(uses=[use]), ""),
        Step(
            "ReportRefusals",
            pb.ReportRefusalsRequest(
                refusals=[
                    pb.CallerRefusals(
                        method="CompletionService/Complete", cause="token_invalid", count=2, address_count=1
                    )
                ]
            ),
            "",
        ),
        Step("ReportTest", pb.ReportTestRequest(lease_id=given.lease_id, test=tested), ""),
        Step("WatchCredentialChanges", pb.WatchCredentialChangesRequest(), "", most_answers=2),
    ]
