"""Settings of a configuration as values. What comes in here fits the schema."""

import json
from collections.abc import Mapping
from typing import Any

from router_service.core.money import usd_to_nanos
from router_service.core.request import (
    ProviderOptions,
    ReasoningEffort,
    ReasoningSettings,
    Sampling,
    Settings,
    UpstreamMaxPrice,
    UpstreamRouting,
)
from router_service.dialects.base import (
    AnthropicThinking,
    BedrockReasoning,
    Carrier,
    EmbeddingApi,
    GeminiThinking,
    Quirks,
    ReasoningStyle,
    SamplingRule,
)


def build_quirks(*layers: Mapping[str, Any]) -> Quirks:
    """Quirks from the lowest layer to the highest."""
    merged: dict[str, Any] = {}
    for layer in layers:
        merged.update(layer)
    if "reasoning_style" in merged:
        merged["reasoning_style"] = ReasoningStyle(merged["reasoning_style"])
    if "anthropic_thinking" in merged:
        merged["anthropic_thinking"] = AnthropicThinking(merged["anthropic_thinking"])
    if "gemini_thinking" in merged:
        merged["gemini_thinking"] = GeminiThinking(merged["gemini_thinking"])
    if "bedrock_reasoning" in merged:
        merged["bedrock_reasoning"] = BedrockReasoning(merged["bedrock_reasoning"])
    if "carrier" in merged:
        merged["carrier"] = Carrier(merged["carrier"])
    if "embedding_api" in merged:
        merged["embedding_api"] = EmbeddingApi(merged["embedding_api"])
    if "sampling" in merged:
        merged["sampling"] = SamplingRule(merged["sampling"])
    if "efforts" in merged:
        merged["efforts"] = tuple(merged["efforts"])
    return Quirks(**merged)


def build_settings(raw: Mapping[str, Any]) -> Settings:
    """Settings; what is not stated stays unset."""
    options = raw.get("provider_options", {})
    return Settings(
        sampling=_build_sampling(raw.get("sampling", {})),
        max_output_tokens=_whole(raw.get("max_output_tokens")),
        reasoning=_build_reasoning(raw["reasoning"]) if raw.get("reasoning") else None,
        provider_options=tuple(
            ProviderOptions(namespace, json.dumps(value, ensure_ascii=False, separators=(",", ":")))
            for namespace, value in options.items()
        ),
        upstream_routing=_build_routing(raw["upstream_routing"]) if "upstream_routing" in raw else None,
    )


def _build_sampling(raw: Mapping[str, Any]) -> Sampling:
    def number(key: str) -> float | None:
        return float(raw[key]) if key in raw else None

    return Sampling(
        temperature=number("temperature"),
        top_p=number("top_p"),
        top_k=_whole(raw.get("top_k")),
        presence_penalty=number("presence_penalty"),
        frequency_penalty=number("frequency_penalty"),
        seed=_whole(raw.get("seed")),
        stop_sequences=tuple(raw.get("stop_sequences", ())),
    )


def _whole(value: Any) -> int | None:
    # JSON Schema takes 3.0 for an integer.
    return int(value) if value is not None else None


def _build_reasoning(raw: Mapping[str, Any]) -> ReasoningSettings:
    return ReasoningSettings(
        effort=ReasoningEffort(raw["effort"]) if "effort" in raw else None,
        budget_tokens=_whole(raw.get("budget_tokens")),
        include_thoughts=raw.get("include_thoughts"),
    )


def _build_routing(raw: Mapping[str, Any]) -> UpstreamRouting | None:
    """None where nothing is said."""
    lists: dict[str, Any] = {key: tuple(raw[key]) for key in ("order", "only", "ignore", "quantizations") if key in raw}
    plain = ("allow_fallbacks", "require_parameters", "zero_data_retention", "data_collection", "sort")
    built = UpstreamRouting(
        **lists,
        **{key: raw[key] for key in plain if key in raw},
        max_price=_build_max_price(raw["max_price"]) if raw.get("max_price") else None,
    )
    return built if built != UpstreamRouting() else None


def _build_max_price(raw: Mapping[str, Any]) -> UpstreamMaxPrice:
    def amount(key: str) -> int | None:
        return usd_to_nanos(raw[key]) if key in raw else None

    return UpstreamMaxPrice(
        input_usd_nanos_per_million_tokens=amount("input_usd_per_million"),
        output_usd_nanos_per_million_tokens=amount("output_usd_per_million"),
        request_usd_nanos=amount("request_usd"),
        image_usd_nanos=amount("image_usd"),
    )
