"""The ledger's interface: claims of request ids, reservations and charges of credits, and receipts.

Amounts are nano-USD. Organizations are plain ids ("acme"). Every method raises Fault LEDGER_UNAVAILABLE when the store
cannot answer; then nothing of the operation was written.
"""

from dataclasses import dataclass
from typing import Protocol

from router_service.core.budget import Budget, BudgetStatus
from router_service.core.receipt import Receipt
from router_service.ledger.usage import Dimension, Summary, UsageFilter

CLAIM_SECONDS = 24 * 3600.0  # how long a request id is remembered
BUDGETS_MAX = 1000  # of one organization: each of them is looked at by each reservation


@dataclass(frozen=True, slots=True)
class Balance:
    """An organization's credits. `balance_nanos` is the sum of its entries and may be below 0."""

    organization: str
    balance_nanos: int
    reserved_nanos: int
    low_balance_nanos: int | None = None

    @property
    def available_nanos(self) -> int:
        """What a new call may cost."""
        return self.balance_nanos - self.reserved_nanos

    @property
    def is_low(self) -> bool:
        """Whether less is left than somebody wanted to be told of."""
        return self.low_balance_nanos is not None and self.available_nanos < self.low_balance_nanos


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
    budget_mismatches: tuple[str, ...] = ()  # uids of budgets whose stored sums are not the sums of their holds

    @property
    def is_right(self) -> bool:
        """Whether everything adds up."""
        return not self.mismatches and not self.budget_mismatches


@dataclass(frozen=True, slots=True)
class Sweep:
    """What a round through the books found: reservations freed by their expiry, and balances that are low."""

    expired_count: int
    low: tuple[Balance, ...]


@dataclass(frozen=True, slots=True)
class Spending:
    """What an attempt may cost at most, and whose spending it is.

    `credits_nanos` is what the organization's credits may pay, None where somebody else does; `list_nanos` the same at
    list price without markup, None where the model has no price. `subjects` are resource names: the organization's, and
    those of the application and the user, where there are such.
    """

    organization: str
    credits_nanos: int | None
    list_nanos: int | None = None
    subjects: tuple[str, ...] = ()
    markup_basis_points: int = 0


class Ledger(Protocol):
    """Acknowledged means durable, but for `owe` and `record_soon`: see `sync`.

    Cancelling a waiting caller does not undo the operation. Operations of one process take effect in the order in which
    they were called.
    """

    async def claim(self, organization: str, request_id: str, response_id: str, now: float) -> str | None:
        """None when the id was free and is now this call's; else the response id of the call that has it."""

    async def release_claim(self, organization: str, request_id: str, response_id: str) -> None:
        """Frees the id of a call that failed before anything was sent. Nothing when another call has it."""

    async def reserve(self, response_id: str, attempt: int, spending: Spending, expire_time: float) -> None:
        """Sets amounts aside, in every tier that applies or in none. The same attempt again: nothing.

        Raises Fault CREDIT_EXHAUSTED or BUDGET_EXHAUSTED where less is left, and PRICE_UNKNOWN where a budget counts
        list prices and there is none. The markup is kept with it, so that the charge can be explained later.
        """

    async def settle(
        self, response_id: str, attempt: int, charged_nanos: int, note: str, list_nanos: int | None = None
    ) -> None:
        """Charges what the attempt cost and frees the reservation; also one that has expired. Only the first counts.

        A budget of list prices takes `list_nanos`, and what was reserved where that is not known.
        """

    def owe(self, response_id: str, attempt: int, charged_nanos: int | None, list_nanos: int | None = None) -> None:
        """Notes how an attempt is going to be settled (None: cancelled), so that it is, should this process end first.

        The settlement's note is the response's id.
        """

    async def sync(self) -> None:
        """Returns when what is owed and queued outlives this machine, in an outbox on its disk or in the store.

        Without an outbox at once: then it is kept in memory only.
        """

    async def cancel_reservation(self, response_id: str, attempt: int) -> None:
        """Frees a reservation of an attempt that cost nothing. Nothing when it is settled or unknown."""

    async def expired_reservations(self) -> tuple[ExpiredReservation, ...]:
        """Those that nobody settled, the latest 1,000 first."""

    async def record(self, receipt: Receipt) -> None:
        """Writes a receipt, over an earlier one of the same response."""

    def record_soon(self, receipt: Receipt) -> bool:
        """Queues a receipt without waiting; False when the queue is full and it was not taken. Read back at once.

        With an outbox it outlives this process, and after `sync` this machine.
        """

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

    async def set_low_balance(self, organization: str, low_balance_nanos: int | None) -> Balance:
        """Below which an organization's credits count as low; None for never."""

    async def list_entries(self, organization: str, before_entry_id: int | None, limit: int) -> tuple[LedgerEntry, ...]:
        """Movements, the latest first."""

    def counts_list_prices(self, subjects: tuple[str, ...]) -> bool:
        """Whether a budget counts the list prices of their calls, as far as this process knows: see `refresh`."""

    async def refresh(self) -> None:
        """Learns of budgets that other processes have changed."""

    async def create_budget(self, budget: Budget) -> BudgetStatus:
        """Raises Fault RESOURCE_EXISTS."""

    async def get_budget(self, organization: str, budget_id: str) -> BudgetStatus | None:
        """As of now."""

    async def list_budgets(self, organization: str) -> tuple[BudgetStatus, ...]:
        """All of an organization, by id. There are at most BUDGETS_MAX."""

    async def update_budget(self, budget: Budget) -> BudgetStatus:
        """Writes what a budget is to be. Raises Fault ETAG_MISMATCH unless `revision` is one above what is there."""

    async def delete_budget(self, organization: str, budget_id: str, revision: int | None) -> bool:
        """False where there is none. With a revision: only that one, else Fault ETAG_MISMATCH."""

    async def list_receipts(
        self, wanted: UsageFilter, before: tuple[float, str] | None, limit: int
    ) -> tuple[Receipt, ...]:
        """Receipts, the latest first, from before a time and a response id on."""

    async def summarize(self, wanted: UsageFilter, by: tuple[Dimension, ...]) -> tuple[Summary, ...]:
        """Usage and costs of attempts, added up."""

    async def sweep(self) -> Sweep:
        """Frees what reservations past their time held, and looks at the balances."""

    @property
    def can_queue(self) -> bool:
        """Whether `record_soon` has room, and the outbox takes what is noted there."""

    @property
    def is_available(self) -> bool:
        """Whether the store answered when it was last asked."""

    async def verify(self) -> Verification:
        """Adds everything up anew."""

    async def close(self) -> None:
        """Writes what is queued and lets go of the store."""
