"""What the ledger does with budgets, in the transactions of statements.py."""

from router_service.core.budget import Basis, Budget, BudgetStatus, Period, window_start
from router_service.core.faults import Fault, Reason
from router_service.ledger.connection import Connection
from router_service.ledger.ledger import BUDGETS_MAX

COLUMNS = (
    "organization, budget_id, uid, subject, period, basis, limit_nanos, expire_time, create_time, update_time, revision"
)


def release_expired(connection: Connection, now: float) -> None:
    """Frees what holds past their time held."""
    rows = connection.execute(
        "SELECT response_id, attempt, uid, start_time, amount_nanos FROM holds"
        " WHERE state = 'HELD' AND expire_time <= ? ORDER BY uid",
        (now,),
    ).fetchall()
    _end(connection, rows, "EXPIRED")


def create(connection: Connection, budget: Budget, now: float) -> BudgetStatus:
    """See Ledger.create_budget."""
    existing = read_budgets(connection, budget.organization)
    if any(other.budget_id == budget.budget_id for other in existing):
        message = f"There is a budget {budget.name} already; update it, or take another id."
        raise Fault(Reason.RESOURCE_EXISTS, message, metadata={"name": budget.name})
    if len(existing) >= BUDGETS_MAX:
        message = f"An organization has at most {BUDGETS_MAX} budgets; delete some."
        raise Fault(Reason.INVALID_REQUEST, message, metadata={"field": "budget"}, fields={"budget": message})
    connection.execute(
        f"INSERT INTO budgets ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608 # constants
        (
            budget.organization,
            budget.budget_id,
            budget.uid,
            budget.subject,
            budget.period.value,
            budget.basis.value,
            budget.limit_nanos,
            budget.expire_time,
            budget.create_time,
            budget.update_time,
            budget.revision,
        ),
    )
    return _status(connection, budget, now)


def get(connection: Connection, organization: str, budget_id: str, now: float) -> BudgetStatus | None:
    """See Ledger.get_budget."""
    budget = _read_budget(connection, organization, budget_id)
    return None if budget is None else _status(connection, budget, now)


def list_all(connection: Connection, organization: str, now: float) -> tuple[BudgetStatus, ...]:
    """See Ledger.list_budgets."""
    return tuple(_status(connection, budget, now) for budget in read_budgets(connection, organization))


def update(connection: Connection, budget: Budget, now: float) -> BudgetStatus:
    """See Ledger.update_budget."""
    current = _read_budget(connection, budget.organization, budget.budget_id)
    if current is None or current.uid != budget.uid or current.revision != budget.revision - 1:
        raise _changed(budget.name)
    connection.execute(
        "UPDATE budgets SET limit_nanos = ?, expire_time = ?, update_time = ?, revision = ? WHERE uid = ?",
        (budget.limit_nanos, budget.expire_time, budget.update_time, budget.revision, budget.uid),
    )
    return _status(connection, budget, now)


def delete(connection: Connection, organization: str, budget_id: str, revision: int | None) -> bool:
    """See Ledger.delete_budget. Its holds stay and end as they would: they are history."""
    current = _read_budget(connection, organization, budget_id)
    if current is None:
        return False
    if revision is not None and current.revision != revision:
        raise _changed(current.name)
    connection.execute("DELETE FROM budgets WHERE uid = ?", (current.uid,))
    return True


def read_budgets(connection: Connection, organization: str) -> list[Budget]:
    """All of an organization, by id."""
    rows = connection.execute(
        f"SELECT {COLUMNS} FROM budgets WHERE organization = ? ORDER BY budget_id",  # noqa: S608 # constants
        (organization,),
    ).fetchall()
    return [as_budget(*row) for row in rows]


def read_list_price_subjects(connection: Connection) -> frozenset[str]:
    """Whose calls some budget counts whoever pays for them."""
    rows = connection.execute("SELECT DISTINCT subject FROM budgets WHERE basis = 'LIST_PRICE'")
    return frozenset(row[0] for row in rows)


def verify(connection: Connection) -> tuple[str, ...]:
    """The uids of budgets whose sums are not those of their holds."""
    sums: dict[tuple[str, int], tuple[int, int]] = {}
    for uid, start_time, spent_nanos, reserved_nanos in connection.execute(
        "SELECT uid, start_time, SUM(CASE WHEN state = 'SETTLED' THEN spent_nanos ELSE 0 END),"
        " SUM(CASE WHEN state = 'HELD' THEN amount_nanos ELSE 0 END) FROM holds GROUP BY uid, start_time"
    ):
        sums[uid, start_time] = (int(spent_nanos), int(reserved_nanos))
    wrong = set()
    for uid, start_time, spent_nanos, reserved_nanos in connection.execute(
        "SELECT uid, start_time, spent_nanos, reserved_nanos FROM budget_windows"
    ):
        if sums.pop((uid, start_time), (0, 0)) != (spent_nanos, reserved_nanos):
            wrong.add(uid)
    wrong.update(uid for (uid, _), found in sums.items() if found != (0, 0))
    return tuple(sorted(wrong))


def _read_budget(connection: Connection, organization: str, budget_id: str) -> Budget | None:
    row = connection.execute(
        f"SELECT {COLUMNS} FROM budgets WHERE organization = ? AND budget_id = ?",  # noqa: S608 # constants
        (organization, budget_id),
    ).fetchone()
    return None if row is None else as_budget(*row)


def as_budget(  # a row has as many columns as it has
    organization: str,
    budget_id: str,
    uid: str,
    subject: str,
    period: str,
    basis: str,
    limit_nanos: int,
    expire_time: float | None,
    create_time: float,
    update_time: float,
    revision: int,
) -> Budget:
    return Budget(
        organization,
        budget_id,
        uid,
        subject,
        Period(period),
        Basis(basis),
        limit_nanos,
        expire_time,
        create_time,
        update_time,
        revision,
    )


def _status(connection: Connection, budget: Budget, now: float) -> BudgetStatus:
    start = window_start(budget.period, now)
    spent_nanos, reserved_nanos = _read_window(connection, budget.uid, start)
    return BudgetStatus(budget, start, spent_nanos, reserved_nanos)


def _read_window(connection: Connection, uid: str, start_time: int) -> tuple[int, int]:
    row = connection.execute(
        "SELECT spent_nanos, reserved_nanos FROM budget_windows WHERE uid = ? AND start_time = ?", (uid, start_time)
    ).fetchone()
    return (0, 0) if row is None else (row[0], row[1])


def _write_window(connection: Connection, uid: str, start_time: int, spent_nanos: int, reserved_nanos: int) -> None:
    connection.execute(
        "INSERT INTO budget_windows (uid, start_time, spent_nanos, reserved_nanos) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (uid, start_time) DO UPDATE SET"
        " spent_nanos = excluded.spent_nanos, reserved_nanos = excluded.reserved_nanos",
        (uid, start_time, spent_nanos, reserved_nanos),
    )


def _change_window(connection: Connection, uid: str, start_time: int, spent_nanos: int, freed_nanos: int) -> None:
    spent, reserved = _read_window(connection, uid, start_time)
    _write_window(connection, uid, start_time, spent + spent_nanos, reserved - freed_nanos)


def _end(connection: Connection, rows: list[tuple[str, int, str, int, int]], state: str) -> None:
    for response_id, attempt, uid, start_time, amount_nanos in rows:
        connection.execute(
            "UPDATE holds SET state = ? WHERE response_id = ? AND attempt = ? AND uid = ?",
            (state, response_id, attempt, uid),
        )
        _change_window(connection, uid, start_time, 0, amount_nanos)


def _changed(name: str) -> Fault:
    message = f"{name} has changed since you read it; read it again and repeat what you want to change."
    return Fault(Reason.ETAG_MISMATCH, message, metadata={"name": name})
