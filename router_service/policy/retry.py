"""What follows a failed attempt: the same endpoint again, another candidate, or the end. A table and two questions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from router_service.core.faults import Fault, Reason
from router_service.core.resolution import PayerFailoverCause
from router_service.policy.call import Candidate

FIRST_DELAY_SECONDS = 0.25
LONGEST_DELAY_SECONDS = 8.0
TRIES_AT_ONE_ENDPOINT = 2

FAILOVER_CAUSES: Mapping[Reason, PayerFailoverCause] = {
    Reason.UPSTREAM_RATE_LIMITED: PayerFailoverCause.RATE_LIMITED,
    Reason.CONCURRENCY_LIMITED: PayerFailoverCause.RATE_LIMITED,
    Reason.UPSTREAM_BALANCE_EXHAUSTED: PayerFailoverCause.BALANCE_EXHAUSTED,
    Reason.BUDGET_EXHAUSTED: PayerFailoverCause.BALANCE_EXHAUSTED,
    Reason.CREDIT_EXHAUSTED: PayerFailoverCause.BALANCE_EXHAUSTED,
    Reason.UPSTREAM_CREDENTIAL_REJECTED: PayerFailoverCause.CREDENTIAL_REJECTED,
    Reason.PLAN_MISMATCH: PayerFailoverCause.CREDENTIAL_REJECTED,
    Reason.UPSTREAM_UNAVAILABLE: PayerFailoverCause.UNAVAILABLE,
    Reason.UPSTREAM_TIMEOUT: PayerFailoverCause.UNAVAILABLE,
    Reason.UPSTREAM_PROTOCOL_VIOLATION: PayerFailoverCause.UNAVAILABLE,
}
"""Which faults may move the bill, where the application says so."""

_KEY_FAULTS = frozenset({Reason.UPSTREAM_CREDENTIAL_REJECTED, Reason.PLAN_MISMATCH})


@dataclass(frozen=True, slots=True)
class Step:
    """What to do next: the candidate's place in the plan, and how long to wait before."""

    candidate: int
    delay_seconds: float = 0.0


def next_step(
    fault: Fault,
    candidates: Sequence[Candidate],
    current: int,
    tries_here: int,
    causes: frozenset[PayerFailoverCause],
    spread: float,
) -> Step | None:
    """The step after a fault before the commit point, or None when the call has failed. `spread` is in [0, 1)."""
    following = next_candidate(fault, candidates, current, causes)
    same = following is not None and _is_same_answer(candidates[current], candidates[following])
    is_soon = (fault.retry_after_seconds or 0.0) <= LONGEST_DELAY_SECONDS
    if fault.is_retryable_here and is_soon and tries_here < TRIES_AT_ONE_ENDPOINT and not same:
        return Step(current, delay(tries_here, fault.retry_after_seconds, spread))
    return None if following is None else Step(following)


def _is_same_answer(one: Candidate, other: Candidate) -> bool:
    """Whether the caller cannot tell the two apart but by the receipt: then moving on beats waiting."""
    return one.model is other.model and one.payer is other.payer


def delay(tries: int, asked_seconds: float | None, spread: float) -> float:
    """Full jitter: anything up to a bound that doubles, but never less than what the provider asked for."""
    bound = min(FIRST_DELAY_SECONDS * (1 << (tries - 1)), LONGEST_DELAY_SECONDS)
    return max(bound * spread, asked_seconds or 0.0)


def next_candidate(
    fault: Fault, candidates: Sequence[Candidate], current: int, causes: frozenset[PayerFailoverCause]
) -> int | None:
    """The place of the next candidate that this fault may lead to. The bill moves only for a stated cause."""
    paying = candidates[current].payer
    for number in range(current + 1, len(candidates)):
        candidate = candidates[number]
        if candidate.payer is not paying:
            if FAILOVER_CAUSES.get(fault.reason) in causes and not _is_same_key(fault, candidate, candidates[current]):
                return number
        elif may_try_elsewhere(fault, candidate, candidates[current]):
            return number
    return None


def may_try_elsewhere(fault: Fault, candidate: Candidate, failed: Candidate) -> bool:
    """Whether another candidate of the same payer may answer after this fault."""
    match fault.reason:
        case Reason.CONTEXT_TOO_LONG:
            return candidate.serves_longer_prompts
        case Reason.UPSTREAM_CREDENTIAL_REJECTED | Reason.PLAN_MISMATCH:
            return not _is_same_key(fault, candidate, failed)
        case _:
            return fault.law.may_fail_over


def _is_same_key(fault: Fault, candidate: Candidate, failed: Candidate) -> bool:
    """Whether a rejected key would only be rejected again, on whosever account."""
    return fault.reason in _KEY_FAULTS and candidate.credential == failed.credential
