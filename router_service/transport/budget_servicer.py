"""BudgetService: credits, their movements, and budgets."""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from keyswitch.router.v1 import budget_service_pb2, budget_service_pb2_grpc

from router_service.catalog.catalog import Organization, Snapshot
from router_service.core.budget import Basis, Budget, BudgetStatus, Period, window_end
from router_service.core.faults import Fault, Reason, invalid
from router_service.core.money import NANOS_MAX
from router_service.ledger.ledger import Balance, Ledger, LedgerEntry
from router_service.transport import wire_build
from router_service.transport.fields import timestamp_seconds
from router_service.transport.interceptors.identity import caller
from router_service.transport.pages import number, page, read_cursor, size, write_cursor
from router_service.transport.request import demand, find_organization, not_found
from router_service.transport.wire_parse import check_uuid4

MOST_NOTE_CHARACTERS = 256
MOST_MISMATCHES = 100
_ID = re.compile(r"[a-z][a-z0-9-]{1,61}[a-z0-9]")
_READERS = ("operator", "admin", "member", "auditor")
_FIELDS = frozenset({"limit_usd_nanos", "expire_time"})


class BudgetServicer(budget_service_pb2_grpc.BudgetServiceServicer):
    """Keeps organizations' credits and budgets."""

    def __init__(
        self,
        ledger: Ledger,
        snapshot: Callable[[], Snapshot],
        clock: Callable[[], float],
        new_id: Callable[[], str],
    ) -> None:
        self._ledger = ledger
        self._snapshot = snapshot
        self._clock = clock
        self._new_id = new_id

    def _organization(self, name: str, scope: str, *roles: str) -> Organization:
        who = caller()
        demand(who, scope, *roles)
        return find_organization(name, who, self._snapshot())

    async def GetBalance(  # noqa: N802 # gRPC's name
        self, request: budget_service_pb2.GetBalanceRequest, context: Any
    ) -> budget_service_pb2.GetBalanceResponse:
        """The credits of an organization."""
        organization = self._organization(request.organization, "read_usage", *_READERS)
        balance = await self._ledger.balance(organization.id)
        return budget_service_pb2.GetBalanceResponse(balance=_balance(balance))

    async def AddCredits(  # noqa: N802 # gRPC's name
        self, request: budget_service_pb2.AddCreditsRequest, context: Any
    ) -> budget_service_pb2.AddCreditsResponse:
        """Adds credits, or takes them back. Only the operator."""
        organization = self._organization(request.organization, "manage_budgets", "operator")
        if request.amount_usd_nanos == 0 or abs(request.amount_usd_nanos) > NANOS_MAX:
            raise invalid("amount_usd_nanos", "Not 0, and at most 10^18 either way.")
        if not request.request_id:
            raise invalid("request_id", "A UUID4 is required, so that a retry adds nothing twice.")
        if len(request.note) > MOST_NOTE_CHARACTERS or not request.note.isprintable():
            raise invalid("note", f"At most {MOST_NOTE_CHARACTERS} characters of one line.")
        entry, balance = await self._ledger.add_credits(
            organization.id,
            request.amount_usd_nanos,
            check_uuid4(request.request_id, "request_id"),
            request.note,
            self._clock(),
        )
        return budget_service_pb2.AddCreditsResponse(entry=_entry(entry), balance=_balance(balance))

    async def SetLowBalance(  # noqa: N802 # gRPC's name
        self, request: budget_service_pb2.SetLowBalanceRequest, context: Any
    ) -> budget_service_pb2.SetLowBalanceResponse:
        """Says below which credits count as low."""
        organization = self._organization(request.organization, "manage_budgets", "operator", "admin")
        low = _amount(request, "low_balance_usd_nanos") if request.HasField("low_balance_usd_nanos") else None
        balance = await self._ledger.set_low_balance(organization.id, low)
        return budget_service_pb2.SetLowBalanceResponse(balance=_balance(balance))

    async def ListEntries(  # noqa: N802 # gRPC's name
        self, request: budget_service_pb2.ListEntriesRequest, context: Any
    ) -> budget_service_pb2.ListEntriesResponse:
        """Movements of credits, the latest first."""
        organization = self._organization(request.organization, "read_usage", "operator", "admin", "auditor")
        arguments = ["ListEntries", organization.id]
        count = size(request.page_size)
        before = number(read_cursor(request.page_token, arguments))
        found = await self._ledger.list_entries(organization.id, before or None, count + 1)
        following = write_cursor(str(found[count - 1].entry_id), arguments) if len(found) > count else ""
        entries = [_entry(entry) for entry in found[:count]]
        return budget_service_pb2.ListEntriesResponse(entries=entries, next_page_token=following)

    async def VerifyLedger(  # noqa: N802 # gRPC's name
        self, request: budget_service_pb2.VerifyLedgerRequest, context: Any
    ) -> budget_service_pb2.VerifyLedgerResponse:
        """Adds everything up anew."""
        who = caller()
        demand(who, "read_usage", "operator", "auditor")
        if who.organization:
            message = "The books of all organizations are for the operator and the deployment's auditors."
            raise Fault(Reason.CALLER_NOT_ALLOWED, message, metadata={"missingRole": "operator"})
        found = await self._ledger.verify()
        return budget_service_pb2.VerifyLedgerResponse(
            is_right=found.is_right,
            organization_count=found.organization_count,
            entry_count=found.entry_count,
            mismatches=[
                budget_service_pb2.LedgerMismatch(
                    organization=f"organizations/{wrong.organization}",
                    balance_usd_nanos=wrong.balance_nanos,
                    entries_usd_nanos=wrong.entries_nanos,
                    reserved_usd_nanos=wrong.reserved_nanos,
                    reservations_usd_nanos=wrong.reservations_nanos,
                )
                for wrong in found.mismatches[:MOST_MISMATCHES]
            ],
            budget_mismatches=found.budget_mismatches[:MOST_MISMATCHES],
        )

    async def CreateBudget(  # noqa: N802 # gRPC's name
        self, request: budget_service_pb2.CreateBudgetRequest, context: Any
    ) -> budget_service_pb2.CreateBudgetResponse:
        """Creates a budget."""
        organization = self._organization(request.organization, "manage_budgets", "operator", "admin")
        if _ID.fullmatch(request.budget_id) is None:
            raise invalid("budget_id", "3 to 63 lower-case letters, digits and hyphens, a letter first.")
        now, given = self._clock(), request.budget
        budget = Budget(
            organization.id,
            request.budget_id,
            self._new_id(),
            _subject(given.subject, organization),
            _period(given.period),
            _basis(given.basis),
            _limit(given),
            _expire_time(given, now),
            now,
            now,
            1,
        )
        status = await self._ledger.create_budget(budget)
        return budget_service_pb2.CreateBudgetResponse(budget=_budget(status))

    async def GetBudget(  # noqa: N802 # gRPC's name
        self, request: budget_service_pb2.GetBudgetRequest, context: Any
    ) -> budget_service_pb2.GetBudgetResponse:
        """A budget with what its window of now has used."""
        organization, budget_id = self._named(request.name, "read_usage", *_READERS)
        return budget_service_pb2.GetBudgetResponse(budget=_budget(await self._get(organization, budget_id)))

    async def ListBudgets(  # noqa: N802 # gRPC's name
        self, request: budget_service_pb2.ListBudgetsRequest, context: Any
    ) -> budget_service_pb2.ListBudgetsResponse:
        """The budgets of an organization."""
        organization = self._organization(request.organization, "read_usage", *_READERS)
        found = await self._ledger.list_budgets(organization.id)
        shown, following = page(found, request.page_size, request.page_token, ["ListBudgets", organization.id])
        return budget_service_pb2.ListBudgetsResponse(
            budgets=[_budget(status) for status in shown], next_page_token=following
        )

    async def UpdateBudget(  # noqa: N802 # gRPC's name
        self, request: budget_service_pb2.UpdateBudgetRequest, context: Any
    ) -> budget_service_pb2.UpdateBudgetResponse:
        """Changes a limit or an end."""
        given = request.budget
        organization, budget_id = self._named(given.name, "manage_budgets", "operator", "admin")
        paths = set(request.update_mask.paths)
        if not paths or not paths <= _FIELDS:
            raise invalid("update_mask", f"One or both of {', '.join(sorted(_FIELDS))}; the others are fixed.")
        current = (await self._get(organization, budget_id)).budget
        if given.etag and given.etag != _etag(current):
            message = f"{current.name} has changed since you read it; read it again and repeat what you want to change."
            raise Fault(Reason.ETAG_MISMATCH, message, metadata={"name": current.name})
        now = self._clock()
        changed = replace(
            current,
            limit_nanos=_limit(given) if "limit_usd_nanos" in paths else current.limit_nanos,
            expire_time=_expire_time(given, now) if "expire_time" in paths else current.expire_time,
            update_time=now,
            revision=current.revision + 1,
        )
        status = await self._ledger.update_budget(changed)
        return budget_service_pb2.UpdateBudgetResponse(budget=_budget(status))

    async def DeleteBudget(  # noqa: N802 # gRPC's name
        self, request: budget_service_pb2.DeleteBudgetRequest, context: Any
    ) -> budget_service_pb2.DeleteBudgetResponse:
        """Deletes a budget."""
        organization, budget_id = self._named(request.name, "manage_budgets", "operator", "admin")
        revision = _revision((await self._get(organization, budget_id)).budget, request.etag)
        if not await self._ledger.delete_budget(organization.id, budget_id, revision):
            raise not_found(request.name)
        return budget_service_pb2.DeleteBudgetResponse()

    def _named(self, name: str, scope: str, *roles: str) -> tuple[Organization, str]:
        owner, separator, budget_id = name.partition("/budgets/")
        organization = self._organization(owner, scope, *roles)
        if not separator or _ID.fullmatch(budget_id) is None:
            raise not_found(name)
        return organization, budget_id

    async def _get(self, organization: Organization, budget_id: str) -> BudgetStatus:
        found = await self._ledger.get_budget(organization.id, budget_id)
        if found is None:
            raise not_found(f"organizations/{organization.id}/budgets/{budget_id}")
        return found


def _subject(subject: str, organization: Organization) -> str:
    own = f"organizations/{organization.id}"
    kind, _, found = subject.removeprefix(f"{own}/").partition("/")
    is_known = (kind == "applications" and found in organization.applications) or (
        kind == "users" and found in organization.users
    )
    if subject != own and not (subject.startswith(f"{own}/") and is_known):
        raise invalid("budget.subject", "The organization, or one of its applications or users.")
    return subject


def _period(value: int) -> Period:
    try:
        name = budget_service_pb2.BudgetPeriod.Name(value)  # type: ignore[arg-type] # any number may come
        return Period(name.removeprefix("BUDGET_PERIOD_"))
    except ValueError:
        raise invalid("budget.period", "Required: a day, a month or the total.") from None


def _basis(value: int) -> Basis:
    try:
        name = budget_service_pb2.BudgetBasis.Name(value)  # type: ignore[arg-type] # any number may come
        return Basis(name.removeprefix("BUDGET_BASIS_"))
    except ValueError:
        raise invalid("budget.basis", "Required: what is charged, or list prices.") from None


def _limit(given: budget_service_pb2.Budget) -> int:
    if not given.HasField("limit_usd_nanos"):
        raise invalid("budget.limit_usd_nanos", "Required, from 0 to 10^18.")
    return _amount(given, "limit_usd_nanos", "budget.limit_usd_nanos")


def _amount(message: Any, field: str, path: str = "") -> int:
    value: int = getattr(message, field)
    if not 0 <= value <= NANOS_MAX:
        raise invalid(path or field, "From 0 to 10^18.")
    return value


def _expire_time(given: budget_service_pb2.Budget, now: float) -> float | None:
    if not given.HasField("expire_time"):
        return None
    seconds = timestamp_seconds(given.expire_time, "budget.expire_time")
    if seconds <= now:
        raise invalid("budget.expire_time", "In the future; leave it out for a budget without an end.")
    return seconds


def _etag(budget: Budget) -> str:
    return f"{budget.uid[:12]}-{budget.revision}"


def _revision(budget: Budget, etag: str) -> int | None:
    """The revision that an etag means; one that no budget has where it belongs to another."""
    if not etag:
        return None
    return budget.revision if etag == _etag(budget) else 0


def _balance(balance: Balance) -> budget_service_pb2.Balance:
    return budget_service_pb2.Balance(
        organization=f"organizations/{balance.organization}",
        balance_usd_nanos=balance.balance_nanos,
        reserved_usd_nanos=balance.reserved_nanos,
        available_usd_nanos=balance.available_nanos,
        low_balance_usd_nanos=balance.low_balance_nanos,
        is_low=balance.is_low,
    )


def _entry(entry: LedgerEntry) -> budget_service_pb2.LedgerEntry:
    return budget_service_pb2.LedgerEntry(
        entry_id=entry.entry_id,
        organization=f"organizations/{entry.organization}",
        amount_usd_nanos=entry.amount_nanos,
        note=entry.note,
        create_time=wire_build.timestamp(entry.create_time),
    )


def _budget(status: BudgetStatus) -> budget_service_pb2.Budget:
    budget = status.budget
    end = window_end(budget.period, status.window_start)
    return budget_service_pb2.Budget(
        name=budget.name,
        subject=budget.subject,
        period=budget_service_pb2.BudgetPeriod.Value(f"BUDGET_PERIOD_{budget.period.value}"),
        basis=budget_service_pb2.BudgetBasis.Value(f"BUDGET_BASIS_{budget.basis.value}"),
        limit_usd_nanos=budget.limit_nanos,
        expire_time=None if budget.expire_time is None else wire_build.timestamp(budget.expire_time),
        etag=_etag(budget),
        create_time=wire_build.timestamp(budget.create_time),
        update_time=wire_build.timestamp(budget.update_time),
        window_start_time=None if end is None else wire_build.timestamp(float(status.window_start)),
        window_end_time=None if end is None else wire_build.timestamp(float(end)),
        spent_usd_nanos=status.spent_nanos,
        reserved_usd_nanos=status.reserved_nanos,
        remaining_usd_nanos=status.remaining_nanos,
    )
