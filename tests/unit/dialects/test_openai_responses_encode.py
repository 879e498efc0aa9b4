"""What OpenAI's Responses wire is asked, beyond the fixtures."""

import json
from collections.abc import Mapping
from typing import Any

import pytest

from router_service.core.content import (
    Media,
    Message,
    Part,
    ProviderBlock,
    ProviderState,
    Reasoning,
    Role,
    Text,
    ToolCall,
)
from router_service.core.faults import Fault, Reason
from router_service.core.request import (
    Completion,
    ProviderTool,
    ReasoningEffort,
    ReasoningSettings,
    Settings,
    WarningReason,
)
from router_service.dialects.base import Quirks, ReasoningStyle
from router_service.dialects.openai_responses import OpenAIResponses
from tests.suites.dialect_suite import PROVIDER
from tests.unit.dialects.test_wire_types import validate

DIALECT = OpenAIResponses()
HI = Message(Role.USER, (Part(Text("Hi")),))


def encode(
    *messages: Message, quirks: Quirks = Quirks(), **fields: Any
) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """The body and the warnings."""
    encoded = DIALECT.encode(Completion(model="m", provider=PROVIDER, messages=messages or (HI,), **fields), quirks)
    return json.loads(encoded.body), [(notice.field, notice.reason.value) for notice in encoded.warnings]


def state_of(value: Mapping[str, object], provider: str = PROVIDER) -> ProviderState:
    return ProviderState("openai_responses", provider, json.dumps(value).encode())


@pytest.mark.parametrize(
    ("asked", "quirks", "wanted"),
    [
        (ReasoningSettings(ReasoningEffort.OFF), Quirks(), {"effort": "none"}),
        (ReasoningSettings(ReasoningEffort.MAX), Quirks(efforts=("low", "xhigh")), {"effort": "xhigh"}),
        (ReasoningSettings(budget_tokens=8192), Quirks(), {"effort": "medium"}),
        (ReasoningSettings(include_thoughts=True), Quirks(), {"summary": "auto"}),
        (ReasoningSettings(ReasoningEffort.LOW, include_thoughts=False), Quirks(), {"effort": "low"}),
    ],
)
def test_reasoning_is_said_in_effort_and_summary(
    asked: ReasoningSettings, quirks: Quirks, wanted: dict[str, str]
) -> None:
    body, _ = encode(quirks=quirks, settings=Settings(reasoning=asked))
    assert body["reasoning"] == wanted
    validate("openai_responses", body)


def test_reasoning_that_cannot_be_off_is_not_switched_off() -> None:
    off = Settings(reasoning=ReasoningSettings(ReasoningEffort.OFF))
    for quirks in (
        Quirks(efforts=("low", "high")),
        Quirks(is_reasoning_mandatory=True),
        Quirks(is_reasoning_mandatory=True, reasoning_style=ReasoningStyle.NONE),
    ):
        with pytest.raises(Fault) as caught:
            encode(quirks=quirks, settings=off)
        assert caught.value.reason is Reason.INVALID_REQUEST


def test_a_model_without_reasoning_is_not_asked_for_sealed_reasoning() -> None:
    """OpenAI refuses the request otherwise."""
    asked = Settings(reasoning=ReasoningSettings(ReasoningEffort.HIGH))
    body, warnings = encode(quirks=Quirks(reasoning_style=ReasoningStyle.NONE), settings=asked)
    assert "include" not in body
    assert "reasoning" not in body
    assert warnings == [("settings.reasoning", WarningReason.IGNORED.value)]


def test_options_in_the_words_of_chat_find_their_place() -> None:
    options = (
        {"reasoningEffort": "high", "reasoningSummary": "detailed", "textVerbosity": "low", "promptCacheKey": "k"},
        {
            "maxCompletionTokens": 9,
            "serviceTier": "flex",
            "reasoning": {"mode": "pro"},
            "store": True,
            "include": ["x"],
        },
    )
    body, warnings = encode(quirks=Quirks(options_family="openai"), options=options)
    assert body["reasoning"] == {"effort": "high", "summary": "detailed", "mode": "pro"}
    assert body["text"] == {"verbosity": "low"}
    assert body["max_output_tokens"] == 9
    assert body["include"] == ["x", "reasoning.encrypted_content"]
    assert (body["store"], body["service_tier"], body["prompt_cache_key"]) == (True, "flex", "k")
    assert warnings == []


@pytest.mark.parametrize("name", ["input", "model", "stream"])
def test_options_cannot_set_what_the_router_decides(name: str) -> None:
    with pytest.raises(Fault):
        encode(options=({name: "x"},))


def test_a_providers_own_tools_go_out_as_they_are() -> None:
    tools = (
        ProviderTool("openai_responses", '{"type": "web_search"}'),
        ProviderTool("openai_responses", '{"type": "file_search", "vector_store_ids": ["vs_1"]}'),
        ProviderTool("openai_responses", '{"type": "code_interpreter", "container": {"type": "auto"}}'),
        ProviderTool("openai_responses", '{"type": "image_generation"}'),
        ProviderTool("openai_responses", '{"type": "mcp", "server_label": "a", "server_url": "https://example.org"}'),
    )
    body, _ = encode(tools=tools)
    assert body["tools"] == [json.loads(tool.json) for tool in tools]
    validate("openai_responses", body)
    with pytest.raises(Fault):
        encode(tools=(ProviderTool("gemini", "{}"),))


def test_an_id_goes_back_only_behind_its_reasoning() -> None:
    """The provider pairs them, and refuses the one without the other."""
    call = Part(ToolCall("call_a", "add", "{}"), provider_state=state_of({"id": "fc_1", "reasoning": "rs_1"}))
    text = Part(Text("So."), provider_state=state_of({"id": "msg_1", "reasoning": "rs_1", "phase": "commentary"}))
    item = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "s"}
    thought = Part(Reasoning(""), provider_state=state_of(item))
    with_it, _ = encode(HI, Message(Role.ASSISTANT, (thought, text, call)))
    assert with_it["input"][1] == item
    assert [found.get("id") for found in with_it["input"][2:]] == ["msg_1", "fc_1"]
    without, _ = encode(HI, Message(Role.ASSISTANT, (text, call)))
    assert [found.get("id") for found in without["input"][1:]] == [None, None]
    assert without["input"][1] == {"type": "message", "role": "assistant", "content": "So.", "phase": "commentary"}
    validate("openai_responses", with_it)
    validate("openai_responses", without)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"type":"thinking"}', b'{"type":"reasoning","id":5}'])
def test_a_changed_state_of_reasoning_is_refused(data: bytes) -> None:
    part = Part(Reasoning("x"), provider_state=ProviderState("openai_responses", PROVIDER, data))
    with pytest.raises(Fault) as caught:
        encode(HI, Message(Role.ASSISTANT, (part,)))
    assert caught.value.metadata["field"] == "call.spec.messages[1].parts[0].provider_state"


def test_a_changed_state_of_text_is_left_out() -> None:
    part = Part(Text("x"), provider_state=ProviderState("openai_responses", PROVIDER, b'{"id":5}'))
    body, _ = encode(HI, Message(Role.ASSISTANT, (part,)))
    assert body["input"][1] == {"type": "message", "role": "assistant", "content": "x"}


@pytest.mark.parametrize("media_type", ["audio/wav", "video/mp4"])
def test_sound_and_video_are_refused(media_type: str) -> None:
    with pytest.raises(Fault) as caught:
        encode(Message(Role.USER, (Part(Media(media_type, b"x")),)))
    assert caught.value.reason is Reason.INVALID_REQUEST


def test_a_text_document_that_is_not_text_is_refused() -> None:
    with pytest.raises(Fault):
        encode(Message(Role.USER, (Part(Media("text/plain", b"\xff")),)))


def test_what_the_caller_ran_goes_back_as_an_item() -> None:
    output = '{"type":"local_shell_call_output","id":"call_s","output":"ok"}'
    body, _ = encode(HI, Message(Role.TOOL, (Part(ProviderBlock("openai_responses", "x", output)),)))
    assert body["input"][1] == json.loads(output)


@pytest.mark.parametrize(
    ("role", "kind"),
    [(Role.SYSTEM, Media("image/png", b"x")), (Role.USER, Reasoning("x")), (Role.USER, ToolCall("a", "b", "{}"))],
)
def test_what_is_in_the_wrong_message_is_refused(role: Role, kind: Media | Reasoning | ToolCall) -> None:
    with pytest.raises(Fault):
        encode(Message(role, (Part(kind),)))
