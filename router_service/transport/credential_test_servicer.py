"""CredentialTestService: trying keys, and saying which keys there are."""

from collections.abc import Callable, Iterator
from typing import Any

from keyswitch.router.v1 import (
    credential_test_service_pb2,
    credential_test_service_pb2_grpc,
)
from keyswitch.vault.v1 import credential_test_pb2

from router_service.catalog.catalog import Application, Endpoint, Model, Organization, Provider, Snapshot
from router_service.core.caller import Caller, Credential, Holdings
from router_service.core.faults import Cause, Fault, Reason, invalid
from router_service.core.resolution import Payer
from router_service.credentials.client import Credentials
from router_service.credentials.errors import StaleCredential
from router_service.credentials.uses import UseOutcome, UsePurpose
from router_service.policy.call import Call
from router_service.policy.payer import Refusal, credentials_of, pick_credential, refuse_payer
from router_service.policy.resolve import not_served
from router_service.transport import wire_build
from router_service.transport.credential_access import find_credential, untestable
from router_service.transport.interceptors.identity import caller
from router_service.transport.model_options import catalogued
from router_service.transport.request import (
    NO_APPLICATION,
    acting_user,
    demand,
    find_application,
    find_organization,
    not_found,
)
from router_service.upstream.client import Upstream
from router_service.upstream.key_test import try_key
from router_service.upstream.probe import ADVICE, MOST_MODELS, Finding, Outcome

MOST_STATUSES = 1000
MOST_MODEL_CHARACTERS = 200


class CredentialTestServicer(credential_test_service_pb2_grpc.CredentialTestServiceServicer):
    """Never takes or gives a secret: a new key is tested here by its version's name."""

    def __init__(
        self,
        snapshot: Callable[[], Snapshot],
        credentials: Credentials,
        upstream: Upstream,
        *,
        clock: Callable[[], float],
        new_id: Callable[[], str],
    ) -> None:
        self._snapshot = snapshot
        self._credentials = credentials
        self._upstream = upstream
        self._clock = clock
        self._new_id = new_id

    async def TestCredential(  # noqa: N802 # gRPC's name
        self, request: credential_test_service_pb2.TestCredentialRequest, context: Any
    ) -> credential_test_service_pb2.TestCredentialResponse:
        """What the provider answers is an outcome; only our own faults are errors."""
        who, snapshot = caller(), self._snapshot()
        demand(who, "test_credentials", "operator", "admin", "member")
        credential, provider = await find_credential(self._credentials, request.credential_version, who, snapshot)
        endpoint = _endpoint(request.model, provider, snapshot)
        request_id, started = self._new_id(), self._clock()
        try:
            lease = await self._credentials.lease_version(
                request.credential_version,
                origin=provider.base_url.origin,
                caller=who,
                principal=who.principal,
                request_id=request_id,
                purpose=UsePurpose.TEST,
            )
        except StaleCredential as stale:
            raise untestable(stale, request.credential_version) from None
        except Fault as fault:
            if fault.reason is not Reason.UPSTREAM_CREDENTIAL_REJECTED:
                raise
            self._credentials.forget(credential.name)
            return _refused(fault, request.credential_version, started, self._clock())
        siblings = [
            other
            for other in snapshot.providers.values()
            if provider.vendor and other.vendor == provider.vendor and other.plan != provider.plan
        ]
        finding = await try_key(self._upstream, provider, endpoint, siblings, lease.secret, started)
        latency_seconds = self._clock() - started
        self._credentials.uses.add(
            lease_id=lease.id,
            request_id=request_id,
            attempt=1,
            principal=who.principal,
            purpose=UsePurpose.TEST,
            outcome=_use_outcome(finding),
            use_time=started,
        )
        answer = _response(finding, lease.credential_version, latency_seconds, self._clock(), provider, snapshot)
        test = credential_test_pb2.CredentialTest(
            credential_version=lease.credential_version, outcome=answer.outcome, test_time=answer.test_time
        )
        await self._credentials.report_test(lease.id, test)
        self._credentials.forget(credential.name)
        return answer

    async def GetKeyStatus(  # noqa: N802 # gRPC's name
        self, request: credential_test_service_pb2.GetKeyStatusRequest, context: Any
    ) -> credential_test_service_pb2.GetKeyStatusResponse:
        """For each application and provider, the key that a call would use."""
        who, snapshot = caller(), self._snapshot()
        demand(who, "test_credentials", "operator", "admin", "member", "auditor")
        organization, applications = _applications(request.application, who, snapshot)
        snapshot = snapshot.view_of(organization.id)
        user = acting_user(request.on_behalf_of_user, who, organization)
        holdings = await self._credentials.holdings(who, user)
        providers = [snapshot.providers[key] for key in sorted(snapshot.providers)]
        if request.provider:
            providers = [provider for provider in providers if provider.name == request.provider]
            if not providers:
                raise not_found(request.provider)
        statuses = [
            _status(application, provider, organization, snapshot, holdings, self._clock())
            for application in applications
            for provider in providers
        ]
        return credential_test_service_pb2.GetKeyStatusResponse(statuses=statuses[:MOST_STATUSES])


def _applications(name: str, who: Caller, snapshot: Snapshot) -> tuple[Organization, list[Application]]:
    if name or who.application:
        organization, application = find_application(name, who, snapshot)
        return organization, [application]
    if not who.organization:
        raise invalid("application", "A token of the deployment must name an application, and so its tenant.")
    organization = find_organization(who.organization, who, snapshot)
    return organization, [
        find_application("", who, snapshot)[1],
        *(organization.applications[key] for key in sorted(organization.applications)),
    ]


def _status(
    application: Application,
    provider: Provider,
    organization: Organization,
    snapshot: Snapshot,
    holdings: Holdings,
    now: float,
) -> credential_test_service_pb2.KeyStatus:
    """The first payer that has a usable key for the provider."""
    call = Call("", organization, application)
    status = credential_test_service_pb2.KeyStatus(
        application="" if application.name == NO_APPLICATION.name else application.name,
        provider=provider.name,
        state=credential_test_service_pb2.KEY_STATE_NONE,
        is_saved_key_ignored=_is_ignored(call, provider, snapshot, holdings),
    )
    for payer, credential in _usable(call, provider, snapshot, holdings, now):
        status.state = (
            credential_test_service_pb2.KEY_STATE_SAVED
            if payer.is_own_key
            else credential_test_service_pb2.KEY_STATE_SHARED
        )
        status.payer = wire_build.payer(payer)
        if payer.is_own_key:
            status.credential = credential.name
        if credential.last_test is not None:
            found = credential.last_test
            status.last_test.credential_version = found.credential_version if payer.is_own_key else ""
            status.last_test.outcome = credential_test_pb2.CredentialTestOutcome.ValueType(found.outcome)
            status.last_test.test_time.CopyFrom(wire_build.timestamp(found.time))
        break
    return status


def _usable(
    call: Call, provider: Provider, snapshot: Snapshot, holdings: Holdings, now: float
) -> Iterator[tuple[Payer, Credential]]:
    priced = Model("", (), price=None)
    native = call.application.native_provider
    for payer in call.application.payers:
        if refuse_payer(payer, call, snapshot, holdings) or (payer.is_own_key and native not in ("", provider.id)):
            continue
        asked = Payer.SHARED_KEY if payer is Payer.CREDITS else payer  # whether a price is known is the model's matter
        available = credentials_of(payer, holdings, snapshot)
        found = pick_credential(asked, call, provider, priced, available, now)
        if found is not None and not isinstance(found, Refusal):
            yield payer, found


def _is_ignored(call: Call, provider: Provider, snapshot: Snapshot, holdings: Holdings) -> bool:
    has_key = any(credential.provider == provider.name for credential in holdings.user)
    return has_key and refuse_payer(Payer.USER_KEY, call, snapshot, holdings) is not None


def _endpoint(reference: str, provider: Provider, snapshot: Snapshot) -> Endpoint | None:
    if not reference:
        return None
    if reference.startswith(f"{provider.id}:"):
        upstream_model = reference.removeprefix(f"{provider.id}:")
        if not 1 <= len(upstream_model) <= MOST_MODEL_CHARACTERS or not upstream_model.isprintable():
            raise invalid("model", f"After {provider.id}: stands the provider's own name of a model.")
        return Endpoint(provider.id, upstream_model, provider.quirks)
    model = snapshot.find_model(reference)
    found = model and next((item for item in model.endpoints if item.provider == provider.id), None)
    if not found:
        raise not_served(reference, provider, snapshot)
    return found


def _use_outcome(finding: Finding) -> UseOutcome:
    match finding.outcome:
        case Outcome.PASSED:
            return UseOutcome.SUCCEEDED
        case Outcome.INVALID_KEY | Outcome.WRONG_PLAN:
            return UseOutcome.REJECTED
        case _:
            return UseOutcome.FAILED


def _advice(finding: Finding, provider: Provider, snapshot: Snapshot) -> str:
    plan = provider.plan
    if finding.outcome is Outcome.WRONG_PLAN and finding.detected_plan:
        other = snapshot.providers.get(finding.detected_plan.removeprefix("providers/"))
        shown = f" ({other.display_name})" if other is not None else ""
        return f"The key looks like one of {finding.detected_plan}{shown}. Save it for that provider."
    if finding.cause is Cause.ACCOUNT:
        return "The provider has blocked the account, or its terms do not allow this use. The owner should ask it."
    if finding.cause is Cause.QUOTA_WINDOW:
        return "The key works; the plan's window is used up until it starts anew."
    if finding.outcome is Outcome.INCONCLUSIVE and not provider.key_test_path:
        return "This provider has no free test of a key: name a model, and one short answer is asked for."
    if finding.outcome is Outcome.PASSED and plan is not None and not finding.is_model_verified:
        return "The provider knows the key. Whether it fits the plan shows only where a model is tested too."
    return ADVICE[finding.outcome]


def _refused(
    fault: Fault, version: str, started: float, now: float
) -> credential_test_service_pb2.TestCredentialResponse:
    """Of a key whose tokens come from an endpoint that gives none: the provider itself was not asked."""
    cause = fault.metadata["cause"]
    return credential_test_service_pb2.TestCredentialResponse(
        outcome=credential_test_pb2.CREDENTIAL_TEST_OUTCOME_INVALID_KEY,
        credential_version=version,
        message=f"No token is given for this key: its endpoint says {cause}. Save a new one.",
        latency=wire_build.duration(now - started),
        test_time=wire_build.timestamp(now),
    )


def _response(
    finding: Finding, version: str, latency_seconds: float, now: float, provider: Provider, snapshot: Snapshot
) -> credential_test_service_pb2.TestCredentialResponse:
    known = catalogued(provider, snapshot)
    answer = credential_test_service_pb2.TestCredentialResponse(
        outcome=credential_test_pb2.CredentialTestOutcome.Value(f"CREDENTIAL_TEST_OUTCOME_{finding.outcome.value}"),
        credential_version=version,
        message=_advice(finding, provider, snapshot),
        detected_plan=finding.detected_plan,
        upstream_status=finding.upstream_status,
        latency=wire_build.duration(latency_seconds),
        test_time=wire_build.timestamp(now),
        is_models_truncated=len(finding.models) > MOST_MODELS,
    )
    if finding.retry_after_seconds is not None:
        answer.retry_delay.CopyFrom(wire_build.duration(finding.retry_after_seconds))
    for upstream_id in finding.models[:MOST_MODELS]:
        answer.models.add(upstream_model_id=upstream_id, model=known.get(upstream_id, ""))
    return answer
