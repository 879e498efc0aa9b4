"""Limits in this process: for one router. No operation awaits anything, so each is atomic."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from router_service.core.faults import Reason
from router_service.policy.cooldown import LONGEST_SECONDS, RestCause, RestOrder
from router_service.state.limits import (
    SLOT_SECONDS,
    STEP_SECONDS,
    STEPS,
    WAITER_SECONDS,
    Demand,
    Exceeded,
    Resting,
    Taken,
    linger_seconds,
    rest_seconds,
)

MOST_KEYS = 100_000


@dataclass(slots=True)
class _Slots:
    taken: dict[str, float] = field(default_factory=dict)  # ticket -> end
    waiting: dict[str, float] = field(default_factory=dict)  # in the order of arrival

    def sweep(self, now: float) -> None:
        for tickets in (self.taken, self.waiting):
            for ticket in [ticket for ticket, end in tickets.items() if end <= now]:
                del tickets[ticket]


@dataclass(frozen=True, slots=True)
class _Rest:
    cause: RestCause
    reason: Reason
    until: float
    probe_until: float
    forget: float
    count: int


class MemoryLimits:
    """Limits of one process. `clock` is monotonic."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._slots: dict[str, _Slots] = {}
        self._rates: dict[tuple[str, str], dict[int, int]] = {}
        self._rests: dict[str, _Rest] = {}

    async def take_slot(self, key: str, ticket: str, limit: int) -> int | None:
        """See Limits."""
        now = self._clock()
        slots = self._slots.setdefault(key, _Slots())
        slots.sweep(now)
        if ticket in slots.taken:
            slots.taken[ticket] = now + SLOT_SECONDS
            return None
        slots.waiting[ticket] = now + WAITER_SECONDS
        place = list(slots.waiting).index(ticket)
        if place >= limit - len(slots.taken):
            return place
        del slots.waiting[ticket]
        slots.taken[ticket] = now + SLOT_SECONDS
        return None

    async def leave_slot(self, key: str, ticket: str) -> None:
        """See Limits."""
        slots = self._slots.get(key)
        if slots is None:
            return
        slots.taken.pop(ticket, None)
        slots.waiting.pop(ticket, None)
        if not slots.taken and not slots.waiting:
            del self._slots[key]

    async def keep_slots(self, held: Mapping[str, Sequence[str]]) -> int:
        """See Limits."""
        now = self._clock()
        lost = 0
        for key, tickets in held.items():
            slots = self._slots.setdefault(key, _Slots())
            slots.sweep(now)
            lost += sum(ticket not in slots.taken for ticket in tickets)
            slots.taken.update(dict.fromkeys(tickets, now + SLOT_SECONDS))
        return lost

    async def count_slots(self, key: str) -> tuple[int, int]:
        """See Limits."""
        slots = self._slots.get(key)
        if slots is None:
            return 0, 0
        slots.sweep(self._clock())
        return len(slots.taken), len(slots.waiting)

    async def take_rates(self, tenant: str, demands: Sequence[Demand]) -> Taken | Exceeded:
        """See Limits."""
        now = self._clock()
        step = int(now // STEP_SECONDS)
        counts = [self._count(tenant, demand.key, step) for demand in demands]
        worst = Exceeded(-1, 0.0)
        for index, (demand, steps) in enumerate(zip(demands, counts, strict=True)):
            wait = _wait_seconds(steps, demand, now)
            if wait > worst.retry_seconds:
                worst = Exceeded(index, wait)
        if worst.index >= 0:
            return worst
        for demand, steps in zip(demands, counts, strict=True):
            steps[step] = steps.get(step, 0) + demand.cost
        self._sweep_rates(step)
        return Taken(step)

    def _count(self, tenant: str, key: str, step: int) -> dict[int, int]:
        steps = self._rates.setdefault((tenant, key), {})
        for old in [old for old in steps if old < step - STEPS]:
            del steps[old]
        return steps

    def _sweep_rates(self, step: int) -> None:
        """Lets go of counts that are over, so that many short-lived owners do not fill the memory."""
        if len(self._rates) > MOST_KEYS:
            self._rates = {key: steps for key, steps in self._rates.items() if steps and max(steps) >= step - STEPS}

    async def correct_rate(self, tenant: str, key: str, step: int, delta: int) -> None:
        """See Limits."""
        now_step = int(self._clock() // STEP_SECONDS)
        steps = self._count(tenant, key, now_step)
        if delta > 0:
            steps[now_step] = steps.get(now_step, 0) + delta
        elif step in steps:
            steps[step] = max(0, steps[step] + delta)

    async def rest(self, order: RestOrder) -> None:
        """See Limits."""
        now = self._clock()
        known = self._rests.get(order.key)
        if known is not None and known.forget <= now:
            known = None
        is_same_rest = known is not None and now < known.until
        count = 0 if known is None else known.count
        seconds = rest_seconds(order, max(0, count - 1) if is_same_rest else count, LONGEST_SECONDS)
        until = max(now + seconds, known.until if known is not None else 0.0)
        forget = until + linger_seconds(seconds)
        count += 0 if is_same_rest else 1
        self._rests[order.key] = _Rest(order.cause, order.reason, until, 0.0, forget, count)

    async def rests(self) -> Mapping[str, Resting]:
        """See Limits."""
        now = self._clock()
        for key in [key for key, rest in self._rests.items() if rest.forget <= now]:
            del self._rests[key]
        return {
            key: Resting(rest.cause, rest.reason, rest.until - now, rest.probe_until - now)
            for key, rest in self._rests.items()
        }

    async def claim_probe(self, key: str, seconds: float) -> bool:
        """See Limits."""
        now = self._clock()
        rest = self._rests.get(key)
        if rest is None:
            return True
        if now < rest.until or now < rest.probe_until:
            return False
        self._rests[key] = replace(rest, probe_until=now + seconds)
        return True

    async def end_rest(self, key: str) -> None:
        """See Limits."""
        rest, now = self._rests.get(key), self._clock()
        if rest is not None and now < rest.until:
            self._rests[key] = replace(rest, until=now)

    async def wake(self, key: str) -> None:
        """See Limits."""
        self._rests.pop(key, None)

    async def close(self) -> None:
        """See Limits."""


def _wait_seconds(steps: Mapping[int, int], demand: Demand, now: float) -> float:
    """How long until a demand can be met: the oldest steps are over first."""
    excess = sum(steps.values()) + demand.cost - demand.limit
    for step in sorted(steps):
        if excess <= 0:
            break
        excess -= steps[step]
        if excess <= 0:
            return max(0.001, (step + STEPS + 1) * STEP_SECONDS - now)
    return 0.0 if excess <= 0 else 60.0
