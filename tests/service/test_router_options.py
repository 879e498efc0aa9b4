"""Options, discovery and the key test over gRPC."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from keyswitch.router.v1 import (
    credential_test_service_pb2,
    credential_test_service_pb2_grpc,
    model_service_pb2,
    model_service_pb2_grpc,
    provider_service_pb2,
    provider_service_pb2_grpc,
)
from keyswitch.vault.v1 import credential_test_pb2

from tests.fakes.scripted_upstream import respond
from tests.service.router_answers import Json, whole_answer
from tests.service.router_harness import DEMO, Refused, Stack, running_stack

MAIN = f"{DEMO}/credentials/first"
LIST = b'{"data":[{"id":"echo"},{"id":"unknown-to-the-catalog"}]}'
PASSED = credential_test_pb2.CREDENTIAL_TEST_OUTCOME_PASSED
WRONG_PLAN = credential_test_pb2.CREDENTIAL_TEST_OUTCOME_WRONG_PLAN


def configure(configuration: Json) -> None:
    first = configuration["providers"]["first"]
    first |= {"template": "zai", "vendor": "test-vendor"}
    coding = {"template": "zai-coding", "vendor": "test-vendor", "base_url": first["base_url"] + "/coding"}
    configuration["providers"]["first-coding"] = {**coding, "allowed_private_networks": ["127.0.0.1/32"]}
    configuration["models"]["test/echo"] |= {
        "compression_threshold_percent": 80,
        "capabilities": ["tools", "images"],
        "defaults": {"sampling": {"temperature": 0.25}, "reasoning": {"effort": "medium"}},
    }


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[Stack]:
    async with running_stack(tmp_path, configuration=configure) as running:
        yield running


def models(stack: Stack) -> Any:
    return model_service_pb2_grpc.ModelServiceStub(stack.channel)


async def test_options_are_described_as_json_schemas(stack: Stack) -> None:
    request = model_service_pb2.DescribeOptionsRequest(provider="providers/anthropic", model="sonnet-4.6")
    answer = await stack.member.call(models(stack).DescribeOptions, request)
    assert answer.namespace == "anthropic"
    general = json.loads(answer.general_schema_json)
    assert general["properties"]["compression_threshold"]["title"] == "Compression Threshold"
    assert "thinking" in json.loads(answer.provider_options_schema_json)["properties"]
    for provider, model, reason in (
        ("providers/nobody", "", "RESOURCE_NOT_FOUND"),
        ("providers/anthropic", "openai/gpt-5.4", "MODEL_NOT_FOUND"),
    ):
        request = model_service_pb2.DescribeOptionsRequest(provider=provider, model=model)
        with pytest.raises(Refused) as refused:
            await stack.member.call(models(stack).DescribeOptions, request)
        assert refused.value.reason == reason


async def test_a_model_says_what_it_is_tuned_to(stack: Stack) -> None:
    await stack.save_key(MAIN)
    answer = await stack.member.call(models(stack).ListModels, model_service_pb2.ListModelsRequest())
    model = next(item for item in answer.models if item.model == "test/echo")
    assert model.compression_threshold_percent == 80
    assert list(model.capabilities) == [
        model_service_pb2.MODEL_CAPABILITY_TOOLS,
        model_service_pb2.MODEL_CAPABILITY_IMAGES,
    ]
    assert model.defaults.sampling.temperature == 0.25
    assert not model.defaults.HasField("max_output_tokens")


async def test_a_plan_and_its_warning_are_listed(stack: Stack) -> None:
    stub = provider_service_pb2_grpc.ProviderServiceStub(stack.channel)
    request = provider_service_pb2.ListProvidersRequest(page_size=1000)
    answer = await stack.member.call(stub.ListProviders, request)
    by_name = {provider.name: provider for provider in answer.providers}
    coding = by_name["providers/zai-coding"]
    assert (coding.vendor, coding.plan.plan) == ("zai", "coding")
    assert coding.plan.default_max_concurrent_requests == 1
    assert coding.plan.highest_max_concurrent_requests == 30
    assert "account" in coding.plan.warning
    assert by_name["providers/kimi-code"].plan.default_max_concurrent_requests == 30
    assert not by_name["providers/zai"].plan.HasField("default_max_concurrent_requests")
    assert not by_name["providers/perplexity"].has_free_key_test


async def test_a_provider_says_which_models_a_key_can_use(stack: Stack) -> None:
    version = await stack.save_key(MAIN)
    stack.first.script(respond(LIST))
    request = model_service_pb2.DiscoverUpstreamModelsRequest(credential_version=version)
    answer = await stack.member.call(models(stack).DiscoverUpstreamModels, request)
    assert [(model.upstream_model_id, model.model) for model in answer.models] == [
        ("echo", "test/echo"),
        ("unknown-to-the-catalog", ""),
    ]
    assert stack.first.received[0].headers["authorization"].startswith("Bearer sk-first")
    stack.first.script(respond(b'{"error":{"code":"1002","message":"no"}}', status=401))
    with pytest.raises(Refused) as refused:
        await stack.member.call(models(stack).DiscoverUpstreamModels, request)
    assert refused.value.reason == "UPSTREAM_CREDENTIAL_REJECTED"


async def test_keys_of_others_and_missing_ones_discover_nothing(stack: Stack) -> None:
    other = await stack.issue("MEMBER", parent="organizations/other", user="organizations/other/users/eve")
    version = await stack.save_key(MAIN)
    cases = (
        (other, model_service_pb2.DiscoverUpstreamModelsRequest(credential_version=version), "RESOURCE_NOT_FOUND"),
        (stack.member, model_service_pb2.DiscoverUpstreamModelsRequest(), "INVALID_REQUEST"),
        (
            stack.member,
            model_service_pb2.DiscoverUpstreamModelsRequest(provider="providers/second"),
            "CALLER_NOT_ALLOWED",
        ),
    )
    for who, request, reason in cases:
        with pytest.raises(Refused) as refused:
            await who.call(models(stack).DiscoverUpstreamModels, request)
        assert refused.value.reason == reason
    assert stack.first.received == []


async def try_key(stack: Stack, version: str, model: str) -> Any:
    stub = credential_test_service_pb2_grpc.CredentialTestServiceStub(stack.channel)
    request = credential_test_service_pb2.TestCredentialRequest(credential_version=version, model=model)
    return await stack.member.call(stub.TestCredential, request)


async def test_a_key_of_another_plan_is_found_out(stack: Stack) -> None:
    version = await stack.save_key(MAIN)
    refusal = respond(b'{"error":{"code":"1113","message":"Insufficient balance"}}', status=429)
    stack.first.script(respond(LIST), refusal, respond(whole_answer("OK")))
    answer = await try_key(stack, version, "test/echo")
    assert (answer.outcome, answer.detected_plan) == (WRONG_PLAN, "providers/first-coding")
    assert "providers/first-coding" in answer.message
    assert [request.path for request in stack.first.received] == [
        "/v1/models",
        "/v1/chat/completions",
        "/v1/coding/chat/completions",
    ]


async def test_any_name_of_a_model_can_be_verified(stack: Stack) -> None:
    version = await stack.save_key(MAIN)
    stack.first.script(respond(LIST), respond(whole_answer("OK")))
    answer = await try_key(stack, version, "first:typed-by-hand")
    assert answer.outcome == PASSED
    body = stack.first.received[1].json
    assert isinstance(body, dict)
    assert body["model"] == "typed-by-hand"
    with pytest.raises(Refused) as refused:
        await try_key(stack, version, "first:")
    assert refused.value.code is grpc.StatusCode.INVALID_ARGUMENT
