"""The ledger's interface: claims of request ids, reservations and charges of credits, and receipts.

Amounts are nano-USD. Organizations are plain ids ("acme"). Every method raises Fault LEDGER_UNAVAILABLE when the store
cannot answer; then nothing of the operation was written.
"""

from dataclasses import dataclass
from typing import Protocol

from router_service.core.receipt import Receipt

CLAIM_SECONDS = 24 * 3600.0  # how long a request id is remembered


@dataclass(frozen=True, slots=True)
class Balance:
    """An organization's credits. `balance_nanos` is the sum of its entries and may be below 0."""

    organization: str
    balance_nanos: int
    reserved_nanos: int

    @property
    def available_nanos(self) -> int:
        """What a new call may cost."""
        return self.balance_nanos - self.reserved_nanos


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """A movement of credits. Never changed and never removed. `create_time` is seconds since 1970."""

    entry_id: int
    organization: str
    amount_nanos: int
    note: str
    create_time: float


@dataclass(frozen=True, slots=True)
class ExpiredReservation:
    """A reservation that nobody settled in time, after a crash for example. Its amount is free again; the row stays."""

    response_id: str
    attempt: int
    organization: str
    amount_nanos: int
    expire_time: float


@dataclass(frozen=True, slots=True)
class Mismatch:
    """An organization whose stored sums are not the sums of its rows."""

    organization: str
    balance_nanos: int
    entries_nanos: int
    reserved_nanos: int
    reservations_nanos: int


@dataclass(frozen=True, slots=True)
class Verification:
    """What `verify` counted and found. The books are right when there is no mismatch."""

    organization_count: int
    entry_count: int
    mismatches: tuple[Mismatch, ...]


class Ledger(Protocol):
    """Acknowledged means durable, but for `record_soon`. Cancelling a waiting caller does not undo the operation.

    Operations of one process take effect in the order in which they were called.
    """

    async def claim(self, organization: str, request_id: str, response_id: str, now: float) -> str | None:
        """None when the id was free and is now this call's; else the response id of the call that has it."""

    async def release_claim(self, organization: str, request_id: str, response_id: str) -> None:
        """Frees the id of a call that failed before anything was sent. Nothing when another call has it."""

    async def reserve(
        self,
        response_id: str,
        attempt: int,
        organization: str,
        amount_nanos: int,
        markup_basis_points: int,
        expire_time: float,
    ) -> None:
        """Sets an amount aside. Raises Fault CREDIT_EXHAUSTED when less is available. The same attempt again: nothing.

        `markup_basis_points` is kept with it, so that the charge can be explained later.
        """

    async def settle(self, response_id: str, attempt: int, charged_nanos: int, note: str) -> None:
        """Charges what the attempt cost and frees the reservation; also one that has expired. Only the first counts."""

    async def cancel_reservation(self, response_id: str, attempt: int) -> None:
        """Frees a reservation of an attempt that cost nothing. Nothing when it is settled or unknown."""

    async def expired_reservations(self) -> tuple[ExpiredReservation, ...]:
        """Those that nobody settled, the latest 1,000 first."""

    async def record(self, receipt: Receipt) -> None:
        """Writes a receipt, over an earlier one of the same response."""

    def record_soon(self, receipt: Receipt) -> bool:
        """Queues a receipt without waiting; False when the queue is full and it was not taken. Read back at once."""

    async def flush(self) -> None:
        """Writes what is queued."""

    async def get_receipt(self, response_id: str) -> Receipt | None:
        """The receipt of a response. Who may read it is the caller's question."""

    async def find_receipt(self, organization: str, request_id: str) -> Receipt | None:
        """The latest receipt with a caller's id."""

    async def balance(self, organization: str) -> Balance:
        """The credits of an organization; zeros for one that never had any."""

    async def add_credits(
        self, organization: str, amount_nanos: int, request_id: str, note: str, now: float
    ) -> tuple[LedgerEntry, Balance]:
        """Adds credits or takes them back.

        The same id and amount again: the same entry. Another amount: Fault REQUEST_ID_REUSED.
        """

    async def verify(self) -> Verification:
        """Adds everything up anew."""

    async def close(self) -> None:
        """Writes what is queued and lets go of the store."""
