"""A start that meets a database which is still starting: it is waited for, for so long and not longer.

Whoever starts both with one command, or after a power cut, finds PostgreSQL recovering. Everything else that a router
needs may be away when it starts and comes back by itself: the store of limits, the credential service, and its Vault.
"""

from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from router_service.core.database import Database, PostgresDatabase
from router_service.core.faults import Fault

RETRY_SECONDS = 0.5

Opened = TypeVar("Opened")

log = structlog.get_logger(__name__)


async def open_patiently(
    open_database: Callable[[], Awaitable[Opened]],
    database: Database,
    wait_seconds: float,
    monotonic: Callable[[], float],
    sleep: Callable[[float], Awaitable[None]],
) -> Opened:
    """What `open_database` gives. Raises its Fault, at once where waiting does not help."""
    until = monotonic() + wait_seconds
    is_told = False
    while True:
        try:
            return await open_database()
        except Fault as fault:
            # A file is there or not. A fault without a time to come back, such as tables too new, stays as it is.
            if not isinstance(database, PostgresDatabase) or fault.retry_after_seconds is None:
                raise
            if monotonic() + RETRY_SECONDS > until:
                raise _given_up(fault, database, wait_seconds) from fault
        if not is_told:
            log.warning("database_awaited", database=str(database), wait_seconds=wait_seconds)
            is_told = True
        await sleep(RETRY_SECONDS)


def _given_up(fault: Fault, database: PostgresDatabase, wait_seconds: float) -> Fault:
    message = (
        f"The database {database} let no router in for {wait_seconds:g} s. See that it runs and knows this user, its "
        "password and the database: its own log says why it refused. KEYSWITCH_DATABASE_WAIT_SECONDS sets how long a "
        "start waits."
    )
    return Fault(fault.reason, message)
