"""What Gemini's encoder writes, field by field."""

import json
from typing import Any

import pytest

from router_service.core.content import (
    Media,
    Message,
    Part,
    PartKind,
    ProviderState,
    Reasoning,
    Role,
    Text,
    ToolCall,
    ToolResult,
)
from router_service.core.faults import Fault, Reason
from router_service.core.request import (
    Completion,
    FunctionTool,
    ProviderTool,
    ReasoningEffort,
    ReasoningSettings,
    Sampling,
    Settings,
    ToolChoice,
    ToolMode,
    WarningReason,
)
from router_service.dialects.base import Encoded, GeminiThinking, Quirks
from router_service.dialects.gemini import Gemini
from tests.suites.dialect_suite import PROVIDER, QUIRKS

DIALECT = Gemini()
HI = Message(Role.USER, (Part(Text("Hi")),))


def encode(*messages: Message, quirks: Quirks = QUIRKS, **fields: Any) -> Encoded:
    model = fields.pop("model", "m")
    return DIALECT.encode(Completion(model=model, provider=PROVIDER, messages=messages or (HI,), **fields), quirks)


def body_of(encoded: Encoded) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(encoded.body)
    return body


def warnings_of(encoded: Encoded) -> list[tuple[str, WarningReason]]:
    return [(notice.field, notice.reason) for notice in encoded.warnings]


def thinking(quirks: Quirks, effort: ReasoningEffort | None = None, budget: int | None = None) -> Any:
    settings = Settings(reasoning=ReasoningSettings(effort, budget))
    encoded = encode(quirks=quirks, settings=settings)
    config = body_of(encoded).get("generationConfig", {}).get("thinkingConfig")
    return config, [reason for _, reason in warnings_of(encoded)]


@pytest.mark.parametrize(
    ("model", "path"),
    [
        ("gemini-2.5-pro", "/models/gemini-2.5-pro:streamGenerateContent?alt=sse"),
        ("models/gemini-2.5-pro", "/models/gemini-2.5-pro:streamGenerateContent?alt=sse"),
        ("tunedModels/a", "/tunedModels/a:streamGenerateContent?alt=sse"),
        ("gemini@001", "/models/gemini@001:streamGenerateContent?alt=sse"),
        ("../x?y#z:w/v", "/models/..%2Fx%3Fy%23z%3Aw%2Fv:streamGenerateContent?alt=sse"),
    ],
)
def test_the_model_is_in_the_path_and_cannot_leave_it(model: str, path: str) -> None:
    assert encode(model=model).path == path


@pytest.mark.parametrize("model", ["..", ".", "models/..", ""])
def test_no_name_of_a_model(model: str) -> None:
    with pytest.raises(Fault) as caught:
        encode(model=model)
    assert caught.value.reason is Reason.INVALID_REQUEST


def test_a_whole_answer_has_another_method() -> None:
    assert encode(stream=False).path == "/models/m:generateContent"


LEVEL = Quirks(gemini_thinking=GeminiThinking.LEVEL)
PRO = Quirks(gemini_thinking=GeminiThinking.LEVEL, efforts=("low", "medium", "high"), is_reasoning_mandatory=True)
BUDGET = Quirks(gemini_thinking=GeminiThinking.BUDGET, efforts=("off", "minimal", "low", "medium", "high"))
MANDATORY = Quirks(gemini_thinking=GeminiThinking.BUDGET, is_reasoning_mandatory=True)
NO_THINKING = Quirks(gemini_thinking=GeminiThinking.NONE)
ADJUSTED = [WarningReason.ADJUSTED]


@pytest.mark.parametrize(
    ("quirks", "effort", "budget", "wanted", "warnings"),
    [
        (LEVEL, "minimal", None, {"thinkingLevel": "MINIMAL"}, []),
        (LEVEL, "low", None, {"thinkingLevel": "LOW"}, []),
        (LEVEL, "medium", None, {"thinkingLevel": "MEDIUM"}, []),
        (LEVEL, "high", None, {"thinkingLevel": "HIGH"}, []),
        (LEVEL, "max", None, {"thinkingLevel": "HIGH"}, ADJUSTED),
        (LEVEL, "off", None, {"thinkingBudget": 0}, []),
        (LEVEL, None, 9000, {"thinkingLevel": "MEDIUM"}, ADJUSTED),
        (LEVEL, None, 0, {"thinkingBudget": 0}, []),
        (PRO, "minimal", None, {"thinkingLevel": "LOW"}, ADJUSTED),
        (BUDGET, "off", None, {"thinkingBudget": 0}, []),
        (BUDGET, "low", None, {"thinkingBudget": 1024}, ADJUSTED),
        (BUDGET, "medium", None, {"thinkingBudget": 8192}, ADJUSTED),
        (BUDGET, "high", None, {"thinkingBudget": 24576}, ADJUSTED),
        (BUDGET, "max", None, {"thinkingBudget": 24576}, [*ADJUSTED, *ADJUSTED]),
        (BUDGET, "low", 5000, {"thinkingBudget": 5000}, []),
        (BUDGET, "off", 5000, {"thinkingBudget": 0}, []),
        (BUDGET, None, 0, {"thinkingBudget": 0}, []),
        (NO_THINKING, "high", None, None, [WarningReason.IGNORED]),
        (NO_THINKING, "off", None, None, []),
    ],
)
def test_how_much_to_think(
    quirks: Quirks, effort: str | None, budget: int | None, wanted: Any, warnings: list[WarningReason]
) -> None:
    asked = ReasoningEffort(effort) if effort else None
    found, reasons = thinking(quirks, asked, budget)
    assert found == wanted
    assert reasons == warnings


@pytest.mark.parametrize(
    "quirks", [PRO, MANDATORY, Quirks(gemini_thinking=GeminiThinking.NONE, is_reasoning_mandatory=True)]
)
def test_off_is_refused_where_a_model_always_thinks(quirks: Quirks) -> None:
    with pytest.raises(Fault) as caught:
        thinking(quirks, ReasoningEffort.OFF)
    assert caught.value.metadata == {"field": "call.spec.settings.reasoning.effort"}


def test_a_budget_of_nothing_is_off_too() -> None:
    with pytest.raises(Fault):
        thinking(MANDATORY, None, 0)


def test_penalties_and_seed_where_a_model_has_none() -> None:
    quirks = Quirks(supports_penalties=False, supports_seed=False)
    sampling = Sampling(presence_penalty=0.5, frequency_penalty=0.5, seed=1)
    encoded = encode(quirks=quirks, settings=Settings(sampling=sampling))
    assert "generationConfig" not in body_of(encoded)
    assert {reason for _, reason in warnings_of(encoded)} == {WarningReason.IGNORED}


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        (
            {"thinkingConfig": {"thinkingLevel": "medium"}},
            {"generationConfig": {"thinkingConfig": {"thinkingLevel": "medium"}}},
        ),
        ({"thinking_config": {"thinking_budget": 5}}, {"generationConfig": {"thinkingConfig": {"thinkingBudget": 5}}}),
        ({"generation_config": {"media_resolution": "X"}}, {"generationConfig": {"mediaResolution": "X"}}),
        (
            {"cachedContent": "cachedContents/1", "labels": {"my_team": "a"}},
            {"cachedContent": "cachedContents/1", "labels": {"my_team": "a"}},
        ),
        ({"responseJsonSchema": {"my_key": 1}}, {"generationConfig": {"responseJsonSchema": {"my_key": 1}}}),
        ({"maxOutputTokens": 7}, {"generationConfig": {"maxOutputTokens": 7}}),
    ],
)
def test_options_find_their_place(options: dict[str, Any], wanted: dict[str, Any]) -> None:
    body = body_of(encode(options=(options,)))
    del body["contents"]
    assert body == wanted


@pytest.mark.parametrize(
    "key", ["contents", "systemInstruction", "system_instruction", "candidateCount", "model", "stream"]
)
def test_options_do_not_say_what_the_router_says(key: str) -> None:
    for options in ({key: 1}, {"generationConfig": {key: 1}}):
        with pytest.raises(Fault) as caught:
            encode(options=(options,))
        assert caught.value.metadata == {"field": "call.spec.settings.provider_options"}


@pytest.mark.parametrize(
    ("choice", "wanted"),
    [
        (ToolChoice(ToolMode.AUTO), {"mode": "AUTO"}),
        (ToolChoice(ToolMode.NONE), {"mode": "NONE"}),
        (ToolChoice(ToolMode.REQUIRED), {"mode": "ANY"}),
        (ToolChoice(tool_name="f"), {"mode": "ANY", "allowedFunctionNames": ["f"]}),
    ],
)
def test_each_rule_for_tools(choice: ToolChoice, wanted: dict[str, Any]) -> None:
    search = ProviderTool("gemini", '{"googleSearch":{}}')
    body = body_of(encode(tools=(FunctionTool("f"), search), tool_choice=choice))
    assert body["toolConfig"] == {"functionCallingConfig": wanted}
    assert [list(tool) for tool in body["tools"]] == [["functionDeclarations"], ["googleSearch"]]


def test_a_tool_of_another_dialect_is_refused() -> None:
    with pytest.raises(Fault):
        encode(tools=(ProviderTool("anthropic_messages", "{}"),))


SIGNING = Quirks(needs_call_signatures=True, supports_tool_result_media=True)


def call(number: int, state: dict[str, Any] | None = None) -> Part:
    data = json.dumps(state).encode() if state is not None else None
    tag = ProviderState("gemini", PROVIDER, data) if data is not None else None
    return Part(ToolCall(f"c{number}", "f", "{}"), provider_state=tag)


def turn(role: Role, *kinds: PartKind) -> Message:
    return Message(role, tuple(Part(kind) for kind in kinds))


def test_the_first_call_of_another_model_gets_the_placeholder() -> None:
    foreign, own = (
        Message(Role.ASSISTANT, (call(1), call(2))),
        Message(Role.ASSISTANT, (call(3, {"thoughtSignature": "U0lH"}),)),
    )
    results = turn(Role.TOOL, ToolResult("c1", ()), ToolResult("c2", ()))
    contents = body_of(encode(HI, foreign, results, own, turn(Role.TOOL, ToolResult("c3", ())), quirks=SIGNING))[
        "contents"
    ]
    signatures = [
        part.get("thoughtSignature") for content in contents for part in content["parts"] if "functionCall" in part
    ]
    assert signatures == ["skip_thought_signature_validator", None, "U0lH"]


def test_media_inside_a_result_where_the_model_takes_them() -> None:
    result = ToolResult("c1", (Text("a"), Media("image/png", b"\x00"), Media("application/pdf", uri="gs://b/a")))
    contents = body_of(encode(HI, Message(Role.ASSISTANT, (call(1),)), turn(Role.TOOL, result), quirks=SIGNING))[
        "contents"
    ]
    assert contents[-1] == {
        "role": "user",
        "parts": [
            {
                "functionResponse": {
                    "name": "f",
                    "response": {"output": "a"},
                    "parts": [
                        {"inlineData": {"mimeType": "image/png", "data": "AA=="}},
                        {"fileData": {"mimeType": "application/pdf", "fileUri": "gs://b/a"}},
                    ],
                }
            }
        ],
    }


def test_an_edited_text_keeps_the_last_signature() -> None:
    state = {"pieces": [{"chars": 5}, {"chars": 0, "thoughtSignature": "U0lH"}]}
    part = Part(Text("other"), provider_state=ProviderState("gemini", PROVIDER, json.dumps(state).encode()))
    longer = Part(Text("something else"), provider_state=part.provider_state)
    for given, wanted in (
        (part, [{"text": "other"}, {"text": "", "thoughtSignature": "U0lH"}]),
        (longer, [{"text": "something else", "thoughtSignature": "U0lH"}]),
    ):
        assert body_of(encode(HI, Message(Role.ASSISTANT, (given,))))["contents"][1]["parts"] == wanted


@pytest.mark.parametrize("data", [b"", b"[]", b'{"thoughtSignature":1}', b'{"pieces":[{}]}', b"\xff"])
def test_a_state_that_was_changed(data: bytes) -> None:
    part = Part(Text("a"), provider_state=ProviderState("gemini", PROVIDER, data))
    with pytest.raises(Fault) as caught:
        encode(HI, Message(Role.ASSISTANT, (part,)))
    assert caught.value.metadata == {"field": "call.spec.messages[1].parts[0].provider_state"}


def test_thoughts_go_back_signed_or_not_at_all() -> None:
    unsigned = turn(Role.ASSISTANT, Reasoning("hm"), Text("a"))
    assert body_of(encode(HI, unsigned))["contents"][1]["parts"] == [{"text": "a"}]


def test_a_system_message_that_comes_late() -> None:
    encoded = encode(HI, turn(Role.SYSTEM, Text("Be brief."), Text("")))
    assert body_of(encoded)["systemInstruction"] == {"parts": [{"text": "Be brief."}]}
    assert warnings_of(encoded) == [("messages[1]", WarningReason.ADJUSTED)]


@pytest.mark.parametrize(
    "messages",
    [
        (turn(Role.SYSTEM, Media("image/png", b"")),),
        (turn(Role.USER, ToolCall("c", "f", "{}")),),
        (turn(Role.ASSISTANT, ToolResult("c", ())),),
        (turn(Role.TOOL, ToolResult("c", ())),),
        (turn(Role.ASSISTANT, ToolCall("c", "f", "[1]")),),
    ],
)
def test_what_the_wire_cannot_carry(messages: tuple[Message, ...]) -> None:
    with pytest.raises(Fault) as caught:
        encode(*messages)
    assert caught.value.reason is Reason.INVALID_REQUEST
