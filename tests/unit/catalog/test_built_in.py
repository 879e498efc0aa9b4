"""The built-in data is sound, sourced, and in step with the code that reads it."""

from dataclasses import fields

import pytest

from router_service.catalog.catalog import Provider
from router_service.catalog.defaults import load_built_in, load_documents
from router_service.catalog.document import Document
from router_service.catalog.loader import load_snapshot
from router_service.catalog.schema import check_schema, load_schema
from router_service.core.endpoint import AuthScheme
from router_service.core.request import ReasoningEffort
from router_service.core.resolution import Payer, PayerFailoverCause
from router_service.dialects.base import (
    AnthropicThinking,
    BedrockReasoning,
    Carrier,
    EmbeddingApi,
    GeminiThinking,
    Quirks,
    ReasoningStyle,
    SamplingRule,
)
from router_service.dialects.registry import DIALECTS

_DOCUMENTS = [pytest.param(text, document, id=document.source) for text, document in load_documents()]


@pytest.mark.parametrize(("text", "document"), _DOCUMENTS)
def test_a_file_fits_the_schema_and_names_its_source(text: str, document: Document) -> None:
    assert [str(fault.problem) for fault in check_schema(document)] == []
    assert document.value["source"].startswith("https://")
    assert document.value["checked"]
    assert len(text) < 12000


def test_the_catalog_loads_also_as_a_configuration() -> None:
    parts = [document.value for _, document in load_documents()]
    names = [name for part in parts for section in ("providers", "models") for name in part.get(section, ())]
    assert len(names) == len(set(names))
    snapshot = load_snapshot("", source="f")
    patterns = {name for name, entry in load_built_in().providers.items() if "{" in entry["base_url"]}
    assert set(snapshot.providers) == set(load_built_in().providers) - patterns
    assert {"azure-openai", "vertex-project", "openai-compatible", "ollama", "vllm", "litellm"} <= patterns
    assert set(snapshot.models) == set(load_built_in().models)
    assert "practice" not in snapshot.providers


def test_every_alias_means_its_own_model() -> None:
    snapshot = load_snapshot("", source="f")
    for model in snapshot.models.values():
        for reference in (model.id, *model.aliases, *(endpoint.upstream_model for endpoint in model.endpoints)):
            assert snapshot.find_model(reference) is model


def test_a_key_is_tested_where_only_a_valid_one_gets_an_answer() -> None:
    providers = load_snapshot("", source="f").providers
    assert providers["openrouter"].base_url.join(providers["openrouter"].key_test_path) == (
        "https://openrouter.ai/api/v1/key"
    )
    assert providers["anthropic"].base_url.join(providers["anthropic"].key_test_path) == (
        "https://api.anthropic.com/v1/models"
    )
    assert providers["gemini"].base_url.join(providers["gemini"].key_test_path) == (
        "https://generativelanguage.googleapis.com/v1beta/models"
    )
    assert providers["openai"].base_url.join(providers["openai"].key_test_path) == "https://api.openai.com/v1/models"


def test_no_built_in_provider_reaches_a_private_network() -> None:
    for provider in load_snapshot("", source="f").providers.values():
        assert provider.base_url.origin.startswith("https://")
        assert provider.allowed_private_networks == ()


def test_the_schema_is_a_schema_and_knows_what_the_code_knows() -> None:
    from jsonschema import Draft202012Validator

    schema = load_schema()
    Draft202012Validator.check_schema(schema)
    known = schema["$defs"]
    quirks = known["quirks"]["properties"]
    assert set(quirks) == {field.name for field in fields(Quirks)}
    assert quirks["reasoning_style"]["enum"] == [style.value for style in ReasoningStyle]
    assert quirks["anthropic_thinking"]["enum"] == [style.value for style in AnthropicThinking]
    assert quirks["gemini_thinking"]["enum"] == [style.value for style in GeminiThinking]
    assert quirks["bedrock_reasoning"]["enum"] == [style.value for style in BedrockReasoning]
    assert quirks["carrier"]["enum"] == [carrier.value for carrier in Carrier]
    assert quirks["sampling"]["enum"] == [rule.value for rule in SamplingRule]
    assert quirks["embedding_api"]["enum"] == [api.value for api in EmbeddingApi]
    assert quirks["efforts"]["items"]["enum"] == [effort.value for effort in ReasoningEffort]
    provider = known["provider"]["properties"]
    assert set(provider) == {field.name for field in fields(Provider)} - {"id"} | {
        "price_provider",
        "template",
        "parameters",
    }
    assert known["dialect"]["enum"] == list(DIALECTS)
    assert provider["auth"]["enum"] == [scheme.value for scheme in AuthScheme]
    assert known["payer"]["enum"] == [payer.value for payer in Payer]
    failover = known["application"]["properties"]["payer_failover_on"]["items"]
    assert failover["enum"] == [cause.value for cause in PayerFailoverCause]
