"""How router-like providers are told which of their own upstreams may serve: OpenRouter's way and Vercel's."""

from collections.abc import Mapping, Sequence
from decimal import Decimal

import msgspec

from router_service.core.request import Completion, UpstreamMaxPrice, UpstreamRouting
from router_service.dialects.base import Quirks
from router_service.dialects.writing import Body, Notices, wrong

_NANOS_PER_USD = Decimal(10) ** 9
_GATEWAY_SORTS = {"price": "cost", "throughput": "tps", "latency": "ttft"}
_ROUTING_PATH = "settings.upstream_routing"


def write_routing(body: Body, completion: Completion, quirks: Quirks, notices: Notices) -> None:
    """Puts typed upstream routing into the words of a router-like provider; elsewhere a warning says it is ignored."""
    routing = completion.settings.upstream_routing
    if routing is None or routing == UpstreamRouting():
        return
    if quirks.takes_gateway_options:
        _write_gateway(body, routing, notices)
        return
    if not quirks.is_router_like:
        notices.ignore("settings.upstream_routing", "This provider has no upstreams of its own to choose from.")
        return
    fields: Body = {
        "order": list(routing.order) or None,
        "only": list(routing.only) or None,
        "ignore": list(routing.ignore) or None,
        "allow_fallbacks": routing.allow_fallbacks,
        "require_parameters": routing.require_parameters,
        "data_collection": routing.data_collection or None,
        "zdr": routing.zero_data_retention,
        "quantizations": list(routing.quantizations) or None,
        "sort": routing.sort or None,
        "max_price": _max_price(routing.max_price) if routing.max_price else None,
    }
    body["provider"] = {name: value for name, value in fields.items() if value is not None}


def _max_price(price: UpstreamMaxPrice) -> Body | None:
    """OpenRouter's prices are USD: per million tokens, per request, per image."""
    fields = {
        "prompt": price.input_usd_nanos_per_million_tokens,
        "completion": price.output_usd_nanos_per_million_tokens,
        "request": price.request_usd_nanos,
        "image": price.image_usd_nanos,
    }
    prices: Body = {
        name: msgspec.Raw(f"{Decimal(nanos) / _NANOS_PER_USD:f}".encode())
        for name, nanos in fields.items()
        if nanos is not None
    }
    return prices or None


def _write_gateway(body: Body, routing: UpstreamRouting, notices: Notices) -> None:
    fields: Body = {
        "order": list(routing.order) or None,
        "only": list(routing.only) or (list(routing.order) if routing.allow_fallbacks is False else None) or None,
        "sort": _GATEWAY_SORTS.get(routing.sort),
        "zeroDataRetention": routing.zero_data_retention,
    }
    unsupported = {
        "ignore": bool(routing.ignore),
        "require_parameters": routing.require_parameters is not None,
        "data_collection": bool(routing.data_collection),
        "quantizations": bool(routing.quantizations),
        "max_price": routing.max_price is not None,
    }
    for name, is_asked in unsupported.items():
        if is_asked:
            notices.ignore(f"{_ROUTING_PATH}.{name}", f"This provider does not take {name}.")
    gateway = {name: value for name, value in fields.items() if value is not None}
    if gateway:
        body["providerOptions"] = {"gateway": gateway}


def check_gateway_options(options: Sequence[Mapping[str, object]]) -> None:
    """Refuses keys in a request, wherever they stand: the receipt would not name their owner, and logs would."""
    for entry in options:
        for key, value in entry.items():
            if key.lower() == "byok":
                message = "Keys do not travel in a request. Save them at the gateway, or each for its own provider."
                raise wrong("settings.provider_options", message)
            if isinstance(value, Mapping):
                check_gateway_options([value])
