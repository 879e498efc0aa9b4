"""What a fault lets rest, and what rests take out of a plan."""

from dataclasses import replace

import pytest

from router_service.catalog.catalog import BillingPlan, Endpoint, Model, Provider
from router_service.core.caller import Credential
from router_service.core.endpoint import AuthScheme, parse_base_url
from router_service.core.faults import Cause, Fault, Reason
from router_service.core.resolution import ModelSource, Payer, PayerFailoverCause, SkipReason
from router_service.dialects.base import Quirks
from router_service.policy.call import Candidate, Plan
from router_service.policy.cooldown import (
    Rest,
    RestCause,
    ended_keys,
    endpoint_key,
    order_rest,
    rest_candidates,
    rest_keys,
)

NOW = 1000.0
RATE, MONEY, DOWN = Reason.UPSTREAM_RATE_LIMITED, Reason.UPSTREAM_BALANCE_EXHAUSTED, Reason.UPSTREAM_UNAVAILABLE
REJECTED = Reason.UPSTREAM_CREDENTIAL_REJECTED
REASONS = {RestCause.RATE: RATE, RestCause.QUOTA_WINDOW: RATE, RestCause.BALANCE: MONEY}


def candidate(name: str, payer: Payer = Payer.ORGANIZATION_KEY, *, plan: str = "") -> Candidate:
    url = parse_base_url(f"https://{name}.example/v1")
    billing = BillingPlan(plan) if plan else None
    provider = Provider(name, name, "openai_chat", url, AuthScheme.BEARER, plan=billing)
    endpoint = Endpoint(name, "large", Quirks())
    credential = Credential(
        f"{payer.value}/{name}", provider.name, "", (), True, f"{payer.value}/{name}/versions/1", None
    )
    model = Model("acme/large", (endpoint,))
    return Candidate(model, endpoint, provider, payer, credential, ModelSource.CALL)


def made(*candidates: Candidate, causes: frozenset[PayerFailoverCause] = frozenset()) -> Plan:
    return Plan("large", candidates, failover_causes=causes)


def rest(one: Candidate, cause: RestCause = RestCause.RATE, seconds: float = 30.0) -> dict[str, Rest]:
    return {rest_keys(one)[1]: Rest(cause, REASONS.get(cause, DOWN), NOW + seconds)}


A, B = candidate("one"), candidate("two")
PAID = replace(candidate("one", Payer.CREDITS), is_payer_failover=True)


@pytest.mark.parametrize(
    ("reason", "told", "wait", "plan", "cause", "seconds"),
    [
        (RATE, Cause.RATE, 7.0, "", RestCause.RATE, 7.0),
        (RATE, None, None, "", RestCause.RATE, None),
        (RATE, None, None, "coding", RestCause.RATE, 300.0),
        (RATE, Cause.CONCURRENCY, None, "", RestCause.CONCURRENCY, None),
        (RATE, Cause.OVERLOAD, None, "", RestCause.OVERLOAD, None),
        (RATE, Cause.QUOTA_WINDOW, None, "", RestCause.QUOTA_WINDOW, 300.0),
        (RATE, Cause.QUOTA_WINDOW, 9000.0, "", RestCause.QUOTA_WINDOW, 9000.0),
        (MONEY, None, None, "", RestCause.BALANCE, 300.0),
        (MONEY, Cause.SPEND_CAP, None, "", RestCause.SPEND_CAP, 300.0),
        (REJECTED, Cause.MEMBERSHIP, None, "", RestCause.MEMBERSHIP, 300.0),
        (Reason.PLAN_MISMATCH, Cause.PLAN_MISMATCH, None, "", RestCause.PLAN_MISMATCH, 300.0),
        (DOWN, Cause.OVERLOAD, 60.0, "", RestCause.OVERLOAD, 60.0),
    ],
)
def test_a_fault_lets_the_key_rest_as_long_as_the_best_source_says(
    reason: Reason, told: Cause | None, wait: float | None, plan: str, cause: RestCause, seconds: float | None
) -> None:
    one = candidate("one", plan=plan)
    order = order_rest(Fault(reason, "", cause=told, retry_after_seconds=wait), one)
    assert order is not None
    assert (order.cause, order.reason, order.seconds) == (cause, reason, seconds)
    assert order.key in rest_keys(one)
    # An account without money has none for any model.
    assert order.key.endswith(":*") == (reason in {MONEY, REJECTED, Reason.PLAN_MISMATCH})


@pytest.mark.parametrize(
    ("reason", "wait"),
    [
        (DOWN, None),
        (DOWN, 2.0),
        (Reason.UPSTREAM_REJECTED_REQUEST, None),
        (REJECTED, None),
        (Reason.CONTEXT_TOO_LONG, None),
    ],
)
def test_a_fault_that_says_nothing_of_the_next_call_lets_nothing_rest(reason: Reason, wait: float | None) -> None:
    assert order_rest(Fault(reason, "", retry_after_seconds=wait), A) is None


def test_a_replaced_key_does_not_rest() -> None:
    assert A.credential is not None
    replaced = replace(A, credential=replace(A.credential, active_version="another"))
    assert rest_candidates(made(replaced), rest(A), NOW).candidates == (replaced,)


def test_what_rests_is_passed_over_with_its_reason() -> None:
    left = rest_candidates(made(A, B), rest(A), NOW)
    assert left.candidates == (B,)
    assert [(one.provider, one.reason) for one in left.skipped] == [("providers/one", SkipReason.COOLING_DOWN)]
    assert "rests for 30 s more" in left.skipped[0].message
    assert rest_candidates(made(A, B), rest(A), NOW + 30).candidates == (A, B)


@pytest.mark.parametrize("cause", RestCause)
def test_a_plan_of_which_all_rests_fails_as_the_provider_would(cause: RestCause) -> None:
    rests = {**rest(A, cause, 50.0), **rest(B, cause, 20.0)}
    left = rest_candidates(made(A, B), rests, NOW)
    assert left.candidates == ()
    assert left.failure is not None
    assert left.failure.reason is REASONS.get(cause, DOWN)
    assert left.failure.retry_after_seconds == 20.0
    assert left.failure.metadata["provider"] == "providers/two"


def test_the_bill_moves_only_where_every_way_of_the_payer_rests_for_a_stated_cause() -> None:
    stated = frozenset({PayerFailoverCause.RATE_LIMITED})
    assert rest_candidates(made(A, PAID), rest(A), NOW).candidates == ()
    assert rest_candidates(made(A, PAID, causes=stated), rest(A), NOW).candidates == (PAID,)
    assert rest_candidates(made(A, PAID, causes=stated), rest(A, RestCause.BALANCE), NOW).candidates == ()
    both = {**rest(A), **rest(B, RestCause.BREAKER)}
    assert rest_candidates(made(A, B, PAID, causes=stated), both, NOW).candidates == ()
    assert rest_candidates(made(A, B, PAID, causes=stated), rest(A, RestCause.BREAKER), NOW).candidates == (B, PAID)


def test_a_blocked_bill_is_told_the_payers_own_way() -> None:
    both = {**rest(A, RestCause.QUOTA_WINDOW, 500.0), **rest(PAID, RestCause.RATE, 5.0)}
    left = rest_candidates(made(A, PAID), both, NOW)
    assert left.failure is not None
    assert left.failure.retry_after_seconds == 500.0


def test_who_is_tried_by_another_call_stands_behind() -> None:
    probed = {endpoint_key(A): Rest(RestCause.BREAKER, DOWN, NOW - 1, NOW + 5)}
    assert rest_candidates(made(A, B, PAID), probed, NOW).candidates == (B, A, PAID)
    assert rest_candidates(made(A, PAID), probed, NOW).candidates == (A, PAID)
    assert ended_keys(A, probed, NOW) == (endpoint_key(A),)
    assert rest_candidates(made(A, B), probed, NOW + 6).candidates == (A, B)


def test_a_plan_without_rests_is_the_same_plan() -> None:
    plan = made(A, B)
    assert rest_candidates(plan, {}, NOW) is plan
    assert rest_candidates(plan, {"credential:else:*": Rest(RestCause.RATE, RATE, NOW + 9)}, NOW) is plan
