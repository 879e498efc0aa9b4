"""Request bodies against the parameter types of the official SDKs."""

from collections.abc import Mapping
from typing import Any

import pytest
from anthropic.types import message_create_params as anthropic_params
from google.genai import types as gemini_types
from ollama._types import ChatRequest as OllamaChatRequest
from openai.types.chat import completion_create_params as openai_params
from openai.types.responses import response_create_params as responses_params
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from pydantic.alias_generators import to_camel

from router_service.dialects.registry import DIALECTS
from tests.suites.aws_oracle import problems_of
from tests.suites.dialect_fixtures import Fixture, fixtures


class GeminiRequest(BaseModel):
    """The SDK has no type for the body as a whole: it writes the body from its own options."""

    model_config = ConfigDict(extra="forbid", alias_generator=to_camel)

    contents: list[gemini_types.Content]
    system_instruction: gemini_types.Content | None = None
    tools: list[gemini_types.Tool] | None = None
    tool_config: gemini_types.ToolConfig | None = None
    generation_config: gemini_types.GenerateContentConfig | None = None  # has the names that GenerationConfig lacks
    safety_settings: list[gemini_types.SafetySetting] | None = None


class OllamaRequest(OllamaChatRequest):
    """The SDK's own, which by itself passes over what it does not know."""

    model_config = ConfigDict(extra="forbid")


ADAPTERS: dict[str, dict[bool, TypeAdapter[Any]]] = {
    "openai_chat": {
        True: TypeAdapter(openai_params.CompletionCreateParamsStreaming),
        False: TypeAdapter(openai_params.CompletionCreateParamsNonStreaming),
    },
    "openai_responses": {
        True: TypeAdapter(responses_params.ResponseCreateParamsStreaming),
        False: TypeAdapter(responses_params.ResponseCreateParamsNonStreaming),
    },
    "anthropic_messages": {
        True: TypeAdapter(anthropic_params.MessageCreateParamsStreaming),
        False: TypeAdapter(anthropic_params.MessageCreateParamsNonStreaming),
    },
    "ollama_chat": dict.fromkeys((True, False), TypeAdapter(OllamaRequest)),
    "gemini": {False: TypeAdapter(GeminiRequest)},  # the path and not the body says whether it is a stream
}


def consume(value: Any) -> None:
    """Reads what pydantic validates only when it is read: it has an iterator of its own for iterables."""
    if isinstance(value, Mapping):
        for inner in value.values():
            consume(inner)
    elif isinstance(value, list | tuple) or hasattr(value, "__next__"):
        for inner in value:
            consume(inner)


def validate(name: str, wire: dict[str, Any]) -> None:
    if name == "bedrock_converse":
        assert problems_of(wire, "some-model") == ""
        return
    consume(ADAPTERS[name][bool(wire.get("stream"))].validate_python(wire))


@pytest.mark.parametrize(
    ("name", "case"),
    [pytest.param(name, case, id=f"{name}-{case.name}") for name in DIALECTS for case in fixtures(name)],
)
def test_a_request_fits_the_sdks_types(name: str, case: Fixture) -> None:
    validate(name, case.request["wire"])


def test_the_check_sees_what_is_wrong_deep_inside() -> None:
    wrong_content = [{"type": "text", "text": 5}]
    with pytest.raises(ValidationError):
        validate(
            "openai_chat", {"model": "m", "stream": True, "messages": [{"role": "user", "content": wrong_content}]}
        )
    with pytest.raises(ValidationError):
        validate("openai_responses", {"model": "m", "stream": True, "input": [{"role": "user", "content": 5}]})
    with pytest.raises(ValidationError):
        validate(
            "anthropic_messages",
            {"model": "m", "max_tokens": 5, "stream": True, "messages": [{"role": "user", "content": wrong_content}]},
        )
