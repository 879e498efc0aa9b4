"""What the ledger does with receipts and with the rows by which they are searched and added up."""

from collections.abc import Sequence
from typing import Any

from router_service.core.receipt import Receipt
from router_service.ledger.connection import Connection, Write
from router_service.ledger.table import Table
from router_service.ledger.usage import (
    MEASURES,
    CallRow,
    Dimension,
    ReceiptRow,
    Sum,
    Summary,
    UsageFilter,
    UsageRow,
    call_row,
    receipt_row,
    usage_rows,
)

_GROUPS_MAX = 10_000
_CHUNK = 10**9  # sums are of two parts, so that no total of a database leaves an int64


_RECEIPTS = Table("receipts", ReceiptRow, ("response_id",))
_CALLS = Table("calls", CallRow, ("response_id",))
_USAGE = Table("usage", UsageRow, ("response_id", "attempt"))


def write_receipts(connection: Connection, receipts: Sequence[Receipt]) -> None:
    """Writes receipts, each of a response of its own, over earlier ones of the same responses."""
    writes: list[Write] = [
        (_RECEIPTS, [receipt_row(receipt) for receipt in receipts]),
        (_CALLS, [call_row(receipt) for receipt in receipts]),
        (_USAGE, [row for receipt in receipts for row in usage_rows(receipt)]),
    ]
    connection.write_all([(table, rows) for table, rows in writes if rows])


def read_receipt(connection: Connection, response_id: str) -> bytes | None:
    """The stored receipt of a response."""
    row = connection.execute("SELECT body FROM receipts WHERE response_id = ?", (response_id,)).fetchone()
    return None if row is None else bytes(row[0])


def find_receipt(connection: Connection, organization: str, request_id: str) -> bytes | None:
    """The latest stored receipt with a caller's id."""
    row = connection.execute(
        "SELECT body FROM receipts WHERE organization = ? AND request_id = ? AND request_id <> ''"
        " ORDER BY create_time DESC LIMIT 1",
        (organization, request_id),
    ).fetchone()
    return None if row is None else bytes(row[0])


def list_receipts(
    connection: Connection, wanted: UsageFilter, before: tuple[float, str] | None, limit: int
) -> list[bytes]:
    """See Ledger.list_receipts."""
    conditions, parameters = _conditions(wanted, "c.create_time", "c.")
    if wanted.state is not None:
        conditions.append("c.state = ?")
        parameters.append(wanted.state.value)
    inner, inner_parameters = _attempt_conditions(wanted, "u.")
    if inner:
        exists = " AND ".join(["u.response_id = c.response_id", *inner])
        conditions.append(f"EXISTS (SELECT 1 FROM usage u WHERE {exists})")  # noqa: S608 # constants
        parameters += inner_parameters
    if before is not None:
        conditions.append("(c.create_time < ? OR (c.create_time = ? AND c.response_id < ?))")
        parameters += [before[0], before[0], before[1]]
    rows = connection.execute(
        "SELECT r.body FROM calls c JOIN receipts r ON r.response_id = c.response_id"  # noqa: S608 # constants
        f" WHERE {' AND '.join(conditions)} ORDER BY c.create_time DESC, c.response_id DESC LIMIT ?",
        (*parameters, limit),
    )
    return [bytes(row[0]) for row in rows]


def summarize(connection: Connection, wanted: UsageFilter, by: tuple[Dimension, ...]) -> tuple[Summary, ...]:
    """See Ledger.summarize."""
    conditions, parameters = _conditions(wanted, "start_time", "")
    inner, inner_parameters = _attempt_conditions(wanted, "")
    keys = ", ".join(dimension.value for dimension in by)
    sums = ", ".join(
        f"COALESCE(SUM({name} / {_CHUNK}), 0), COALESCE(SUM({name} % {_CHUNK}), 0), COUNT(*) - COUNT({name})"
        for name in MEASURES
    )
    rows = connection.execute(
        f"SELECT {keys + ', ' if keys else ''}COUNT(*), COUNT(DISTINCT response_id), COALESCE(SUM(is_estimate), 0),"  # noqa: S608 # constants
        f" {sums} FROM usage WHERE {' AND '.join([*conditions, *inner])}"
        + (f" GROUP BY {keys} ORDER BY {keys}" if keys else "")
        + " LIMIT ?",
        (*parameters, *inner_parameters, _GROUPS_MAX),
    )
    return tuple(_summary(row, len(by)) for row in rows)


def _summary(row: tuple[Any, ...], key_count: int) -> Summary:
    keys = tuple(str(key) for key in row[:key_count])
    attempts, calls, estimates, *rest = (int(value) for value in row[key_count:])
    totals = [Sum(rest[place] * _CHUNK + rest[place + 1], rest[place + 2]) for place in range(0, 3 * len(MEASURES), 3)]
    return Summary(keys, attempts, calls, estimates, *totals)


def _conditions(wanted: UsageFilter, time: str, prefix: str) -> tuple[list[str], list[object]]:
    conditions, parameters = ["1 = 1"], list[object]()
    for column, value in (
        ("organization", wanted.organization),
        ("application", wanted.application),
        ("principal", wanted.principal),
    ):
        if value:
            conditions.append(f"{prefix}{column} = ?")
            parameters.append(value)
    if wanted.start_time is not None:
        conditions.append(f"{time} >= ?")
        parameters.append(wanted.start_time)
    if wanted.end_time is not None:
        conditions.append(f"{time} < ?")
        parameters.append(wanted.end_time)
    return conditions, parameters


def _attempt_conditions(wanted: UsageFilter, prefix: str) -> tuple[list[str], list[object]]:
    conditions, parameters = list[str](), list[object]()
    for column, value in (("model", wanted.model), ("provider", wanted.provider), ("payer", wanted.payer)):
        if value:
            conditions.append(f"{prefix}{column} = ?")
            parameters.append(value)
    return conditions, parameters
