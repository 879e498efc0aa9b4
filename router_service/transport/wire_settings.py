"""Generation settings as the configuration file has them, and as protobuf."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from keyswitch.router.v1 import settings_pb2

from router_service.catalog.settings import build_settings
from router_service.core.request import ProviderOptions, ReasoningEffort, Settings, UpstreamMaxPrice, UpstreamRouting
from router_service.policy.settings import parse_options
from router_service.transport.amounts import nanos_text
from router_service.transport.wire_parse import parse_settings

_PRICES = {
    "input_usd_per_million": "input_usd_nanos_per_million_tokens",
    "output_usd_per_million": "output_usd_nanos_per_million_tokens",
    "request_usd": "request_usd_nanos",
    "image_usd": "image_usd_nanos",
}


def settings_raw(given: settings_pb2.GenerationSettings, field: str) -> dict[str, Any]:
    """What the file would say. Raises Fault for what no settings may be."""
    settings = parse_settings(given, field)
    raw: dict[str, Any] = {
        "sampling": _stated(asdict(settings.sampling)),
        "max_output_tokens": settings.max_output_tokens,
        "reasoning": None,
        "provider_options": {
            entry.namespace: parse_options(entry, f"{field}.provider_options[{index}]")
            for index, entry in enumerate(settings.provider_options)
        },
        "upstream_routing": None,
    }
    if settings.reasoning is not None:
        reasoning = _stated(asdict(settings.reasoning))
        if settings.reasoning.effort is not None:
            reasoning["effort"] = settings.reasoning.effort.value
        raw["reasoning"] = reasoning
    if settings.upstream_routing is not None:
        raw["upstream_routing"] = _routing_raw(settings.upstream_routing)
    return _stated(raw)


def _stated(raw: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in raw.items()
        if value not in (None, (), {}, "")
    }


def _routing_raw(routing: UpstreamRouting) -> dict[str, Any]:
    raw = {key: value for key, value in asdict(routing).items() if key != "max_price"}
    if routing.max_price is not None:
        raw["max_price"] = _stated(
            {
                key: nanos_text(amount)
                for key, name in _PRICES.items()
                if (amount := getattr(routing.max_price, name)) is not None
            }
        )
    return _stated(raw)


def settings_proto(raw: Mapping[str, Any]) -> settings_pb2.GenerationSettings:
    """Settings of the configuration as protobuf."""
    return _build(build_settings(raw))


def _build(settings: Settings) -> settings_pb2.GenerationSettings:
    built = settings_pb2.GenerationSettings(max_output_tokens=settings.max_output_tokens)
    sampling = _stated(asdict(settings.sampling))
    if sampling:
        built.sampling.CopyFrom(settings_pb2.Sampling(**sampling))
    if settings.reasoning is not None:
        effort = settings.reasoning.effort
        built.reasoning.CopyFrom(
            settings_pb2.ReasoningConfig(
                effort=_effort(effort),
                budget_tokens=settings.reasoning.budget_tokens,
                include_thoughts=settings.reasoning.include_thoughts,
            )
        )
    built.provider_options.extend(map(_option, settings.provider_options))
    if settings.upstream_routing is not None:
        built.upstream_routing.CopyFrom(_routing(settings.upstream_routing))
    return built


def _effort(effort: ReasoningEffort | None) -> "settings_pb2.ReasoningEffort.ValueType":
    if effort is None:
        return settings_pb2.REASONING_EFFORT_UNSPECIFIED
    return settings_pb2.ReasoningEffort.Value(f"REASONING_EFFORT_{effort.value.upper()}")


def _option(entry: ProviderOptions) -> settings_pb2.ProviderOptions:
    return settings_pb2.ProviderOptions(namespace=entry.namespace, json=entry.json)


def _routing(routing: UpstreamRouting) -> settings_pb2.UpstreamRouting:
    plain = _stated({key: value for key, value in asdict(routing).items() if key != "max_price"})
    for key, enum, prefix in (
        ("data_collection", settings_pb2.DataCollection, "DATA_COLLECTION_"),
        ("sort", settings_pb2.UpstreamSort, "UPSTREAM_SORT_"),
    ):
        if key in plain:
            plain[key] = enum.Value(prefix + plain[key].upper())
    built = settings_pb2.UpstreamRouting(**plain)
    if routing.max_price is not None:
        built.max_price.CopyFrom(_max_price(routing.max_price))
    return built


def _max_price(price: UpstreamMaxPrice) -> settings_pb2.UpstreamMaxPrice:
    return settings_pb2.UpstreamMaxPrice(**asdict(price))
