"""UsageService: receipts, and what calls used and cost in all."""

import math
from datetime import UTC, datetime
from typing import Any

from keyswitch.router.v1 import payer_pb2, receipt_pb2, usage_service_pb2, usage_service_pb2_grpc

from router_service.core.budget import DAY_SECONDS
from router_service.core.caller import Caller
from router_service.core.faults import invalid
from router_service.core.receipt import Receipt, ReceiptState
from router_service.engine import Engine
from router_service.ledger.ledger import Ledger
from router_service.ledger.usage import Dimension, Sum, Summary, UsageFilter
from router_service.transport import wire_build
from router_service.transport.fields import timestamp_seconds
from router_service.transport.interceptors.identity import caller
from router_service.transport.pages import read_cursor, size, write_cursor
from router_service.transport.request import demand, not_found
from router_service.transport.wire_parse import check_uuid4

MOST_NAME_CHARACTERS = 300
_INT64_MAX = 2**63 - 1


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

    async def ListReceipts(  # noqa: N802 # gRPC's name
        self, request: usage_service_pb2.ListReceiptsRequest, context: Any
    ) -> usage_service_pb2.ListReceiptsResponse:
        """Receipts, the latest first."""
        who = caller()
        demand(who, "read_usage", "operator", "admin", "member", "auditor")
        state = _state(request.state)
        wanted = _filter(request.filter, who, state)
        arguments = ["ListReceipts", repr(wanted)]
        count = size(request.page_size)
        found = await self._ledger.list_receipts(wanted, _place(request.page_token, arguments), count + 1)
        following = ""
        if len(found) > count:
            last = found[count - 1]
            following = write_cursor(f"{last.create_time!r} {last.response_id}", arguments)
        receipts = [wire_build.receipt(receipt) for receipt in found[:count]]
        return usage_service_pb2.ListReceiptsResponse(receipts=receipts, next_page_token=following)

    async def Summarize(  # noqa: N802 # gRPC's name
        self, request: usage_service_pb2.SummarizeRequest, context: Any
    ) -> usage_service_pb2.SummarizeResponse:
        """What attempts used and cost, added up."""
        who = caller()
        demand(who, "read_usage", "operator", "admin", "member", "auditor")
        by = _dimensions(list(request.group_by))
        found = await self._ledger.summarize(_filter(request.filter, who, None), by)
        return usage_service_pb2.SummarizeResponse(rows=[_summary(row, by) for row in found])


def _filter(given: usage_service_pb2.UsageFilter, who: Caller, state: ReceiptState | None) -> UsageFilter:
    """What is asked for, within what the caller may see."""
    names = (given.organization, given.application, given.principal, given.model, given.provider)
    if any(len(name) > MOST_NAME_CHARACTERS or not name.isprintable() for name in names):
        raise invalid("filter", f"Names of at most {MOST_NAME_CHARACTERS} characters.")
    organization, principal = given.organization, given.principal
    if who.organization:
        if organization not in ("", who.organization):
            raise not_found(organization)
        organization = who.organization
        if not who.has_role("admin", "auditor"):
            if principal not in ("", who.principal):
                raise not_found(principal)
            principal = who.principal
    elif not who.has_role("operator", "auditor"):
        principal = who.principal
    return UsageFilter(
        organization.removeprefix("organizations/"),
        given.application,
        principal,
        given.model,
        given.provider,
        payer_pb2.Payer.Name(given.payer).removeprefix("PAYER_") if given.payer in _PAYERS else _no_payer(given.payer),
        state,
        _seconds(given, "start_time"),
        _seconds(given, "end_time"),
    )


_PAYERS = frozenset(payer_pb2.Payer.values()) - {0}


def _no_payer(value: int) -> str:
    if value:
        raise invalid("filter.payer", "This is no payer.")
    return ""


def _seconds(given: usage_service_pb2.UsageFilter, field: str) -> float | None:
    if not given.HasField(field):  # type: ignore[arg-type] # one of its two times
        return None
    return timestamp_seconds(getattr(given, field), f"filter.{field}")


def _state(value: "receipt_pb2.ReceiptState.ValueType") -> ReceiptState | None:
    if not value:
        return None
    try:
        return ReceiptState(receipt_pb2.ReceiptState.Name(value).removeprefix("RECEIPT_STATE_"))
    except ValueError:
        raise invalid("state", "This is no state of a receipt.") from None


def _place(token: str, arguments: list[str]) -> tuple[float, str] | None:
    cursor = read_cursor(token, arguments)
    if not cursor:
        return None
    time, _, response_id = cursor.partition(" ")
    try:
        seconds = float(time)
    except ValueError:
        seconds = math.nan
    if not math.isfinite(seconds):
        raise invalid("page_token", "This is no token of an earlier page.")
    return seconds, response_id


def _dimensions(given: "list[usage_service_pb2.UsageDimension.ValueType]") -> tuple[Dimension, ...]:
    try:
        names = [usage_service_pb2.UsageDimension.Name(value).removeprefix("USAGE_DIMENSION_") for value in given]
        by = tuple(Dimension[name] for name in names)
    except (ValueError, KeyError):
        raise invalid("group_by", "One of these is no dimension.") from None
    if len(set(by)) != len(by):
        raise invalid("group_by", "Each dimension at most once.")
    return by


def _summary(row: Summary, by: tuple[Dimension, ...]) -> usage_service_pb2.UsageSummary:
    return usage_service_pb2.UsageSummary(
        keys=[_key(key, dimension) for key, dimension in zip(row.keys, by, strict=True)],
        attempt_count=row.attempt_count,
        call_count=row.call_count,
        estimate_count=row.estimate_count,
        uncached_input_tokens=_sum(row.uncached_input_tokens),
        cache_read_tokens=_sum(row.cache_read_tokens),
        cache_write_tokens=_sum(row.cache_write_tokens),
        output_tokens=_sum(row.output_tokens),
        reasoning_tokens=_sum(row.reasoning_tokens),
        upstream_charged_usd_nanos=_sum(row.upstream_nanos),
        list_price_usd_nanos=_sum(row.list_nanos),
        charged_usd_nanos=_sum(row.charged_nanos),
    )


def _key(key: str, dimension: Dimension) -> str:
    match dimension:
        case Dimension.PAYER:
            return f"PAYER_{key}"
        case Dimension.ORGANIZATION:
            return f"organizations/{key}"
        case Dimension.DAY:
            return datetime.fromtimestamp(int(key) * DAY_SECONDS, UTC).date().isoformat()
        case Dimension.MODEL | Dimension.PROVIDER | Dimension.APPLICATION | Dimension.PRINCIPAL:
            return key


def _sum(value: Sum) -> usage_service_pb2.UsageSum:
    if abs(value.amount) > _INT64_MAX:
        raise invalid("filter", "A sum is beyond what the answer can hold; ask for less, such as fewer days.")
    return usage_service_pb2.UsageSum(total=value.amount, unknown_count=value.unknown_count)


def _may_read(who: Caller, receipt: Receipt) -> bool:
    if not who.organization:
        return who.has_role("operator", "auditor")
    if who.organization != f"organizations/{receipt.organization}":
        return False
    return who.has_role("admin", "auditor") or receipt.principal == who.principal
