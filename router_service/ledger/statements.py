"""What the ledger does to a database: one function per operation, each in a transaction that it does not end.

What calls need is in postings.py. A Fault is raised only before the first write of an operation, because the
operations of a group share a transaction. Sums are computed here and not in SQL: SQLite turns an integer that overflows
into a float without saying so.
"""

from dataclasses import replace

from router_service.core.faults import Fault, Reason, invalid
from router_service.ledger import budget_statements
from router_service.ledger.connection import Connection
from router_service.ledger.ledger import (
    Balance,
    ExpiredReservation,
    LedgerEntry,
    Mismatch,
    Sweep,
    Verification,
)

_BALANCE_MAX = 9 * 10**18  # below the end of an int64
_LISTED_MAX = 1000


def release_claim(connection: Connection, organization: str, request_id: str, response_id: str) -> None:
    """See Ledger.release_claim."""
    connection.execute(
        "DELETE FROM claims WHERE organization = ? AND request_id = ? AND response_id = ?",
        (organization, request_id, response_id),
    )


def release_expired(connection: Connection, now: float) -> int:
    """Frees what reservations past their time held. Their rows stay, so that a crash can be seen in the books."""
    expired = connection.execute(
        "SELECT response_id, attempt, organization, amount_nanos FROM reservations"
        " WHERE state = 'HELD' AND expire_time <= ?",
        (now,),
    ).fetchall()
    for response_id, attempt, organization, amount_nanos in expired:
        _end_reservation(connection, response_id, attempt, "EXPIRED", None)
        _free(connection, organization, amount_nanos)
    if expired:
        budget_statements.release_expired(connection, now)
    return len(expired)


def sweep(connection: Connection, now: float) -> Sweep:
    """See Ledger.sweep."""
    expired_count = release_expired(connection, now)
    budget_statements.release_expired(connection, now)  # also holds whose reservation an older router has ended
    rows = connection.execute(
        "SELECT s.organization, COALESCE(a.balance_nanos, 0), COALESCE(a.reserved_nanos, 0), s.low_balance_nanos"
        " FROM account_settings s LEFT JOIN accounts a ON a.organization = s.organization"
        " WHERE s.low_balance_nanos IS NOT NULL"
        " AND COALESCE(a.balance_nanos, 0) - COALESCE(a.reserved_nanos, 0) < s.low_balance_nanos"
        " ORDER BY s.organization LIMIT ?",
        (_LISTED_MAX,),
    )
    return Sweep(expired_count, tuple(Balance(*row) for row in rows))


def list_expired(connection: Connection) -> tuple[ExpiredReservation, ...]:
    """See Ledger.expired_reservations."""
    rows = connection.execute(
        "SELECT response_id, attempt, organization, amount_nanos, expire_time FROM reservations"
        " WHERE state = 'EXPIRED' ORDER BY expire_time DESC, response_id LIMIT ?",
        (_LISTED_MAX,),
    )
    return tuple(ExpiredReservation(*row) for row in rows)


def balance(connection: Connection, organization: str, now: float) -> Balance:
    """See Ledger.balance."""
    release_expired(connection, now)
    return _with_threshold(connection, read_balance(connection, organization))


def set_low_balance(connection: Connection, organization: str, low_balance_nanos: int | None, now: float) -> Balance:
    """See Ledger.set_low_balance."""
    connection.execute(
        "INSERT INTO account_settings (organization, low_balance_nanos) VALUES (?, ?)"
        " ON CONFLICT (organization) DO UPDATE SET low_balance_nanos = excluded.low_balance_nanos",
        (organization, low_balance_nanos),
    )
    return balance(connection, organization, now)


def list_entries(
    connection: Connection, organization: str, before_entry_id: int | None, limit: int
) -> tuple[LedgerEntry, ...]:
    """See Ledger.list_entries."""
    rows = connection.execute(
        "SELECT entry_id, organization, amount_nanos, note, create_time FROM entries"
        " WHERE organization = ? AND entry_id < ? ORDER BY entry_id DESC LIMIT ?",
        (organization, 2**62 if before_entry_id is None else before_entry_id, limit),
    )
    return tuple(LedgerEntry(*row) for row in rows)


def add_credits(
    connection: Connection, organization: str, amount_nanos: int, request_id: str, note: str, now: float
) -> tuple[LedgerEntry, Balance]:
    """See Ledger.add_credits."""
    release_expired(connection, now)
    account = read_balance(connection, organization)
    row = connection.execute(
        "SELECT entry_id, organization, amount_nanos, note, create_time FROM entries"
        " WHERE organization = ? AND request_id = ?",
        (organization, request_id),
    ).fetchone()
    if row is not None:
        if row[2] != amount_nanos:
            raise Fault(
                Reason.REQUEST_ID_REUSED,
                "Credits of another amount were added with this request id. Take a new id for a new movement.",
                metadata={"requestId": request_id},
            )
        return LedgerEntry(*row), _with_threshold(connection, account)
    balance_nanos = account.balance_nanos + amount_nanos
    if abs(balance_nanos) > _BALANCE_MAX:
        raise invalid("amount_usd_nanos", "The balance would leave the range that the ledger can hold.")
    entry_id = connection.execute(
        "INSERT INTO entries (organization, amount_nanos, note, create_time, request_id) VALUES (?, ?, ?, ?, ?)"
        " RETURNING entry_id",
        (organization, amount_nanos, note, now, request_id),
    ).fetchone()[0]
    _write_account(connection, organization, balance_nanos, account.reserved_nanos)
    return (
        LedgerEntry(entry_id, organization, amount_nanos, note, now),
        _with_threshold(connection, Balance(organization, balance_nanos, account.reserved_nanos)),
    )


def verify(connection: Connection) -> Verification:
    """See Ledger.verify."""
    books: dict[str, list[int]] = {}
    entry_count = 0
    for organization, sum_nanos, count in connection.execute(
        "SELECT organization, SUM(amount_nanos), COUNT(*) FROM entries GROUP BY organization"
    ):
        books.setdefault(organization, [0, 0, 0, 0])[1] = int(sum_nanos)
        entry_count += count
    for organization, sum_nanos in connection.execute(
        "SELECT organization, SUM(amount_nanos) FROM reservations WHERE state = 'HELD' GROUP BY organization"
    ):
        books.setdefault(organization, [0, 0, 0, 0])[3] = int(sum_nanos)
    for organization, balance_nanos, reserved_nanos in connection.execute(
        "SELECT organization, balance_nanos, reserved_nanos FROM accounts"
    ):
        sums = books.setdefault(organization, [0, 0, 0, 0])
        sums[0], sums[2] = balance_nanos, reserved_nanos
    mismatches = tuple(
        Mismatch(organization, *sums)
        for organization, sums in sorted(books.items())
        if sums[0] != sums[1] or sums[2] != sums[3]
    )
    return Verification(len(books), entry_count, mismatches, budget_statements.verify(connection))


def read_balance(connection: Connection, organization: str) -> Balance:
    """The stored sums of an organization."""
    row = connection.execute(
        "SELECT balance_nanos, reserved_nanos FROM accounts WHERE organization = ?", (organization,)
    ).fetchone()
    return Balance(organization, 0, 0) if row is None else Balance(organization, row[0], row[1])


def _with_threshold(connection: Connection, account: Balance) -> Balance:
    row = connection.execute(
        "SELECT low_balance_nanos FROM account_settings WHERE organization = ?", (account.organization,)
    ).fetchone()
    return account if row is None else replace(account, low_balance_nanos=row[0])


def _free(connection: Connection, organization: str, amount_nanos: int) -> None:
    if amount_nanos:
        account = read_balance(connection, organization)
        _write_account(connection, organization, account.balance_nanos, account.reserved_nanos - amount_nanos)


def _write_account(connection: Connection, organization: str, balance_nanos: int, reserved_nanos: int) -> None:
    connection.execute(
        "INSERT INTO accounts (organization, balance_nanos, reserved_nanos) VALUES (?, ?, ?)"
        " ON CONFLICT (organization) DO UPDATE SET"
        " balance_nanos = excluded.balance_nanos, reserved_nanos = excluded.reserved_nanos",
        (organization, balance_nanos, reserved_nanos),
    )


def _end_reservation(
    connection: Connection, response_id: str, attempt: int, state: str, charged_nanos: int | None
) -> None:
    connection.execute(
        "UPDATE reservations SET state = ?, charged_nanos = ? WHERE response_id = ? AND attempt = ?",
        (state, charged_nanos, response_id, attempt),
    )
