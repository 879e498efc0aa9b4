"""What Anthropic messages say of settings, options, state and content that does not fit."""

import json
from dataclasses import replace
from typing import Any

import pytest

from router_service.core.faults import Fault, Reason
from router_service.core.request import ProviderTool, Settings, UpstreamRouting
from router_service.dialects.anthropic_messages import AnthropicMessages
from router_service.dialects.base import AnthropicThinking, Quirks
from tests.suites.dialect_fixtures import completion_of

DIALECT = AnthropicMessages()
ASK = {"messages": [{"role": "user", "parts": [{"text": "Hi"}]}]}
BUDGETED = Quirks(anthropic_thinking=AnthropicThinking.BUDGET)
UNTHINKING = Quirks(anthropic_thinking=AnthropicThinking.NONE)

Warned = list[tuple[str, str]]


def encode(data: dict[str, Any], quirks: Quirks = Quirks(), **changes: Any) -> tuple[dict[str, Any], Warned]:
    encoded = DIALECT.encode(replace(completion_of(data, DIALECT.name), **changes), quirks)
    return json.loads(encoded.body), [(notice.field, notice.reason.value) for notice in encoded.warnings]


def fault_of(data: dict[str, Any], quirks: Quirks = Quirks(), **changes: Any) -> str:
    with pytest.raises(Fault) as caught:
        encode(data, quirks, **changes)
    assert caught.value.reason is Reason.INVALID_REQUEST
    return caught.value.metadata["field"]


def asking(limit: int | None = None, **reasoning: Any) -> dict[str, Any]:
    return {**ASK, "settings": {"reasoning": reasoning, "max_output_tokens": limit}}


def message(role: str, *parts: dict[str, Any]) -> dict[str, Any]:
    return {"role": role, "parts": list(parts)}


EFFORT = "settings.reasoning.effort"
BUDGET = "settings.reasoning.budget_tokens"
ADAPTIVE = {"type": "adaptive"}


def enabled(budget: int) -> dict[str, Any]:
    return {"type": "enabled", "budget_tokens": budget}


@pytest.mark.parametrize(
    ("limit", "reasoning", "quirks", "thinking", "effort", "warned"),
    [
        (None, {"effort": "high"}, Quirks(), ADAPTIVE, "high", []),
        (None, {"effort": "minimal"}, Quirks(), ADAPTIVE, "low", [(EFFORT, "adjusted")]),
        (None, {"effort": "xhigh"}, Quirks(efforts=("low", "high")), ADAPTIVE, "high", [(EFFORT, "adjusted")]),
        (None, {"effort": "off"}, Quirks(), {"type": "disabled"}, None, []),
        (None, {"budget_tokens": 2000}, Quirks(), ADAPTIVE, "low", [(BUDGET, "adjusted")]),
        (None, {"include_thoughts": False}, Quirks(), {**ADAPTIVE, "display": "omitted"}, None, []),
        (9000, {"budget_tokens": 2000}, BUDGETED, enabled(2000), None, []),
        (9000, {"budget_tokens": 2000, "effort": "max"}, BUDGETED, enabled(2000), None, []),
        (9000, {"budget_tokens": 100}, BUDGETED, enabled(1024), None, [(BUDGET, "adjusted")]),
        (9000, {"budget_tokens": 9000}, BUDGETED, enabled(7200), None, [(BUDGET, "adjusted")]),
        (9000, {"effort": "low"}, BUDGETED, enabled(1024), None, [(EFFORT, "adjusted")]),
        (1024, {"effort": "low"}, BUDGETED, None, None, [("settings.reasoning", "ignored")]),
        (9000, {"budget_tokens": 0}, BUDGETED, {"type": "disabled"}, None, []),
        (9000, {"effort": "off"}, BUDGETED, {"type": "disabled"}, None, []),
        (9000, {"effort": "low"}, UNTHINKING, None, None, [("settings.reasoning", "ignored")]),
        (9000, {"effort": "off"}, UNTHINKING, None, None, []),
    ],
)
def test_thinking_is_said_in_the_models_way(
    limit: int | None,
    reasoning: dict[str, Any],
    quirks: Quirks,
    thinking: dict[str, Any] | None,
    effort: str | None,
    warned: Warned,
) -> None:
    body, warnings = encode(asking(limit, **reasoning), quirks)
    assert body.get("thinking") == thinking
    assert body.get("output_config", {}).get("effort") == effort
    assert warnings == warned
    if thinking and "budget_tokens" in thinking:
        assert 1024 <= thinking["budget_tokens"] < body["max_tokens"]


def test_a_budget_does_not_cost_the_answer_its_room_where_the_limit_is_ours() -> None:
    body, _ = encode(asking(None, budget_tokens=5000), replace(BUDGETED, default_max_output_tokens=8000))
    assert (body["max_tokens"], body["thinking"]) == (13000, enabled(5000))


@pytest.mark.parametrize("thinking", AnthropicThinking)
def test_off_is_refused_where_a_model_always_thinks(thinking: AnthropicThinking) -> None:
    quirks = Quirks(anthropic_thinking=thinking, is_reasoning_mandatory=True)
    assert fault_of(asking(None, effort="off"), quirks) == "call.spec.settings.reasoning.effort"


def test_a_forced_tool_call_wins_over_thinking() -> None:
    data = {**asking(None, effort="high"), "tools": [{"name": "f"}], "tool_choice": {"mode": "required"}}
    body, warnings = encode(data)
    assert "thinking" not in body
    assert body["tool_choice"] == {"type": "any"}
    assert warnings == [("settings.reasoning", "ignored")]


def test_max_tokens_is_always_sent() -> None:
    assert encode(ASK)[0]["max_tokens"] == 4096
    assert encode(ASK, Quirks(default_max_output_tokens=64000))[0]["max_tokens"] == 64000
    assert encode({**ASK, "settings": {"max_output_tokens": 7}})[0]["max_tokens"] == 7


def test_the_version_is_a_header_and_the_key_is_not() -> None:
    encoded = DIALECT.encode(completion_of(ASK, DIALECT.name), Quirks())
    assert encoded.path == "/v1/messages"
    assert encoded.headers == {"content-type": "application/json", "anthropic-version": "2023-06-01"}


def test_sampling_is_fitted_to_the_wire() -> None:
    sampling = {
        "temperature": 1.5,
        "top_p": 0.9,
        "top_k": 3,
        "presence_penalty": 1.0,
        "frequency_penalty": 1.0,
        "seed": 1,
    }
    body, warnings = encode({**ASK, "settings": {"sampling": {**sampling, "stop_sequences": ["a"]}}})
    assert (body["temperature"], body["top_p"], body["top_k"], body["stop_sequences"]) == (1.0, 0.9, 3, ["a"])
    assert [reason for _, reason in warnings] == ["adjusted", "ignored", "ignored", "ignored"]


@pytest.mark.parametrize(
    ("choice", "parallel", "sent", "warned"),
    [
        (None, None, None, []),
        (None, False, {"type": "auto", "disable_parallel_tool_use": True}, []),
        ({"mode": "auto"}, True, {"type": "auto", "disable_parallel_tool_use": False}, []),
        ({"mode": "none"}, True, {"type": "none"}, [("parallel_tool_calls", "ignored")]),
        ({"mode": "required"}, None, {"type": "any"}, []),
        ({"tool_name": "f"}, None, {"type": "tool", "name": "f"}, []),
    ],
)
def test_tool_choice_is_said(choice: Any, parallel: bool | None, sent: Any, warned: Warned) -> None:
    tools = [{"name": "f", "strict": True}]
    body, warnings = encode({**ASK, "tools": tools, "tool_choice": choice, "parallel_tool_calls": parallel})
    assert body.get("tool_choice") == sent
    assert warnings == warned
    assert body["tools"] == [{"name": "f", "input_schema": {"type": "object", "properties": {}}, "strict": True}]


def test_json_without_a_schema_is_no_promise() -> None:
    body, warnings = encode({**ASK, "response_format": {"json": {}}})
    assert "output_config" not in body
    assert warnings == [("response_format.json", "not_guaranteed")]


def test_options_join_the_schema_of_the_answer() -> None:
    schema = {"json_schema": {"name": "n", "schema_json": "{}"}}
    options = [{"outputConfig": {"effort": "max"}, "thinking": {"type": "enabled", "budgetTokens": 2000}}]
    data = {**asking(None, effort="low"), "response_format": schema, "options": options}
    body, warnings = encode(data, Quirks(options_family="anthropic"))
    assert body["output_config"] == {"format": {"type": "json_schema", "schema": {}}, "effort": "max"}
    assert body["thinking"] == enabled(2000)
    assert warnings == [("settings.reasoning", "replaced")]
    assert fault_of({**ASK, "options": [{"system": "x"}]}) == "call.spec.settings.provider_options"


def test_routing_among_upstreams_means_nothing_here() -> None:
    _, warnings = encode(ASK, settings=Settings(upstream_routing=UpstreamRouting(order=("a",))))
    assert warnings == [("settings.upstream_routing", "ignored")]


def test_turns_alternate_and_results_come_first() -> None:
    call = {"tool_call": {"id": "c", "name": "f", "arguments_json": "{}"}}
    data = {
        "messages": [
            message("user", {"text": "a"}),
            message("user", {"text": ""}, {"text": "b"}),
            message("assistant", {"text": "c"}),
            message("assistant", call),
            message("user", {"text": "d"}, {"tool_result": {"id": "c", "content": []}}),
            message("system", {"text": "late"}),
        ]
    }
    body, warnings = encode(data)
    assert [turn["role"] for turn in body["messages"]] == ["user", "assistant", "user"]
    assert [block["type"] for block in body["messages"][2]["content"]] == ["tool_result", "text"]
    assert body["system"] == [{"type": "text", "text": "late"}]
    assert warnings == [("messages[5]", "adjusted")]


@pytest.mark.parametrize(
    ("messages", "field"),
    [
        ([message("tool", {"tool_result": {"id": "c", "content": []}})], "messages[0].parts[0].tool_result"),
        (
            [message("assistant", {"tool_call": {"id": "c", "name": "f", "arguments_json": "[1]"}})],
            "messages[0].parts[0].tool_call.arguments_json",
        ),
        ([message("user", {"media": {"media_type": "audio/mpeg", "data": "AA=="}})], "messages[0].parts[0]"),
        ([message("user", {"media": {"media_type": "image/tiff", "data": "AA=="}})], "messages[0].parts[0]"),
        ([message("user", {"media": {"media_type": "application/zip", "data": "AA=="}})], "messages[0].parts[0]"),
        ([message("user", {"media": {"media_type": "text/csv", "data": "/w=="}})], "messages[0].parts[0]"),
        ([message("user", {"tool_call": {"id": "c", "name": "f", "arguments_json": ""}})], "messages[0].parts[0]"),
        ([message("system", {"reasoning": "x"})], "messages[0].parts[0]"),
        ([message("assistant", {"tool_result": {"id": "c", "content": []}})], "messages[0].parts[0]"),
        (
            [message("assistant", {"reasoning": "x", "state": {"type": "tool_use", "id": "x"}})],
            "messages[0].parts[0].provider_state",
        ),
        (
            [message("assistant", {"provider": {"kind": "k", "json": '{"a":1},{'}})],
            "messages[0].parts[0].provider.json",
        ),
    ],
)
def test_content_that_the_wire_cannot_carry_is_refused_with_its_place(messages: list[Any], field: str) -> None:
    assert fault_of({"messages": messages}) == f"call.spec.{field}"


def test_ids_of_others_are_put_in_letters_that_the_wire_takes() -> None:
    ids = ["functions.add:0", "functions_add_0", "ok-1"]
    calls = [{"tool_call": {"id": call_id, "name": "f", "arguments_json": ""}} for call_id in ids]
    results = [{"tool_result": {"id": call_id, "content": []}} for call_id in ids]
    body, _ = encode({"messages": [message("assistant", *calls), message("tool", *results)]})
    sent = [block["id"] for block in body["messages"][0]["content"]]
    assert sent == ["functions_add_0", "functions_add_0_1", "ok-1"]
    assert [block["tool_use_id"] for block in body["messages"][1]["content"]] == sent


def test_what_only_others_can_read_stays_at_home() -> None:
    data = {
        "messages": [
            message(
                "assistant",
                {
                    "reasoning": "x",
                    "state": {"type": "redacted_thinking", "data": "x"},
                    "state_provider": "providers/other",
                },
                {"reasoning": "unsigned"},
                {"media": {"media_type": "image/png", "data": "AA=="}},
                {"text": "y"},
            )
        ]
    }
    body, warnings = encode(data)
    assert body["messages"][0]["content"] == [{"type": "text", "text": "y"}]
    assert warnings == [
        ("messages[0].parts[0].provider_state", "content_dropped"),
        ("messages[0].parts[2].media", "content_dropped"),
    ]


def test_a_providers_own_tool_goes_out_unchanged() -> None:
    tool = ProviderTool("anthropic_messages", '{"type":"web_search_20250305","name":"web_search","x":1.0}')
    encoded = DIALECT.encode(replace(completion_of(ASK, DIALECT.name), tools=(tool,)), Quirks())
    assert b'"tools":[{"type":"web_search_20250305","name":"web_search","x":1.0}]' in encoded.body
    assert fault_of(ASK, tools=(ProviderTool("openai_chat", "{}"),)) == "call.spec.tools[0].provider_tool.dialect"


BLOCK = {"provider": {"kind": "k", "json": '{"type":"k","x":1.0}'}}
STRANGE = {"provider": {"kind": "k", "json": "{}", "dialect": "telegraph"}}


def test_blocks_of_this_wire_go_back_unchanged_and_others_do_not() -> None:
    call = {"tool_call": {"id": "c", "name": "f", "arguments_json": ""}}
    result = {"tool_result": {"id": "c", "content": [BLOCK, STRANGE]}}
    data = {"messages": [message("assistant", call, BLOCK, STRANGE), message("user", result, BLOCK, STRANGE)]}
    body, warnings = encode(data)
    block = {"type": "k", "x": 1.0}
    assert body["messages"][0]["content"][1:] == [block]
    assert body["messages"][1]["content"][0]["content"] == [block]
    assert body["messages"][1]["content"][1:] == [block]
    assert warnings == [
        ("messages[0].parts[2].provider", "content_dropped"),
        ("messages[1].parts[0].tool_result.provider", "content_dropped"),
        ("messages[1].parts[2].provider", "content_dropped"),
    ]


def test_a_text_document_by_url() -> None:
    document = {"media": {"media_type": "text/plain", "uri": "https://x/a.txt"}}
    body, _ = encode({"messages": [message("user", document)]})
    assert body["messages"][0]["content"] == [{"type": "document", "source": {"type": "url", "url": "https://x/a.txt"}}]


def test_nothing_asked_of_a_budget_sends_nothing() -> None:
    assert "thinking" not in encode(asking(None, include_thoughts=True), BUDGETED)[0]


def test_changed_citations_are_left_out() -> None:
    data = {"messages": [message("assistant", {"text": "x", "state": {"citations": 5}})]}
    assert encode(data)[0]["messages"][0]["content"] == [{"type": "text", "text": "x"}]
