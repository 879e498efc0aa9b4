"""What calls do to the books: claims of request ids, reservations and their ends, as values and as changes of rows.

A Fault is raised only before the first change of a posting, because the postings of a group share a transaction. Sums
are computed here and not in SQL: SQLite turns an integer that overflows into a float without saying so.
"""

from dataclasses import dataclass
from typing import assert_never

from router_service.core.budget import Basis, Budget, BudgetStatus, Period, window_start
from router_service.core.faults import Fault, Reason
from router_service.ledger.books import AccountRow, Books, ChargeRow, ClaimRow, HoldRow, ReservationRow
from router_service.ledger.ledger import CLAIM_SECONDS, Spending


@dataclass(frozen=True, slots=True)
class Claim:
    """See Ledger.claim."""

    organization: str
    request_id: str
    response_id: str
    now: float


@dataclass(frozen=True, slots=True)
class Reserve:
    """See Ledger.reserve."""

    response_id: str
    attempt: int
    spending: Spending
    expire_time: float
    now: float


@dataclass(frozen=True, slots=True)
class Settle:
    """See Ledger.settle."""

    response_id: str
    attempt: int
    charged_nanos: int
    list_nanos: int | None
    note: str
    now: float


@dataclass(frozen=True, slots=True)
class Cancel:
    """See Ledger.cancel_reservation."""

    response_id: str
    attempt: int


Posting = Claim | Reserve | Settle | Cancel


def post(books: Books, posting: Posting) -> str | None:
    """Changes the books; the result is what the operation of the Ledger returns."""
    match posting:
        case Claim():
            return _claim(books, posting)
        case Reserve():
            _reserve(books, posting)
        case Settle():
            _settle(books, posting)
        case Cancel():
            _cancel(books, posting)
        case _:
            assert_never(posting)
    return None


def windows_of(budgets: list[Budget], posting: Reserve) -> list[tuple[Budget, int]]:
    """The budgets that bound a spending, and the windows that it falls into."""
    subjects, now = posting.spending.subjects, posting.now
    return [
        (budget, window_start(budget.period, now))
        for budget in budgets
        if budget.subject in subjects and budget.is_in_force(now)
    ]


def _claim(books: Books, claim: Claim) -> str | None:
    key = (claim.organization, claim.request_id)
    row = books.claims.get(key)
    if row is not None and row.create_time > claim.now - CLAIM_SECONDS:
        return None if row.response_id == claim.response_id else row.response_id
    if row is None:
        row = books.claims[key] = ClaimRow(*key, claim.response_id, claim.now)
    row.response_id, row.create_time = claim.response_id, claim.now
    books.note(row)
    return None


def _reserve(books: Books, reserve: Reserve) -> None:
    key, spending = (reserve.response_id, reserve.attempt), reserve.spending
    earlier = books.reservations.get(key)
    if earlier is not None:
        if earlier.state == "HELD":
            return
        raise Fault(Reason.INTERNAL, "An attempt that has ended was reserved again.")
    account, amount_nanos = books.accounts[spending.organization], spending.credits_nanos
    if amount_nanos is not None and account.balance_nanos - account.reserved_nanos < amount_nanos:
        raise Fault(
            Reason.CREDIT_EXHAUSTED,
            "The organization's credits do not cover what this call may cost. Add credits, ask for fewer output tokens,"
            " or use an own key.",
            metadata={"organization": f"organizations/{spending.organization}"},
        )
    holds = _plan_holds(books, reserve)
    row = ReservationRow(
        *key, spending.organization, amount_nanos or 0, spending.markup_basis_points, reserve.expire_time, "HELD"
    )
    books.reservations[key] = row
    books.note(row)
    if amount_nanos:
        account.reserved_nanos += amount_nanos
        books.note(account)
    for hold in holds:
        window = books.windows[hold.uid, hold.start_time]
        window.reserved_nanos += hold.amount_nanos
        books.note(window)
        books.note(hold)
    books.add_holds(holds)


def _plan_holds(books: Books, reserve: Reserve) -> list[HoldRow]:
    """What an attempt would hold of every budget that applies. Raises Fault where one has too little left."""
    spending, holds = reserve.spending, list[HoldRow]()
    for budget, start in windows_of(books.budgets[spending.organization], reserve):
        amount_nanos = spending.credits_nanos if budget.basis is Basis.CHARGED else spending.list_nanos
        if amount_nanos is None:
            if budget.basis is Basis.CHARGED:
                continue  # nothing will be charged
            raise Fault(
                Reason.PRICE_UNKNOWN,
                f"The model has no price, and {budget.name} counts what calls cost. Have a price set, or use another"
                " model.",
                metadata={"budget": budget.name},
            )
        window = books.windows[budget.uid, start]
        if BudgetStatus(budget, start, window.spent_nanos, window.reserved_nanos).remaining_nanos < amount_nanos:
            raise _exhausted(budget)
        key = (reserve.response_id, reserve.attempt)
        holds.append(HoldRow(*key, budget.uid, start, budget.basis.value, amount_nanos, reserve.expire_time, "HELD"))
    return holds


def _settle(books: Books, settle: Settle) -> None:
    """Charges and spends, in the windows in which it was reserved; also where the reservation has expired meanwhile."""
    key, charged_nanos = (settle.response_id, settle.attempt), settle.charged_nanos
    row = books.reservations.get(key)
    if row is None:
        raise Fault(Reason.INTERNAL, "An attempt that was never reserved was settled.")
    if row.state in ("SETTLED", "CANCELLED"):
        return
    if charged_nanos:
        books.note(ChargeRow(row.organization, -charged_nanos, settle.note, settle.now, *key))
    _change(books, books.accounts[row.organization], charged_nanos, _end(books, row, "SETTLED", charged_nanos))
    for hold in books.holds.get(key, ()):
        if hold.state not in ("HELD", "EXPIRED"):
            continue
        if hold.basis == Basis.CHARGED.value:
            cost_nanos = charged_nanos
        else:
            cost_nanos = hold.amount_nanos if settle.list_nanos is None else settle.list_nanos
        _end_hold(books, hold, "SETTLED", cost_nanos)


def _cancel(books: Books, cancel: Cancel) -> None:
    key = (cancel.response_id, cancel.attempt)
    row = books.reservations.get(key)
    if row is None or row.state != "HELD":
        return
    _change(books, books.accounts[row.organization], 0, _end(books, row, "CANCELLED", None))
    for hold in books.holds.get(key, ()):
        if hold.state == "HELD":
            _end_hold(books, hold, "CANCELLED", None)


def _end(books: Books, row: ReservationRow, state: str, charged_nanos: int | None) -> int:
    """Gives what it still held."""
    freed_nanos = row.amount_nanos if row.state == "HELD" else 0
    row.state, row.charged_nanos = state, charged_nanos
    books.note(row)
    return freed_nanos


def _change(books: Books, account: AccountRow, charged_nanos: int, freed_nanos: int) -> None:
    if charged_nanos or freed_nanos:
        account.balance_nanos -= charged_nanos
        account.reserved_nanos -= freed_nanos
        books.note(account)


def _end_hold(books: Books, hold: HoldRow, state: str, spent_nanos: int | None) -> None:
    window = books.windows[hold.uid, hold.start_time]
    window.spent_nanos += spent_nanos or 0
    window.reserved_nanos -= hold.amount_nanos if hold.state == "HELD" else 0
    hold.state, hold.spent_nanos = state, spent_nanos
    books.note(window)
    books.note(hold)


_BEGINS_ANEW = {
    Period.DAY: "A new day begins at 00:00 UTC",
    Period.MONTH: "A new month begins on the 1st at 00:00 UTC",
    Period.TOTAL: "It does not begin anew",
}


def _exhausted(budget: Budget) -> Fault:
    until = _BEGINS_ANEW[budget.period]
    return Fault(
        Reason.BUDGET_EXHAUSTED,
        f"The budget {budget.name} does not cover what this call may cost. {until}; an administrator can raise it.",
        metadata={"budget": budget.name, "subject": budget.subject},
    )
