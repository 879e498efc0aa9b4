"""The built-in models: the names by which people know them, what they are tuned to, and who may serve them."""

from datetime import date

import pytest

from router_service.catalog.loader import load_snapshot
from router_service.catalog.staleness import find_stale, find_unpriced, report
from router_service.core.request import ReasoningEffort

SNAPSHOT = load_snapshot("", source="f")

ALIASES = {
    "opus-4": "anthropic/claude-opus-4.1",
    "sonnet-4.5": "anthropic/claude-sonnet-4.5",
    "sonnet-4": "anthropic/claude-4-sonnet-20250522",
    "flash-2.5": "google/gemini-2.5-flash",
    "gemini-2.5-pro": "google/gemini-2.5-pro",
}

UPSTREAM_ORDERS = {
    "anthropic/claude-4-sonnet-20250522": ("Google", "Anthropic", "Amazon Bedrock"),
    "anthropic/claude-sonnet-4.5": ("Google", "Anthropic", "Amazon Bedrock"),
    "anthropic/claude-opus-4.1": ("Google", "Anthropic"),
}

NAMES = [
    "anthropic/claude-sonnet-4.5",
    "anthropic/claude-4-sonnet-20250522",
    "anthropic/claude-opus-4.1",
    "anthropic/claude-3.5-haiku-20241022",
    "anthropic/claude-3.5-sonnet-20240620",
    "openai/gpt-4o-2024-11-20",
    "openai/gpt-4o-mini-2024-07-18",
    "openai/gpt-5.1",
    "openai/o3-mini-2025-01-31",
    "openai/gpt-4.1-nano",
    "google/gemini-2.5-pro",
    "google/gemini-2.5-flash",
    "google/gemini-2.5-flash-preview:thinking",
    "x-ai/grok-4-07-09",
    "claude-sonnet-4.6",
    "claude-opus-4.6",
    "claude-opus-4-6",
    "gpt-5.4",
    "gpt-5.3-codex",
    "gemini-3-flash",
    "gemini-3.1-pro",
    "kimi-k2.5",
    "moonshotai/kimi-k2.5",
    "glm-5",
    "minimax-m2.7",
]

CURATED = {
    "claude-sonnet-4-6": ["anthropic"],
    "claude-opus-4-7": ["anthropic"],
    "gemini-3.1-pro-preview-customtools": ["gemini"],
    "gpt-5.4": ["openai"],
    "kimi-k2.6-coding": ["moonshot", "kimi-code"],
    "glm-5.1": ["zai", "zai-coding"],
}

OPEN_WEIGHTS = ("moonshotai/kimi-k2.5", "z-ai/glm-5", "minimax/minimax-m2.7", "openai/gpt-oss-120b")


@pytest.mark.parametrize(("alias", "model"), ALIASES.items())
def test_an_alias_means_the_model_that_people_expect(alias: str, model: str) -> None:
    found = SNAPSHOT.find_model(alias)
    assert found is not None
    assert found.id == model


@pytest.mark.parametrize(("model", "order"), UPSTREAM_ORDERS.items())
def test_a_model_has_its_order_of_upstreams_inside_openrouter(model: str, order: tuple[str, ...]) -> None:
    routing = SNAPSHOT.models[model].defaults.upstream_routing
    assert routing is not None
    assert routing.order == order
    endpoint = next(item for item in SNAPSHOT.models[model].endpoints if item.provider == "openrouter")
    assert endpoint.upstream_model == model


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_known(name: str) -> None:
    assert SNAPSHOT.find_model(name) is not None


@pytest.mark.parametrize(("upstream", "providers"), CURATED.items())
def test_a_curated_model_is_tuned(upstream: str, providers: list[str]) -> None:
    model = SNAPSHOT.find_model(upstream)
    assert model is not None
    serving = [endpoint.provider for endpoint in model.endpoints if endpoint.upstream_model == upstream]
    assert [provider for provider in serving if provider in providers] == providers
    reasoning = model.defaults.reasoning
    assert reasoning is not None
    assert reasoning.effort is ReasoningEffort.MEDIUM
    assert model.defaults.max_output_tokens == 16000
    assert model.price is not None
    assert model.context_limit_tokens is not None
    assert "reasoning" in model.capabilities


@pytest.mark.parametrize("name", OPEN_WEIGHTS)
def test_open_weights_go_through_openrouter_and_then_directly(name: str) -> None:
    providers = [endpoint.provider for endpoint in SNAPSHOT.models[name].endpoints]
    assert providers[0] == "openrouter"
    assert len(providers) > 1


CLOUDS = load_snapshot(
    "providers: {vertex-project: {parameters: {project: p, location: global}}, "
    "vertex-anthropic: {parameters: {project: p, location: global}}}",
    source="f",
)


@pytest.mark.parametrize(
    ("name", "on_bedrock", "on_vertex"),
    [
        ("sonnet-4.6", "global.anthropic.claude-sonnet-4-6", "claude-sonnet-4-6"),
        ("opus-4.7", "global.anthropic.claude-opus-4-7", "claude-opus-4-7"),
        ("opus-4.6", "global.anthropic.claude-opus-4-6-v1", "claude-opus-4-6"),
        ("sonnet-4.5", "global.anthropic.claude-sonnet-4-5-20250929-v1:0", "claude-sonnet-4-5@20250929"),
        ("haiku-4.5", "global.anthropic.claude-haiku-4-5-20251001-v1:0", "claude-haiku-4-5@20251001"),
    ],
)
def test_claude_is_had_at_every_cloud_by_the_name_that_it_has_there(name: str, on_bedrock: str, on_vertex: str) -> None:
    model = CLOUDS.find_model(name)
    assert model is not None
    names = {endpoint.provider: endpoint.upstream_model for endpoint in model.endpoints}
    assert list(names)[:4] == ["anthropic", "bedrock-anthropic", "vertex-anthropic", "bedrock"]
    assert names["bedrock"] == names["bedrock-anthropic"] == on_bedrock
    assert names["vertex-anthropic"] == on_vertex
    assert all(model.price_at(provider) is not None for provider in list(names)[:4])
    # Without a project there is no Vertex: its endpoints wait until somebody configures one.
    assert "vertex-anthropic" not in [one.provider for one in SNAPSHOT.models[model.id].endpoints]


def test_every_provider_that_is_there_without_a_configuration_has_models_or_serves_whatever_is_named() -> None:
    used = {endpoint.provider for model in SNAPSHOT.models.values() for endpoint in model.endpoints}
    hosts_of_open_models = {
        *("alibaba", "baseten", "deepinfra", "huggingface", "nebius", "nvidia", "sambanova", "siliconflow"),
    }
    assert set(SNAPSHOT.providers) - used == hosts_of_open_models


def test_each_provider_of_a_model_has_its_own_price() -> None:
    model = SNAPSHOT.models["openai/gpt-oss-120b"]
    prices = [model.price_at(endpoint.provider) for endpoint in model.endpoints]
    assert None not in prices
    assert len(set(prices)) >= 3
    coding = SNAPSHOT.models["z-ai/glm-5.1"]
    assert coding.price_at("zai") is not None
    assert coding.price_at("zai-coding") is None  # a subscription has no price per token


def test_what_was_not_checked_for_long_is_reported() -> None:
    assert list(find_stale(date(2026, 11, 27))) == []
    assert any("data/listings.json" in line for line in find_stale(date(2027, 3, 1)))
    assert any("models/anthropic.yaml" in line for line in find_stale(date(2027, 3, 1)))
    assert "z-ai/glm-5.1 at zai-coding" in list(find_unpriced())
    assert report(date(2026, 11, 27)).startswith("0 not checked")
