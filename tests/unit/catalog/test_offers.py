"""Endpoints that speak another wire than their provider."""

import pytest

from router_service.catalog.loader import load_snapshot
from router_service.catalog.problems import ConfigurationError

ENDPOINT = (
    "models: {{acme/large: {{endpoints: [{{provider: {provider}, upstream_model: large, dialect: {dialect}}}]}}}}"
)


def test_an_endpoint_may_speak_another_dialect_than_its_provider() -> None:
    snapshot = load_snapshot(ENDPOINT.format(provider="openai", dialect="openai_responses"), source="f")
    provider = snapshot.providers["openai"]
    (endpoint,) = snapshot.models["acme/large"].endpoints
    assert provider.dialect == "openai_chat"
    assert endpoint.dialect_at(provider) == "openai_responses"
    (other,) = snapshot.models["openai/gpt-5.1"].endpoints
    assert other.dialect_at(provider) == "openai_chat"


@pytest.mark.parametrize("model", ["openai/gpt-5.4", "openai/gpt-5.4-pro", "openai/gpt-5.3-codex"])
def test_openais_models_that_need_it_go_over_responses_with_the_same_credential(model: str) -> None:
    snapshot = load_snapshot("", source="f")
    endpoint = snapshot.models[model].endpoints[0]
    assert endpoint.provider == "openai"
    assert endpoint.dialect_at(snapshot.providers["openai"]) == "openai_responses"
    assert snapshot.models[model].price is not None


@pytest.mark.parametrize(
    ("provider", "dialect"),
    [("openai", "anthropic_messages"), ("anthropic", "openai_responses"), ("openai", "telegraph")],
)
def test_a_dialect_that_does_not_fit_is_refused(provider: str, dialect: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_snapshot(ENDPOINT.format(provider=provider, dialect=dialect), source="f")
    (problem,) = caught.value.problems
    assert "dialect" in problem.path
