"""What rests and for how long: the cool-downs of credentials and endpoints, and what they take out of a plan.

Pure: a fault becomes a rest, and a snapshot of the rests is an argument of the decision. The bill never moves because
something rests, unless every way of the payer rests for a cause that the application states.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum

from router_service.core.caller import Credential
from router_service.core.faults import Cause, Fault, Reason
from router_service.core.resolution import SkippedCandidate, SkipReason
from router_service.policy.call import Candidate, Plan
from router_service.policy.retry import FAILOVER_CAUSES, LONGEST_DELAY_SECONDS

SUBSCRIPTION_SECONDS = 300.0
"""How long a used-up window of a subscription is left alone where the provider does not say when it starts anew."""

ACCOUNT_SECONDS = 300.0
FIRST_SECONDS = 2.0
LONGEST_SECONDS = 120.0
PROBE_SECONDS = 30.0
"""How long one probe may keep the others away."""


class RestCause(Enum):
    """Why something rests."""

    RATE = "rate"
    CONCURRENCY = "concurrency"
    QUOTA_WINDOW = "quota_window"
    BALANCE = "balance"
    SPEND_CAP = "spend_cap"
    OVERLOAD = "overload"
    MEMBERSHIP = "membership"
    PLAN_MISMATCH = "plan_mismatch"
    ACCOUNT = "account"
    BREAKER = "breaker"
    UNREACHABLE = "unreachable"


_CAUSES: Mapping[Cause, RestCause] = {cause: RestCause[cause.name] for cause in Cause}
_UNTOLD: Mapping[Reason, RestCause] = {
    Reason.UPSTREAM_RATE_LIMITED: RestCause.RATE,
    Reason.UPSTREAM_BALANCE_EXHAUSTED: RestCause.BALANCE,
    Reason.UPSTREAM_UNAVAILABLE: RestCause.OVERLOAD,
}
"""What a refusal is about where the provider does not tell."""

_OF_THE_ACCOUNT = frozenset(
    {
        RestCause.BALANCE,
        RestCause.SPEND_CAP,
        RestCause.MEMBERSHIP,
        RestCause.PLAN_MISMATCH,
        RestCause.ACCOUNT,
    }
)
_WORDS: Mapping[RestCause, str] = {
    RestCause.RATE: "the provider throttles it",
    RestCause.CONCURRENCY: "the provider says that it has too many calls at once",
    RestCause.QUOTA_WINDOW: "the window of its plan is used up",
    RestCause.BALANCE: "its account has no money left",
    RestCause.SPEND_CAP: "its account has reached its spending limit",
    RestCause.MEMBERSHIP: "its membership has ended or does not cover this",
    RestCause.OVERLOAD: "the provider is overloaded",
    RestCause.PLAN_MISMATCH: "it belongs to another plan",
    RestCause.ACCOUNT: "its account is blocked or not verified",
    RestCause.BREAKER: "calls there failed one after the other",
    RestCause.UNREACHABLE: "the provider could not be reached",
}


@dataclass(frozen=True, slots=True)
class Rest:
    """Something that rests. Times are of the router's clock; after `until` one probe goes first.

    `reason` is the provider's error, which a call that finds nothing else is given again.
    """

    cause: RestCause
    reason: Reason
    until: float
    probe_until: float = 0.0

    def is_resting(self, now: float) -> bool:
        """Whether it is not to be used at all."""
        return now < self.until

    def is_probed(self, now: float) -> bool:
        """Whether it has rested and somebody is trying it."""
        return self.until <= now < self.probe_until


Rests = Mapping[str, Rest]


@dataclass(frozen=True, slots=True)
class RestOrder:
    """What is to rest. Without `seconds` it is longer each time: `first_seconds`, doubled up to a bound."""

    key: str
    cause: RestCause
    reason: Reason
    seconds: float | None
    first_seconds: float = FIRST_SECONDS


def is_breaker(rest: Rest) -> bool:
    """Whether a breaker's opening made it."""
    return rest.cause in (RestCause.BREAKER, RestCause.UNREACHABLE)


def endpoint_key(candidate: Candidate) -> str:
    """Where a breaker is noted: the provider, its model and the key, so that no tenant can open another's."""
    name = candidate.credential.name if candidate.credential is not None else "-"
    return f"endpoint:{candidate.provider.name}:{candidate.endpoint.upstream_model}:{name}"


@dataclass(frozen=True, slots=True)
class RestSubject:
    """What a key of `Rests` is about: a credential for a model, or for all with an empty one; or an endpoint."""

    credential: str
    model: str = ""
    provider: str = ""
    upstream_model: str = ""

    def is_below(self, organization: str) -> bool:
        """Whether it is about a key of the organization or of its users, or a provider of its own. Empty: about any."""
        return not organization or any(name.startswith(f"{organization}/") for name in (self.credential, self.provider))


def read_key(key: str) -> RestSubject:
    """The subject of a key; model ids may have colons, names have none."""
    kind, _, rest = key.partition(":")
    first, _, rest = rest.partition(":")
    if kind == "credential":
        return RestSubject(first, "" if rest == "*" else rest)
    upstream_model, _, credential = rest.rpartition(":")
    return RestSubject("" if credential == "-" else credential, "", first, upstream_model)


def rest_keys(candidate: Candidate) -> tuple[str, ...]:
    """What may rest of a candidate."""
    endpoint = endpoint_key(candidate)
    if candidate.credential is None:
        return (endpoint,)
    return (_key(candidate.credential, "*"), _key(candidate.credential, candidate.model.id), endpoint)


def _key(credential: Credential, model: str) -> str:
    """The version rests: a key that its owner has replaced need not wait for the old one's time."""
    return f"credential:{credential.active_version or credential.name}:{model}"


def order_rest(fault: Fault, candidate: Candidate) -> RestOrder | None:
    """What a fault of an attempt lets rest; None for a fault that the next call need not know of."""
    cause = _cause_of(fault)
    if cause is None or candidate.credential is None:
        return None
    is_account = cause in _OF_THE_ACCOUNT
    key = _key(candidate.credential, "*" if is_account else candidate.model.id)
    said = fault.retry_after_seconds
    if fault.reason is Reason.UPSTREAM_UNAVAILABLE and (said is None or said <= LONGEST_DELAY_SECONDS):
        return None  # a short pause is the retry's affair; the breaker counts what comes again and again
    is_plan = cause is RestCause.QUOTA_WINDOW or candidate.provider.plan is not None
    if said is None and is_account:
        said = ACCOUNT_SECONDS
    elif said is None and is_plan:
        said = SUBSCRIPTION_SECONDS
    return RestOrder(key, cause, fault.reason, said)


def _cause_of(fault: Fault) -> RestCause | None:
    """What a provider's refusal is about; None where the next call may well succeed."""
    told = _CAUSES[fault.cause] if fault.cause is not None else None
    if told in _OF_THE_ACCOUNT or fault.reason in _UNTOLD:
        return told or _UNTOLD[fault.reason]
    return None


def asks_for_reset(fault: Fault, candidate: Candidate) -> bool:
    """Whether the provider should be asked when the key's plan starts anew: it knows better than any guess of ours."""
    if candidate.credential is None or candidate.provider.errors.reset_report is None:
        return False
    cause = _cause_of(fault)
    told = fault.retry_after_seconds
    return cause is RestCause.QUOTA_WINDOW or (
        cause is RestCause.RATE and (told is None or told > LONGEST_DELAY_SECONDS)
    )


def rest_candidates(made: Plan, rests: Rests, now: float) -> Plan:
    """The plan without what rests. Fails where nothing is left, with the error of what comes back first."""
    if not rests or not made.candidates:
        return made
    resting = [_strongest(candidate, rests, now) for candidate in made.candidates]
    if all(rest is None for rest in resting):
        return _behind_probes(made, rests, now)
    skipped = [_skip(c, rest, now) for c, rest in zip(made.candidates, resting, strict=True) if rest is not None]
    kept = _payable(made, resting)
    left = replace(made, candidates=kept, skipped=(*made.skipped, *skipped))
    if kept:
        return _behind_probes(left, rests, now)
    return replace(left, failure=_failure(made, resting, now))


def _strongest(candidate: Candidate, rests: Rests, now: float) -> Rest | None:
    found = [rest for key in rest_keys(candidate) if (rest := rests.get(key)) is not None and rest.is_resting(now)]
    return max(found, key=lambda rest: rest.until, default=None)


def _payable(made: Plan, resting: list[Rest | None]) -> tuple[Candidate, ...]:
    """What may be tried: a later payer only where each way of the ones before rests for a stated cause."""
    kept: list[Candidate] = []
    blocked = False
    payer = made.candidates[0].payer
    for candidate, rest in zip(made.candidates, resting, strict=True):
        if candidate.payer is not payer:
            if blocked and not kept:
                break
            payer = candidate.payer
        if rest is None:
            kept.append(candidate)
        elif FAILOVER_CAUSES.get(rest.reason) not in made.failover_causes:
            blocked = True
    return tuple(kept)


def _behind_probes(made: Plan, rests: Rests, now: float) -> Plan:
    """Lets the candidates that somebody tries just now wait behind the others of the same payer."""

    def is_probed(candidate: Candidate) -> bool:
        return any(rest.is_probed(now) for key in rest_keys(candidate) if (rest := rests.get(key)) is not None)

    first = made.candidates[0].payer
    own = [candidate for candidate in made.candidates if candidate.payer is first]
    later = tuple(candidate for candidate in made.candidates if candidate.payer is not first)
    ordered = (*sorted(own, key=is_probed), *later)
    return made if ordered == made.candidates else replace(made, candidates=ordered)


def ended_keys(candidate: Candidate, rests: Rests, now: float) -> tuple[str, ...]:
    """What of a candidate has rested and waits for a first try."""
    return tuple(key for key in rest_keys(candidate) if (rest := rests.get(key)) is not None and rest.until <= now)


def _skip(candidate: Candidate, rest: Rest, now: float) -> SkippedCandidate:
    what = candidate.credential.name if candidate.credential is not None else candidate.provider.name
    wait = max(1, round(rest.until - now))
    message = f"{what} rests for {wait} s more: {_WORDS[rest.cause]}. It comes back by itself."
    return SkippedCandidate(
        candidate.model.id, candidate.provider.name, candidate.payer, SkipReason.COOLING_DOWN, message[:256]
    )


def _failure(made: Plan, resting: list[Rest | None], now: float) -> Fault:
    """The payer's own way that comes back first; what nothing let the bill move to does not count."""
    payer = made.candidates[0].payer
    ways = [
        (rest, candidate)
        for rest, candidate in zip(resting, made.candidates, strict=True)
        if rest is not None and candidate.payer is payer
    ]
    rest, candidate = min(ways, key=lambda way: way[0].until)
    wait = max(0.0, rest.until - now)
    metadata = {"provider": candidate.provider.name, "limit": rest.cause.value, "coolingDown": "true"}
    if candidate.credential is not None:
        metadata["credential"] = candidate.credential.name
    message = (
        f"Nothing was sent: {_WORDS[rest.cause]}, and it rests for {max(1, round(wait))} s more. "
        "Wait, or let the application fall back on something else."
    )
    return Fault(rest.reason, message, metadata=metadata, retry_after_seconds=wait)
