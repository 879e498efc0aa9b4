"""What follows a failed attempt: the bill moves for a stated cause or not at all."""

from hypothesis import given
from hypothesis import strategies as st

from router_service.core.faults import LAWS, Fault, Reason
from router_service.core.resolution import PayerFailoverCause
from router_service.policy.plan import plan
from router_service.policy.retry import (
    FAILOVER_CAUSES,
    FIRST_DELAY_SECONDS,
    LONGEST_DELAY_SECONDS,
    TRIES_AT_ONE_ENDPOINT,
    delay,
    next_step,
)
from tests.unit.policy.world import NOW, call, holdings, snapshot

EVERY_CAUSE = frozenset(PayerFailoverCause)
CANDIDATES = plan(
    call(payer_failover_on=EVERY_CAUSE), snapshot(), holdings(user="one two", organization="one", deployment="two"), NOW
).candidates

REASONS = st.sampled_from(list(Reason))
CAUSES = st.frozensets(st.sampled_from(list(PayerFailoverCause)))


@given(
    reason=REASONS,
    causes=CAUSES,
    current=st.integers(0, len(CANDIDATES) - 1),
    tries=st.integers(1, 3),
    after=st.none() | st.floats(0, 1000),
    here=st.none() | st.booleans(),
)
def test_the_bill_moves_only_for_a_stated_cause(
    reason: Reason,
    causes: frozenset[PayerFailoverCause],
    current: int,
    tries: int,
    after: float | None,
    here: bool | None,
) -> None:
    fault = Fault(reason, "x", retry_after_seconds=after, is_retryable_here=here)
    step = next_step(fault, CANDIDATES, current, tries, causes, 0.5)
    if step is None:
        return
    assert step.candidate >= current
    if step.candidate == current:
        assert fault.is_retryable_here
        assert tries < TRIES_AT_ONE_ENDPOINT
        assert step.delay_seconds >= (after or 0.0)
        assert step.delay_seconds <= LONGEST_DELAY_SECONDS
        return
    if CANDIDATES[step.candidate].payer is not CANDIDATES[current].payer:
        assert FAILOVER_CAUSES[reason] in causes
    else:
        assert LAWS[reason].may_fail_over or reason in {Reason.UPSTREAM_CREDENTIAL_REJECTED, Reason.PLAN_MISMATCH}


def test_without_causes_nothing_leads_to_another_payer() -> None:
    last = max(number for number, one in enumerate(CANDIDATES) if one.payer is CANDIDATES[0].payer)
    for reason in Reason:
        fault = Fault(reason, "x", is_retryable_here=False)
        assert next_step(fault, CANDIDATES, last, 1, frozenset(), 0.5) is None


def test_a_rejected_key_may_be_followed_by_another_key_of_the_same_payer() -> None:
    step = next_step(Fault(Reason.UPSTREAM_CREDENTIAL_REJECTED, "x"), CANDIDATES, 0, 1, frozenset(), 0.5)
    assert step is not None
    assert CANDIDATES[step.candidate].credential != CANDIDATES[0].credential


def test_moving_on_beats_waiting_where_the_caller_cannot_tell() -> None:
    step = next_step(Fault(Reason.UPSTREAM_UNAVAILABLE, "x"), CANDIDATES, 0, 1, frozenset(), 0.5)
    assert step is not None
    assert (step.candidate, step.delay_seconds) == (1, 0.0)


def test_a_long_time_to_wait_is_not_waited() -> None:
    fault = Fault(Reason.UPSTREAM_UNAVAILABLE, "x", retry_after_seconds=LONGEST_DELAY_SECONDS + 0.1)
    assert next_step(fault, CANDIDATES[:1], 0, 1, frozenset(), 0.5) is None


@given(tries=st.integers(1, 30), spread=st.floats(0, 1, exclude_max=True))
def test_jitter_is_full_and_bounded(tries: int, spread: float) -> None:
    waited = delay(tries, None, spread)
    assert 0 <= waited <= min(FIRST_DELAY_SECONDS * 2 ** (tries - 1), LONGEST_DELAY_SECONDS)
    assert delay(tries, None, 0.0) == 0.0
