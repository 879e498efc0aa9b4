"""What OpenAI chat completions say of settings, options, routing, state and content that does not fit."""

import json
from dataclasses import replace
from typing import Any

import pytest

from router_service.core.faults import Fault, Reason
from router_service.core.request import ProviderTool, Settings, UpstreamMaxPrice, UpstreamRouting
from router_service.dialects.base import Quirks, ReasoningStyle
from router_service.dialects.openai_chat import OpenAIChat
from tests.suites.dialect_fixtures import completion_of

DIALECT = OpenAIChat()
ASK = {"messages": [{"role": "user", "parts": [{"text": "Hi"}]}]}
CALLED = [
    {"role": "user", "parts": [{"text": "Go"}]},
    {"role": "assistant", "parts": [{"tool_call": {"id": "c1", "name": "f", "arguments_json": "{}"}}]},
]

Warned = list[tuple[str, str]]


def encode(data: dict[str, Any], quirks: Quirks = Quirks(), **changes: Any) -> tuple[dict[str, Any], Warned]:
    encoded = DIALECT.encode(replace(completion_of(data, DIALECT.name), **changes), quirks)
    return json.loads(encoded.body), [(notice.field, notice.reason.value) for notice in encoded.warnings]


def fault_of(data: dict[str, Any], quirks: Quirks = Quirks(), **changes: Any) -> str:
    with pytest.raises(Fault) as caught:
        encode(data, quirks, **changes)
    assert caught.value.reason is Reason.INVALID_REQUEST
    return caught.value.metadata["field"]


def asking(**reasoning: Any) -> dict[str, Any]:
    return {**ASK, "settings": {"reasoning": reasoning}}


EFFORT = "settings.reasoning.effort"
BUDGET = "settings.reasoning.budget_tokens"


@pytest.mark.parametrize(
    ("reasoning", "quirks", "sent", "warned"),
    [
        ({"effort": "low"}, Quirks(), {"reasoning_effort": "low"}, []),
        ({"effort": "off"}, Quirks(), {"reasoning_effort": "none"}, []),
        ({"effort": "xhigh"}, Quirks(efforts=("low", "high")), {"reasoning_effort": "high"}, [(EFFORT, "adjusted")]),
        ({"effort": "medium"}, Quirks(efforts=("low", "high")), {"reasoning_effort": "low"}, [(EFFORT, "adjusted")]),
        ({"effort": "minimal"}, Quirks(efforts=("high", "max")), {"reasoning_effort": "high"}, [(EFFORT, "adjusted")]),
        ({"budget_tokens": 9000}, Quirks(), {"reasoning_effort": "medium"}, [(BUDGET, "adjusted")]),
        ({"budget_tokens": 0}, Quirks(), {"reasoning_effort": "none"}, []),
        ({"budget_tokens": 9000, "effort": "high"}, Quirks(), {"reasoning_effort": "high"}, []),
        (
            {"effort": "high"},
            Quirks(reasoning_style=ReasoningStyle.OPENROUTER),
            {"reasoning": {"effort": "high"}},
            [],
        ),
        (
            {"effort": "high", "budget_tokens": 2000, "include_thoughts": False},
            Quirks(reasoning_style=ReasoningStyle.OPENROUTER),
            {"reasoning": {"max_tokens": 2000, "exclude": True}},
            [],
        ),
        ({"effort": "off"}, Quirks(reasoning_style=ReasoningStyle.OPENROUTER), {"reasoning": {"effort": "none"}}, []),
        (
            {"effort": "low"},
            Quirks(reasoning_style=ReasoningStyle.BINARY),
            {"thinking": {"type": "enabled"}},
            [(EFFORT, "adjusted")],
        ),
        ({"effort": "off"}, Quirks(reasoning_style=ReasoningStyle.BINARY), {"thinking": {"type": "disabled"}}, []),
        ({"effort": "low"}, Quirks(reasoning_style=ReasoningStyle.NONE), {}, [("settings.reasoning", "ignored")]),
        ({"effort": "off"}, Quirks(reasoning_style=ReasoningStyle.NONE), {}, []),
    ],
)
def test_reasoning_is_said_in_the_providers_way(
    reasoning: dict[str, Any], quirks: Quirks, sent: dict[str, Any], warned: Warned
) -> None:
    body, warnings = encode(asking(**reasoning), quirks)
    assert {name: body[name] for name in ("reasoning_effort", "reasoning", "thinking") if name in body} == sent
    assert warnings == warned


@pytest.mark.parametrize("style", ReasoningStyle)
def test_off_is_refused_where_a_model_always_thinks(style: ReasoningStyle) -> None:
    quirks = Quirks(reasoning_style=style, is_reasoning_mandatory=True)
    assert fault_of(asking(effort="off"), quirks) == "call.spec.settings.reasoning.effort"


def test_off_is_refused_where_a_model_has_no_such_effort() -> None:
    assert fault_of(asking(effort="off"), Quirks(efforts=("low", "high"))) == f"call.spec.{EFFORT}"
    assert encode(asking(effort="off"), Quirks(efforts=("off", "low")))[0]["reasoning_effort"] == "none"


def test_options_take_the_place_of_reasoning_and_are_merged_deep() -> None:
    options = [
        {
            "reasoning": {"enabled": True},
            "provider": {"sort": "price", "allowFallbacks": False},
            "logitBias": {"50A": 1},
        },
        {"reasoning": {"maxTokens": 5}, "provider": {"order": ["x"]}, "metadata": {"myKey": 1}},
    ]
    routing = UpstreamRouting(order=("a", "b"), zero_data_retention=True)
    body, warnings = encode(
        {**asking(effort="high"), "options": options},
        Quirks(options_family="openrouter", is_router_like=True, reasoning_style=ReasoningStyle.OPENROUTER),
        settings=Settings(
            upstream_routing=routing, reasoning=completion_of(asking(effort="high"), "x").settings.reasoning
        ),
    )
    assert body["reasoning"] == {"enabled": True, "max_tokens": 5}
    assert body["provider"] == {"order": ["x"], "zdr": True, "sort": "price", "allow_fallbacks": False}
    assert body["logit_bias"] == {"50A": 1}
    assert body["metadata"] == {"myKey": 1}
    assert warnings == [("settings.reasoning", "replaced")]


def test_options_of_a_provider_without_a_family_keep_their_names() -> None:
    body, _ = encode({**ASK, "options": [{"someThing": {"innerThing": 1}}]})
    assert body["someThing"] == {"innerThing": 1}


def test_options_reach_into_what_was_written_as_text() -> None:
    data = {
        **ASK,
        "response_format": {"json_schema": {"name": "n", "schema_json": '{"type":"object","a":1}', "strict": True}},
        "options": [{"response_format": {"json_schema": {"schema": {"b": 2}}}}],
    }
    schema = encode(data)[0]["response_format"]["json_schema"]["schema"]
    assert schema == {"type": "object", "a": 1, "b": 2}


@pytest.mark.parametrize("key", ["model", "messages", "stream", "models", "n"])
def test_options_cannot_set_what_the_router_decides(key: str) -> None:
    assert fault_of({**ASK, "options": [{key: None}]}) == "call.spec.settings.provider_options"


def test_the_usage_report_is_asked_for_whatever_options_say() -> None:
    options = [{"stream_options": {"include_usage": False, "include_obfuscation": False}}]
    body, _ = encode({**ASK, "options": options})
    assert body["stream_options"] == {"include_usage": True, "include_obfuscation": False}
    assert "stream_options" not in encode(ASK, Quirks(supports_stream_options=False))[0]
    assert "stream" not in encode({**ASK, "stream": False})[0]


def test_upstream_routing_is_passed_on_with_exact_prices() -> None:
    routing = UpstreamRouting(
        only=("a",),
        ignore=("b",),
        allow_fallbacks=False,
        require_parameters=True,
        data_collection="deny",
        quantizations=("fp8",),
        sort="latency",
        max_price=UpstreamMaxPrice(1_100_000_001, 2_000_000_000, 3, None),
    )
    encoded = DIALECT.encode(
        replace(completion_of(ASK, DIALECT.name), settings=Settings(upstream_routing=routing)),
        Quirks(is_router_like=True),
    )
    assert json.loads(encoded.body)["provider"] == {
        "only": ["a"],
        "ignore": ["b"],
        "allow_fallbacks": False,
        "require_parameters": True,
        "data_collection": "deny",
        "quantizations": ["fp8"],
        "sort": "latency",
        "max_price": {"prompt": 1.100000001, "completion": 2, "request": 3e-9},
    }
    assert b'"prompt":1.100000001,"completion":2,"request":0.000000003' in encoded.body
    body, warnings = encode(ASK, settings=Settings(upstream_routing=routing))
    assert "provider" not in body
    assert warnings == [("settings.upstream_routing", "ignored")]


def test_sampling_that_is_not_taken_is_said() -> None:
    sampling = {
        "top_k": 4,
        "seed": 2**53 + 1,
        "presence_penalty": 1.0,
        "frequency_penalty": -1.0,
        "stop_sequences": ["x"],
    }
    data = {**ASK, "settings": {"sampling": sampling}, "parallel_tool_calls": False, "tools": [{"name": "f"}]}
    quirks = Quirks(supports_penalties=False, supports_seed=False, supports_parallel_tool_calls=False)
    body, warnings = encode(data, quirks)
    assert body["stop"] == ["x"]
    assert not {"top_k", "seed", "presence_penalty", "frequency_penalty", "parallel_tool_calls"} & body.keys()
    assert [reason for _, reason in warnings] == ["ignored"] * 5
    body, warnings = encode(
        data, Quirks(supports_top_k=True, max_tokens_field="max_tokens", default_max_output_tokens=9)
    )
    assert (body["top_k"], body["seed"], body["max_tokens"], warnings) == (4, 2**53 + 1, 9, [])


def test_a_schema_that_is_not_promised_is_said() -> None:
    schema = {"name": "n", "schema_json": "{}"}
    body, warnings = encode({**ASK, "response_format": {"json_schema": schema}})
    assert body["response_format"]["json_schema"]["strict"] is False
    assert warnings == [("response_format.json_schema", "not_guaranteed")]
    assert encode({**ASK, "response_format": {"json": {}}})[0]["response_format"] == {"type": "json_object"}
    tools = [{"name": "f", "strict": True}]
    body, warnings = encode({**ASK, "tools": tools}, Quirks(supports_strict_schema=False))
    assert "strict" not in body["tools"][0]["function"]
    assert warnings == [("tools[0].function.strict", "not_guaranteed")]


def test_a_providers_own_tool_goes_out_unchanged() -> None:
    tool = ProviderTool("openai_chat", '{"type":"web_search","max":1.0}')
    encoded = DIALECT.encode(replace(completion_of(ASK, DIALECT.name), tools=(tool,)), Quirks())
    assert b'"tools":[{"type":"web_search","max":1.0}]' in encoded.body
    assert fault_of(ASK, tools=(ProviderTool("other", "{}"),)) == "call.spec.tools[0].provider_tool.dialect"
    assert fault_of(ASK, tools=(ProviderTool("openai_chat", "[]"),)) == "call.spec.tools[0].provider_tool.json"


def message(role: str, *parts: dict[str, Any]) -> dict[str, Any]:
    return {"role": role, "parts": list(parts)}


@pytest.mark.parametrize(
    ("messages", "field"),
    [
        ([message("tool", {"tool_result": {"id": "c", "content": []}})], "messages[0].parts[0].tool_result"),
        (
            [
                *CALLED,
                message(
                    "tool", {"tool_result": {"id": "c1", "content": []}}, {"tool_result": {"id": "?", "content": []}}
                ),
            ],
            "messages[2].parts[1].tool_result",
        ),
        (
            [message("assistant", {"tool_call": {"id": "c", "name": "f", "arguments_json": "{"}})],
            "messages[0].parts[0].tool_call.arguments_json",
        ),
        ([message("user", {"reasoning": "x"})], "messages[0].parts[0]"),
        ([message("system", {"media": {"media_type": "image/png", "uri": "https://x"}})], "messages[0].parts[0]"),
        ([message("user", {"media": {"media_type": "video/mp4", "uri": "https://x"}})], "messages[0].parts[0]"),
        ([message("user", {"media": {"media_type": "audio/ogg", "data": "AA=="}})], "messages[0].parts[0]"),
        ([message("user", {"media": {"media_type": "application/pdf", "uri": "https://x"}})], "messages[0].parts[0]"),
        ([message("user", {"media": {"media_type": "application/zip", "data": "AA=="}})], "messages[0].parts[0]"),
        ([message("user", {"media": {"media_type": "text/plain", "data": "/w=="}})], "messages[0].parts[0]"),
        ([message("assistant", {"tool_result": {"id": "c", "content": []}})], "messages[0].parts[0]"),
        ([message("user", {"provider": {"kind": "k", "json": "["}})], "messages[0].parts[0].provider.json"),
    ],
)
def test_content_that_the_wire_cannot_carry_is_refused_with_its_place(messages: list[Any], field: str) -> None:
    assert fault_of({"messages": messages}) == f"call.spec.{field}"


def test_a_broken_schema_or_an_unknown_tool_is_refused() -> None:
    assert fault_of({**ASK, "tools": [{"name": "f", "parameters_json": "nope"}]}) == (
        "call.spec.tools[0].function.parameters_json"
    )
    assert fault_of({**ASK, "tools": [{"name": "f"}], "tool_choice": {"tool_name": "g"}}) == (
        "call.spec.tool_choice.tool_name"
    )
    schema = {"json_schema": {"name": "n", "schema_json": "[1]"}}
    assert fault_of({**ASK, "response_format": schema}) == "call.spec.response_format.json_schema.schema_json"


def test_reasoning_goes_back_where_it_is_wanted() -> None:
    details = [
        {"type": "reasoning.encrypted", "data": "AA=="},
        {"type": "reasoning.text", "text": "x", "signature": "s"},
    ]
    data = {
        "messages": [
            message(
                "assistant",
                {"reasoning": "", "state": {"reasoning_details": details, "reasoning_content": "hidden"}},
                {"reasoning": " shown"},
                {"text": "Hi"},
            )
        ]
    }
    body, warnings = encode(data)
    assert body["messages"][0] == {"role": "assistant", "content": "Hi", "reasoning_details": details}
    body, _ = encode(data, Quirks(replay_reasoning_field="reasoning_content"))
    assert body["messages"][0]["reasoning_content"] == "hidden shown"
    assert warnings == []


def test_state_of_another_provider_stays_at_home() -> None:
    part = {"reasoning": "x", "state": {"reasoning_details": [{"a": 1}]}}
    for stranger in ({"state_provider": "providers/other"}, {"state_dialect": "anthropic_messages"}):
        body, warnings = encode({"messages": [message("assistant", {**part, **stranger})]})
        assert body["messages"][0] == {"role": "assistant", "content": ""}
        assert warnings == [("messages[0].parts[0].provider_state", "content_dropped")]


def test_thought_signatures_of_gemini_go_back_in_their_places() -> None:
    extra = {"google": {"thought_signature": "c2ln"}}
    call = {"tool_call": {"id": "c", "name": "f", "arguments_json": "{}"}, "state": {"extra_content": extra}}
    body, _ = encode({"messages": [message("assistant", {"text": "x", "state": {"extra_content": extra}}, call)]})
    assert body["messages"][0]["extra_content"] == extra
    assert body["messages"][0]["tool_calls"][0]["extra_content"] == extra


def test_a_router_like_provider_gets_cache_hints_files_by_url_and_its_images_back() -> None:
    image = {"media": {"media_type": "image/png", "data": "AA=="}}
    data = {
        "messages": [
            message(
                "user",
                {"text": "x", "cache": "1h"},
                {"media": {"media_type": "application/pdf", "uri": "https://x/a.pdf"}},
            ),
            message("assistant", image),
        ]
    }
    body, warnings = encode(data, Quirks(is_router_like=True))
    text, file = body["messages"][0]["content"]
    assert text["cache_control"] == {"type": "ephemeral", "ttl": "1h"}
    assert file["file"]["file_data"] == "https://x/a.pdf"
    assert body["messages"][1]["images"][0]["image_url"]["url"] == "data:image/png;base64,AA=="
    assert warnings == []
    _, warnings = encode({"messages": [message("assistant", image)]})
    assert warnings == [("messages[0].parts[0].media", "content_dropped")]


def test_state_that_was_changed_cannot_reach_into_the_request() -> None:
    data = completion_of({"messages": [message("assistant", {"reasoning": "x", "state": {}})]}, DIALECT.name)
    part = data.messages[0].parts[0]
    assert part.provider_state is not None
    evil = replace(part, provider_state=replace(part.provider_state, data=b'{"reasoning_details":[]},"model":"dear"'))
    changed = replace(data, messages=(replace(data.messages[0], parts=(evil,)),))
    body = json.loads(DIALECT.encode(changed, Quirks()).body)
    assert body["model"] == "some-model"
    assert "dear" not in json.dumps(body)


BLOCK = {"provider": {"kind": "k", "json": '{"type":"k","x":1.0}'}}
STRANGE = {"provider": {"kind": "k", "json": "{}", "dialect": "telegraph"}}


def test_blocks_of_this_wire_go_back_unchanged_and_others_do_not() -> None:
    result = {"tool_result": {"id": "c1", "content": [BLOCK, STRANGE]}}
    data = {
        "messages": [
            *CALLED,
            message("tool", result),
            message("user", BLOCK, STRANGE),
            message("assistant", BLOCK, STRANGE),
        ]
    }
    body, warnings = encode(data)
    block = {"type": "k", "x": 1.0}
    assert body["messages"][2]["content"] == '{"type":"k","x":1.0}'
    assert body["messages"][3]["content"] == [block]
    assert body["messages"][4]["content"] == [block]
    assert warnings == [
        ("messages[2].parts[0].tool_result.provider", "content_dropped"),
        ("messages[3].parts[1].provider", "content_dropped"),
        ("messages[4].parts[1].provider", "content_dropped"),
    ]


def test_what_is_asked_of_tools_and_schemas_is_all_sent() -> None:
    schema = {"name": "n", "schema_json": "{}", "strict": True, "description": "d"}
    data = {**ASK, "tools": [{"name": "f", "strict": True}], "response_format": {"json_schema": schema}}
    body, warnings = encode({**data, "tool_choice": {"tool_name": "f"}})
    assert body["tools"][0]["function"]["strict"] is True
    assert body["tool_choice"] == {"type": "function", "function": {"name": "f"}}
    assert body["response_format"]["json_schema"]["description"] == "d"
    assert warnings == []


def test_thoughts_cannot_be_asked_for_on_most_servers() -> None:
    assert encode(asking(include_thoughts=True))[1] == [("settings.reasoning.include_thoughts", "not_guaranteed")]
    assert encode(asking(include_thoughts=False))[1] == []
    assert "thinking" not in encode(asking(include_thoughts=False), Quirks(reasoning_style=ReasoningStyle.BINARY))[0]
    openrouter = Quirks(reasoning_style=ReasoningStyle.OPENROUTER)
    assert encode(asking(include_thoughts=True), openrouter)[0]["reasoning"] == {"exclude": False}


def test_video_and_citations_of_documents() -> None:
    video = {"media": {"media_type": "video/mp4", "uri": "https://x/a.mp4"}}
    body, _ = encode({"messages": [message("user", video)]}, Quirks(is_router_like=True))
    assert body["messages"][0]["content"] == [{"type": "video_url", "video_url": {"url": "https://x/a.mp4"}}]
    cited = {"media": {"media_type": "text/plain", "data": "SGk=", "enable_citations": True}}
    body, warnings = encode({"messages": [message("user", cited)]})
    assert body["messages"][0]["content"] == "Hi"
    assert warnings == [("messages[0].parts[0].media.enable_citations", "ignored")]
    by_url = {"media": {"media_type": "text/plain", "uri": "https://x/a.txt"}}
    assert fault_of({"messages": [message("user", by_url)]}) == "call.spec.messages[0].parts[0]"
