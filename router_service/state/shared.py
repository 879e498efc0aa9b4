"""Limits in a store that may be away, and what then holds: nothing is let through, or this router's share is."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from enum import StrEnum
from typing import TypeVar

import structlog

from router_service.core.faults import Fault, Reason
from router_service.policy.cooldown import RestOrder
from router_service.state.limits import Demand, Exceeded, Limits, LimitsAway, Resting, Taken
from router_service.state.memory import MemoryLimits

AGAIN_SECONDS = 1.0
"""How long a store that was away is not asked again, so that calls do not wait for it one after the other."""

Value = TypeVar("Value")

log = structlog.get_logger(__name__)


class WhenAway(StrEnum):
    """What holds while the store is away."""

    CLOSED = "closed"  # a call that needs a limit is refused
    LOCAL = "local"  # each router keeps its share of every limit by itself


class SharedLimits:
    """A store, and this router's own memory for when it is away. What is known to rest goes on resting either way."""

    def __init__(
        self,
        store: Limits,
        when_away: WhenAway,
        routers: int,
        monotonic: Callable[[], float],
        on_change: Callable[[bool], None],
    ) -> None:
        self._store = store
        self._local = MemoryLimits(monotonic)
        self._when_away = when_away
        self._routers = routers
        self._monotonic = monotonic
        self._on_change = on_change
        self._ask_again = float("-inf")
        self._told: dict[str, Resting] = {}  # by the store, when it last answered
        self._told_at = 0.0
        self.is_away = False

    async def _ask(self, question: Callable[[Limits], Awaitable[Value]]) -> Value:
        if self.is_away and self._monotonic() < self._ask_again:
            raise LimitsAway("asked a moment ago")
        try:
            answer = await question(self._store)
        except LimitsAway as error:
            self._ask_again = self._monotonic() + AGAIN_SECONDS
            self._note(is_away=True, cause=str(error))
            raise
        self._note(is_away=False)
        return answer

    def _note(self, *, is_away: bool, cause: str = "") -> None:
        if is_away is self.is_away:
            return
        self.is_away = is_away
        self._on_change(is_away)
        if is_away:
            log.error("limits_away", holds=self._when_away.value, cause=cause)
        else:
            log.warning("limits_back")

    async def _limit(
        self, question: Callable[[Limits], Awaitable[Value]], local: Callable[[], Awaitable[Value]], what: str
    ) -> Value:
        try:
            return await self._ask(question)
        except LimitsAway:
            if self._when_away is WhenAway.LOCAL:
                return await local()
            message = (
                "The store of limits is out of reach, and without it nothing that is limited may be sent. Try again; "
                "the operator can see why in the router's log."
            )
            raise Fault(Reason.LIMITS_UNAVAILABLE, message, metadata={"limit": what}) from None

    def _share(self, limit: int) -> int:
        """This router's part of a limit; never nothing, so small limits may be exceeded."""
        return max(1, limit // self._routers)

    async def take_slot(self, key: str, ticket: str, limit: int) -> int | None:
        """See Limits. Raises Fault."""
        return await self._limit(
            lambda store: store.take_slot(key, ticket, limit),
            lambda: self._local.take_slot(key, ticket, self._share(limit)),
            "slots",
        )

    async def leave_slot(self, key: str, ticket: str) -> None:
        """See Limits. What the store does not hear ends by itself."""
        await self._local.leave_slot(key, ticket)
        try:
            await self._ask(lambda store: store.leave_slot(key, ticket))
        except LimitsAway:
            log.warning("slot_left_to_expire")

    async def keep_slots(self, held: Mapping[str, Sequence[str]]) -> int:
        """See Limits."""
        if not held:
            return 0
        try:
            return await self._ask(lambda store: store.keep_slots(held))
        except LimitsAway:
            await self._local.keep_slots(held)
            return 0

    async def count_slots(self, key: str) -> tuple[int, int]:
        """See Limits."""
        try:
            return await self._ask(lambda store: store.count_slots(key))
        except LimitsAway:
            return await self._local.count_slots(key)

    async def take_rates(self, tenant: str, demands: Sequence[Demand]) -> Taken | Exceeded:
        """See Limits. Raises Fault."""
        shares = [
            Demand(demand.key, share, min(demand.cost, share))
            for demand in demands
            for share in [self._share(demand.limit)]
        ]
        return await self._limit(
            lambda store: store.take_rates(tenant, demands), lambda: self._local.take_rates(tenant, shares), "rates"
        )

    async def correct_rate(self, tenant: str, key: str, step: int, delta: int) -> None:
        """See Limits. While the store is away nothing is corrected: the demand stays what was guessed."""
        try:
            await self._ask(lambda store: store.correct_rate(tenant, key, step, delta))
        except LimitsAway:
            log.warning("rate_not_corrected")

    async def rest(self, order: RestOrder) -> None:
        """See Limits."""
        try:
            await self._ask(lambda store: store.rest(order))
        except LimitsAway:
            await self._local.rest(order)

    async def rests(self) -> Mapping[str, Resting]:
        """See Limits."""
        own = await self._local.rests()
        try:
            told = await self._ask(lambda store: store.rests())
        except LimitsAway:
            return {**self._remembered(), **own}
        self._told, self._told_at = dict(told), self._monotonic()
        return {**own, **told}

    def _remembered(self) -> dict[str, Resting]:
        passed = self._monotonic() - self._told_at
        return {
            key: replace(rest, seconds=rest.seconds - passed, probe_seconds=rest.probe_seconds - passed)
            for key, rest in self._told.items()
            if rest.seconds > passed
        }

    async def claim_probe(self, key: str, seconds: float) -> bool:
        """See Limits."""
        try:
            return await self._local.claim_probe(key, seconds) and await self._ask(
                lambda store: store.claim_probe(key, seconds)
            )
        except LimitsAway:
            return True

    async def end_rest(self, key: str) -> None:
        """See Limits."""
        self._told.pop(key, None)
        await self._local.end_rest(key)
        try:
            await self._ask(lambda store: store.end_rest(key))
        except LimitsAway:
            log.warning("rest_not_ended")

    async def wake(self, key: str) -> None:
        """See Limits."""
        self._told.pop(key, None)
        await self._local.wake(key)
        try:
            await self._ask(lambda store: store.wake(key))
        except LimitsAway:
            log.warning("wake_not_shared")

    async def close(self) -> None:
        """See Limits."""
        await self._store.close()
