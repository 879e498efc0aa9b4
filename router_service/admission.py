"""What a call must be let through by before anything is sent: its rates, and the slot of its credential.

What is taken is given back through the caller's exit stack, on every way out. Nobody waits for the giving back.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack

import structlog

from router_service.catalog.catalog import Provider
from router_service.core.faults import Fault, Reason
from router_service.core.secret import Secret
from router_service.observe.metrics import Metrics
from router_service.policy.call import Candidate, Plan
from router_service.policy.cooldown import asks_for_reset, rest_candidates
from router_service.policy.rates import Rate, estimate_tokens, rates_of
from router_service.preparation import Request
from router_service.record import CallRecord
from router_service.state.limits import Demand, Exceeded, Limits
from router_service.state.rest_board import RestBoard
from router_service.state.slots import SlotKeeper

DEADLINE_MARGIN_SECONDS = 0.1
"""A call that gets no slot is told so before its own deadline, or it would never hear of it."""

Spawn = Callable[[Coroutine[object, object, None]], None]

log = structlog.get_logger(__name__)


class Admission:
    """The limits as the engine uses them."""

    def __init__(
        self,
        limits: Limits,
        metrics: Metrics,
        clock: Callable[[], float],
        ask_reset: Callable[[Provider, Secret | None, float], Awaitable[float | None]],
    ) -> None:
        self._limits = limits
        self._ask_reset = ask_reset
        self._metrics = metrics
        self._clock = clock
        self.slots = SlotKeeper(limits, metrics)
        self.board = RestBoard(limits, metrics, clock)

    async def count(self, request: Request, record: CallRecord, spawn: Spawn, taken: AsyncExitStack) -> None:
        """Takes the call's rates, corrected at the end by what it used. Raises Fault RATE_LIMITED."""
        call = request.call
        rates = rates_of(call, request.caller, request.user, estimate_tokens(request.asked))
        if not rates:
            return
        tenant = f"organizations/{call.organization.id}"
        answer = await self._limits.take_rates(tenant, [_demand(rate) for rate in rates])
        if isinstance(answer, Exceeded):
            rate = rates[answer.index]
            self._metrics.rate_refused(rate.tier, rate.unit)
            raise _rate_fault(rate, answer.retry_seconds)
        step = answer.step
        taken.callback(lambda: spawn(self._correct(tenant, rates, step, record)))

    async def _correct(self, tenant: str, rates: Sequence[Rate], step: int, record: CallRecord) -> None:
        used = record.used_tokens
        try:
            for rate in rates:
                if rate.unit == "tokens" and used != rate.cost:
                    await self._limits.correct_rate(tenant, _demand(rate).key, step, used - rate.cost)
        except Fault:
            log.warning("rate_not_corrected")

    async def keep_plan(self, made: Plan) -> Plan:
        """The plan without what rests. A first try of what has rested belongs to one call; the others go around it."""
        left = rest_candidates(made, self.board.current, self._clock())
        if left.candidates and not await self.board.claim(left.candidates[0]):
            return rest_candidates(made, self.board.current, self._clock())
        return left

    async def take_slot(
        self, candidate: Candidate, request: Request, ticket: str, taken: AsyncExitStack, *, may_spill: bool
    ) -> None:
        """Takes a slot of the candidate's credential, where it has only so many. Raises Fault CONCURRENCY_LIMITED."""
        credential = candidate.credential
        limit = slot_limit(candidate)
        if credential is None or limit is None:
            return
        wait = _left_seconds(request)
        if may_spill:
            queue_wait = request.call.policy.max_queue_wait_seconds
            most = request.application.max_queue_wait_seconds if queue_wait is None else queue_wait
            wait = most if wait is None else min(most, wait)
        taken.callback(self.slots.leave, credential.name, ticket)
        if await self.slots.take(credential.name, ticket, limit, wait):
            return
        self._metrics.slot_refused(is_spilled=may_spill)
        message = f"All {limit} slots of {credential.name} stayed taken; wait, or ask its owner to raise the limit."
        metadata = {"credential": credential.name, "limit": str(limit)}
        raise Fault(Reason.CONCURRENCY_LIMITED, message, metadata=metadata)

    async def note_failure(
        self, candidate: Candidate, fault: Fault, secret: Secret | None, *, is_own_timeout: bool
    ) -> None:
        """Lets rest what a failed attempt shows to be unusable, until the time that the provider names if asked."""
        if asks_for_reset(fault, candidate):
            told = await self._ask_reset(candidate.provider, secret, self._clock())
            fault.retry_after_seconds = fault.retry_after_seconds if told is None else told
        await self.board.failed(candidate, fault, is_own_timeout=is_own_timeout)

    async def close(self) -> None:
        """Waits until everything is given back."""
        await self.slots.close()
        await self._limits.close()


def slot_limit(candidate: Candidate) -> int | None:
    """How many calls may use the candidate's credential at once: its own word, else its provider's, else its plan's."""
    credential, provider = candidate.credential, candidate.provider
    if credential is not None and credential.max_concurrent_requests is not None:
        return credential.max_concurrent_requests
    if provider.max_concurrent_requests is not None:
        return provider.max_concurrent_requests
    return provider.plan.max_concurrent_requests if provider.plan is not None else None


def _left_seconds(request: Request) -> float | None:
    if request.deadline is None:
        return None
    return max(0.0, request.deadline - asyncio.get_running_loop().time() - DEADLINE_MARGIN_SECONDS)


def _demand(rate: Rate) -> Demand:
    return Demand(f"{rate.tier}:{rate.unit}:{rate.owner}", rate.limit, rate.cost)


def _rate_fault(rate: Rate, retry_seconds: float) -> Fault:
    owner = "an administrator" if rate.tier == "application" else "the operator"
    message = (
        f"This {rate.tier} may use {rate.limit} {rate.unit} a minute, and they are used up. Wait as long as the error "
        f"says; {owner} can raise the limit."
    )
    metadata = {"tier": rate.tier, "limit": rate.limit_name}
    return Fault(Reason.RATE_LIMITED, message, metadata=metadata, retry_after_seconds=retry_seconds)
