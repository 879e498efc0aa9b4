"""What routers share: slots, rates and rests. One interface; memory.py and redis_store.py are behind it.

Every operation is atomic, and all time in it is the store's own. Whatever a store keeps ends by itself.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from router_service.core.faults import Reason
from router_service.policy.cooldown import RestCause, RestOrder

SLOT_SECONDS = 15.0
"""How long a slot outlives the last sign of life of its router."""

WAITER_SECONDS = 3.0
"""How long a place in a queue outlives the last time that its call asked."""

STEP_SECONDS = 2
STEPS = 30
"""A minute is counted in steps. The current one and the 30 before it cover any 60 s, so no minute has too much."""


class LimitsAway(Exception):
    """The store cannot be reached or does not answer."""


@dataclass(frozen=True, slots=True)
class Demand:
    """What a call takes of one rate: `cost` of `limit` in any minute. `key` names the rate."""

    key: str
    limit: int
    cost: int


@dataclass(frozen=True, slots=True)
class Taken:
    """The demands were met, in this step."""

    step: int


@dataclass(frozen=True, slots=True)
class Exceeded:
    """Which demand was not met, and when it could be. Nothing was taken of any."""

    index: int
    retry_seconds: float


@dataclass(frozen=True, slots=True)
class Resting:
    """A rest as the store knows it, in seconds from now; negative when it has ended."""

    cause: RestCause
    reason: Reason
    seconds: float
    probe_seconds: float


class Limits(Protocol):
    """A store of limits. Raises LimitsAway."""

    async def take_slot(self, key: str, ticket: str, limit: int) -> int | None:
        """Takes a slot when it is this ticket's turn and gives None; else gives its place in the queue, 0 the first.

        A ticket that has a slot keeps it. One that waits must ask again within WAITER_SECONDS.
        """
        ...

    async def leave_slot(self, key: str, ticket: str) -> None:
        """Gives a slot or a place in the queue back. Nothing happens where there is none."""
        ...

    async def keep_slots(self, held: Mapping[str, Sequence[str]]) -> int:
        """Says that the holders live. Gives how many were lost meanwhile; they have their slots again."""
        ...

    async def count_slots(self, key: str) -> tuple[int, int]:
        """How many slots are taken, and how many calls wait."""
        ...

    async def take_rates(self, tenant: str, demands: Sequence[Demand]) -> Taken | Exceeded:
        """Takes of all rates of a tenant, or of none."""
        ...

    async def correct_rate(self, tenant: str, key: str, step: int, delta: int) -> None:
        """Counts what was used beyond the demand now, or gives back what was not, as long as its step counts."""
        ...

    async def rest(self, order: RestOrder) -> None:
        """Lets something rest; a rest is never shortened."""
        ...

    async def rests(self) -> Mapping[str, Resting]:
        """Everything that rests, and what has rested and waits for a first try."""
        ...

    async def claim_probe(self, key: str, seconds: float) -> bool:
        """Whether the caller is the one who tries what has rested."""
        ...

    async def end_rest(self, key: str) -> None:
        """Its rest is over now. It stays known: one call tries it first, and a rest that follows soon is longer."""
        ...

    async def wake(self, key: str) -> None:
        """It works again: nothing of it is remembered."""
        ...

    async def close(self) -> None:
        """Lets go of connections."""
        ...


def rest_seconds(order: RestOrder, count: int, longest_seconds: float) -> float:
    """How long the rest is that follows `count` others."""
    if order.seconds is not None:
        return order.seconds
    return min(order.first_seconds * float(1 << min(count, 20)), longest_seconds)


def linger_seconds(rest: float) -> float:
    """How long a rest is remembered after its end, for the first try and for the next rest's length."""
    return max(60.0, rest)
