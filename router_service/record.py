"""A call as it happens, from which its receipt is made at any moment."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from router_service.core.events import Identified, Usage
from router_service.core.faults import Fault, Reason
from router_service.core.money import MoneyError, Price, believe, charge, list_price
from router_service.core.receipt import Attempt, Cost, CostUnknown, Receipt, ReceiptState
from router_service.core.resolution import Payer, SkippedCandidate
from router_service.policy.call import Candidate
from router_service.policy.estimate import BYTES_PER_TOKEN

MOST_SKIPPED = 16


@dataclass(slots=True)
class AttemptRecord:
    """One attempt, while it runs and after."""

    number: int
    candidate: Candidate
    credential_version: str
    lease_id: str
    start_time: float
    was_sent: bool = False
    first_content_time: float | None = None
    end_time: float | None = None
    failure: Reason | None = None
    usage: Usage | None = None
    usage_json: str = ""
    upstream_charged_nanos: int | None = None
    identity: Identified = Identified()
    input_bytes: int = 0
    output_bytes: int = 0
    markup_basis_points: int = 0
    was_refused: bool = False  # by an answer of the provider, before it generated anything
    is_begun: bool = False  # the provider opened its stream, for which it has taken the prompt
    is_usage_estimated: bool = False
    is_finished: bool = False  # the provider ended its answer itself
    is_unbilled: bool = False  # what no provider takes money for

    def complete_usage(self) -> None:
        """Estimates what the provider did not say, or said so that nobody believes it.

        A running total that stops in the middle of an answer (Anthropic's first one is a placeholder) counts as the
        least that was used. A stream that was opened and brought nothing has used its prompt. An attempt that got no
        stream, and of which nothing was reported, used nothing; nor did one that the provider refused.
        """
        is_billable = self.first_content_time is not None or self.usage is not None or self.is_begun
        if not is_billable or (self.first_content_time is None and self.was_refused):
            return
        reported = self.usage or Usage()
        completed = self._complete(believe(reported))
        if self._is_beyond_bounds(completed):
            completed = self._complete(Usage())
        self.is_usage_estimated = completed != self.usage
        self.usage = completed

    def _complete(self, known: Usage) -> Usage:
        estimated = -(-self.output_bytes // BYTES_PER_TOKEN)
        output, given = known.output_tokens, known.input_tokens
        if output is None or (not self.is_finished and output < estimated):
            output = estimated
        return replace(
            known,
            input_tokens=max(1, self.input_bytes // BYTES_PER_TOKEN) if given is None else given,
            output_tokens=output,
        )

    def _is_beyond_bounds(self, usage: Usage) -> bool:
        """Whether it would cost more than an amount can be."""
        listed = list_price(usage, self._price).amount
        try:
            if isinstance(listed, int) and self.candidate.payer is Payer.CREDITS:
                charge(listed, self.markup_basis_points)
        except MoneyError:
            return True
        return listed is CostUnknown.NO_USAGE

    @property
    def _price(self) -> Price | None:
        return self.candidate.model.price_at(self.candidate.provider.id)

    @property
    def first_content_seconds(self) -> float:
        """From its start to its first content; 0 before that."""
        return 0.0 if self.first_content_time is None else self.first_content_time - self.start_time

    @property
    def cost(self) -> Cost | None:
        """What it cost; None when nothing was sent."""
        if not self.was_sent:
            return None
        upstream = self.upstream_charged_nanos
        if self.is_unbilled:
            return Cost(0 if upstream is None else upstream, 0, 0)
        if self.was_refused and self.usage is None:
            return Cost(0 if upstream is None else upstream, 0, 0)
        price = self._price
        listed = list_price(self.usage, price)
        is_credits = self.candidate.payer is Payer.CREDITS
        charged: int | CostUnknown = 0
        if is_credits and self.end_time is None:
            charged = CostUnknown.NOT_SETTLED
        elif is_credits and isinstance(listed.amount, int):
            try:
                charged = charge(listed.amount, self.markup_basis_points)
            except MoneyError:
                charged = CostUnknown.NO_USAGE  # nobody believes a count that costs so much
        # Else nothing is taken from the credits, and that is known: a bill needs an amount.
        return Cost(
            upstream if upstream is not None else CostUnknown.NOT_REPORTED,
            listed.amount,
            charged,
            price.revision if price is not None and isinstance(listed.amount, int) else "",
            listed.is_estimate or self.is_usage_estimated,
        )

    def value(self) -> Attempt:
        """As it is now."""
        candidate = self.candidate
        first, end = self.first_content_time, self.end_time
        return Attempt(
            number=self.number,
            model=candidate.model.id,
            provider=candidate.provider.name,
            payer=candidate.payer,
            credential_version=self.credential_version,
            lease_id=self.lease_id,
            start_time=self.start_time,
            failure_reason=self.failure,
            upstream_request_id=self.identity.request_id[:64],
            upstream_backend=self.identity.backend[:64],
            served_model_id=self.identity.model[:64],
            time_to_first_content_seconds=None if first is None else first - self.start_time,
            duration_seconds=None if end is None else end - self.start_time,
            usage=self.usage,
            cost=self.cost,
            provider_usage_json=self.usage_json if len(self.usage_json) <= 16384 else "",
            weight_share=candidate.share,
        )


@dataclass(slots=True)
class CallRecord:
    """A call. `organization` is an id, `principal` who may read the receipt besides its administrators."""

    response_id: str
    organization: str
    principal: str
    request_id: str
    create_time: float
    markup_basis_points: int
    application: str = ""
    is_charged: bool = False  # something was set aside for it
    state: ReceiptState = ReceiptState.IN_FLIGHT
    end_time: float | None = None
    failure: Reason | None = None
    attempts: list[AttemptRecord] = field(default_factory=list)
    skipped: list[SkippedCandidate] = field(default_factory=list)

    @property
    def was_sent(self) -> bool:
        """Whether anything went to a provider."""
        return any(attempt.was_sent for attempt in self.attempts)

    @property
    def used_tokens(self) -> int:
        """What all attempts used, as far as anybody said."""
        used = [attempt.usage for attempt in self.attempts if attempt.usage is not None]
        return sum((usage.input_tokens or 0) + (usage.output_tokens or 0) for usage in used)

    def end(self, state: ReceiptState, now: float, fault: Fault | None = None) -> None:
        """The call is over."""
        self.state = state
        self.end_time = now
        self.failure = fault.reason if fault is not None else None

    def skip(self, skipped: Sequence[SkippedCandidate]) -> None:
        """Notes what was not taken."""
        self.skipped += skipped

    def receipt(self) -> Receipt:
        """As it is now."""
        paid_by_credits = any(attempt.candidate.payer is Payer.CREDITS for attempt in self.attempts)
        return Receipt(
            response_id=self.response_id,
            organization=self.organization,
            principal=self.principal,
            request_id=self.request_id,
            state=self.state,
            create_time=self.create_time,
            end_time=self.end_time,
            failure_reason=self.failure,
            attempts=tuple(attempt.value() for attempt in self.attempts),
            skipped_candidates=tuple(self.skipped[:MOST_SKIPPED]),
            skipped_candidate_count=len(self.skipped),
            markup_basis_points=self.markup_basis_points if paid_by_credits else None,
            application=self.application,
        )
