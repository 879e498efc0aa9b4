"""Looks through the books now and then: frees what crashed routers left, and says which balances are low."""

import asyncio

import structlog

from router_service.core.faults import Fault
from router_service.ledger.ledger import Ledger
from router_service.observe.metrics import Metrics

log = structlog.get_logger(__name__)


class LedgerWatch:
    """Remembers what it has said, so that a low balance is logged once until it has been filled up."""

    def __init__(self, ledger: Ledger, metrics: Metrics) -> None:
        self._ledger = ledger
        self._metrics = metrics
        self._low: frozenset[str] = frozenset()
        self._was_available = True

    async def run(self, interval_seconds: float) -> None:
        """Until it is cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(interval_seconds)

    async def look(self) -> None:
        """One round."""
        try:
            found = await self._ledger.sweep()
            await self._ledger.refresh()
        except Fault:
            self._metrics.ledger(is_available=False)
            if self._was_available:
                log.error("ledger_unavailable")
            self._was_available = False
            return
        if not self._was_available:
            log.info("ledger_available")
        self._was_available = True
        self._metrics.ledger(is_available=True, low_count=len(found.low), expired_count=found.expired_count)
        if found.expired_count:
            log.warning("reservations_expired", count=found.expired_count)
        for balance in found.low:
            if balance.organization not in self._low:
                log.warning("balance_low", organization=balance.organization, available_nanos=balance.available_nanos)
        self._low = frozenset(balance.organization for balance in found.low)
