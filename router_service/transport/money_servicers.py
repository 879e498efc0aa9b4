"""UsageService and BudgetService: receipts and credits."""

from collections.abc import Callable
from typing import Any

from keyswitch.router.v1 import (
    budget_service_pb2,
    budget_service_pb2_grpc,
    usage_service_pb2,
    usage_service_pb2_grpc,
)

from router_service.catalog.catalog import Snapshot
from router_service.core.caller import Caller
from router_service.core.faults import invalid
from router_service.core.receipt import Receipt
from router_service.engine import Engine
from router_service.ledger.ledger import Balance, Ledger, LedgerEntry
from router_service.transport import wire_build
from router_service.transport.interceptors.identity import caller
from router_service.transport.request import demand, find_organization, not_found
from router_service.transport.wire_parse import check_uuid4

MOST_NANOS = 10**18
MOST_NOTE_CHARACTERS = 256


class UsageServicer(usage_service_pb2_grpc.UsageServiceServicer):
    """Says what calls used and cost."""

    def __init__(self, engine: Engine, ledger: Ledger) -> None:
        self._engine = engine
        self._ledger = ledger

    async def GetReceipt(  # noqa: N802 # gRPC's name
        self, request: usage_service_pb2.GetReceiptRequest, context: Any
    ) -> usage_service_pb2.GetReceiptResponse:
        """The whole receipt, as of now."""
        who = caller()
        demand(who, "read_usage", "operator", "admin", "member", "auditor")
        if bool(request.response_id) == bool(request.request_id):
            raise invalid("response_id", "Give exactly one of response_id and request_id.")
        found = await self._find(request, who)
        if found is None or not _may_read(who, found):
            raise not_found(request.response_id or request.request_id)
        return usage_service_pb2.GetReceiptResponse(receipt=wire_build.receipt(found))

    async def _find(self, request: usage_service_pb2.GetReceiptRequest, who: Caller) -> Receipt | None:
        if request.response_id:
            running = self._engine.in_flight(request.response_id)
            return running.receipt() if running is not None else await self._ledger.get_receipt(request.response_id)
        request_id = check_uuid4(request.request_id, "request_id")
        organization = who.organization.removeprefix("organizations/")
        running = self._engine.in_flight_by_request(organization, request_id)
        return running.receipt() if running else await self._ledger.find_receipt(organization, request_id)


def _may_read(who: Caller, receipt: Receipt) -> bool:
    if not who.organization:
        return who.has_role("operator", "auditor")
    if who.organization != f"organizations/{receipt.organization}":
        return False
    return who.has_role("admin", "auditor") or receipt.principal == who.principal


class BudgetServicer(budget_service_pb2_grpc.BudgetServiceServicer):
    """Keeps organizations' credits."""

    def __init__(self, ledger: Ledger, snapshot: Callable[[], Snapshot], clock: Callable[[], float]) -> None:
        self._ledger = ledger
        self._snapshot = snapshot
        self._clock = clock

    async def GetBalance(  # noqa: N802 # gRPC's name
        self, request: budget_service_pb2.GetBalanceRequest, context: Any
    ) -> budget_service_pb2.GetBalanceResponse:
        """The credits of an organization."""
        who = caller()
        demand(who, "read_usage", "operator", "admin", "member", "auditor")
        organization = find_organization(request.organization, who, self._snapshot())
        balance = await self._ledger.balance(organization.id)
        return budget_service_pb2.GetBalanceResponse(balance=_balance(balance))

    async def AddCredits(  # noqa: N802 # gRPC's name
        self, request: budget_service_pb2.AddCreditsRequest, context: Any
    ) -> budget_service_pb2.AddCreditsResponse:
        """Adds credits, or takes them back. Only the operator."""
        who = caller()
        demand(who, "manage_budgets", "operator")
        organization = find_organization(request.organization, who, self._snapshot())
        if request.amount_usd_nanos == 0 or abs(request.amount_usd_nanos) > MOST_NANOS:
            raise invalid("amount_usd_nanos", "Not 0, and at most 10^18 either way.")
        if not request.request_id:
            raise invalid("request_id", "A UUID4 is required, so that a retry adds nothing twice.")
        if len(request.note) > MOST_NOTE_CHARACTERS:
            raise invalid("note", f"At most {MOST_NOTE_CHARACTERS} characters.")
        entry, balance = await self._ledger.add_credits(
            organization.id,
            request.amount_usd_nanos,
            check_uuid4(request.request_id, "request_id"),
            request.note,
            self._clock(),
        )
        return budget_service_pb2.AddCreditsResponse(entry=_entry(entry), balance=_balance(balance))


def _balance(balance: Balance) -> budget_service_pb2.Balance:
    return budget_service_pb2.Balance(
        organization=f"organizations/{balance.organization}",
        balance_usd_nanos=balance.balance_nanos,
        reserved_usd_nanos=balance.reserved_nanos,
        available_usd_nanos=balance.available_nanos,
    )


def _entry(entry: LedgerEntry) -> budget_service_pb2.LedgerEntry:
    return budget_service_pb2.LedgerEntry(
        entry_id=entry.entry_id,
        organization=f"organizations/{entry.organization}",
        amount_usd_nanos=entry.amount_nanos,
        note=entry.note,
        create_time=wire_build.timestamp(entry.create_time),
    )
