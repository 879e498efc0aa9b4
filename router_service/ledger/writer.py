"""One thread that owns a connection and commits in groups.

Whatever was queued while the last commit waited for the disk shares the next transaction, so that a busy ledger pays
one sync for many operations and an idle one answers after its own. Callers wait for the commit, not for the
statement. An operation is a function of the connection alone and does nothing the second time: when a transaction
fails, each of its operations is tried again in a transaction of its own, so that one bad operation does not take the
others with it, and so that one whose commit was not acknowledged is settled either way. What calls do to the books is
a posting instead, a value: those that follow one another are read for, and written, at once.
"""

import asyncio
import threading
from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby
from queue import Empty, SimpleQueue
from typing import Any, cast

from router_service.core.faults import Fault, Reason
from router_service.database.patience import left_seconds
from router_service.ledger.connection import Connection, Store
from router_service.ledger.posting_statements import post_all
from router_service.ledger.postings import Posting

Operation = Callable[[Connection], Any] | Posting
_Outcome = tuple["_Job", Any, BaseException | None]

_GROUP_MAX = 512  # operations per transaction: bounds how long the first of them waits
WAIT_SECONDS = 10.0  # how long a caller waits for a database that does not answer at all


@dataclass(frozen=True, slots=True)
class _Job:
    """An operation, who waits for it, and what frees the thread where it hangs on it."""

    operation: Operation
    future: "asyncio.Future[Any]"
    alarm: asyncio.TimerHandle


def unavailable() -> Fault:
    """The store cannot answer."""
    return Fault(
        Reason.LEDGER_UNAVAILABLE,
        "The ledger cannot be read or written. Nothing was charged; try again, and tell the operator if it lasts.",
        retry_after_seconds=1.0,
    )


class Writer:
    """Runs operations in the order in which they were submitted, from one event loop.

    With `is_reader` each group sees one moment, waits for no other router and may not write.
    """

    def __init__(
        self,
        store: Store,
        loop: asyncio.AbstractEventLoop,
        *,
        is_reader: bool = False,
        wait_seconds: float = WAIT_SECONDS,
    ) -> None:
        self._store = store
        self._loop = loop
        self._wait_seconds = wait_seconds
        self._begin = store.begin_reading if is_reader else store.begin
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._is_closed = False
        self._connection: Connection | None = None
        self._opened: asyncio.Future[None] = loop.create_future()
        self._thread = threading.Thread(target=self._run, name="ledger-reader" if is_reader else "ledger", daemon=True)
        self._is_lazy = False
        self.is_available = True  # as of the last group

    async def start(self) -> None:
        """Opens the database. Raises Fault LEDGER_UNAVAILABLE."""
        self._thread.start()
        await self._opened

    def open_later(self) -> None:
        """Begins without waiting: whether the database can be opened is seen by the first operation."""
        self._is_lazy = True
        self._thread.start()

    def submit(self, operation: Operation) -> "asyncio.Future[Any]":
        """Queues an operation; the future is done when it is committed, or nobody waits for it any longer."""
        future: asyncio.Future[Any] = self._loop.create_future()
        if self._is_closed:
            future.set_exception(unavailable())
            return future
        seconds = left_seconds(self._wait_seconds)
        if seconds < self._wait_seconds:
            early = self._loop.call_later(seconds, _refuse, future)
            future.add_done_callback(lambda _: early.cancel())
        self._jobs.put(_Job(operation, future, self._loop.call_later(self._wait_seconds, self._give_up, future)))
        return future

    async def close(self) -> None:
        """Finishes what was submitted and closes the database."""
        if not self._is_closed:
            self._is_closed = True
            self._jobs.put(None)
        if self._thread.is_alive():
            await asyncio.to_thread(self._thread.join)

    def _give_up(self, future: "asyncio.Future[Any]") -> None:
        """Also where its caller left long ago: others wait behind it."""
        self.is_available = False
        _refuse(future)
        connection = self._connection
        if connection is not None:
            self._store.interrupt(connection)

    def _run(self) -> None:
        if not self._is_lazy:
            try:
                self._connection = self._store.connect()
            except Exception as exc:  # noqa: BLE001  # the thread ends; whoever opens must hear why
                self._tell(_end, self._opened, None, self._translate(exc))
                return
            self._tell(_end, self._opened, None, None)
        try:
            is_open = True
            while is_open:
                jobs, is_open = self._next_group()
                if jobs:
                    self._tell(_resolve, self._run_group(jobs))
        finally:
            self._drop()

    def _next_group(self) -> tuple[list[_Job], bool]:
        jobs: list[_Job] = []
        job = self._jobs.get()
        while job is not None:
            jobs.append(job)
            if len(jobs) == _GROUP_MAX:
                return jobs, True
            try:
                job = self._jobs.get_nowait()
            except Empty:
                return jobs, True
        return jobs, False

    def _tell(self, end: Callable[..., None], *outcome: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(end, *outcome)
        except RuntimeError:  # the loop is closed: nobody waits any more, and what was committed stays
            return

    def _run_group(self, jobs: list[_Job]) -> list[_Outcome]:
        """All in one transaction; where that fails, each in one of its own."""
        outcomes: list[_Outcome] = []
        is_split = False
        while len(outcomes) < len(jobs):
            left = jobs[len(outcomes) :]
            try:
                connection = self._start_transaction()
            except Exception as exc:  # noqa: BLE001  # away or locked, for each of them: trying again would take longer
                self.is_available = False
                return outcomes + [(job, None, self._translate(exc)) for job in left]
            tried = left[:1] if is_split else left
            try:
                done = _run_all(connection, tried)
                self._store.commit(connection)
            except Exception as exc:  # noqa: BLE001  # whatever failed, its transaction is gone and its callers must hear
                self._roll_back(connection)
                is_split = True
                if len(tried) == 1:
                    self.is_available = not isinstance(exc, self._store.errors)
                    outcomes.append((tried[0], None, self._translate(exc)))
            else:
                self.is_available = True
                outcomes += done
        return outcomes

    def _start_transaction(self) -> Connection:
        """Begins on the connection that there is, or on a new one where the server has let go of it."""
        connection = self._connection
        if connection is not None:
            try:
                self._begin(connection)
                return connection
            except self._store.errors:
                self._roll_back(connection)
                if self._connection is not None:  # it is whole: the database is locked, or full
                    raise
        connection = self._connection = self._store.connect()
        self._begin(connection)
        return connection

    def _roll_back(self, connection: Connection) -> None:
        try:
            self._store.roll_back(connection)
        except self._store.errors:
            if not self._store.is_lost(connection):
                return  # the next transaction fails and says so to its callers
        if self._store.is_lost(connection):
            self._drop()

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _translate(self, exc: BaseException) -> BaseException:
        if not isinstance(exc, (*self._store.errors, OSError)):
            return exc
        fault = unavailable()
        fault.__cause__ = exc
        return fault


def _run_all(connection: Connection, jobs: list[_Job]) -> list[_Outcome]:
    outcomes: list[_Outcome] = []
    for is_posting, group in groupby(jobs, key=lambda job: isinstance(job.operation, Posting)):
        run = _post if is_posting else _run_each
        outcomes += run(connection, list(group))
    return outcomes


def _post(connection: Connection, jobs: list[_Job]) -> list[_Outcome]:
    """Postings that follow one another, at once."""
    done = post_all(connection, [cast("Posting", job.operation) for job in jobs])
    return [(job, result, fault) for job, (result, fault) in zip(jobs, done, strict=True)]


def _run_each(connection: Connection, jobs: list[_Job]) -> list[_Outcome]:
    outcomes: list[_Outcome] = []
    for job in jobs:
        operation = cast("Callable[[Connection], Any]", job.operation)
        try:
            outcomes.append((job, operation(connection), None))
        except Fault as fault:  # a refusal: it comes before anything is written, so the others go on
            outcomes.append((job, None, fault))
    return outcomes


def _resolve(outcomes: list[_Outcome]) -> None:
    for job, result, exc in outcomes:
        job.alarm.cancel()
        _end(job.future, result, exc)


def _end(future: "asyncio.Future[Any]", result: Any, exc: BaseException | None) -> None:
    if future.done():  # its caller was cancelled, or gave up
        return
    if exc is None:
        future.set_result(result)
    else:
        future.set_exception(exc)


def _refuse(future: "asyncio.Future[Any]") -> None:
    _end(future, None, unavailable())
