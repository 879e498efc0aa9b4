"""What a call did and cost, as values. Mirrors receipt.proto and cost.proto. Amounts are integers in nano-USD."""

from dataclasses import dataclass
from enum import Enum

from router_service.core.events import Usage
from router_service.core.faults import Reason
from router_service.core.resolution import Payer, SkippedCandidate


class CostUnknown(Enum):
    """Why an amount is not known."""

    NOT_REPORTED = "NOT_REPORTED"
    NO_PRICE = "NO_PRICE"
    NO_USAGE = "NO_USAGE"
    NOT_SETTLED = "NOT_SETTLED"


Amount = int | CostUnknown  # nano-USD, or why there is none


@dataclass(frozen=True, slots=True)
class Cost:
    """Three amounts, each with the reason where it is unknown."""

    upstream_charged: Amount
    list_price: Amount
    charged: Amount
    price_revision: str = ""
    is_estimate: bool = False


class ReceiptState(Enum):
    """How far a call is."""

    IN_FLIGHT = "IN_FLIGHT"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


@dataclass(frozen=True, slots=True)
class Attempt:
    """One physical call to one provider with one credential version. Times are seconds since 1970."""

    number: int
    model: str
    provider: str
    payer: Payer
    credential_version: str
    lease_id: str
    start_time: float
    failure_reason: Reason | None = None
    upstream_request_id: str = ""
    upstream_backend: str = ""
    served_model_id: str = ""
    time_to_first_content_seconds: float | None = None
    duration_seconds: float | None = None
    usage: Usage | None = None
    cost: Cost | None = None
    provider_usage_json: str = ""
    weight_share: float | None = None


@dataclass(frozen=True, slots=True)
class Receipt:
    """Everything about a call. `organization`, `application` and `principal` say whose it is; they do not travel."""

    response_id: str
    organization: str
    principal: str
    request_id: str
    state: ReceiptState
    create_time: float
    end_time: float | None = None
    failure_reason: Reason | None = None
    attempts: tuple[Attempt, ...] = ()
    skipped_candidates: tuple[SkippedCandidate, ...] = ()
    skipped_candidate_count: int = 0
    markup_basis_points: int | None = None
    application: str = ""
