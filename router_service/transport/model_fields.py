"""The fields of a model's entry: everything that the configuration file can say of one."""

import json
from typing import Any

from keyswitch.router.v1 import model_service_pb2

from router_service.catalog.catalog import Snapshot
from router_service.transport.fields import Field, Raw, enum_text, json_object, plain, texts, whole
from router_service.transport.names import provider_id, provider_name
from router_service.transport.wire_prices import price_raw, stated_price_proto
from router_service.transport.wire_settings import settings_proto, settings_raw


def model_fields(view: Snapshot, owner: str, today: str) -> tuple[Field, ...]:
    """The fields of an entry of an owner (empty for the deployment); what it calls a provider depends on the view."""

    def read_endpoints(message: Any) -> list[Raw]:
        return [_endpoint_raw(one, f"endpoints[{index}]", owner) for index, one in enumerate(message.endpoints)]

    def write_endpoints(message: Any, raw: list[Raw]) -> None:
        for one in raw:
            quirks = one.get("quirks")
            message.endpoints.add(
                provider=provider_name(one["provider"], view, owner),
                upstream_model_id=one["upstream_model"],
                dialect=one.get("dialect", ""),
                weight=_whole(one.get("weight")),
                quirks_json=json.dumps(quirks, ensure_ascii=False, sort_keys=True) if quirks else "",
            )

    return (
        plain("display_name"),
        texts("aliases"),
        Field("endpoints", "endpoints", read_endpoints, write_endpoints),
        Field(
            "price",
            "price",
            lambda m: price_raw(m.price, today),
            lambda m, value: m.price.CopyFrom(stated_price_proto(value)),
        ),
        whole("context_limit_tokens"),
        whole("max_output_tokens"),
        whole("compression_threshold_percent"),
        Field(
            "defaults",
            "defaults",
            lambda m: settings_raw(m.defaults, "defaults"),
            lambda m, value: m.defaults.CopyFrom(settings_proto(value)),
        ),
        plain("is_enabled"),
        Field("capabilities", "capabilities", _read_capabilities, _write_capabilities),
        Field("embedding", "embedding", _read_embedding, _write_embedding),
    )


def _endpoint_raw(given: model_service_pb2.ModelEndpoint, field: str, organization: str) -> Raw:
    raw: Raw = {
        "provider": provider_id(given.provider, f"{field}.provider", organization),
        "upstream_model": given.upstream_model_id,
    }
    if given.dialect:
        raw["dialect"] = given.dialect
    if given.HasField("weight"):
        raw["weight"] = given.weight
    return raw | ({"quirks": json_object(given.quirks_json, f"{field}.quirks_json")} if given.quirks_json else {})


def _read_capabilities(message: Any) -> list[str]:
    return [
        enum_text(model_service_pb2.ModelCapability, "MODEL_CAPABILITY_", number, f"capabilities[{index}]").lower()
        for index, number in enumerate(message.capabilities)
    ]


def _write_capabilities(message: Any, raw: list[str]) -> None:
    message.capabilities.extend(
        model_service_pb2.ModelCapability.Value(f"MODEL_CAPABILITY_{one.upper()}") for one in raw
    )


def _read_embedding(message: Any) -> Raw:
    given = message.embedding
    raw: Raw = {name: getattr(given, name) for name in ("dimensions", "max_inputs") if given.HasField(name)}
    return raw | ({"is_shortenable": True} if given.is_shortenable else {})


def _write_embedding(message: Any, raw: Raw) -> None:
    message.embedding.CopyFrom(
        model_service_pb2.EmbeddingFacts(
            dimensions=_whole(raw.get("dimensions")),
            is_shortenable=raw.get("is_shortenable", False),
            max_inputs=_whole(raw.get("max_inputs")),
        )
    )


def _whole(value: Any) -> int | None:
    # JSON Schema takes 3.0 for an integer.
    return int(value) if value is not None else None
