"""`keyswitch models options`, `models discover` and the warning of a plan, against scripted services."""

from __future__ import annotations

import json

from keyswitch.router.v1 import model_service_pb2, provider_service_pb2, settings_pb2
from keyswitch.vault.v1 import credential_pb2, credential_service_pb2, credential_test_pb2

from router_service.catalog.loader import load_snapshot
from router_service.catalog.options import describe_general, describe_provider
from tests.unit.clients.cli_terminal import KEY, OWN, Terminal
from tests.unit.clients.test_cli_keys import script_keys


def test_options_are_a_table_and_with_json_the_schemas(terminal: Terminal) -> None:
    provider = load_snapshot("", source="f").providers["anthropic"]
    terminal.services.answers["DescribeOptions"] = model_service_pb2.DescribeOptionsResponse(
        general_schema_json=json.dumps(describe_general()),
        provider_options_schema_json=json.dumps(describe_provider(provider.dialect, provider.quirks)),
        namespace="anthropic",
        efforts=[settings_pb2.REASONING_EFFORT_LOW, settings_pb2.REASONING_EFFORT_HIGH],
    )
    result = terminal.run("models", "options", "anthropic", "sonnet-4.6")
    assert result.exit_code == 0
    asked = terminal.services.asked("DescribeOptions")
    assert (asked.provider, asked.model) == ("providers/anthropic", "sonnet-4.6")
    for word in ("Compression Threshold", "0 to 100", "Thinking Budget Tokens", "from 1024"):
        assert word in result.stdout
    assert "Reasoning: low, high" in result.stderr
    shown = json.loads(terminal.run("models", "options", "anthropic", "--json").stdout)
    assert shown["namespace"] == "anthropic"


def test_discovery_asks_with_a_key_or_a_provider_without_one(terminal: Terminal) -> None:
    active = credential_pb2.CredentialVersion(
        name=f"{OWN}/versions/1", state=credential_pb2.CREDENTIAL_VERSION_STATE_ACTIVE
    )
    terminal.services.answers["ListCredentialVersions"] = credential_service_pb2.ListCredentialVersionsResponse(
        credential_versions=[credential_pb2.CredentialVersion(name=f"{OWN}/versions/2"), active]
    )
    found = model_service_pb2.UpstreamModel(upstream_model_id="llama-4", model="meta/llama-4")
    terminal.services.answers["DiscoverUpstreamModels"] = model_service_pb2.DiscoverUpstreamModelsResponse(
        models=[found, model_service_pb2.UpstreamModel(upstream_model_id="new-one")]
    )
    result = terminal.run("models", "discover", OWN)
    assert "llama-4" in result.stdout
    assert "new-one" in result.stdout
    assert terminal.services.asked("DiscoverUpstreamModels").credential_version == active.name
    terminal.services.requests.clear()
    terminal.run("models", "discover", "--provider", "ollama")
    assert terminal.services.asked("DiscoverUpstreamModels").provider == "providers/ollama"
    terminal.services.requests.clear()
    terminal.run("models", "discover", "practice", "--owner", "ada", "--version", "2")
    asked = terminal.services.asked("DiscoverUpstreamModels")
    assert asked.credential_version == f"{OWN}/versions/2"
    result = terminal.run("models", "discover")
    assert result.exit_code == 2
    assert "models discover --provider ollama" in result.stderr


def test_a_plan_warns_before_the_key_is_typed_and_fills_in_its_limit(terminal: Terminal) -> None:
    script_keys(terminal, credential_test_pb2.CREDENTIAL_TEST_OUTCOME_PASSED)
    plan = provider_service_pb2.ProviderPlan(
        plan="coding",
        display_name="Coding Plan",
        warning="Your account may be blocked.",
        default_max_concurrent_requests=1,
        highest_max_concurrent_requests=30,
    )
    provider = provider_service_pb2.Provider(name="providers/zai-coding", origin="https://api.z.ai", plan=plan)
    terminal.services.answers["ListProviders"] = provider_service_pb2.ListProvidersResponse(providers=[provider])
    result = terminal.run("keys", "add", "zai-coding", given=KEY + "\n")
    assert result.exit_code == 0
    assert "Coding Plan: Your account may be blocked." in result.stderr
    assert "requests at once: 1, the plan reaches 30" in result.stderr
    credential = terminal.services.asked("CreateCredential").credential
    assert (credential.plan, credential.max_concurrent_requests) == ("coding", 1)
    assert "has terms of its own" in terminal.run("providers").stdout
