"""What a ledger owes, noted in a journal where it has one, and what is done when the journal's disk takes nothing."""

from collections.abc import Awaitable, Callable, Iterable

import structlog

from router_service.core.faults import Fault
from router_service.ledger.journal import Debt, Journal, Key

log = structlog.get_logger(__name__)


class Outbox:
    """Without a journal everything is in memory only."""

    def __init__(self, journal: Journal | None) -> None:
        self._journal = journal
        self.is_whole = True  # the disk took everything

    def note(self, debt: Debt) -> None:
        """Writes it down; where the disk does not take it, that is logged and seen in `is_whole`."""
        if self._journal is None:
            return
        try:
            self._journal.add(debt)
        except OSError as error:
            self.is_whole = False
            log.error("outbox_failed", error_type=type(error).__name__)

    def pay(self, key: Key) -> None:
        """The ledger has it."""
        if self._journal is not None:
            self._journal.pay(key)

    async def sync(self, write: Callable[[], Awaitable[None]]) -> None:
        """Waits for the disk; where that fails, `write` puts what is queued into the ledger itself."""
        if self._journal is None:
            return
        if self.is_whole:
            try:
                await self._journal.sync()
                return
            except OSError as error:
                self.is_whole = False
                log.error("outbox_failed", error_type=type(error).__name__)
        try:
            await write()
        except Fault:
            log.error("receipt_not_durable")

    def mend(self, debts: Iterable[Debt]) -> None:
        """Tries whether the disk takes again what it did not."""
        if self._journal is None or self.is_whole:
            return
        try:
            for debt in debts:
                self._journal.add(debt)
            self._journal.probe()
        except OSError:
            return
        self.is_whole = True
        log.info("outbox_mended")

    def take_found(self) -> list[Debt]:
        """What processes that have ended left there, once."""
        if self._journal is None:
            return []
        if self._journal.damaged_count:
            log.error("outbox_damaged", lines=self._journal.damaged_count)
        found, self._journal.found = self._journal.found, []
        return found

    def close(self) -> None:
        """Lets go of the files, once."""
        if self._journal is not None:
            self._journal.close()
            self._journal = None
