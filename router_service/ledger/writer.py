"""One thread that owns a SQLite connection and commits in groups.

Whatever was queued while the last commit waited for the disk shares the next transaction, so that a busy ledger pays
one fsync for many operations and an idle one answers after its own. Callers wait for the commit, not for the
statement. An operation is a function of the connection alone. It may run twice: when a transaction fails, each of its
operations is tried again in a transaction of its own, so that one bad operation does not take the others with it.
"""

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any

from router_service.core.faults import Fault, Reason

Operation = Callable[[sqlite3.Connection], Any]
_Job = tuple[Operation, "asyncio.Future[Any]"]
_Outcome = tuple["asyncio.Future[Any]", Any, BaseException | None]

_GROUP_MAX = 512  # operations per transaction: bounds how long the first of them waits


def unavailable() -> Fault:
    """The store cannot answer."""
    return Fault(
        Reason.LEDGER_UNAVAILABLE,
        "The ledger cannot be read or written. Nothing was charged; try again, and tell the operator if it lasts.",
        retry_after_seconds=1.0,
    )


class Writer:
    """Runs operations in the order in which they were submitted, from one event loop."""

    def __init__(self, connect: Callable[[], sqlite3.Connection], loop: asyncio.AbstractEventLoop) -> None:
        self._connect = connect
        self._loop = loop
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._is_closed = False
        self._opened: asyncio.Future[None] = loop.create_future()
        self._thread = threading.Thread(target=self._run, name="ledger-writer", daemon=True)

    async def start(self) -> None:
        """Opens the database. Raises Fault LEDGER_UNAVAILABLE."""
        self._thread.start()
        await self._opened

    def submit(self, operation: Operation) -> "asyncio.Future[Any]":
        """Queues an operation; the future is done when it is committed."""
        future: asyncio.Future[Any] = self._loop.create_future()
        if self._is_closed:
            future.set_exception(unavailable())
        else:
            self._jobs.put((operation, future))
        return future

    async def close(self) -> None:
        """Finishes what was submitted and closes the database."""
        if not self._is_closed:
            self._is_closed = True
            self._jobs.put(None)
        if self._thread.is_alive():
            await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        try:
            connection = self._connect()
        except Exception as exc:  # noqa: BLE001  # the thread ends; whoever opens must hear why
            self._tell([(self._opened, None, _translate(exc))])
            return
        self._tell([(self._opened, None, None)])
        try:
            is_open = True
            while is_open:
                jobs, is_open = self._next_group()
                if jobs:
                    self._tell(_run_group(connection, jobs))
        finally:
            connection.close()

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

    def _tell(self, outcomes: list[_Outcome]) -> None:
        try:
            self._loop.call_soon_threadsafe(_resolve, outcomes)
        except RuntimeError:  # the loop is closed: nobody waits any more, and what was committed stays
            return


def _run_group(connection: sqlite3.Connection, jobs: list[_Job]) -> list[_Outcome]:
    try:
        connection.execute("BEGIN IMMEDIATE")
    except sqlite3.Error as exc:  # the file is locked or gone, for each of them: trying again would only take longer
        return [(future, None, _translate(exc)) for _, future in jobs]
    try:
        return _run_transaction(connection, jobs)
    except Exception as exc:  # noqa: BLE001  # whatever failed, its transaction is gone and its callers must hear of it
        _roll_back(connection)
        if len(jobs) == 1:
            return [(jobs[0][1], None, _translate(exc))]
    return [outcome for job in jobs for outcome in _run_group(connection, [job])]


def _run_transaction(connection: sqlite3.Connection, jobs: list[_Job]) -> list[_Outcome]:
    outcomes: list[_Outcome] = []
    for operation, future in jobs:
        try:
            outcomes.append((future, operation(connection), None))
        except Fault as fault:  # a refusal: it comes before anything is written, so the others go on
            outcomes.append((future, None, fault))
    connection.execute("COMMIT")
    return outcomes


def _roll_back(connection: sqlite3.Connection) -> None:
    try:
        if connection.in_transaction:  # a full disk has rolled back already
            connection.execute("ROLLBACK")
    except sqlite3.Error:
        return  # the next BEGIN fails and says so to its callers


def _translate(exc: BaseException) -> BaseException:
    if not isinstance(exc, sqlite3.Error | OSError):
        return exc
    fault = unavailable()
    fault.__cause__ = exc
    return fault


def _resolve(outcomes: list[_Outcome]) -> None:
    for future, result, exc in outcomes:
        if future.done():  # its caller was cancelled
            continue
        if exc is None:
            future.set_result(result)
        else:
            future.set_exception(exc)
