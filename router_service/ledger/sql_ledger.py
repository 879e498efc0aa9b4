"""The ledger over a database that speaks SQL: operations of the interface as operations of a thread that writes."""

import asyncio
from collections.abc import Callable
from contextvars import Context
from pathlib import Path
from typing import Any

import structlog

from router_service.core.budget import Budget, BudgetStatus
from router_service.core.database import Database, PostgresDatabase, SqliteDatabase
from router_service.core.faults import Fault, Reason, invalid
from router_service.core.money import NANOS_MAX
from router_service.core.receipt import Receipt
from router_service.ledger import budget_statements, codec, statements, usage_statements
from router_service.ledger.connection import Store
from router_service.ledger.journal import Journal, Settlement, key_of
from router_service.ledger.ledger import Balance, ExpiredReservation, LedgerEntry, Spending, Sweep, Verification
from router_service.ledger.outbox import Outbox
from router_service.ledger.postings import Cancel, Claim, Reserve, Settle
from router_service.ledger.sqlite import SqliteStore
from router_service.ledger.usage import Dimension, Summary, UsageFilter
from router_service.ledger.writer import WAIT_SECONDS, Operation, Writer

_GROUP_MAX = 500  # debts of a process that has ended that are paid at once

log = structlog.get_logger(__name__)


async def open_ledger(
    database: Database,
    clock: Callable[[], float],
    *,
    outbox: Path | None = None,
    flush_interval_seconds: float = 0.1,
    queued_receipts_max: int = 10_000,
    wait_seconds: float = WAIT_SECONDS,
) -> "SqlLedger":
    """Opens the database, and makes its tables where there are none. `clock` gives seconds since 1970.

    In the folder `outbox` is what the ledger has not got yet; what ended processes left there is paid first. Raises
    Fault LEDGER_UNAVAILABLE.
    """
    loop = asyncio.get_running_loop()
    notes = _open_outbox(outbox)
    store = _store(database)
    writer = Writer(store, loop, wait_seconds=wait_seconds)
    try:
        await writer.start()
    except BaseException:  # also a cancel: a start that is given up leaves no file locked
        notes.close()
        raise
    reader = Writer(store, loop, is_reader=True, wait_seconds=wait_seconds)
    ledger = SqlLedger(writer, reader, clock, loop, flush_interval_seconds, queued_receipts_max, notes)
    try:
        await ledger.refresh()
        await ledger.pay_found()
    except BaseException:  # as above, and no thread
        await ledger.close()
        raise
    return ledger


def _open_outbox(folder: Path | None) -> Outbox:
    try:
        return Outbox(Journal(folder) if folder is not None else None)
    except OSError as error:
        message = "The ledger's outbox cannot be opened; mend the folder that KEYSWITCH_OUTBOX names."
        raise Fault(Reason.LEDGER_UNAVAILABLE, message) from error


def _store(database: Database) -> Store:
    match database:
        case SqliteDatabase():
            return SqliteStore(database.path)
        case PostgresDatabase():
            from router_service.ledger.postgres import PostgresStore

            return PostgresStore(database)


class SqlLedger:
    """See Ledger. Bound to the event loop that opened it."""

    def __init__(
        self,
        writer: Writer,
        reader: Writer,
        clock: Callable[[], float],
        loop: asyncio.AbstractEventLoop,
        flush_interval_seconds: float,
        queued_receipts_max: int,
        outbox: Outbox,
    ) -> None:
        self._outbox = outbox
        self._writer = writer
        self._reader = reader
        self._is_reading = False
        self._clock = clock
        self._loop = loop
        self._flush_interval_seconds = flush_interval_seconds
        self._queued_receipts_max = queued_receipts_max
        self._queued: dict[str, Receipt] = {}  # not submitted yet, by response id
        self._writing: dict[str, Receipt] = {}  # submitted, not committed yet
        self._timer: asyncio.TimerHandle | None = None
        self._list_price_subjects: frozenset[str] = frozenset()

    @property
    def is_available(self) -> bool:
        """See Ledger."""
        return self._writer.is_available

    @property
    def can_queue(self) -> bool:
        """See Ledger."""
        return self._outbox.is_whole and len(self._queued) < self._queued_receipts_max

    async def claim(self, organization: str, request_id: str, response_id: str, now: float) -> str | None:
        """See Ledger."""
        earlier: str | None = await self._writer.submit(Claim(organization, request_id, response_id, now))
        return earlier

    async def release_claim(self, organization: str, request_id: str, response_id: str) -> None:
        """See Ledger."""
        await self._writer.submit(
            lambda connection: statements.release_claim(connection, organization, request_id, response_id)
        )

    async def reserve(self, response_id: str, attempt: int, spending: Spending, expire_time: float) -> None:
        """See Ledger."""
        for amount_nanos in (spending.credits_nanos, spending.list_nanos):
            if amount_nanos is not None:
                _check_amount(amount_nanos)
        await self._writer.submit(Reserve(response_id, attempt, spending, expire_time, self._clock()))

    async def settle(
        self, response_id: str, attempt: int, charged_nanos: int, note: str, list_nanos: int | None = None
    ) -> None:
        """See Ledger."""
        _check_amount(charged_nanos)
        if list_nanos is not None:
            _check_amount(list_nanos)
        await self._writer.submit(Settle(response_id, attempt, charged_nanos, list_nanos, note, self._clock()))
        self._outbox.pay((response_id, attempt))

    async def cancel_reservation(self, response_id: str, attempt: int) -> None:
        """See Ledger."""
        await self._writer.submit(Cancel(response_id, attempt))
        self._outbox.pay((response_id, attempt))

    def owe(self, response_id: str, attempt: int, charged_nanos: int | None, list_nanos: int | None = None) -> None:
        """See Ledger."""
        self._outbox.note(Settlement(response_id, attempt, charged_nanos, list_nanos))

    async def sync(self) -> None:
        """See Ledger."""
        await self._outbox.sync(self.flush)

    async def pay_found(self) -> None:
        """Pays what processes that have ended still owed. Raises Fault LEDGER_UNAVAILABLE."""
        found = self._outbox.take_found()
        for first in range(0, len(found), _GROUP_MAX):
            debts = found[first : first + _GROUP_MAX]
            await asyncio.gather(*(self._pay_settlement(debt) for debt in debts if isinstance(debt, Settlement)))
            latest = {debt.response_id: debt for debt in debts if isinstance(debt, Receipt)}
            await self._write_all(list(latest.values()))
            for debt in debts:
                self._outbox.pay(key_of(debt))
        if found:
            log.warning("outbox_paid", debts=len(found))

    async def _pay_settlement(self, debt: Settlement) -> None:
        response_id, attempt = debt.key
        try:
            if debt.charged_nanos is None:
                await self.cancel_reservation(response_id, attempt)
            else:
                await self.settle(response_id, attempt, debt.charged_nanos, response_id, debt.list_nanos)
        except Fault as fault:
            if fault.reason is Reason.LEDGER_UNAVAILABLE:
                raise
            log.error("debt_not_payable", response_id=response_id, attempt=attempt)

    async def _write_all(self, receipts: list[Receipt]) -> None:
        await self._writer.submit(lambda connection: usage_statements.write_receipts(connection, receipts))

    async def expired_reservations(self) -> tuple[ExpiredReservation, ...]:
        """See Ledger."""
        now = self._clock()
        await self._writer.submit(lambda connection: statements.release_expired(connection, now))
        expired: tuple[ExpiredReservation, ...] = await self._read(statements.list_expired)
        return expired

    async def sweep(self) -> Sweep:
        """See Ledger."""
        self._outbox.mend((*self._writing.values(), *self._queued.values()))
        now = self._clock()
        found: Sweep = await self._writer.submit(lambda connection: statements.sweep(connection, now))
        return found

    async def record(self, receipt: Receipt) -> None:
        """See Ledger."""
        self._queued.pop(receipt.response_id, None)
        self._writing.pop(receipt.response_id, None)  # an older one is not put back when its commit fails
        await self._writer.submit(lambda connection: usage_statements.write_receipts(connection, [receipt]))
        if receipt.response_id not in self._queued:
            self._outbox.pay((receipt.response_id, 0))

    def record_soon(self, receipt: Receipt) -> bool:
        """See Ledger."""
        if len(self._queued) >= self._queued_receipts_max and receipt.response_id not in self._queued:
            return False
        self._queued[receipt.response_id] = receipt
        self._outbox.note(receipt)
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
            return queued
        body = await self._writer.submit(lambda connection: usage_statements.read_receipt(connection, response_id))
        return None if body is None else codec.decode(body)

    async def find_receipt(self, organization: str, request_id: str) -> Receipt | None:
        """See Ledger."""
        await self.flush()
        body = await self._writer.submit(
            lambda connection: usage_statements.find_receipt(connection, organization, request_id)
        )
        return None if body is None else codec.decode(body)

    async def list_receipts(
        self, wanted: UsageFilter, before: tuple[float, str] | None, limit: int
    ) -> tuple[Receipt, ...]:
        """See Ledger."""
        await self.flush()
        bodies = await self._read(lambda connection: usage_statements.list_receipts(connection, wanted, before, limit))
        return tuple(codec.decode(body) for body in bodies)

    async def summarize(self, wanted: UsageFilter, by: tuple[Dimension, ...]) -> tuple[Summary, ...]:
        """See Ledger."""
        await self.flush()
        found: tuple[Summary, ...] = await self._read(
            lambda connection: usage_statements.summarize(connection, wanted, by)
        )
        return found

    async def balance(self, organization: str) -> Balance:
        """See Ledger."""
        now = self._clock()
        balance: Balance = await self._writer.submit(
            lambda connection: statements.balance(connection, organization, now)
        )
        return balance

    async def set_low_balance(self, organization: str, low_balance_nanos: int | None) -> Balance:
        """See Ledger."""
        if low_balance_nanos is not None:
            _check_amount(low_balance_nanos)
        now = self._clock()
        balance: Balance = await self._writer.submit(
            lambda connection: statements.set_low_balance(connection, organization, low_balance_nanos, now)
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

    async def list_entries(self, organization: str, before_entry_id: int | None, limit: int) -> tuple[LedgerEntry, ...]:
        """See Ledger."""
        found: tuple[LedgerEntry, ...] = await self._read(
            lambda connection: statements.list_entries(connection, organization, before_entry_id, limit)
        )
        return found

    def counts_list_prices(self, subjects: tuple[str, ...]) -> bool:
        """See Ledger."""
        return not self._list_price_subjects.isdisjoint(subjects)

    async def refresh(self) -> None:
        """See Ledger."""
        self._list_price_subjects = await self._writer.submit(budget_statements.read_list_price_subjects)

    async def create_budget(self, budget: Budget) -> BudgetStatus:
        """See Ledger."""
        _check_amount(budget.limit_nanos)
        now = self._clock()
        status: BudgetStatus = await self._change(lambda connection: budget_statements.create(connection, budget, now))
        return status

    async def get_budget(self, organization: str, budget_id: str) -> BudgetStatus | None:
        """See Ledger."""
        now = self._clock()
        found: BudgetStatus | None = await self._writer.submit(
            lambda connection: budget_statements.get(connection, organization, budget_id, now)
        )
        return found

    async def list_budgets(self, organization: str) -> tuple[BudgetStatus, ...]:
        """See Ledger."""
        now = self._clock()
        found: tuple[BudgetStatus, ...] = await self._writer.submit(
            lambda connection: budget_statements.list_all(connection, organization, now)
        )
        return found

    async def update_budget(self, budget: Budget) -> BudgetStatus:
        """See Ledger."""
        _check_amount(budget.limit_nanos)
        now = self._clock()
        status: BudgetStatus = await self._change(lambda connection: budget_statements.update(connection, budget, now))
        return status

    async def delete_budget(self, organization: str, budget_id: str, revision: int | None) -> bool:
        """See Ledger."""
        found: bool = await self._change(
            lambda connection: budget_statements.delete(connection, organization, budget_id, revision)
        )
        return found

    async def verify(self) -> Verification:
        """See Ledger."""
        verification: Verification = await self._read(statements.verify)
        return verification

    async def _change(self, operation: Operation) -> Any:
        result = await self._writer.submit(operation)
        await self.refresh()
        return result

    async def _read(self, operation: Operation) -> Any:
        if not self._is_reading:
            self._is_reading = True  # most processes never ask: a second connection waits until one does
            self._reader.open_later()
        return await self._reader.submit(operation)

    async def close(self) -> None:
        """See Ledger."""
        try:
            await self.flush()
        finally:
            self._cancel_timer()
            await self._writer.close()
            await self._reader.close()
            await asyncio.sleep(0)  # lets what was committed last be noted
            self._outbox.close()

    def _schedule(self) -> None:
        if self._timer is None:
            # In a context of its own: it does not end with the call that happened to be the first.
            self._timer = self._loop.call_later(self._flush_interval_seconds, self._on_timer, context=Context())

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
        future = self._writer.submit(lambda connection: usage_statements.write_receipts(connection, rows))
        future.add_done_callback(lambda done: self._on_written(batch, is_written=_succeeded(done)))
        return future

    def _on_written(self, batch: dict[str, Receipt], *, is_written: bool) -> None:
        for response_id, row in batch.items():
            if self._writing.get(response_id) is not row:  # a later receipt took its place
                continue
            del self._writing[response_id]
            if not is_written:
                self._queued.setdefault(response_id, row)
            elif response_id not in self._queued:
                self._outbox.pay((response_id, 0))
        if not is_written and self._queued:
            self._schedule()


def _succeeded(future: "asyncio.Future[None]") -> bool:
    return not future.cancelled() and future.exception() is None


def _check_amount(amount_nanos: int) -> None:
    if not 0 <= amount_nanos <= NANOS_MAX:
        raise ValueError("an amount to reserve or to charge is from 0 to 10^18 nano-USD")
