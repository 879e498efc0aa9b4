"""What the ledger does to a SQLite database: one function per operation, each in a transaction that it does not end.

A Fault is raised only before the first write of an operation, because the operations of a group share a transaction.
Sums are computed here and not in SQL: SQLite turns an integer that overflows into a float without saying so.
"""

import sqlite3

from router_service.core.faults import Fault, Reason, invalid
from router_service.ledger.ledger import (
    CLAIM_SECONDS,
    Balance,
    ExpiredReservation,
    LedgerEntry,
    Mismatch,
    Verification,
)

_BALANCE_MAX = 9 * 10**18  # below the end of an int64
_LISTED_MAX = 1000


def claim(
    connection: sqlite3.Connection, organization: str, request_id: str, response_id: str, now: float
) -> str | None:
    """See Ledger.claim."""
    connection.execute("DELETE FROM claims WHERE create_time <= ?", (now - CLAIM_SECONDS,))
    row = connection.execute(
        "SELECT response_id FROM claims WHERE organization = ? AND request_id = ?", (organization, request_id)
    ).fetchone()
    if row is not None:
        return None if row[0] == response_id else str(row[0])
    connection.execute("INSERT INTO claims VALUES (?, ?, ?, ?)", (organization, request_id, response_id, now))
    return None


def release_claim(connection: sqlite3.Connection, organization: str, request_id: str, response_id: str) -> None:
    """See Ledger.release_claim."""
    connection.execute(
        "DELETE FROM claims WHERE organization = ? AND request_id = ? AND response_id = ?",
        (organization, request_id, response_id),
    )


def reserve(
    connection: sqlite3.Connection,
    response_id: str,
    attempt: int,
    organization: str,
    amount_nanos: int,
    markup_basis_points: int,
    expire_time: float,
    now: float,
) -> None:
    """See Ledger.reserve."""
    release_expired(connection, now)
    state = connection.execute(
        "SELECT state FROM reservations WHERE response_id = ? AND attempt = ?", (response_id, attempt)
    ).fetchone()
    if state is not None:
        if state[0] == "HELD":
            return
        raise Fault(Reason.INTERNAL, "An attempt that has ended was reserved again.")
    account = read_balance(connection, organization)
    if account.available_nanos < amount_nanos:
        raise Fault(
            Reason.CREDIT_EXHAUSTED,
            "The organization's credits do not cover what this call may cost. Add credits, ask for fewer output tokens,"
            " or use an own key.",
            metadata={"organization": f"organizations/{organization}"},
        )
    connection.execute(
        "INSERT INTO reservations VALUES (?, ?, ?, ?, ?, ?, 'HELD', NULL)",
        (response_id, attempt, organization, amount_nanos, markup_basis_points, expire_time),
    )
    _write_account(connection, organization, account.balance_nanos, account.reserved_nanos + amount_nanos)


def settle(
    connection: sqlite3.Connection, response_id: str, attempt: int, charged_nanos: int, note: str, now: float
) -> None:
    """See Ledger.settle."""
    row = connection.execute(
        "SELECT organization, amount_nanos, state FROM reservations WHERE response_id = ? AND attempt = ?",
        (response_id, attempt),
    ).fetchone()
    if row is None:
        raise Fault(Reason.INTERNAL, "An attempt that was never reserved was settled.")
    organization, amount_nanos, state = row
    if state in ("SETTLED", "CANCELLED"):
        return
    account = read_balance(connection, organization)
    if charged_nanos:
        connection.execute(
            "INSERT INTO entries (organization, amount_nanos, note, create_time, response_id, attempt)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (organization, -charged_nanos, note, now, response_id, attempt),
        )
    freed_nanos = amount_nanos if state == "HELD" else 0
    _end_reservation(connection, response_id, attempt, "SETTLED", charged_nanos)
    _write_account(
        connection, organization, account.balance_nanos - charged_nanos, account.reserved_nanos - freed_nanos
    )


def cancel_reservation(connection: sqlite3.Connection, response_id: str, attempt: int) -> None:
    """See Ledger.cancel_reservation."""
    row = connection.execute(
        "SELECT organization, amount_nanos FROM reservations WHERE response_id = ? AND attempt = ? AND state = 'HELD'",
        (response_id, attempt),
    ).fetchone()
    if row is None:
        return
    account = read_balance(connection, row[0])
    _end_reservation(connection, response_id, attempt, "CANCELLED", None)
    _write_account(connection, row[0], account.balance_nanos, account.reserved_nanos - row[1])


def release_expired(connection: sqlite3.Connection, now: float) -> None:
    """Frees what reservations past their time held. Their rows stay, so that a crash can be seen in the books."""
    expired = connection.execute(
        "SELECT response_id, attempt, organization, amount_nanos FROM reservations"
        " WHERE state = 'HELD' AND expire_time <= ?",
        (now,),
    ).fetchall()
    for response_id, attempt, organization, amount_nanos in expired:
        account = read_balance(connection, organization)
        _end_reservation(connection, response_id, attempt, "EXPIRED", None)
        _write_account(connection, organization, account.balance_nanos, account.reserved_nanos - amount_nanos)


def list_expired(connection: sqlite3.Connection, now: float) -> tuple[ExpiredReservation, ...]:
    """See Ledger.expired_reservations."""
    release_expired(connection, now)
    rows = connection.execute(
        "SELECT response_id, attempt, organization, amount_nanos, expire_time FROM reservations"
        " WHERE state = 'EXPIRED' ORDER BY expire_time DESC, response_id LIMIT ?",
        (_LISTED_MAX,),
    )
    return tuple(ExpiredReservation(*row) for row in rows)


def balance(connection: sqlite3.Connection, organization: str, now: float) -> Balance:
    """See Ledger.balance."""
    release_expired(connection, now)
    return read_balance(connection, organization)


def add_credits(
    connection: sqlite3.Connection, organization: str, amount_nanos: int, request_id: str, note: str, now: float
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
        return LedgerEntry(*row), account
    balance_nanos = account.balance_nanos + amount_nanos
    if abs(balance_nanos) > _BALANCE_MAX:
        raise invalid("amount_usd_nanos", "The balance would leave the range that the ledger can hold.")
    entry_id = connection.execute(
        "INSERT INTO entries (organization, amount_nanos, note, create_time, request_id) VALUES (?, ?, ?, ?, ?)",
        (organization, amount_nanos, note, now, request_id),
    ).lastrowid
    if entry_id is None:  # cannot be after an INSERT; the type says otherwise
        raise sqlite3.DatabaseError("an entry has no id")
    _write_account(connection, organization, balance_nanos, account.reserved_nanos)
    return (
        LedgerEntry(entry_id, organization, amount_nanos, note, now),
        Balance(organization, balance_nanos, account.reserved_nanos),
    )


def write_receipts(connection: sqlite3.Connection, rows: list[tuple[str, str, str, float, bytes]]) -> None:
    """Writes receipts over earlier ones of the same responses."""
    connection.executemany(
        "INSERT INTO receipts VALUES (?, ?, ?, ?, ?) ON CONFLICT (response_id) DO UPDATE SET"
        " organization = excluded.organization, request_id = excluded.request_id,"
        " create_time = excluded.create_time, body = excluded.body",
        rows,
    )


def read_receipt(connection: sqlite3.Connection, response_id: str) -> bytes | None:
    """The stored receipt of a response."""
    row = connection.execute("SELECT body FROM receipts WHERE response_id = ?", (response_id,)).fetchone()
    return None if row is None else bytes(row[0])


def find_receipt(connection: sqlite3.Connection, organization: str, request_id: str) -> bytes | None:
    """The latest stored receipt with a caller's id."""
    row = connection.execute(
        "SELECT body FROM receipts WHERE organization = ? AND request_id = ? AND request_id <> ''"
        " ORDER BY create_time DESC LIMIT 1",
        (organization, request_id),
    ).fetchone()
    return None if row is None else bytes(row[0])


def verify(connection: sqlite3.Connection) -> Verification:
    """See Ledger.verify."""
    books: dict[str, list[int]] = {}
    for organization, amount_nanos in connection.execute("SELECT organization, amount_nanos FROM entries"):
        books.setdefault(organization, [0, 0, 0, 0])[1] += amount_nanos
    for organization, amount_nanos in connection.execute(
        "SELECT organization, amount_nanos FROM reservations WHERE state = 'HELD'"
    ):
        books.setdefault(organization, [0, 0, 0, 0])[3] += amount_nanos
    for organization, balance_nanos, reserved_nanos in connection.execute("SELECT * FROM accounts"):
        sums = books.setdefault(organization, [0, 0, 0, 0])
        sums[0], sums[2] = balance_nanos, reserved_nanos
    entry_count = connection.execute("SELECT count(*) FROM entries").fetchone()[0]
    mismatches = tuple(
        Mismatch(organization, *sums)
        for organization, sums in sorted(books.items())
        if sums[0] != sums[1] or sums[2] != sums[3]
    )
    return Verification(len(books), entry_count, mismatches)


def read_balance(connection: sqlite3.Connection, organization: str) -> Balance:
    """The stored sums of an organization."""
    row = connection.execute(
        "SELECT balance_nanos, reserved_nanos FROM accounts WHERE organization = ?", (organization,)
    ).fetchone()
    return Balance(organization, 0, 0) if row is None else Balance(organization, row[0], row[1])


def _write_account(connection: sqlite3.Connection, organization: str, balance_nanos: int, reserved_nanos: int) -> None:
    connection.execute(
        "INSERT INTO accounts VALUES (?, ?, ?) ON CONFLICT (organization) DO UPDATE SET"
        " balance_nanos = excluded.balance_nanos, reserved_nanos = excluded.reserved_nanos",
        (organization, balance_nanos, reserved_nanos),
    )


def _end_reservation(
    connection: sqlite3.Connection, response_id: str, attempt: int, state: str, charged_nanos: int | None
) -> None:
    connection.execute(
        "UPDATE reservations SET state = ?, charged_nanos = ? WHERE response_id = ? AND attempt = ?",
        (state, charged_nanos, response_id, attempt),
    )
