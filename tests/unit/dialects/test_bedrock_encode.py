"""Requests of Bedrock's Converse: AWS's own validation of each, and reasoning in every vendor's words."""

import json
from dataclasses import replace
from typing import Any

import pytest

from router_service.core.content import Media, Message, Part, ProviderState, Reasoning, Role, Text, ToolCall, ToolResult
from router_service.core.faults import Fault, Reason
from router_service.core.request import (
    Completion,
    FunctionTool,
    JsonFormat,
    ReasoningEffort,
    ReasoningSettings,
    Sampling,
    Settings,
    ToolChoice,
    ToolMode,
    UpstreamRouting,
)
from router_service.dialects.base import BedrockReasoning, Quirks
from router_service.dialects.bedrock_converse import BedrockConverse
from tests.suites.aws_oracle import problems_of
from tests.suites.dialect_fixtures import Fixture, completion_of, fixtures
from tests.suites.dialect_suite import PROVIDER

DIALECT = BedrockConverse()
MODEL = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
USER = Message(Role.USER, (Part(Text("Hi")),))
TOOL = FunctionTool("f")
CALLED = (
    USER,
    Message(Role.ASSISTANT, (Part(ToolCall("c1", "f", "{}")),)),
    Message(Role.TOOL, (Part(ToolResult("c1", (Text("ok"),))),)),
)


def ask(*messages: Message, **given: Any) -> Completion:
    return Completion(MODEL, PROVIDER, messages or (USER,), **given)


def body_of(completion: Completion, quirks: Quirks | None = None) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(DIALECT.encode(completion, quirks or Quirks()).body)
    assert problems_of(body, completion.model) == ""
    return body


def warnings_of(completion: Completion, quirks: Quirks | None = None) -> list[tuple[str, str]]:
    return [(n.field, n.reason.value) for n in DIALECT.encode(completion, quirks or Quirks()).warnings]


def reasoning(settings: ReasoningSettings, style: BedrockReasoning, limit: int | None = None, **given: Any) -> Any:
    completion = ask(settings=Settings(reasoning=settings, max_output_tokens=limit), **given)
    return body_of(completion, Quirks(bedrock_reasoning=style))


@pytest.mark.parametrize("case", fixtures("bedrock_converse"), ids=lambda case: case.name)
def test_botocore_accepts_every_request_of_the_fixtures(case: Fixture) -> None:
    completion = completion_of(case.request["completion"], "bedrock_converse")
    assert problems_of(case.request["wire"], replace(completion, model=MODEL).model) == ""


@pytest.mark.parametrize(
    ("model", "path"),
    [
        ("amazon.nova-lite-v1:0", "/model/amazon.nova-lite-v1%3A0/converse-stream"),
        (
            "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.x-v1:0",
            "/model/arn%3Aaws%3Abedrock%3Aus-east-1%3A123456789012%3Ainference-profile%2Fus.x-v1%3A0/converse-stream",
        ),
        ("../../admin", "/model/..%2F..%2Fadmin/converse-stream"),
    ],
)
def test_a_model_is_one_segment_of_the_path(model: str, path: str) -> None:
    assert DIALECT.encode(replace(ask(), model=model), Quirks()).path == path


@pytest.mark.parametrize("model", ["", ".", ".."])
def test_a_name_that_would_leave_its_folder_is_refused(model: str) -> None:
    with pytest.raises(Fault):
        DIALECT.encode(replace(ask(), model=model), Quirks())


@pytest.mark.parametrize(
    ("effort", "sent"), [(ReasoningEffort.MINIMAL, "low"), (ReasoningEffort.HIGH, "high"), (ReasoningEffort.MAX, "max")]
)
def test_claude_takes_an_effort(effort: ReasoningEffort, sent: str) -> None:
    body = reasoning(ReasoningSettings(effort, include_thoughts=True), BedrockReasoning.CLAUDE_ADAPTIVE)
    assert body["outputConfig"] == {"effort": sent}
    assert body["additionalModelRequestFields"] == {"thinking": {"type": "adaptive", "display": "summarized"}}


def test_claude_may_be_told_not_to_think_or_only_what_to_show() -> None:
    off = reasoning(ReasoningSettings(ReasoningEffort.OFF), BedrockReasoning.CLAUDE_ADAPTIVE)
    assert off["additionalModelRequestFields"] == {"thinking": {"type": "disabled"}}
    shown = reasoning(ReasoningSettings(include_thoughts=False), BedrockReasoning.CLAUDE_ADAPTIVE)
    assert shown["additionalModelRequestFields"] == {"thinking": {"type": "adaptive", "display": "omitted"}}
    budget_off = reasoning(ReasoningSettings(budget_tokens=0), BedrockReasoning.CLAUDE_BUDGET)
    assert budget_off["additionalModelRequestFields"] == {"thinking": {"type": "disabled"}}


@pytest.mark.parametrize(
    ("asked", "limit", "budget", "sent_limit"),
    [
        (ReasoningSettings(ReasoningEffort.MEDIUM), None, 8192, 12288),
        (ReasoningSettings(budget_tokens=2000), 9000, 2000, 9000),
        (ReasoningSettings(budget_tokens=5), 9000, 1024, 9000),
        (ReasoningSettings(ReasoningEffort.MAX), 10000, 8000, 10000),
    ],
)
def test_an_older_claude_takes_a_budget_below_the_limit(
    asked: ReasoningSettings, limit: int | None, budget: int, sent_limit: int
) -> None:
    body = reasoning(asked, BedrockReasoning.CLAUDE_BUDGET, limit)
    assert body["additionalModelRequestFields"] == {"thinking": {"type": "enabled", "budget_tokens": budget}}
    assert body["inferenceConfig"]["maxTokens"] == sent_limit


def test_a_limit_that_leaves_no_room_ends_thinking() -> None:
    assert "additionalModelRequestFields" not in reasoning(
        ReasoningSettings(ReasoningEffort.LOW), BedrockReasoning.CLAUDE_BUDGET, 1000
    )


@pytest.mark.parametrize(
    ("style", "effort", "fields"),
    [
        (
            BedrockReasoning.NOVA,
            ReasoningEffort.HIGH,
            {"reasoningConfig": {"type": "enabled", "maxReasoningEffort": "high"}},
        ),
        (BedrockReasoning.NOVA, ReasoningEffort.OFF, {"reasoningConfig": {"type": "disabled"}}),
        (BedrockReasoning.EFFORT, ReasoningEffort.MAX, {"reasoning_effort": "high"}),
        (BedrockReasoning.NONE, ReasoningEffort.HIGH, None),
        (BedrockReasoning.NONE, ReasoningEffort.OFF, None),
    ],
)
def test_other_vendors_have_words_of_their_own(
    style: BedrockReasoning, effort: ReasoningEffort, fields: dict[str, Any] | None
) -> None:
    assert reasoning(ReasoningSettings(effort), style).get("additionalModelRequestFields") == fields


@pytest.mark.parametrize("style", BedrockReasoning)
def test_off_is_refused_where_a_model_always_thinks(style: BedrockReasoning) -> None:
    completion = ask(settings=Settings(reasoning=ReasoningSettings(ReasoningEffort.OFF)))
    with pytest.raises(Fault) as caught:
        DIALECT.encode(completion, Quirks(bedrock_reasoning=style, is_reasoning_mandatory=True))
    assert caught.value.reason is Reason.INVALID_REQUEST


def test_off_is_refused_where_there_is_no_word_for_it() -> None:
    with pytest.raises(Fault):
        reasoning(ReasoningSettings(ReasoningEffort.OFF), BedrockReasoning.EFFORT)


def test_a_forced_call_ends_claudes_thinking() -> None:
    completion = ask(
        settings=Settings(reasoning=ReasoningSettings(ReasoningEffort.LOW)),
        tools=(TOOL,),
        tool_choice=ToolChoice(ToolMode.REQUIRED),
    )
    quirks = Quirks(bedrock_reasoning=BedrockReasoning.CLAUDE_BUDGET)
    assert "additionalModelRequestFields" not in body_of(completion, quirks)
    assert ("settings.reasoning", "ignored") in warnings_of(completion, quirks)


def test_sampling_that_thinking_excludes_or_the_wire_lacks_is_warned_of() -> None:
    sampling = Sampling(temperature=1.5, top_p=0.5, top_k=3, presence_penalty=0.1, frequency_penalty=0.1, seed=1)
    settings = Settings(sampling=sampling, upstream_routing=UpstreamRouting(order=("a",)))
    body = body_of(ask(settings=settings), Quirks(supports_top_k=True))
    assert body["inferenceConfig"] == {"temperature": 1.0, "topP": 0.5}
    assert body["additionalModelRequestFields"] == {"top_k": 3}
    assert ("settings.sampling.top_k", "ignored") in warnings_of(ask(settings=settings))
    thinking = replace(settings, reasoning=ReasoningSettings(ReasoningEffort.LOW))
    quirks = Quirks(bedrock_reasoning=BedrockReasoning.CLAUDE_ADAPTIVE, supports_top_k=True)
    assert "inferenceConfig" not in body_of(ask(settings=thinking), quirks)


def test_tools_are_not_declared_where_none_may_be_called() -> None:
    assert "toolConfig" not in body_of(ask(tools=(TOOL,), tool_choice=ToolChoice(ToolMode.NONE)))
    kept = ask(*CALLED, tools=(TOOL,), tool_choice=ToolChoice(ToolMode.NONE))
    assert "toolChoice" not in body_of(kept)["toolConfig"]
    assert warnings_of(kept) == [("tool_choice", "not_guaranteed")]


def test_tools_that_were_called_before_are_declared() -> None:
    assert body_of(ask(*CALLED))["toolConfig"]["tools"][0]["toolSpec"]["name"] == "f"
    assert warnings_of(ask(*CALLED)) == [("tools", "adjusted")]


def test_json_without_a_schema_is_not_guaranteed() -> None:
    assert warnings_of(ask(response_format=JsonFormat())) == [("response_format.json", "not_guaranteed")]


@pytest.mark.parametrize("key", ["modelId", "model_id", "messages", "system", "stream", "model"])
def test_options_cannot_set_what_the_router_decides(key: str) -> None:
    with pytest.raises(Fault) as caught:
        DIALECT.encode(ask(options=({key: "x"},)), Quirks())
    assert caught.value.reason is Reason.INVALID_REQUEST


@pytest.mark.parametrize(
    "part",
    [
        Part(Media("image/tiff", b"x")),
        Part(Media("application/zip", b"x")),
        Part(Media("audio/midi", b"x")),
        Part(Media("image/png", uri="https://example.org/cat.png")),
        Part(Media("text/plain", b"\xff", enable_citations=True)),
        Part(Reasoning("x")),
        Part(ToolCall("a", "b", "{}")),
        Part(ToolResult("unknown", ())),
    ],
)
def test_what_the_wire_cannot_carry_is_refused_before_it_is_sent(part: Part) -> None:
    with pytest.raises(Fault) as caught:
        DIALECT.encode(ask(Message(Role.USER, (part,))), Quirks())
    assert caught.value.reason is Reason.INVALID_REQUEST


@pytest.mark.parametrize(
    "state",
    [
        b"x",
        b"{}",
        b'{"redactedContent":"%"}',
        b'{"reasoningText":{"text":"a"}}',
        b'{"reasoningText":{"text":"a","signature":"b"},"redactedContent":"AAAA"}',
    ],
)
def test_a_state_that_was_changed_is_refused(state: bytes) -> None:
    part = Part(Reasoning("a"), provider_state=ProviderState("bedrock_converse", PROVIDER, state))
    with pytest.raises(Fault):
        DIALECT.encode(ask(USER, Message(Role.ASSISTANT, (part,))), Quirks())


def test_long_ids_stay_apart() -> None:
    calls = [Part(ToolCall("x" * 80 + end, "f", "{}")) for end in "ab"]
    results = [Part(ToolResult("x" * 80 + end, (Text(end),))) for end in "ab"]
    body = body_of(ask(USER, Message(Role.ASSISTANT, tuple(calls)), Message(Role.TOOL, tuple(results)), tools=(TOOL,)))
    ids = [block["toolUse"]["toolUseId"] for block in body["messages"][1]["content"]]
    assert len(set(ids)) == 2
    assert [block["toolResult"]["toolUseId"] for block in body["messages"][2]["content"]] == ids
