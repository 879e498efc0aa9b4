"""What the router says around a model's own events: the failed attempts, the commitment, the end."""

from dataclasses import dataclass

from router_service.core.events import FinishReason, PartEvent, Usage, UsageUpdated, Vectors
from router_service.core.faults import Reason
from router_service.core.receipt import Receipt
from router_service.core.request import Notice
from router_service.core.resolution import Payer, Resolution


@dataclass(frozen=True, slots=True)
class AttemptFailed:
    """An attempt that failed before the router committed to it."""

    attempt: int
    model: str
    provider: str
    payer: Payer
    reason: Reason
    retry_delay_seconds: float | None
    usage: Usage | None


@dataclass(frozen=True, slots=True)
class ResponseStarted:
    """The commitment to a provider. `dialect` and `provider` tag the opaque state of the parts that follow."""

    response_id: str
    resolution: Resolution
    warnings: tuple[Notice, ...]
    dialect: str


@dataclass(frozen=True, slots=True)
class ResponseEnded:
    """The end of a completion that succeeded."""

    reason: FinishReason
    provider_reason: str
    receipt: Receipt


Output = AttemptFailed | ResponseStarted | PartEvent | UsageUpdated | Vectors | ResponseEnded
