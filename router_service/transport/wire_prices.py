"""List prices: as the configuration file states them, as they are in force, and as protobuf."""

from collections.abc import Mapping
from typing import Any

from keyswitch.router.v1 import model_service_pb2

from router_service.core.faults import invalid
from router_service.core.money import Price, usd_to_nanos
from router_service.transport.amounts import nanos_text
from router_service.transport.fields import is_set

_AMOUNTS = {
    "input_usd_per_million": "input_usd_nanos_per_million_tokens",
    "output_usd_per_million": "output_usd_nanos_per_million_tokens",
    "cache_read_usd_per_million": "cache_read_usd_nanos_per_million_tokens",
    "cache_write_usd_per_million": "cache_write_usd_nanos_per_million_tokens",
    "cache_write_1h_usd_per_million": "cache_write_one_hour_usd_nanos_per_million_tokens",
    "input_audio_usd_per_million": "input_audio_usd_nanos_per_million_tokens",
    "request_usd": "request_usd_nanos",
}
"""The file's keys and protobuf's fields."""
_TOOLS = "tool_request_usd"


def price_proto(price: Price) -> model_service_pb2.ModelPrice:
    """What is known of a price."""
    return model_service_pb2.ModelPrice(
        input_usd_nanos_per_million_tokens=price.input_nanos,
        output_usd_nanos_per_million_tokens=price.output_nanos,
        cache_read_usd_nanos_per_million_tokens=price.cache_read_nanos,
        cache_write_usd_nanos_per_million_tokens=price.cache_write_five_minute_nanos,
        cache_write_one_hour_usd_nanos_per_million_tokens=price.cache_write_one_hour_nanos,
        input_audio_usd_nanos_per_million_tokens=price.input_audio_nanos,
        request_usd_nanos=price.request_nanos or None,
        tool_request_usd_nanos=dict(price.tool_request_nanos),
    )


def stated_price_proto(raw: Mapping[str, Any]) -> model_service_pb2.ModelPrice:
    """What the file states."""
    return model_service_pb2.ModelPrice(
        **{name: usd_to_nanos(raw[key]) for key, name in _AMOUNTS.items() if key in raw},
        tool_request_usd_nanos={tool: usd_to_nanos(usd) for tool, usd in raw.get(_TOOLS, {}).items()},
        checked_date=raw["checked"],
        source=raw.get("source", ""),
    )


def price_raw(price: model_service_pb2.ModelPrice, today: str) -> dict[str, Any]:
    """What the file would state. Raises Fault."""
    raw: dict[str, Any] = {
        key: _text(getattr(price, name), f"price.{name}") for key, name in _AMOUNTS.items() if is_set(price, name)
    }
    if price.tool_request_usd_nanos:
        raw[_TOOLS] = {
            tool: _text(nanos, "price.tool_request_usd_nanos")
            for tool, nanos in sorted(price.tool_request_usd_nanos.items())
        }
    raw["checked"] = price.checked_date or today
    return raw | ({"source": price.source} if price.source else {})


def _text(nanos: int, field: str) -> str:
    if nanos < 0:
        raise invalid(field, "A price is not negative.")
    return nanos_text(nanos)
