"""The schemas from which a form is generated."""

import pytest
from jsonschema import Draft202012Validator

from router_service.catalog.catalog import Provider
from router_service.catalog.loader import load_snapshot
from router_service.catalog.options import Schema, describe_general, describe_provider
from router_service.dialects.base import Quirks

AZURE = "providers:\n  azure-openai: {parameters: {resource: my-resource}}\n"
SNAPSHOT = load_snapshot(AZURE, source="f")
PROVIDERS = SNAPSHOT.providers

GENERAL = [
    "Model Identifier",
    "Display Name",
    "Context Limit",
    "Compression Threshold",
    "Max Output Tokens",
    "Temperature",
    "Top P",
    "Top K",
    "Presence Penalty",
    "Frequency Penalty",
    "Input Price",
    "Output Price",
    "Cache Read Price",
    "Cache Write Price",
]

SPECIFIC = [
    ("anthropic", "Thinking Budget Tokens", None),
    ("anthropic", "Effort", ["low", "medium", "high", "xhigh", "max"]),
    ("openai", "Reasoning Effort", ["minimal", "low", "medium", "high", "xhigh"]),
    ("openai", "Max Completion Tokens", None),
    ("openai", "Parallel Tool Calls", None),
    ("azure-openai", "Reasoning Effort", ["minimal", "low", "medium", "high", "xhigh"]),
    ("azure-openai", "Max Completion Tokens", None),
    ("azure-openai", "Parallel Tool Calls", None),
    ("gemini", "Thinking Budget", None),
    ("gemini", "Include Thoughts", None),
    ("openrouter", "Reasoning Enabled", None),
    ("openrouter", "Reasoning Effort", ["low", "medium", "high"]),
    ("vercel", "Reasoning Enabled", None),
    ("vercel", "Reasoning Effort", ["low", "medium", "high"]),
]


def fields_of(schema: Schema) -> dict[str, Schema]:
    """All leaves, by their titles."""
    found: dict[str, Schema] = {}
    for field in schema["properties"].values():
        if field["type"] == "object":
            found |= fields_of(field)
        else:
            found[field["title"]] = field
    return found


def specific(provider: Provider, quirks: Quirks | None = None) -> Schema:
    return describe_provider(provider.dialect, quirks or provider.quirks)


def test_every_model_has_the_same_general_options() -> None:
    schema = describe_general()
    Draft202012Validator.check_schema(schema)
    assert list(fields_of(schema)) == GENERAL
    assert schema["required"] == ["model_identifier", "display_name", "context_limit"]
    assert all(field["description"] for field in schema["properties"].values())


@pytest.mark.parametrize(("provider", "title", "values"), SPECIFIC)
def test_a_provider_type_has_its_options(provider: str, title: str, values: list[str] | None) -> None:
    schema = specific(PROVIDERS[provider])
    Draft202012Validator.check_schema(schema)
    assert fields_of(schema)[title].get("enum") == values


@pytest.mark.parametrize("provider", PROVIDERS)
def test_every_provider_has_a_schema(provider: str) -> None:
    schema = specific(PROVIDERS[provider])
    Draft202012Validator.check_schema(schema)
    assert "x-efforts" not in str(schema)


def test_levels_that_a_model_lacks_are_left_out() -> None:
    provider = PROVIDERS["openai"]
    fields = fields_of(specific(provider, Quirks(options_family="openai", efforts=("low", "high"))))
    assert fields["Reasoning Effort"]["enum"] == ["low", "high"]
    model = SNAPSHOT.models["anthropic/claude-haiku-4.5"]
    titles = fields_of(specific(PROVIDERS["anthropic"], model.endpoints[0].quirks))
    assert "Effort" not in titles
    assert "Thinking Budget Tokens" in titles
    assert titles["Thinking"]["enum"] == ["enabled", "disabled"]


def test_an_instance_of_the_form_is_what_the_wire_takes() -> None:
    form = {"thinking": {"type": "enabled", "budgetTokens": 2048}}
    schema = specific(PROVIDERS["anthropic"])
    Draft202012Validator(schema).validate(form)
    bad = {"thinking": {"type": "enabled", "budgetTokens": 12}}
    assert not Draft202012Validator(schema).is_valid(bad)
