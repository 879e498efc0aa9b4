"""Usage as rows that can be searched and added up: one for each attempt that was sent."""

from dataclasses import dataclass
from enum import Enum

from router_service.core.budget import DAY_SECONDS
from router_service.core.money import split_usage
from router_service.core.receipt import Amount, Receipt, ReceiptState
from router_service.ledger import codec


class Dimension(Enum):
    """What a summary may be broken down by; the values are columns."""

    MODEL = "model"
    PROVIDER = "provider"
    PAYER = "payer"
    APPLICATION = "application"
    PRINCIPAL = "principal"
    ORGANIZATION = "organization"
    DAY = "day"


@dataclass(frozen=True, slots=True)
class UsageFilter:
    """Whose calls. Empty fields ask for nothing. Times are seconds since 1970, the start in and the end out."""

    organization: str = ""
    application: str = ""
    principal: str = ""
    model: str = ""
    provider: str = ""
    payer: str = ""
    state: ReceiptState | None = None
    start_time: float | None = None
    end_time: float | None = None


@dataclass(frozen=True, slots=True)
class Sum:
    """A total of what is known, and of how many attempts it is not."""

    amount: int
    unknown_count: int


@dataclass(frozen=True, slots=True)
class Summary:
    """Attempts added up. `keys` are in the order that was asked for; a day is counted from 1970-01-01 in UTC."""

    keys: tuple[str, ...]
    attempt_count: int
    call_count: int
    estimate_count: int
    uncached_input_tokens: Sum
    cache_read_tokens: Sum
    cache_write_tokens: Sum
    output_tokens: Sum
    reasoning_tokens: Sum
    upstream_nanos: Sum
    list_nanos: Sum
    charged_nanos: Sum


MEASURES = (
    "uncached_input_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "output_tokens",
    "reasoning_tokens",
    "upstream_nanos",
    "list_nanos",
    "charged_nanos",
)
"""Columns that are added up. Reasoning is a part of the output; the others are disjoint."""


@dataclass(frozen=True, slots=True)
class ReceiptRow:
    """A receipt as JSON, and what it is looked up by."""

    response_id: str
    organization: str
    request_id: str
    create_time: float
    body: bytes


@dataclass(frozen=True, slots=True)
class CallRow:
    """What a receipt is found by."""

    response_id: str
    organization: str
    application: str
    principal: str
    state: str
    create_time: float


@dataclass(frozen=True, slots=True)
class UsageRow:
    """An attempt that was sent. None is what is not known."""

    response_id: str
    attempt: int
    organization: str
    application: str
    principal: str
    model: str
    provider: str
    payer: str
    start_time: float
    day: int
    uncached_input_tokens: int | None
    cache_read_tokens: int | None
    cache_write_tokens: int | None
    output_tokens: int | None
    reasoning_tokens: int | None
    upstream_nanos: int | None
    list_nanos: int | None
    charged_nanos: int | None
    is_estimate: int


def receipt_row(receipt: Receipt) -> ReceiptRow:
    """The receipt itself."""
    return ReceiptRow(
        receipt.response_id, receipt.organization, receipt.request_id, receipt.create_time, codec.encode(receipt)
    )


def call_row(receipt: Receipt) -> CallRow:
    """What it is found by."""
    return CallRow(
        receipt.response_id,
        receipt.organization,
        receipt.application,
        receipt.principal,
        receipt.state.value,
        receipt.create_time,
    )


def usage_rows(receipt: Receipt) -> list[UsageRow]:
    """Rows of the attempts that were sent."""
    return [
        UsageRow(
            receipt.response_id,
            attempt.number,
            receipt.organization,
            receipt.application,
            receipt.principal,
            attempt.model,
            attempt.provider,
            attempt.payer.value,
            attempt.start_time,
            int(attempt.start_time // DAY_SECONDS),
            *split_usage(attempt.usage),
            _known(attempt.cost.upstream_charged),
            _known(attempt.cost.list_price),
            _known(attempt.cost.charged),
            int(attempt.cost.is_estimate),
        )
        for attempt in receipt.attempts
        if attempt.cost is not None
    ]


def _known(amount: Amount) -> int | None:
    return amount if isinstance(amount, int) else None
