"""Values of the contract as a person reads them."""

from __future__ import annotations

import datetime as dt
import json
import re
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from keyswitch.router.v1 import cost_pb2, payer_pb2, resolution_pb2, usage_pb2

from keyswitch_cli.problem import Problem

if TYPE_CHECKING:
    from google.protobuf.internal.enum_type_wrapper import _EnumTypeWrapper

_Value = TypeVar("_Value", bound=int)
_NANOS_PER_USD = Decimal(1_000_000_000)
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
# Everything that moves a cursor, rings a bell or rewrites the screen, but for line feed and tab.
_CONTROL = dict.fromkeys((*range(9), *range(11, 32), *range(127, 160)))
# Line ends, and the marks that change the direction of all that follows. An answer in Arabic or Hebrew may need those.
_TURNING = re.compile("[\t\n\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def harmless(text: str) -> str:
    """Text of a model or provider without what a terminal would obey."""
    return text.translate(_CONTROL)


def one_line(text: str) -> str:
    """A name or note as one line of a table: what would break the line or turn its order around is shown as it is
    written in JSON.
    """
    return _TURNING.sub(lambda found: json.dumps(found[0])[1:-1], harmless(text))


def receipt_command(response_id: str) -> str:
    """What to type for a receipt. An id may begin with a dash, as 128 random bits in base64url do now and then."""
    return f"keyswitch receipt {'-- ' if response_id.startswith('-') else ''}{response_id}"


def last(name: str) -> str:
    """The id at the end of a resource name."""
    return name.rpartition("/")[2]


def usd(nanos: int) -> str:
    """An amount, exact to the nano-dollar and without idle zeros: $0.0000092, $12.50."""
    sign = "-" if nanos < 0 else ""
    whole, _, fraction = f"{abs(Decimal(nanos)) / _NANOS_PER_USD:f}".partition(".")
    return f"{sign}${int(whole):,}.{fraction.rstrip('0').ljust(2, '0')}"


def nanos_of(text: str) -> int:
    """Nano-dollars of a decimal amount; never by way of a float."""
    try:
        amount = Decimal(text.removeprefix("$").replace(",", ""))
        nanos = amount * _NANOS_PER_USD
        if not amount.is_finite() or nanos != int(nanos):
            raise InvalidOperation
    except InvalidOperation:
        raise Problem(
            f"{text!r} is no amount in USD.", advice="Write it like 10 or 2.50, with 9 decimals at most."
        ) from None
    return int(nanos)


def duration_of(text: str) -> Duration:
    """A time span such as 90d, 12h, 30m or 45s."""
    match = re.fullmatch(r"(\d{1,9})([smhdw])", text)
    if match is None:
        raise Problem(f"{text!r} is no time span.", advice="Write it like 90d, 12h, 30m or 45s.")
    return Duration(seconds=int(match[1]) * _SECONDS[match[2]])


def timestamp_of(text: str) -> Timestamp:
    """A point in time in ISO 8601; without a zone it is UTC."""
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError:
        raise Problem(f"{text!r} is no time.", advice="Write it like 2026-11-21 or 2026-11-21T08:30:00Z.") from None
    stamp = Timestamp()
    stamp.FromDatetime(moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC))
    return stamp


def moment(stamp: Timestamp) -> str:
    """A point in time, UTC, to the second."""
    return stamp.ToDatetime().strftime("%Y-%m-%d %H:%M:%SZ")


def minute(stamp: Timestamp) -> str:
    """A point in time, UTC, to the minute: enough for a table."""
    return stamp.ToDatetime().strftime("%Y-%m-%d %H:%MZ")


def seconds(duration: Duration) -> str:
    """A time span in seconds."""
    return f"{duration.ToTimedelta().total_seconds():.2f} s"


def payer(value: payer_pb2.Payer.ValueType) -> str:
    """Who pays, as the words of the product: USER_KEY."""
    return enum_word(payer_pb2.Payer, value, "PAYER_").replace(" ", "_").upper()


def tokens(usage: usage_pb2.Usage) -> str:
    """What was used, parts only where there are any."""
    entered = _count(usage, "input_tokens")
    written = _count(usage, "output_tokens")
    parts = [
        f"{getattr(usage, field)} {label}"
        for field, label in (
            ("cache_read_tokens", "from cache"),
            ("cache_write_tokens", "to cache"),
            ("reasoning_tokens", "reasoning"),
        )
        if usage.HasField(field) and getattr(usage, field)  # type: ignore[arg-type] # the names are those above
    ]
    return f"{entered} in + {written} out" + (f" ({', '.join(parts)})" if parts else "")


def list_price(cost: cost_pb2.Cost) -> str:
    """What it costs at list price."""
    return (
        usd(cost.list_price_usd_nanos)
        if cost.HasField("list_price_usd_nanos")
        else unknown(cost.list_price_unknown_reason)
    )


def charged(cost: cost_pb2.Cost) -> str:
    """What Keyswitch charges."""
    return usd(cost.charged_usd_nanos) if cost.HasField("charged_usd_nanos") else unknown(cost.charged_unknown_reason)


def upstream_charged(cost: cost_pb2.Cost) -> str:
    """What the provider itself says that it charged; empty where it says nothing."""
    return usd(cost.upstream_charged_usd_nanos) if cost.HasField("upstream_charged_usd_nanos") else ""


KEYLESS_LEFT_OUT = "Ways for which there is no key are left out: --all lists them."


def is_keyless(skipped: resolution_pb2.SkippedCandidate) -> bool:
    """Whether a candidate was passed over because there is no key for it: true of most of a catalog's."""
    return skipped.reason == resolution_pb2.SKIP_REASON_NO_CREDENTIAL


def unknown(reason: cost_pb2.CostUnknownReason.ValueType) -> str:
    """Why an amount is not known; never 0."""
    word = enum_word(cost_pb2.CostUnknownReason, reason, "COST_UNKNOWN_REASON_")
    return f"unknown ({word})" if reason else "unknown"


def enum_word(enum: _EnumTypeWrapper[_Value], number: _Value, prefix: str) -> str:
    """An enum value in small words; its number when a newer service sent it, "-" when it is not set."""
    name = enum.Name(number) if number in enum.values() else str(number)
    word = name.removeprefix(prefix).replace("_", " ").lower()
    return "-" if word == "unspecified" else word


def enum_number(enum: _EnumTypeWrapper[_Value], text: str, prefix: str) -> _Value:
    """The value that a small word names: revoke-token, REVOKE_TOKEN."""
    values = {name.removeprefix(prefix): number for name, number in enum.items() if number}
    wanted = text.upper().replace("-", "_").removeprefix(prefix)
    if wanted not in values:
        known = ", ".join(sorted(name.lower().replace("_", "-") for name in values))
        raise Problem(f"{text!r} is not known here.", advice=f"Known are: {known}.")
    return values[wanted]


def _count(usage: usage_pb2.Usage, field: str) -> str:
    return str(getattr(usage, field)) if usage.HasField(field) else "?"  # type: ignore[arg-type] # see tokens
