"""What can be set for a model at a provider, as JSON Schemas from which a form can be generated. Data, not code."""

import copy
import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any, assert_never

from router_service.dialects.base import AnthropicThinking, GeminiThinking, Quirks, ReasoningStyle

Schema = dict[str, Any]

SCHEMA = "https://json-schema.org/draft/2020-12/schema"


@cache
def _load() -> Mapping[str, Any]:
    text = files("router_service.catalog").joinpath("data/options.json").read_text(encoding="utf-8")
    loaded: dict[str, Any] = json.loads(text)
    return loaded


def describe_general() -> Schema:
    """What every model has. `x-path` is where a field stands in a model of the configuration."""
    return {"$schema": SCHEMA, **copy.deepcopy(_load()["general"])}


def describe_provider(dialect: str, quirks: Quirks) -> Schema:
    """What only this provider takes: an instance is the JSON of a ProviderOptions.

    Levels that the model lacks are left out, and what it cannot be told at all.
    """
    schema: Schema = copy.deepcopy(_load()["options"][_choose(dialect, quirks)])
    _restrict(schema, quirks.efforts)
    properties = schema["properties"]
    if "outputConfig" in properties and quirks.anthropic_thinking is AnthropicThinking.BUDGET:
        del properties["outputConfig"]
        properties["thinking"]["properties"]["type"]["enum"].remove("adaptive")
    if "thinkingConfig" in properties and quirks.gemini_thinking is GeminiThinking.BUDGET:
        del properties["thinkingConfig"]["properties"]["thinkingLevel"]
    if "reasoningEffort" in properties and quirks.reasoning_style is ReasoningStyle.NONE:
        del properties["reasoningEffort"]
    return {"$schema": SCHEMA, **schema}


def _choose(dialect: str, quirks: Quirks) -> str:
    if dialect == "bedrock_converse":
        return "bedrock"
    if dialect == "gemini":
        return "google" if quirks.gemini_thinking is not GeminiThinking.NONE else "none"
    if quirks.options_family == "anthropic":
        return "anthropic" if quirks.anthropic_thinking is not AnthropicThinking.NONE else "none"
    if quirks.options_family == "openai":
        return "openai"
    match quirks.reasoning_style:
        case ReasoningStyle.EFFORT:
            return "effort"
        case ReasoningStyle.OPENROUTER:
            return "openrouter"
        case ReasoningStyle.BINARY:
            return "binary"
        case ReasoningStyle.NONE:
            return "none"
        case _:
            assert_never(quirks.reasoning_style)


def _restrict(schema: Schema, efforts: tuple[str, ...]) -> None:
    for name, field in list(schema["properties"].items()):
        if field.get("type") == "object":
            _restrict(field, efforts)
        elif field.pop("x-efforts", False) and efforts:
            field["enum"] = [level for level in field["enum"] if level in efforts]
            if not field["enum"]:
                del schema["properties"][name]
