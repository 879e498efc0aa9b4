"""A group of postings in a transaction: what they need is read at once, changed in memory, and written at once."""

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from router_service.core.faults import Fault
from router_service.ledger import budget_statements, statements
from router_service.ledger.books import AccountRow, Books, ClaimRow, HoldRow, ReservationRow, WindowRow
from router_service.ledger.connection import Connection, Query
from router_service.ledger.ledger import CLAIM_SECONDS
from router_service.ledger.postings import Cancel, Claim, Posting, Reserve, Settle, post, windows_of

_T = TypeVar("_T")

Outcome = tuple[str | None, Fault | None]

_OLD_CLAIM = "SELECT 1 AS one FROM claims WHERE create_time <= ? LIMIT 1"
_CLAIMS = (
    "SELECT organization, request_id, response_id, create_time FROM claims"
    " WHERE organization IN (SELECT value FROM json_each(?)) AND request_id IN (SELECT value FROM json_each(?))"
)
_EXPIRED = "SELECT 1 AS one FROM reservations WHERE state = 'HELD' AND expire_time <= ? LIMIT 1"
_BUDGETS = (
    f"SELECT {budget_statements.COLUMNS} FROM budgets"  # noqa: S608 # constants
    " WHERE organization IN (SELECT value FROM json_each(?)) ORDER BY organization, budget_id"
)
_RESERVATIONS = (
    "SELECT response_id, attempt, organization, amount_nanos, markup_basis_points, expire_time, state, charged_nanos"
    " FROM reservations WHERE response_id IN (SELECT value FROM json_each(?))"
)
_ACCOUNTS = (
    "SELECT organization, balance_nanos, reserved_nanos FROM accounts WHERE organization IN"
    " (SELECT value FROM json_each(?) UNION SELECT organization FROM reservations"
    " WHERE response_id IN (SELECT value FROM json_each(?)))"
)
_HOLDS = (
    "SELECT response_id, attempt, uid, start_time, basis, amount_nanos, expire_time, state, spent_nanos"
    " FROM holds WHERE response_id IN (SELECT value FROM json_each(?)) ORDER BY uid"
)
_WINDOWS = (
    "SELECT uid, start_time, spent_nanos, reserved_nanos FROM budget_windows"
    " WHERE uid IN (SELECT value FROM json_each(?))"
    " AND start_time IN (SELECT CAST(value AS BIGINT) FROM json_each(?))"
)


def post_all(connection: Connection, postings: Sequence[Posting]) -> list[Outcome]:
    """Does what is asked in the order in which it is asked: each outcome is as if the ones before it were committed."""
    books = _read(connection, postings)
    outcomes: list[Outcome] = []
    for posting in postings:
        try:
            outcomes.append((post(books, posting), None))
        except Fault as fault:
            outcomes.append((None, fault))
    connection.write_all(books.writes())
    return outcomes


def _read(connection: Connection, postings: Sequence[Posting]) -> Books:
    books = Books()
    reserves = [one for one in postings if isinstance(one, Reserve)]
    claims = [one for one in postings if isinstance(one, Claim)]
    ends = [one for one in postings if isinstance(one, Settle | Cancel)]
    if claims:
        _read_claims(connection, books, claims)
    if not reserves and not ends:
        return books
    found = _find(connection, reserves, ends)
    if found.pop(_EXPIRED, ()):
        statements.release_expired(connection, max(one.now for one in reserves))
        found = _find(connection, reserves, ends)
    organizations = {one.spending.organization for one in reserves}
    for row in (ReservationRow(*values) for values in found[_RESERVATIONS]):
        books.reservations[row.response_id, row.attempt] = row
        organizations.add(row.organization)
    books.accounts = {organization: AccountRow(organization) for organization in organizations}
    books.accounts.update((values[0], AccountRow(*values)) for values in found[_ACCOUNTS])
    books.budgets = {organization: [] for organization in organizations}
    for budget in (budget_statements.as_budget(*values) for values in found.get(_BUDGETS, ())):
        books.budgets[budget.organization].append(budget)
    books.add_holds(HoldRow(*values) for values in found.get(_HOLDS, ()))
    _read_windows(connection, books, reserves)
    return books


def _find(
    connection: Connection, reserves: Sequence[Reserve], ends: Sequence[Settle | Cancel]
) -> dict[str, list[tuple[Any, ...]]]:
    """The rows of each query that the postings need."""
    ids = _distinct(one.response_id for one in (*reserves, *ends))
    organizations = _distinct(one.spending.organization for one in reserves)
    queries: list[Query] = [(_RESERVATIONS, (ids,)), (_ACCOUNTS, (organizations, ids))]
    if reserves:
        queries += [(_EXPIRED, (max(one.now for one in reserves),)), (_BUDGETS, (organizations,))]
    if ends:
        queries.append((_HOLDS, (_distinct(one.response_id for one in ends),)))
    return dict(zip((sql for sql, _ in queries), connection.read_all(queries), strict=True))


def _read_windows(connection: Connection, books: Books, reserves: Sequence[Reserve]) -> None:
    wanted = {(hold.uid, hold.start_time) for holds in books.holds.values() for hold in holds}
    for reserve in reserves:
        budgets = books.budgets[reserve.spending.organization]
        wanted.update((budget.uid, start) for budget, start in windows_of(budgets, reserve))
    if not wanted:
        return
    books.windows = {key: WindowRow(*key) for key in wanted}
    parameters = (_distinct(uid for uid, _ in wanted), _distinct(start for _, start in wanted))
    (rows,) = connection.read_all([(_WINDOWS, parameters)])
    books.windows.update(((row.uid, row.start_time), row) for row in (WindowRow(*values) for values in rows))


def _read_claims(connection: Connection, books: Books, claims: Sequence[Claim]) -> None:
    """Also forgets those that are old."""
    organizations, ids = _distinct(one.organization for one in claims), _distinct(one.request_id for one in claims)
    limit = max(one.now for one in claims) - CLAIM_SECONDS
    rows, old = connection.read_all([(_CLAIMS, (organizations, ids)), (_OLD_CLAIM, (limit,))])
    if old:
        connection.execute("DELETE FROM claims WHERE create_time <= ?", (limit,))
    for row in (ClaimRow(*values) for values in rows):
        books.claims[row.organization, row.request_id] = row


def _distinct(values: Iterable[_T]) -> list[_T]:
    return list(dict.fromkeys(values))
