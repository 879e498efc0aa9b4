"""What a sound file becomes."""

from ipaddress import ip_network

import pytest

from router_service.catalog.catalog import RateLimits
from router_service.catalog.loader import ConfigurationError, load_snapshot
from router_service.core.endpoint import AuthScheme
from router_service.core.money import Price
from router_service.core.request import ReasoningEffort
from router_service.core.resolution import Payer, PayerFailoverCause
from router_service.dialects.base import AnthropicThinking, ReasoningStyle
from tests.unit.catalog.example import EXAMPLE


def test_example_loads_as_written() -> None:
    snapshot = load_snapshot(EXAMPLE, source="keyswitch.yaml")
    assert (snapshot.deployment, snapshot.default_model, snapshot.byok_enabled) == ("keyswitch", "practice/echo", True)
    demo = snapshot.organizations["demo"]
    assert (demo.markup_basis_points, demo.default_model, demo.users) == (500, "practice/echo", ("ada",))
    chat, claude = demo.applications["chat"], demo.applications["claude"]
    assert chat.name == "organizations/demo/applications/chat"
    assert chat.payers == (Payer.USER_KEY, Payer.ORGANIZATION_KEY, Payer.SHARED_KEY, Payer.CREDITS)
    assert chat.payer_failover_on == frozenset()
    assert claude.native_provider == "anthropic"
    assert claude.bindings == {Payer.ORGANIZATION_KEY: "organizations/demo/credentials/anthropic-main"}
    practice = snapshot.providers["practice"]
    assert practice.base_url.join("/chat/completions") == "http://127.0.0.1:8780/v1/chat/completions"
    assert practice.allowed_private_networks == (ip_network("127.0.0.1/32"),)
    assert snapshot.providers["anthropic"].auth is AuthScheme.X_API_KEY
    echo = snapshot.find_model("echo")
    assert echo is not None
    assert echo.price == Price(100_000_000, 400_000_000, revision="configuration:2026-11-21")
    assert echo.price_revision == "configuration:2026-11-21"
    credential = snapshot.deployment_credentials["practice"]
    assert credential.payers == {Payer.SHARED_KEY, Payer.CREDITS}


def test_an_empty_file_is_the_built_in_catalog() -> None:
    snapshot = load_snapshot("", source="keyswitch.yaml")
    assert snapshot.organizations == {}
    assert snapshot.find_model("sonnet-4.6") is snapshot.models["anthropic/claude-sonnet-4.6"]
    assert load_snapshot("", source="keyswitch.yaml", builtin=False).models == {}


def test_the_revision_is_of_the_text_and_of_the_built_in_catalog() -> None:
    first = load_snapshot("deployment: {}", source="a.yaml")
    assert first.revision == load_snapshot("deployment: {}", source="b.yaml").revision
    assert first.revision != load_snapshot("deployment: {} # other", source="a.yaml").revision
    assert first.revision != load_snapshot("deployment: {}", source="a.yaml", builtin=False).revision


def test_an_entry_changes_only_what_it_states_of_a_built_in_one() -> None:
    text = "providers: {anthropic: {is_enabled: false, quirks: {supports_seed: true}}}"
    plain = load_snapshot("", source="f").providers["anthropic"]
    changed = load_snapshot(text, source="f").providers["anthropic"]
    assert not changed.is_enabled
    assert changed.quirks.supports_seed
    assert changed.quirks.supports_top_k == plain.quirks.supports_top_k is True
    assert (changed.base_url, changed.display_name) == (plain.base_url, plain.display_name)


def test_a_provider_at_another_address_has_no_known_prices() -> None:
    moved = 'providers: {anthropic: {base_url: "https://proxy.example.com"}}'
    assert load_snapshot(moved, source="f").models["anthropic/claude-sonnet-4.6"].price_at("anthropic") is None
    stated = 'providers: {anthropic: {base_url: "https://proxy.example.com", price_provider: anthropic}}'
    assert load_snapshot(stated, source="f").models["anthropic/claude-sonnet-4.6"].price_at("anthropic") is not None


def test_a_changed_dialect_drops_the_quirks_of_the_old_one() -> None:
    text = "providers: {anthropic: {dialect: openai_chat, auth: bearer}}"
    assert not load_snapshot(text, source="f").providers["anthropic"].quirks.supports_top_k


def test_a_model_may_be_renamed_away_from_a_built_in_alias() -> None:
    text = """
models:
  acme/sonnet:
    aliases: [sonnet-4.6]
    endpoints: [{provider: openrouter, upstream_model: acme/sonnet}]
    price: {checked: 2026-11-21}
"""
    snapshot = load_snapshot(text, source="f")
    model = snapshot.find_model("sonnet-4.6")
    assert model is not None
    assert model.id == "acme/sonnet"
    assert snapshot.models["anthropic/claude-sonnet-4.6"].aliases == ("claude-sonnet-4.6",)


def test_the_quirks_of_an_endpoint_win_over_the_providers() -> None:
    text = """
providers: {own: {dialect: openai_chat, base_url: "https://llm.example.com/v1/", auth: none, headers: {X-Team: red},
  quirks: {reasoning_style: binary, anthropic_thinking: none, efforts: [low, high]},
  first_content_timeout_seconds: 5, idle_timeout_seconds: 7.5, key_test_path: /v1/models}}
models:
  acme/one:
    endpoints: [{provider: own, upstream_model: one, quirks: {reasoning_style: effort}}]
"""
    snapshot = load_snapshot(text, source="f", builtin=False)
    provider, quirks = snapshot.providers["own"], snapshot.models["acme/one"].endpoints[0].quirks
    assert provider.quirks.reasoning_style is ReasoningStyle.BINARY
    assert quirks.reasoning_style is ReasoningStyle.EFFORT
    assert quirks.anthropic_thinking is AnthropicThinking.NONE
    assert quirks.efforts == ("low", "high")
    assert provider.headers == (("x-team", "red"),)
    assert (provider.first_content_timeout_seconds, provider.idle_timeout_seconds) == (5, 7.5)
    assert provider.key_test_path == "/v1/models"
    assert provider.is_keyless
    assert provider.base_url.join("/models") == "https://llm.example.com/v1/models"
    assert snapshot.models["acme/one"].price is None
    assert snapshot.models["acme/one"].price_revision == ""


def test_settings_and_fallbacks() -> None:
    text = """
organizations:
  acme:
    users: [ada]
    applications:
      review:
        payers: [USER_KEY]
        payer_failover_on: [RATE_LIMITED]
        default_model: acme/one
        provider_order: [own]
        bindings: {USER_KEY: organizations/acme/users/ada/credentials/mine}
        fallbacks:
          - model: acme/one
            provider: own
            credential: organizations/acme/credentials/spare
            on_context_too_long: true
            settings: {max_output_tokens: 100, reasoning: {effort: xhigh, budget_tokens: 5}}
providers: {own: {dialect: openai_chat, base_url: "https://llm.example.com/v1", auth: bearer}}
models:
  acme/one:
    endpoints: [{provider: own, upstream_model: one}]
    context_limit_tokens: 1000
    max_output_tokens: 10
    defaults:
      sampling: {temperature: 1, top_k: 3, seed: -4, stop_sequences: [END]}
      provider_options: {openrouter: {models: [x, 1.5, null, true]}}
      upstream_routing:
        order: [a, b]
        data_collection: deny
        max_price: {input_usd_per_million: "1.5", request_usd: "0.000000001"}
"""
    snapshot = load_snapshot(text, source="f", builtin=False)
    application = snapshot.organizations["acme"].applications["review"]
    assert application.payer_failover_on == {PayerFailoverCause.RATE_LIMITED}
    assert application.provider_order == ("own",)
    (route,) = application.fallbacks
    assert (route.model, route.provider, route.on_context_too_long) == ("acme/one", "own", True)
    assert route.settings.reasoning is not None
    assert route.settings.reasoning.effort is ReasoningEffort.XHIGH
    model = snapshot.models["acme/one"]
    assert (model.context_limit_tokens, model.max_output_tokens) == (1000, 10)
    sampling = model.defaults.sampling
    assert (sampling.temperature, sampling.top_k, sampling.seed, sampling.stop_sequences) == (1.0, 3, -4, ("END",))
    assert model.defaults.provider_options[0].json == '{"models":["x",1.5,null,true]}'
    routing = model.defaults.upstream_routing
    assert routing is not None
    assert (routing.order, routing.data_collection) == (("a", "b"), "deny")
    assert routing.max_price is not None
    assert routing.max_price.input_usd_nanos_per_million_tokens == 1_500_000_000
    assert routing.max_price.request_usd_nanos == 1


def test_one_error_has_all_problems_in_the_order_of_the_file() -> None:
    text = EXAMPLE.replace("[ada]", "[A]").replace("auth: bearer", "auth: token").replace("echo}]", "echo, plan: x}]")
    with pytest.raises(ConfigurationError) as caught:
        load_snapshot(text, source="keyswitch.yaml")
    assert [(problem.mark.line, problem.path) for problem in caught.value.problems] == [
        (6, "organizations.demo.users[0]"),
        (20, "providers.practice.auth"),
        (25, "models.practice/echo.endpoints[0].plan"),
    ]
    assert str(caught.value).count("\n") == 2


def test_limits() -> None:
    text = """
organizations:
  demo:
    limits: {requests_per_minute: 600}
    user_limits: {tokens_per_minute: 1000}
    applications:
      chat: {limits: {requests_per_minute: 5, tokens_per_minute: 9}, max_queue_wait_seconds: 0}
providers:
  openai: {max_concurrent_requests: 3, breaker_failures: 0, breaker_slow_seconds: 20, attempt_timeout_seconds: 600}
"""
    snapshot = load_snapshot(text, source="k.yaml")
    demo, openai = snapshot.organizations["demo"], snapshot.providers["openai"]
    assert (demo.limits, demo.user_limits, demo.token_limits) == (
        RateLimits(requests_per_minute=600),
        RateLimits(tokens_per_minute=1000),
        RateLimits(),
    )
    chat = demo.applications["chat"]
    assert (chat.limits, chat.max_queue_wait_seconds) == (RateLimits(5, 9), 0.0)
    assert (openai.max_concurrent_requests, openai.breaker_failures) == (3, 0)
    assert (openai.breaker_slow_seconds, openai.attempt_timeout_seconds) == (20, 600)


def test_a_wrong_limit_is_named_with_its_place() -> None:
    text = "organizations:\n  demo:\n    limits: {requests_per_minute: 0, requests: 5}\n"
    with pytest.raises(ConfigurationError) as caught:
        load_snapshot(text, source="k.yaml")
    assert [str(problem) for problem in caught.value.problems] == [
        "k.yaml:3:35: organizations.demo.limits.requests_per_minute: must be at least 1",
        "k.yaml:3:38: organizations.demo.limits.requests: there is no such key here; did you mean requests_per_minute?",
    ]


def test_an_unknown_key_within_a_list_is_named_with_its_place() -> None:
    text = EXAMPLE.replace("upstream_model: echo}", "upstream_model: echo, quirks: {is_nice: true}}")
    with pytest.raises(ConfigurationError) as caught:
        load_snapshot(text, source="k.yaml")
    assert [problem.path for problem in caught.value.problems] == ["models.practice/echo.endpoints[0].quirks.is_nice"]
