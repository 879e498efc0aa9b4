"""What an attempt sets aside before it is sent, and what it takes afterwards."""

from router_service.core.faults import Fault
from router_service.core.receipt import CostUnknown
from router_service.core.resolution import Payer
from router_service.ledger.ledger import Ledger, Spending
from router_service.ledger.writer import unavailable
from router_service.preparation import Prepared, Request, bound_cost
from router_service.record import AttemptRecord


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
    """Before a call that nobody is charged for is sent: its receipt must find room, and where asked for, the ledger."""
    if not ledger.can_queue or (is_recorded_first and not ledger.is_available):
        raise unavailable()


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
