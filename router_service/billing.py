"""What an attempt sets aside before it is sent, and what it takes afterwards."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from router_service.core.faults import Fault, Reason
from router_service.core.receipt import CostUnknown, Receipt
from router_service.core.resolution import Payer
from router_service.edges import Afterwork, Edges
from router_service.ledger.ledger import Ledger, Spending
from router_service.ledger.writer import unavailable
from router_service.preparation import Prepared, Request, bound_cost
from router_service.record import AttemptRecord, CallRecord

RESERVATION_SECONDS = 3600.0
SETTLE_AGAIN_SECONDS = 1.0

log = structlog.get_logger(__name__)


def subjects(request: Request) -> tuple[str, ...]:
    """Whose spending a call is: the organization's, and the application's and the user's where there are such."""
    organization = f"organizations/{request.organization.id}"
    names = (request.application.name, request.user)
    return (organization, *(name for name in names if name.startswith(f"{organization}/")))


def plan_spending(request: Request, prepared: Prepared, markup_basis_points: int, ledger: Ledger) -> Spending | None:
    """What is to be reserved; None where neither credits nor a budget count the call. Raises Fault PRICE_UNKNOWN."""
    whose = subjects(request)
    is_credits = prepared.candidate.payer is Payer.CREDITS
    if not is_credits and not ledger.counts_list_prices(whose):
        return None
    credits_nanos = bound_cost(prepared, markup_basis_points) if is_credits else None
    list_nanos: int | None
    try:
        list_nanos = bound_cost(prepared, 0)
    except Fault:
        list_nanos = None  # which of the budgets minds is seen where they are
    return Spending(request.organization.id, credits_nanos, list_nanos, whose, markup_basis_points if is_credits else 0)


def check_record(ledger: Ledger, *, is_recorded_first: bool) -> None:
    """Before a call is sent: its receipt must find room, and where asked for, the ledger."""
    if not ledger.can_queue or (is_recorded_first and not ledger.is_available):
        raise unavailable()


async def keep(ledger: Ledger, receipt: Receipt, *, is_charged: bool) -> None:
    """Before the end of a call is acknowledged: its receipt, and what it owes, outlive this process.

    What is charged outlives the machine too, and so does what the ledger is away for: it may stay away for long.
    """
    if not ledger.record_soon(receipt):
        log.error("receipt_lost", response_id=receipt.response_id)
    if is_charged or not ledger.is_available:
        await ledger.sync()


def charges(attempt: AttemptRecord) -> tuple[int, int | None] | None:
    """What credits are charged, and the list price where it is known; None where nothing was used.

    An attempt that brought nothing and of which no usage is known costs nothing, as on its receipt.
    """
    cost = attempt.cost
    if cost is None or (attempt.usage is None and not isinstance(cost.list_price, int)):
        return None
    charged = cost.charged if isinstance(cost.charged, int) else 0
    listed = None if isinstance(cost.list_price, CostUnknown) else cost.list_price
    return None if charged == 0 and listed == 0 else (charged, listed)


@dataclass(slots=True)
class Reservation:
    """What one attempt has set aside in the ledger. Made once, and settled on every way out of the attempt."""

    edges: Edges
    afterwork: Afterwork
    response_id: str
    number: int
    is_made: bool = False

    async def make(self, spending: Spending) -> None:
        """Sets aside what the attempt may cost. Raises Fault where a tier does not cover it."""
        # Set before the wait: a call that is cancelled meanwhile may have its reservation, and must give it back.
        self.is_made = True
        expire_time = self.edges.clock() + RESERVATION_SECONDS
        try:
            await self.edges.ledger.reserve(self.response_id, self.number, spending, expire_time)
        except Fault as refusal:
            # A ledger that did not answer in time may have it all the same.
            self.is_made = refusal.reason is Reason.LEDGER_UNAVAILABLE
            raise

    def settle(self, attempt: AttemptRecord) -> None:
        """Charges what the attempt cost and gives the rest back, whatever becomes of the call."""
        if self.is_made:
            costs = charges(attempt)
            self.edges.ledger.owe(self.response_id, self.number, *(costs or (None,)))
            self.afterwork.spawn(self._settle(attempt, costs))

    async def _settle(self, attempt: AttemptRecord, costs: tuple[int, int | None] | None) -> None:
        """Insists; what is still owed when this process ends is paid by the next one to start."""
        ledger, response_id = self.edges.ledger, self.response_id

        async def settle() -> None:
            if costs is not None:
                await ledger.settle(response_id, self.number, costs[0], response_id, costs[1])
            else:
                await ledger.cancel_reservation(response_id, self.number)

        def tell(fault: Fault) -> None:
            log.error("settle_failed", response_id=response_id, attempt=attempt.number, reason=fault.reason.value)

        await _insist(self.edges, self.afterwork, settle, tell)


async def free_claim(edges: Edges, afterwork: Afterwork, record: CallRecord) -> None:
    """Frees the request's id of a call that sent nothing, also where the ledger is away just now."""

    async def free() -> None:
        await edges.ledger.release_claim(record.organization, record.request_id, record.response_id)

    def tell(fault: Fault) -> None:
        log.error("release_claim_failed", response_id=record.response_id, reason=fault.reason.value)

    await _insist(edges, afterwork, free, tell)


async def _insist(
    edges: Edges, afterwork: Afterwork, work: Callable[[], Awaitable[None]], tell: Callable[[Fault], None]
) -> None:
    """Tries until it is done, a reservation would have expired, or the router ends."""
    give_up = edges.clock() + RESERVATION_SECONDS
    while True:
        try:
            await work()
        except Fault as fault:
            tell(fault)
            if edges.clock() >= give_up or afterwork.is_closing:
                return
            await edges.sleep(SETTLE_AGAIN_SECONDS)
            continue
        return
