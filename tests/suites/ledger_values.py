"""Values that the suites of the ledger share."""

from collections.abc import Awaitable
from dataclasses import replace

import pytest

from router_service.core.events import ToolRequests, Usage
from router_service.core.faults import Fault, Reason
from router_service.core.receipt import Attempt, Cost, CostUnknown, Receipt, ReceiptState
from router_service.core.resolution import Payer, SkippedCandidate, SkipReason
from router_service.ledger.ledger import Spending

NOW = 1_800_000_000.0
LATER = NOW + 600


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


def spend(organization: str, amount_nanos: int) -> Spending:
    """Spending that an organization's credits pay."""
    return Spending(organization, amount_nanos, amount_nanos, (f"organizations/{organization}",))


def make_receipt(response_id: str, request_id: str = "", **changes: object) -> Receipt:
    receipt = Receipt(response_id, "acme", "users/ada", request_id, ReceiptState.IN_FLIGHT, NOW)
    return replace(receipt, **changes)  # type: ignore[arg-type]  # the names are checked by replace


FULL = make_receipt(
    "full",
    "request-full",
    state=ReceiptState.FAILED,
    end_time=NOW + 1.5,
    failure_reason=Reason.UPSTREAM_TIMEOUT,
    attempts=(
        Attempt(
            number=1,
            model="practice/echo",
            provider="providers/practice",
            payer=Payer.CREDITS,
            credential_version="organizations/acme/credentials/a/versions/1",
            lease_id="lease-1",
            start_time=NOW + 0.25,
            failure_reason=Reason.UPSTREAM_TIMEOUT,
            upstream_request_id="r",
            upstream_backend="b",
            served_model_id="m",
            time_to_first_content_seconds=0.125,
            duration_seconds=1.0,
            usage=Usage(10, 1, 2, 3, 4, tool_requests=(ToolRequests("web_search", 2),)),
            cost=Cost(CostUnknown.NOT_REPORTED, 12, 13, "revision", True),
            provider_usage_json='{"äöü": "\\u0000", "n": 9007199254740993}',
        ),
        Attempt(2, "practice/echo", "providers/practice", Payer.FREE, "", "", NOW),
    ),
    skipped_candidates=(
        SkippedCandidate("m", "providers/p", None, SkipReason.NO_CREDENTIAL, "no key"),
        SkippedCandidate("m", "providers/p", Payer.USER_KEY, SkipReason.PRICE_UNKNOWN, "no price"),
    ),
    skipped_candidate_count=19,
    markup_basis_points=500,
)


async def reason_of(awaitable: Awaitable[object]) -> Reason:
    with pytest.raises(Fault) as caught:
        await awaitable
    return caught.value.reason
