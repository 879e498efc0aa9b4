"""How each level is said to each kind of provider: the built-in models, encoded as a call would be."""

import json
from typing import Any

import pytest

from router_service.catalog.catalog import Endpoint, Provider
from router_service.catalog.loader import load_snapshot
from router_service.core.content import Message, Part, Role, Text
from router_service.core.faults import Fault
from router_service.core.request import (
    Completion,
    FunctionTool,
    ProviderOptions,
    ReasoningEffort,
    ReasoningSettings,
    Sampling,
    Settings,
    ToolChoice,
    ToolMode,
    UpstreamMaxPrice,
    UpstreamRouting,
)
from router_service.dialects.registry import DIALECTS
from router_service.policy.settings import parse_options, select_options

SNAPSHOT = load_snapshot("", source="f")
PROMPT = (Message(Role.USER, (Part(Text("Hi")),)),)
OFF, MINIMAL, LOW, MEDIUM, HIGH, XHIGH, MAX = ReasoningEffort
Json = dict[str, Any]


def endpoint_of(model: str, provider: str) -> tuple[Provider, Endpoint]:
    found = SNAPSHOT.find_model(model)
    assert found is not None
    return SNAPSHOT.providers[provider], next(item for item in found.endpoints if item.provider == provider)


def encode(model: str, provider: str, settings: Settings, pasted: str = "") -> tuple[Json, list[str]]:
    at, endpoint = endpoint_of(model, provider)
    entry = ProviderOptions("", pasted)
    dialect = endpoint.dialect_at(at)
    options = select_options([(entry, parse_options(entry, "options"))], at, dialect) if pasted else ()
    completion = Completion(endpoint.upstream_model, at.name, PROMPT, settings=settings, options=options)
    encoded = DIALECTS[dialect].encode(completion, endpoint.quirks)
    return json.loads(encoded.body), [warning.field for warning in encoded.warnings]


def asking(effort: ReasoningEffort | None = None, **fields: Any) -> Settings:
    return Settings(reasoning=ReasoningSettings(effort=effort, **fields))


MEDIUM_TABLE: list[tuple[str, str, Json]] = [
    ("claude-sonnet-4-6", "anthropic", {"thinking": {"type": "adaptive"}, "output_config": {"effort": "medium"}}),
    ("claude-opus-4-7", "anthropic", {"thinking": {"type": "adaptive"}, "output_config": {"effort": "medium"}}),
    (
        "gemini-3.1-pro-preview-customtools",
        "gemini",
        {"generationConfig": {"thinkingConfig": {"thinkingLevel": "MEDIUM"}}},
    ),
    ("gpt-5.4", "openai", {"reasoning": {"effort": "medium"}}),
    ("gpt-5.4-mini", "openai", {"reasoning_effort": "medium"}),
    ("moonshotai/kimi-k2.5", "openrouter", {"reasoning": {"effort": "medium"}}),
    ("kimi-k2.6-coding", "moonshot", {"thinking": {"type": "enabled"}}),
    ("kimi-k2.6-coding", "kimi-code", {"thinking": {"type": "enabled"}}),
    ("glm-5.1", "zai", {"thinking": {"type": "enabled"}}),
    ("glm-5.1", "zai-coding", {"thinking": {"type": "enabled"}}),
]


@pytest.mark.parametrize(("model", "provider", "said"), MEDIUM_TABLE)
def test_how_medium_is_said(model: str, provider: str, said: Json) -> None:
    body, _ = encode(model, provider, asking(MEDIUM))
    assert {key: body[key] for key in said} == said


Row = tuple[str, str, str, dict[ReasoningEffort, Any]]
REFUSED = "refused"
LEVELS: list[Row] = [
    (
        "claude-opus-4-7",
        "anthropic",
        "output_config.effort",
        {OFF: None, MINIMAL: "low", LOW: "low", MEDIUM: "medium", HIGH: "high", XHIGH: "xhigh", MAX: "max"},
    ),
    ("claude-sonnet-4-6", "anthropic", "output_config.effort", {XHIGH: "high", MAX: "max"}),
    (
        "claude-haiku-4-5",
        "anthropic",
        "thinking.budget_tokens",
        {OFF: None, MINIMAL: 1024, LOW: 1024, MEDIUM: 8192, HIGH: 24576},
    ),
    (
        "gpt-5.4",
        "openai",
        "reasoning.effort",
        {OFF: "none", MINIMAL: "low", LOW: "low", HIGH: "high", XHIGH: "xhigh", MAX: "xhigh"},
    ),
    ("gpt-5", "openai", "reasoning_effort", {OFF: REFUSED, MINIMAL: "minimal", XHIGH: "high", MAX: "high"}),
    ("o3-mini", "openai", "reasoning_effort", {OFF: REFUSED, MINIMAL: "low", MAX: "high"}),
    (
        "gemini-3.1-pro-preview",
        "gemini",
        "generationConfig.thinkingConfig.thinkingLevel",
        {OFF: REFUSED, MINIMAL: "LOW", LOW: "LOW", MEDIUM: "MEDIUM", HIGH: "HIGH", XHIGH: "HIGH", MAX: "HIGH"},
    ),
    (
        "gemini-2.5-flash",
        "gemini",
        "generationConfig.thinkingConfig.thinkingBudget",
        {OFF: 0, MINIMAL: 512, LOW: 1024, MEDIUM: 8192, HIGH: 24576, XHIGH: 24576},
    ),
    (
        "moonshotai/kimi-k2.5",
        "openrouter",
        "reasoning.effort",
        {OFF: "none", MINIMAL: "minimal", LOW: "low", HIGH: "high", XHIGH: "xhigh", MAX: "max"},
    ),
    ("glm-5.1", "zai", "thinking.type", {OFF: "disabled", MINIMAL: "enabled", HIGH: "enabled", MAX: "enabled"}),
    ("moonshotai/kimi-k2.7-code", "moonshot", "thinking.type", {OFF: REFUSED, HIGH: "enabled"}),
    ("kimi-k3", "moonshot", "reasoning_effort", {OFF: REFUSED, LOW: "low", MEDIUM: "low", HIGH: "high", MAX: "max"}),
]
CASES = [(*row[:3], effort, value) for row in LEVELS for effort, value in row[3].items()]


def look(body: Json, path: str) -> Any:
    value: Any = body
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


@pytest.mark.parametrize(("model", "provider", "path", "effort", "value"), CASES)
def test_a_level_is_said_or_its_nearest_with_a_warning_or_refused(
    model: str, provider: str, path: str, effort: ReasoningEffort, value: Any
) -> None:
    if value == REFUSED:
        with pytest.raises(Fault) as raised:
            encode(model, provider, asking(effort))
        assert raised.value.metadata["field"] == "call.spec.settings.reasoning.effort"
        return
    body, warnings = encode(model, provider, asking(effort))
    assert look(body, path) == value
    exact = {effort.value, effort.value.upper(), "none" if effort is OFF else "", "disabled" if effort is OFF else ""}
    if effort is not OFF:
        assert ("settings.reasoning.effort" in warnings) == (value not in exact)


def test_a_budget_goes_where_budgets_go() -> None:
    body, _ = encode("claude-haiku-4-5", "anthropic", asking(budget_tokens=2048))
    assert body["thinking"] == {"type": "enabled", "budget_tokens": 2048}
    body, _ = encode("gemini-2.5-flash", "gemini", asking(budget_tokens=2048))
    assert body["generationConfig"]["thinkingConfig"] == {"thinkingBudget": 2048}
    body, _ = encode("moonshotai/kimi-k2.5", "openrouter", asking(budget_tokens=2048))
    assert body["reasoning"] == {"max_tokens": 2048}
    body, warnings = encode("gpt-5.4-mini", "openai", asking(budget_tokens=8192))
    assert body["reasoning_effort"] == "medium"
    assert warnings == ["settings.reasoning.budget_tokens"]


def test_thoughts_are_shown_or_hidden() -> None:
    body, _ = encode("gemini-2.5-flash", "gemini", asking(MEDIUM, include_thoughts=True))
    assert body["generationConfig"]["thinkingConfig"]["includeThoughts"] is True
    body, _ = encode("moonshotai/kimi-k2.5", "openrouter", asking(MEDIUM, include_thoughts=False))
    assert body["reasoning"] == {"effort": "medium", "exclude": True}
    body, _ = encode("claude-sonnet-4-6", "anthropic", asking(MEDIUM, include_thoughts=False))
    assert body["thinking"]["display"] == "omitted"


PASTED: list[tuple[str, str, str, Json]] = [
    (
        "claude-sonnet-4-6",
        "anthropic",
        '{"thinking": {"type": "enabled", "budgetTokens": 10000}}',
        {"thinking": {"type": "enabled", "budget_tokens": 10000}},
    ),
    (
        "claude-sonnet-4-6",
        "anthropic",
        '{"anthropic": {"outputConfig": {"effort": "max"}}, "google": {"thinkingConfig": {"thinkingBudget": 1}}}',
        {"output_config": {"effort": "max"}, "generationConfig": None, "thinking": None},
    ),
    (
        "gemini-2.5-pro",
        "gemini",
        '{"thinkingConfig": {"thinkingBudget": 4096, "includeThoughts": true}}',
        {"generationConfig": {"thinkingConfig": {"thinkingBudget": 4096, "includeThoughts": True}}},
    ),
    ("gpt-5.4-mini", "openai", '{"reasoningEffort": "high", "user": "me"}', {"reasoning_effort": "high", "user": "me"}),
    ("gpt-5.4", "openai", '{"reasoningEffort": "high", "user": "me"}', {"reasoning": {"effort": "high"}, "user": "me"}),
    ("glm-5.1", "zai", '{"thinking": {"type": "disabled"}}', {"thinking": {"type": "disabled"}}),
    (
        "glm-5.1",
        "zai",
        '{"openaiCompatible": {"reasoningEffort": "low"}}',
        {"reasoning_effort": "low", "thinking": None},
    ),
    ("llama-3.3-70b-versatile", "groq", '{"serviceTier": "flex"}', {"service_tier": "flex"}),
]


@pytest.mark.parametrize(("model", "provider", "pasted", "said"), PASTED)
def test_pasted_options_take_the_place_of_the_level(model: str, provider: str, pasted: str, said: Json) -> None:
    body, warnings = encode(model, provider, asking(MEDIUM), pasted)
    assert {key: body.get(key) for key in said} == said
    assert "settings.reasoning" in warnings


def test_routing_inside_openrouter_joins_the_pasted_options() -> None:
    routing = UpstreamRouting(
        order=("moonshot", "together"),
        allow_fallbacks=False,
        sort="price",
        zero_data_retention=True,
        max_price=UpstreamMaxPrice(input_usd_nanos_per_million_tokens=1_500_000_000),
    )
    provider = {"ignore": ["novita"], "data_collection": "deny"}
    pasted = json.dumps({"openrouter": {"provider": provider, "reasoning": {"effort": "high"}}})
    body, _ = encode("moonshotai/kimi-k2.5", "openrouter", Settings(upstream_routing=routing), pasted)
    assert body["provider"] == {
        "order": ["moonshot", "together"],
        "allow_fallbacks": False,
        "sort": "price",
        "zdr": True,
        "max_price": {"prompt": 1.5},
        "ignore": ["novita"],
        "data_collection": "deny",
    }
    assert body["reasoning"] == {"effort": "high"}


def vercel(settings: Settings, *options: Json) -> tuple[Json, list[str]]:
    at = SNAPSHOT.providers["vercel"]
    completion = Completion("anthropic/claude-sonnet-4.6", at.name, PROMPT, settings=settings, options=options)
    encoded = DIALECTS[at.dialect].encode(completion, at.quirks)
    return json.loads(encoded.body), [warning.field for warning in encoded.warnings]


def test_routing_inside_vercel_is_its_gateway_option() -> None:
    routing = UpstreamRouting(order=("bedrock", "anthropic"), sort="latency", ignore=("x",), allow_fallbacks=False)
    body, warnings = vercel(Settings(upstream_routing=routing), {"providerOptions": {"gateway": {"tags": ["a"]}}})
    assert body["providerOptions"] == {
        "gateway": {"order": ["bedrock", "anthropic"], "only": ["bedrock", "anthropic"], "sort": "ttft", "tags": ["a"]}
    }
    assert warnings == ["settings.upstream_routing.ignore"]


def test_keys_do_not_travel_in_vercels_options() -> None:
    with pytest.raises(Fault) as raised:
        vercel(Settings(), {"providerOptions": {"gateway": {"byok": {"anthropic": [{"apiKey": "sk-secret"}]}}}})
    assert raised.value.metadata["field"] == "call.spec.settings.provider_options"
    assert "secret" not in str(raised.value)


SAMPLED = Sampling(temperature=0.5, top_p=0.9, stop_sequences=("END",))


@pytest.mark.parametrize(
    ("model", "provider", "effort", "sent", "left_out"),
    [
        ("claude-opus-4-7", "anthropic", OFF, {"stop_sequences"}, {"temperature", "top_p"}),
        ("claude-opus-4-7", "bedrock", OFF, {"inferenceConfig"}, {"temperature", "top_p"}),
        ("claude-haiku-5-5", "bedrock-anthropic", OFF, {"stop_sequences"}, {"temperature", "top_p"}),
        ("claude-sonnet-4-6", "anthropic", OFF, {"temperature", "top_p", "stop_sequences"}, set()),
        ("gpt-5", "openai", LOW, set(), {"temperature", "top_p", "stop_sequences"}),
        ("gpt-5.1", "openai", LOW, {"stop"}, {"temperature", "top_p"}),
        ("gpt-5.1", "openai", OFF, {"temperature", "top_p", "stop"}, set()),
        ("gpt-5.4", "openai", MEDIUM, set(), {"temperature", "top_p", "stop_sequences"}),
        ("gpt-5.4", "openai", OFF, {"temperature", "top_p"}, {"stop_sequences"}),
        ("gpt-4.1", "openai", None, {"temperature", "top_p", "stop"}, set()),
    ],
)
def test_what_a_model_would_refuse_is_left_out_with_a_warning(
    model: str, provider: str, effort: ReasoningEffort | None, sent: set[str], left_out: set[str]
) -> None:
    reasoning = ReasoningSettings(effort=effort) if effort else None
    body, warnings = encode(model, provider, Settings(sampling=SAMPLED, reasoning=reasoning))
    every = {"temperature", "top_p", "stop", "stop_sequences", "inferenceConfig"}
    assert {name for name in body if name in every} == sent
    assert {name.removeprefix("settings.sampling.") for name in warnings if "sampling" in name} == left_out
    assert "temperature" not in body.get("inferenceConfig", {})


@pytest.mark.parametrize("provider", ["anthropic", "bedrock"])
@pytest.mark.parametrize("model", ["claude-sonnet-5-5", "claude-opus-5-5"])
def test_a_model_that_cannot_be_made_to_call_a_tool_is_left_to_decide_and_that_is_said(
    model: str, provider: str
) -> None:
    at, endpoint = endpoint_of(model, provider)
    tool = FunctionTool("weather", "tells it", "{}")
    completion = Completion(
        endpoint.upstream_model, at.name, PROMPT, tools=(tool,), tool_choice=ToolChoice(ToolMode.AUTO, "weather")
    )
    encoded = DIALECTS[at.dialect].encode(completion, endpoint.quirks)
    assert [warning.field for warning in encoded.warnings] == ["tool_choice"]
    body = json.loads(encoded.body)
    assert body.get("tool_choice", {"type": "auto"}) == {"type": "auto"}
    assert "toolChoice" not in body.get("toolConfig", {})


@pytest.mark.parametrize("provider", ["anthropic", "bedrock-anthropic", "bedrock"])
def test_off_is_said_in_the_word_that_the_model_takes_or_refused(provider: str) -> None:
    for model, word in (("claude-sonnet-5-5", "between_tools"), ("claude-haiku-5-5", "disabled")):
        body, warnings = encode(model, provider, asking(OFF, include_thoughts=True))
        assert body.get("additionalModelRequestFields", body)["thinking"] == {"type": word}
        assert warnings == []
    with pytest.raises(Fault, match="INVALID_REQUEST"):
        encode("claude-opus-5-5", provider, asking(OFF))


@pytest.mark.parametrize(
    "pasted",
    [
        '{"providerOptions": {"gateway": {"byok": {"anthropic": [{"apiKey": "k"}]}}}}',
        '{"provider_options": {"gateway": {"byok": {}}}}',
        '{"gateway": {"BYOK": {}}}',
        '{"byok": {}}',
    ],
)
@pytest.mark.parametrize(("model", "provider"), [("claude-sonnet-4.6", "vercel"), ("kimi-k2.5", "openrouter")])
def test_keys_never_travel_in_options(model: str, provider: str, pasted: str) -> None:
    with pytest.raises(Fault, match="INVALID_REQUEST") as raised:
        encode(model, provider, Settings(), pasted)
    assert raised.value.metadata["field"] == "call.spec.settings.provider_options"
