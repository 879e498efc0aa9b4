"""The rows that a group of postings reads and changes, as they are in memory between the reading and the writing."""

from collections.abc import Iterable
from dataclasses import dataclass

from router_service.core.budget import Budget
from router_service.ledger.connection import Write
from router_service.ledger.table import Table

Key = tuple[str, int]
"""A response and the number of an attempt."""


@dataclass(slots=True)
class ClaimRow:
    """A request id in use."""

    organization: str
    request_id: str
    response_id: str
    create_time: float


@dataclass(slots=True)
class ReservationRow:
    """What an attempt set aside, and what became of it."""

    response_id: str
    attempt: int
    organization: str
    amount_nanos: int
    markup_basis_points: int
    expire_time: float
    state: str
    charged_nanos: int | None = None


@dataclass(slots=True)
class AccountRow:
    """The sums of an organization's entries and of what is reserved of its credits."""

    organization: str
    balance_nanos: int = 0
    reserved_nanos: int = 0


@dataclass(slots=True)
class ChargeRow:
    """An entry for what was charged."""

    organization: str
    amount_nanos: int
    note: str
    create_time: float
    response_id: str
    attempt: int


@dataclass(slots=True)
class HoldRow:
    """What an attempt holds of a budget, and afterwards spent."""

    response_id: str
    attempt: int
    uid: str
    start_time: int
    basis: str
    amount_nanos: int
    expire_time: float
    state: str
    spent_nanos: int | None = None


@dataclass(slots=True)
class WindowRow:
    """The sums of a budget's holds in one window."""

    uid: str
    start_time: int
    spent_nanos: int = 0
    reserved_nanos: int = 0


Row = ClaimRow | ReservationRow | AccountRow | ChargeRow | HoldRow | WindowRow

TABLES: dict[type[Row], Table] = {
    ClaimRow: Table("claims", ClaimRow, ("organization", "request_id")),
    ReservationRow: Table("reservations", ReservationRow, ("response_id", "attempt")),
    AccountRow: Table("accounts", AccountRow, ("organization",)),
    ChargeRow: Table("entries", ChargeRow),
    HoldRow: Table("holds", HoldRow, ("response_id", "attempt", "uid")),
    WindowRow: Table("budget_windows", WindowRow, ("uid", "start_time")),
}


class Books:
    """A group's rows. Whatever a posting looks for among accounts and windows was read before, or is a KeyError."""

    def __init__(self) -> None:
        self.claims: dict[tuple[str, str], ClaimRow] = {}
        self.reservations: dict[Key, ReservationRow] = {}
        self.accounts: dict[str, AccountRow] = {}
        self.budgets: dict[str, list[Budget]] = {}
        self.holds: dict[Key, list[HoldRow]] = {}
        self.windows: dict[tuple[str, int], WindowRow] = {}
        self._changed: dict[type[Row], dict[int, Row]] = {}

    def note(self, row: Row) -> None:
        """Remembers a row to write: once, as it is in the end, however often it changes."""
        self._changed.setdefault(type(row), {})[id(row)] = row

    def writes(self) -> list[Write]:
        """What is to be written, in an order that depends on the tables alone."""
        return [(table, list(self._changed[kind].values())) for kind, table in TABLES.items() if kind in self._changed]

    def add_holds(self, rows: Iterable[HoldRow]) -> None:
        """Files holds under their attempts."""
        for row in rows:
            self.holds.setdefault((row.response_id, row.attempt), []).append(row)
