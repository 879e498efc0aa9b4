"""Budgets as values: how much may be spent in a window of time, on whose behalf, and when a window begins."""

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum

DAY_SECONDS = 86_400


class Period(Enum):
    """How long a window is. Days and months are of the calendar, in UTC."""

    DAY = "DAY"
    MONTH = "MONTH"
    TOTAL = "TOTAL"


class Basis(Enum):
    """What counts."""

    CHARGED = "CHARGED"  # what credits pay, markup included
    LIST_PRICE = "LIST_PRICE"  # the list price of every call, whoever pays for it


@dataclass(frozen=True, slots=True)
class Budget:
    """A budget. `subject` is the name of the organization, or of an application or a user of it.

    `uid` tells it from an earlier one of the same id; `revision` counts its changes. Times are seconds since 1970.
    """

    organization: str
    budget_id: str
    uid: str
    subject: str
    period: Period
    basis: Basis
    limit_nanos: int
    expire_time: float | None
    create_time: float
    update_time: float
    revision: int

    @property
    def name(self) -> str:
        """Its resource name."""
        return f"organizations/{self.organization}/budgets/{self.budget_id}"

    def is_in_force(self, now: float) -> bool:
        """Whether it bounds anything now."""
        return self.expire_time is None or now < self.expire_time


@dataclass(frozen=True, slots=True)
class BudgetStatus:
    """A budget and how far its window of now is used up."""

    budget: Budget
    window_start: int
    spent_nanos: int
    reserved_nanos: int

    @property
    def remaining_nanos(self) -> int:
        """What a new call may cost. Below 0 where answers cost more than was reserved for them."""
        return self.budget.limit_nanos - self.spent_nanos - self.reserved_nanos


def window_start(period: Period, now: float) -> int:
    """When the window began that holds a time. A total has one window, which began with time."""
    moment = datetime.fromtimestamp(now, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    match period:
        case Period.DAY:
            return int(moment.timestamp())
        case Period.MONTH:
            return int(moment.replace(day=1).timestamp())
        case Period.TOTAL:
            return 0


def window_end(period: Period, start: int) -> int | None:
    """When the next window begins; None where none does."""
    match period:
        case Period.DAY:
            return start + DAY_SECONDS
        case Period.MONTH:
            first = datetime.fromtimestamp(start, UTC)
            following = first.replace(year=first.year + first.month // 12, month=first.month % 12 + 1)
            return int(following.timestamp())
        case Period.TOTAL:
            return None
