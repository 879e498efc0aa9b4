"""What rests, as this router knows it: read by the decision without waiting, written through to all routers."""

from collections.abc import Callable, Coroutine, Mapping, Sequence

import structlog

from router_service.core.faults import Fault, Reason
from router_service.observe.metrics import Metrics
from router_service.policy.breaker import OPEN_SECONDS, Breaker, Happening, Rules, State
from router_service.policy.call import Candidate
from router_service.policy.cooldown import (
    PROBE_SECONDS,
    Rest,
    RestCause,
    RestOrder,
    ended_keys,
    endpoint_key,
    is_breaker,
    order_rest,
    rest_keys,
)
from router_service.state.limits import Limits

REFRESH_SECONDS = 0.25
"""How long another router may not know of a rest."""

_BREAKING = frozenset({Reason.UPSTREAM_UNAVAILABLE, Reason.UPSTREAM_TIMEOUT, Reason.UPSTREAM_PROTOCOL_VIOLATION})
_UNREACHED = frozenset({"refused", "dns", "tls", "unreachable"})

log = structlog.get_logger(__name__)


class RestBoard:
    """The rests of all routers, and the breakers of this one."""

    def __init__(self, limits: Limits, metrics: Metrics, clock: Callable[[], float]) -> None:
        self._limits = limits
        self._metrics = metrics
        self._clock = clock
        self._breakers: dict[str, Breaker] = {}
        self.current: Mapping[str, Rest] = {}

    async def refresh(self) -> None:
        """Reads what rests."""
        found = await self._limits.rests()
        now = self._clock()
        self.current = {
            key: Rest(resting.cause, resting.reason, now + resting.seconds, now + resting.probe_seconds)
            for key, resting in found.items()
        }
        self._follow_breakers(now)
        self._metrics.resting(rest.cause for rest in self.current.values() if rest.is_resting(now))

    def _follow_breakers(self, now: float) -> None:
        """Another router may have opened a breaker, or closed it."""
        for key, rest in self.current.items():
            if is_breaker(rest) and rest.is_resting(now) and self._state(key) is State.CLOSED:
                self._breakers[key] = Breaker(State.OPEN)
        for key in [key for key in self._breakers if self._state(key) is not State.CLOSED and key not in self.current]:
            del self._breakers[key]

    def _state(self, key: str) -> State:
        return self._breakers.get(key, Breaker()).state

    def open_endpoints(self) -> dict[str, Rest]:
        """The endpoints that a breaker has opened and that nobody may try yet, and those that were unreachable."""
        now = self._clock()
        return {
            key: rest
            for key, rest in self.current.items()
            if rest.cause is RestCause.UNREACHABLE or (rest.cause is RestCause.BREAKER and rest.is_resting(now))
        }

    async def follow(self, sleep: Callable[[float], Coroutine[object, object, None]]) -> None:
        """Keeps `current` fresh for as long as the router runs."""
        while True:
            await sleep(REFRESH_SECONDS)
            await self.refresh()

    async def claim(self, candidate: Candidate) -> bool:
        """Before a first try of what has rested: whether it is this call's. What does not rest is everybody's."""
        ended = ended_keys(candidate, self.current, self._clock())
        for key in ended:
            if not await self._limits.claim_probe(key, PROBE_SECONDS):
                await self.refresh()
                return False
        for key in ended:
            if key in self._breakers:
                self._breakers[key] = self._breakers[key].hear(Happening.TRIED, Rules())
        if ended:
            await self.refresh()
        return True

    async def failed(self, candidate: Candidate, fault: Fault, *, is_own_timeout: bool) -> None:
        """An attempt failed. A time-out that the caller made shorter says nothing about the provider."""
        orders: list[RestOrder] = []
        order = order_rest(fault, candidate)
        if order is not None:
            orders.append(order)
        if fault.reason in _BREAKING and not is_own_timeout and self._hear(candidate, Happening.FAILED):
            is_unreached = fault.metadata.get("cause") in _UNREACHED or fault.metadata.get("timeout") == "connect"
            cause = RestCause.UNREACHABLE if is_unreached else RestCause.BREAKER
            orders.append(RestOrder(endpoint_key(candidate), cause, fault.reason, None, OPEN_SECONDS))
        for order in orders:
            log.warning("resting", cause=order.cause.value, provider=candidate.provider.name, seconds=order.seconds)
            self._metrics.rested(order.cause, candidate.provider.id)
            await self._limits.rest(order)
        if orders:
            await self.refresh()

    async def answered(self, candidate: Candidate, first_content_seconds: float) -> None:
        """An attempt brought its first content."""
        slow = candidate.provider.breaker_slow_seconds
        if slow is not None and first_content_seconds > slow:
            if self._hear(candidate, Happening.FAILED):
                self._metrics.rested(RestCause.BREAKER, candidate.provider.id)
                reason = Reason.UPSTREAM_TIMEOUT
                order = RestOrder(endpoint_key(candidate), RestCause.BREAKER, reason, None, OPEN_SECONDS)
                await self._limits.rest(order)
                await self.refresh()
            return
        self._hear(candidate, Happening.SUCCEEDED)
        ended = ended_keys(candidate, self.current, self._clock())
        breaker = [key for key in (endpoint_key(candidate),) if key in self.current and key not in ended]
        await self.wake((*ended, *breaker))

    async def end_rest(self, keys: Sequence[str]) -> None:
        """These may be tried: the next call does, and others go around them until it has."""
        for key in keys:
            await self._limits.end_rest(key)
        await self.refresh()

    async def wake(self, keys: Sequence[str]) -> None:
        """These work again."""
        for key in keys:
            await self._limits.wake(key)
            self._breakers.pop(key, None)
        if keys:
            await self.refresh()

    def needs_wake(self, candidate: Candidate) -> bool:
        """Whether an answer of this candidate is news."""
        keys = rest_keys(candidate)
        return (
            candidate.provider.breaker_slow_seconds is not None
            or endpoint_key(candidate) in self._breakers
            or any(key in self.current for key in keys)
        )

    def _hear(self, candidate: Candidate, happening: Happening) -> bool:
        """Whether the endpoint is to rest now."""
        key = endpoint_key(candidate)
        before = self._breakers.get(key, Breaker())
        provider = candidate.provider
        after = before.hear(happening, Rules(provider.breaker_failures))
        if after == Breaker():
            self._breakers.pop(key, None)
        else:
            self._breakers[key] = after
        return before.opens(after)
