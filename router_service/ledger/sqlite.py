"""The ledger in one SQLite file.

One thread owns the connection and commits in groups (writer.py), with plain SQL. An ORM or an async driver would cost
more per statement than SQLite itself does, and SQLite has one writer anyway; so SQLAlchemy only describes the tables
(schema.py), and is loaded only when the file is new. WAL with synchronous=FULL: acknowledged means on the disk.
Several processes may share the file: every sum is read inside the transaction that changes it.
"""

import asyncio
import os
import sqlite3
from collections.abc import Callable
from functools import partial
from pathlib import Path

from router_service.core.faults import Fault, Reason, invalid
from router_service.core.money import NANOS_MAX
from router_service.core.receipt import Receipt
from router_service.ledger import codec, statements
from router_service.ledger.ledger import Balance, ExpiredReservation, LedgerEntry, Verification
from router_service.ledger.writer import Writer

_VERSION = 1
_BUSY_SECONDS = 5.0  # how long another process may hold the write lock

# Whatever goes wrong in the code above, a movement cannot be changed or taken out.
_GUARDS = (
    "CREATE TRIGGER entries_no_update BEFORE UPDATE ON entries BEGIN SELECT RAISE(ABORT, 'append only'); END",
    "CREATE TRIGGER entries_no_delete BEFORE DELETE ON entries BEGIN SELECT RAISE(ABORT, 'append only'); END",
)

_Row = tuple[str, str, str, float, bytes]


async def open_ledger(
    path: Path,
    clock: Callable[[], float],
    *,
    flush_interval_seconds: float = 0.1,
    queued_receipts_max: int = 10_000,
) -> "SqliteLedger":
    """Opens the file, or makes it with mode 0600. `clock` gives seconds since 1970. Raises Fault LEDGER_UNAVAILABLE."""
    loop = asyncio.get_running_loop()
    writer = Writer(partial(_connect, path), loop)
    await writer.start()
    return SqliteLedger(writer, clock, loop, flush_interval_seconds, queued_receipts_max)


class SqliteLedger:
    """See Ledger. Bound to the event loop that opened it."""

    def __init__(
        self,
        writer: Writer,
        clock: Callable[[], float],
        loop: asyncio.AbstractEventLoop,
        flush_interval_seconds: float,
        queued_receipts_max: int,
    ) -> None:
        self._writer = writer
        self._clock = clock
        self._loop = loop
        self._flush_interval_seconds = flush_interval_seconds
        self._queued_receipts_max = queued_receipts_max
        self._queued: dict[str, _Row] = {}  # not submitted yet, by response id
        self._writing: dict[str, _Row] = {}  # submitted, not committed yet
        self._timer: asyncio.TimerHandle | None = None

    async def claim(self, organization: str, request_id: str, response_id: str, now: float) -> str | None:
        """See Ledger."""
        earlier: str | None = await self._writer.submit(
            lambda connection: statements.claim(connection, organization, request_id, response_id, now)
        )
        return earlier

    async def release_claim(self, organization: str, request_id: str, response_id: str) -> None:
        """See Ledger."""
        await self._writer.submit(
            lambda connection: statements.release_claim(connection, organization, request_id, response_id)
        )

    async def reserve(
        self,
        response_id: str,
        attempt: int,
        organization: str,
        amount_nanos: int,
        markup_basis_points: int,
        expire_time: float,
    ) -> None:
        """See Ledger."""
        _check_amount(amount_nanos)
        now = self._clock()
        await self._writer.submit(
            lambda connection: statements.reserve(
                connection, response_id, attempt, organization, amount_nanos, markup_basis_points, expire_time, now
            )
        )

    async def settle(self, response_id: str, attempt: int, charged_nanos: int, note: str) -> None:
        """See Ledger."""
        _check_amount(charged_nanos)
        now = self._clock()
        await self._writer.submit(
            lambda connection: statements.settle(connection, response_id, attempt, charged_nanos, note, now)
        )

    async def cancel_reservation(self, response_id: str, attempt: int) -> None:
        """See Ledger."""
        await self._writer.submit(lambda connection: statements.cancel_reservation(connection, response_id, attempt))

    async def expired_reservations(self) -> tuple[ExpiredReservation, ...]:
        """See Ledger."""
        now = self._clock()
        expired: tuple[ExpiredReservation, ...] = await self._writer.submit(
            lambda connection: statements.list_expired(connection, now)
        )
        return expired

    async def record(self, receipt: Receipt) -> None:
        """See Ledger."""
        row = _to_row(receipt)
        self._queued.pop(receipt.response_id, None)
        self._writing.pop(receipt.response_id, None)  # an older one is not put back when its commit fails
        await self._writer.submit(lambda connection: statements.write_receipts(connection, [row]))

    def record_soon(self, receipt: Receipt) -> bool:
        """See Ledger."""
        if len(self._queued) >= self._queued_receipts_max and receipt.response_id not in self._queued:
            return False
        self._queued[receipt.response_id] = _to_row(receipt)
        self._schedule()
        return True

    async def flush(self) -> None:
        """See Ledger."""
        self._cancel_timer()
        if self._queued or self._writing:
            await self._submit_queued()

    async def get_receipt(self, response_id: str) -> Receipt | None:
        """See Ledger."""
        queued = self._queued.get(response_id) or self._writing.get(response_id)
        if queued is not None:
            return codec.decode(queued[4])
        body = await self._writer.submit(lambda connection: statements.read_receipt(connection, response_id))
        return None if body is None else codec.decode(body)

    async def find_receipt(self, organization: str, request_id: str) -> Receipt | None:
        """See Ledger."""
        await self.flush()
        body = await self._writer.submit(
            lambda connection: statements.find_receipt(connection, organization, request_id)
        )
        return None if body is None else codec.decode(body)

    async def balance(self, organization: str) -> Balance:
        """See Ledger."""
        now = self._clock()
        balance: Balance = await self._writer.submit(
            lambda connection: statements.balance(connection, organization, now)
        )
        return balance

    async def add_credits(
        self, organization: str, amount_nanos: int, request_id: str, note: str, now: float
    ) -> tuple[LedgerEntry, Balance]:
        """See Ledger."""
        if amount_nanos == 0 or abs(amount_nanos) > NANOS_MAX:
            raise invalid("amount_usd_nanos", "An amount is not 0 and at most 10^18 either way.")
        if not request_id:
            raise invalid("request_id", "A request id is required: it keeps a retry from adding twice.")
        added: tuple[LedgerEntry, Balance] = await self._writer.submit(
            lambda connection: statements.add_credits(connection, organization, amount_nanos, request_id, note, now)
        )
        return added

    async def verify(self) -> Verification:
        """See Ledger."""
        verification: Verification = await self._writer.submit(statements.verify)
        return verification

    async def close(self) -> None:
        """See Ledger."""
        try:
            await self.flush()
        finally:
            self._cancel_timer()
            await self._writer.close()

    def _schedule(self) -> None:
        if self._timer is None:
            self._timer = self._loop.call_later(self._flush_interval_seconds, self._on_timer)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _on_timer(self) -> None:
        self._timer = None
        # The failure of an unattended write is dealt with where it is noticed: the receipts are queued again.
        self._submit_queued().add_done_callback(lambda future: future.cancelled() or future.exception())

    def _submit_queued(self) -> "asyncio.Future[None]":
        batch, self._queued = self._queued, {}
        self._writing.update(batch)
        rows = list(batch.values())
        future = self._writer.submit(lambda connection: statements.write_receipts(connection, rows))
        future.add_done_callback(lambda done: self._on_written(batch, is_written=_succeeded(done)))
        return future

    def _on_written(self, batch: dict[str, _Row], *, is_written: bool) -> None:
        for response_id, row in batch.items():
            if self._writing.get(response_id) is not row:  # a later receipt took its place
                continue
            del self._writing[response_id]
            if not is_written:
                self._queued.setdefault(response_id, row)
        if not is_written and self._queued:
            self._schedule()


def _succeeded(future: "asyncio.Future[None]") -> bool:
    return not future.cancelled() and future.exception() is None


def _to_row(receipt: Receipt) -> _Row:
    body = codec.encode(receipt)
    return (receipt.response_id, receipt.organization, receipt.request_id, receipt.create_time, body)


def _check_amount(amount_nanos: int) -> None:
    if not 0 <= amount_nanos <= NANOS_MAX:
        raise ValueError("an amount to reserve or to charge is from 0 to 10^18 nano-USD")


def _connect(path: Path) -> sqlite3.Connection:
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA trusted_schema = OFF")
        if _read_version(connection) == 0:
            _create(connection)
        if _read_version(connection) != _VERSION:
            raise Fault(
                Reason.LEDGER_UNAVAILABLE,
                "The ledger's file was written by another version of Keyswitch. Start the version that wrote it.",
            )
    except BaseException:
        connection.close()
        raise
    return connection


def _create(connection: sqlite3.Connection) -> None:
    from sqlalchemy.dialects import sqlite

    from router_service.ledger import schema

    connection.execute("BEGIN IMMEDIATE")
    if _read_version(connection) == 0:  # another process may have been first
        for definition in (*schema.definitions(sqlite.dialect()), *_GUARDS):
            connection.execute(definition)
        connection.execute(f"PRAGMA user_version = {_VERSION}")
    connection.execute("COMMIT")


def _read_version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])
