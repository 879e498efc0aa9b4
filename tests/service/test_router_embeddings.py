"""Embeddings and counted tokens through the router: on whose key, for what money, and all that can be wrong."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from keyswitch.router.v1 import (
    completion_service_pb2,
    embedding_service_pb2,
    embedding_service_pb2_grpc,
    model_service_pb2,
    model_service_pb2_grpc,
    payer_pb2,
    receipt_pb2,
    route_policy_pb2,
    settings_pb2,
)

from tests.fakes.scripted_upstream import Action, Cut, Send, head, respond
from tests.service.router_answers import MARKUP_BASIS_POINTS, Json
from tests.service.router_harness import CHAT, DEMO, Refused, Stack, make_call, running_stack

REQUEST_ID = "5f0c2f57-9a5c-4d1b-8a3e-2f6f3b6d1c01"
PRICE = {"input_usd_per_million": "0.02", "checked": "2026-11-21"}


def configure(configuration: Json) -> None:
    def endpoint(provider: str) -> Json:
        return {"provider": provider, "upstream_model": "embed-1"}

    facts = {"dimensions": 3, "is_shortenable": True, "max_inputs": 4}
    models = configuration["models"]
    models["test/embed"] = {
        "endpoints": [endpoint("first"), endpoint("second")],
        "embedding": facts,
        "price": PRICE,
    }
    models["test/embed-other"] = {"endpoints": [endpoint("second")], "embedding": {}, "price": PRICE}
    configuration["providers"]["claude"]["quirks"] = {"counts_tokens": True}


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[Stack]:
    async with running_stack(tmp_path, configuration=configure) as running:
        yield running


def vectors(*values: list[float], tokens: int | None = 8) -> list[Action]:
    data = [{"object": "embedding", "index": index, "embedding": vector} for index, vector in enumerate(values)]
    body: Json = {"object": "list", "data": data, "model": "embed-1"}
    if tokens is not None:
        body["usage"] = {"prompt_tokens": tokens, "total_tokens": tokens}
    return respond(json.dumps(body).encode())


def make_request(*texts: str, model: str = "test/embed", **fields: Any) -> embedding_service_pb2.EmbedRequest:
    spec = {name: fields.pop(name) for name in ("dimensions", "task", "provider_options") if name in fields}
    inputs = [embedding_service_pb2.EmbeddingInput(text=text) for text in texts]
    made = embedding_service_pb2.EmbeddingSpec(model=model, inputs=inputs, **spec)
    return embedding_service_pb2.EmbedRequest(spec=made, **fields)


async def embed(stack: Stack, *texts: str, **fields: Any) -> embedding_service_pb2.EmbedResponse:
    stub: Any = embedding_service_pb2_grpc.EmbeddingServiceStub(stack.channel)
    found: embedding_service_pb2.EmbedResponse = await stack.member.call(stub.Embed, make_request(*texts, **fields))
    return found


async def count(stack: Stack, **call: Any) -> completion_service_pb2.CountTokensResponse:
    request = completion_service_pb2.CountTokensRequest(call=make_call(**call))
    found: completion_service_pb2.CountTokensResponse = await stack.member.call(
        stack.member.completions.CountTokens, request
    )
    return found


async def test_vectors_come_in_order_on_the_organizations_key_with_a_receipt(stack: Stack) -> None:
    await stack.save_key(f"{DEMO}/credentials/first", "sk-embed-0123456789")
    stack.first.script(vectors([1.0, 0.0, 0.5], [0.0, 1.0, -0.5]))
    answer = await embed(stack, "one", "two", request_id=REQUEST_ID)
    assert [list(one.values) for one in answer.embeddings] == [[1.0, 0.0, 0.5], [0.0, 1.0, -0.5]]
    assert answer.resolution.payer == payer_pb2.PAYER_ORGANIZATION_KEY
    assert answer.resolution.provider == "providers/first"
    (received,) = stack.first.received
    assert received.path == "/v1/embeddings"
    assert received.headers["authorization"] == "Bearer sk-embed-0123456789"
    assert received.json == {"model": "embed-1", "input": ["one", "two"], "encoding_format": "float"}
    receipt = answer.receipt
    assert receipt.state == receipt_pb2.RECEIPT_STATE_SUCCEEDED
    assert receipt.usage.input_tokens == 8
    assert receipt.cost.list_price_usd_nanos == 160
    assert not receipt.cost.is_estimate
    await stack.rest()
    assert await stack.member.receipt(request_id=REQUEST_ID) == receipt
    with pytest.raises(Refused) as refused:
        await embed(stack, "one", request_id=REQUEST_ID)
    assert refused.value.reason == "REQUEST_ID_REUSED"


async def test_credits_are_reserved_and_charged(stack: Stack) -> None:
    await stack.save_key("deployment/credentials/first")
    await stack.add_credits(1_000_000)
    stack.first.script(vectors([1.0, 0.0, 0.5], tokens=1000))
    policy = route_policy_pb2.RoutePolicy(payers=[payer_pb2.PAYER_CREDITS])
    answer = await embed(stack, "one", route_policy=policy)
    await stack.rest()
    charged = 20_000 * (10_000 + MARKUP_BASIS_POINTS) // 10_000
    assert answer.receipt.cost.charged_usd_nanos == charged
    assert (await stack.router.ledger.balance("demo")).balance_nanos == 1_000_000 - charged
    await stack.router.ledger.flush()
    assert (await stack.router.ledger.balance("demo")).reserved_nanos == 0


async def test_without_credits_nothing_is_sent(stack: Stack) -> None:
    await stack.save_key("deployment/credentials/first")
    policy = route_policy_pb2.RoutePolicy(payers=[payer_pb2.PAYER_CREDITS])
    with pytest.raises(Refused) as refused:
        await embed(stack, "one", route_policy=policy)
    assert refused.value.reason == "CREDIT_EXHAUSTED"
    assert stack.first.received == []


async def test_a_provider_that_reports_no_usage_is_estimated(stack: Stack) -> None:
    await stack.save_key(f"{DEMO}/credentials/first")
    stack.first.script(vectors([1.0, 0.0, 0.5], tokens=None))
    answer = await embed(stack, "twelve bytes")
    assert answer.receipt.usage.input_tokens == 3
    assert answer.receipt.cost.is_estimate


async def test_failover_leads_to_the_same_model_elsewhere_and_to_no_other(stack: Stack) -> None:
    for provider in ("first", "second"):
        await stack.save_key(f"{DEMO}/credentials/{provider}", provider=provider)
    stack.first.script(respond(b'{"error":{"message":"busy"}}', status=503))
    stack.second.script(vectors([1.0, 0.0, 0.5]))
    answer = await embed(stack, "one")
    assert answer.resolution.provider == "providers/second"
    assert [attempt.provider for attempt in answer.receipt.attempts] == ["providers/first", "providers/second"]
    fallback = route_policy_pb2.RoutePolicy(fallbacks=[route_policy_pb2.ModelRoute(model="test/embed-other")])
    with pytest.raises(Refused) as refused:
        await embed(stack, "one", route_policy=fallback)
    assert refused.value.fields == ("route_policy.fallbacks[0].model",)


@pytest.mark.parametrize(
    ("script", "kind"),
    [
        (vectors([1.0, 0.0, 0.5]), "vector_count"),
        (vectors([1.0], [1.0, 2.0]), "vector_length"),
        (vectors([], []), "vector_length"),
        (respond(b'{"data":[{"index":0,"embedding":[1]},{"index":0,"embedding":[1]}]}'), "order"),
        (respond(b'{"data":[{"index":7,"embedding":[1]},{"index":0,"embedding":[1]}]}'), "order"),
        (respond(b'{"data":[{"embedding":[1e39]},{"embedding":[1]}]}'), "malformed"),
        (respond(b'{"data":[{"embedding":"AAA="},{"embedding":[1]}]}'), "malformed"),
        (respond(b'{"data":[{"embedding":"????"},{"embedding":[1]}]}'), "malformed"),
        (respond(b'{"data":[{"embedding":["x"]},{"embedding":[1]}]}'), "malformed"),
        (respond(b"\xff\x00"), "malformed"),
        (respond(b"<html>502</html>", content_type="text/html"), "malformed"),
        (respond(b"data: {}\n\n", content_type="text/event-stream"), "streamed"),
        (respond(b"", status=302, location="/"), "redirect"),
        ([Send(head(200, "application/json", content_length=500) + b'{"data":['), Cut()], "truncated"),
    ],
)
async def test_an_answer_that_is_wrong_is_the_providers_fault(stack: Stack, script: list[Action], kind: str) -> None:
    await stack.save_key(f"{DEMO}/credentials/first")
    stack.first.script(script)
    policy = route_policy_pb2.RoutePolicy(max_attempts=1)
    with pytest.raises(Refused) as refused:
        await embed(stack, "one", "two", route_policy=policy)
    assert refused.value.reason == "UPSTREAM_PROTOCOL_VIOLATION"
    assert refused.value.metadata["violation"] == kind
    assert refused.value.receipt is not None


async def test_an_error_in_a_body_of_status_200_is_an_error(stack: Stack) -> None:
    await stack.save_key(f"{DEMO}/credentials/first")
    stack.first.script(respond(b'{"error":{"code":"insufficient_quota","message":"no money"}}'))
    with pytest.raises(Refused) as refused:
        await embed(stack, "one")
    assert refused.value.reason == "UPSTREAM_BALANCE_EXHAUSTED"


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (make_request(), "spec.inputs"),
        (make_request("a", ""), "spec.inputs[1].text"),
        (make_request("a", dimensions=0), "spec.dimensions"),
        (make_request("a", dimensions=4), "spec.dimensions"),
        (make_request(*"abcde"), "spec.inputs"),
        (make_request("a", task=9), "spec.task"),
        (make_request("a", model="test/echo"), "spec.model"),
        (make_request("a", context="No"), "context"),
        (
            make_request("a", provider_options=[settings_pb2.ProviderOptions(namespace="openai_chat", json="[")]),
            "spec.provider_options[0].json",
        ),
        (
            make_request(
                "a", provider_options=[settings_pb2.ProviderOptions(namespace="openai_chat", json='{"input":1}')]
            ),
            "spec.provider_options",
        ),
    ],
)
async def test_what_is_wrong_with_a_request_is_named(
    stack: Stack, request_: embedding_service_pb2.EmbedRequest, field: str
) -> None:
    await stack.save_key(f"{DEMO}/credentials/first")
    stub: Any = embedding_service_pb2_grpc.EmbeddingServiceStub(stack.channel)
    with pytest.raises(Refused) as refused:
        await stack.member.call(stub.Embed, request_)
    assert (refused.value.code, refused.value.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
    assert refused.value.fields == (field,)
    assert stack.first.received == []


async def test_models_that_embed_are_listed_apart_and_complete_nothing(stack: Stack) -> None:
    for provider in ("first", "second"):
        await stack.save_key(f"{DEMO}/credentials/{provider}", provider=provider)
    stub: Any = model_service_pb2_grpc.ModelServiceStub(stack.channel)

    async def names(purpose: "model_service_pb2.ModelPurpose.ValueType") -> set[str]:
        request = model_service_pb2.ListModelsRequest(purpose=purpose)
        return {model.model for model in (await stack.member.call(stub.ListModels, request)).models}

    embedding = await names(model_service_pb2.MODEL_PURPOSE_EMBEDDING)
    assert embedding == {"test/embed", "test/embed-other"}
    assert not embedding & await names(model_service_pb2.MODEL_PURPOSE_UNSPECIFIED)
    with pytest.raises(Refused) as refused:
        await stack.member.complete(make_call(model="test/embed"))
    assert refused.value.fields == ("call.spec.model",)
    stack.second.script(vectors([1.0, 0.0, 0.5]))
    stack.first.script(vectors([1.0, 0.0, 0.5]))
    answer = await embed(stack, "one", model="")
    assert answer.resolution.model == "test/embed"


async def test_a_provider_that_counts_is_asked_on_the_callers_key_and_nobody_is_billed(stack: Stack) -> None:
    await stack.save_key(f"{DEMO}/credentials/claude", "sk-count-0123456789", provider="claude")
    stack.second.script(respond(b'{"input_tokens": 42}'))
    answer = await count(stack, model="test/claude", request_id=REQUEST_ID)
    assert (answer.input_tokens, answer.is_estimate, answer.resolution.attempt) == (42, False, 1)
    assert answer.resolution.payer == payer_pb2.PAYER_ORGANIZATION_KEY
    (received,) = stack.second.received
    assert received.path == "/v1/messages/count_tokens"
    assert received.headers["x-api-key"] == "sk-count-0123456789"
    assert received.json == {
        "model": "claude-1",
        "messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}],
    }
    await stack.rest()
    assert stack.receipts == []
    with pytest.raises(Refused) as refused:
        await stack.member.receipt(request_id=REQUEST_ID)
    assert refused.value.reason == "RESOURCE_NOT_FOUND"


async def test_counting_for_credits_reserves_nothing(stack: Stack) -> None:
    stack.reconfigure(
        lambda made: made["deployment_credentials"].update(claude={"provider": "claude", "payers": ["CREDITS"]})
    )
    await stack.save_key("deployment/credentials/claude", provider="claude")
    stack.second.script(respond(b'{"input_tokens": 7}'))
    answer = await count(stack, model="test/claude")
    assert (answer.input_tokens, answer.resolution.payer) == (7, payer_pb2.PAYER_CREDITS)


async def test_where_nobody_counts_words_are_estimated_and_said_to_be(stack: Stack) -> None:
    await stack.save_key(f"{DEMO}/credentials/first")
    answer = await count(stack, text="x" * 400, model="test/echo")
    assert answer.is_estimate
    assert answer.resolution.attempt == 0
    assert answer.input_tokens == 104
    assert stack.first.received == []


async def test_media_are_not_estimated(stack: Stack) -> None:
    await stack.save_key(f"{DEMO}/credentials/first")
    call = make_call(model="test/echo")
    call.spec.messages[0].parts.add().media.media_type = "image/png"
    call.spec.messages[0].parts[1].media.data = b"\x89PNG"
    request = completion_service_pb2.CountTokensRequest(call=call)
    with pytest.raises(Refused) as refused:
        await stack.member.call(stack.member.completions.CountTokens, request)
    assert refused.value.fields == ("call.spec.messages[0].parts[1]",)


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (respond(b'{"input_tokens": -1}'), "UPSTREAM_PROTOCOL_VIOLATION"),
        (respond(b'{"input_tokens": "many"}'), "UPSTREAM_PROTOCOL_VIOLATION"),
        (respond(b"[]"), "UPSTREAM_PROTOCOL_VIOLATION"),
        (respond(b'{"type":"error","error":{"type":"overloaded_error","message":"x"}}'), "UPSTREAM_UNAVAILABLE"),
        (
            respond(b'{"type":"error","error":{"type":"authentication_error","message":"x"}}', status=401),
            "UPSTREAM_CREDENTIAL_REJECTED",
        ),
    ],
)
async def test_a_count_that_fails_is_no_estimate(stack: Stack, script: list[Action], reason: str) -> None:
    await stack.save_key(f"{DEMO}/credentials/claude", provider="claude")
    stack.second.script(script)
    with pytest.raises(Refused) as refused:
        await count(stack, model="test/claude", route_policy=route_policy_pb2.RoutePolicy(max_attempts=1))
    assert refused.value.reason == reason


async def test_a_service_without_a_key_cannot_embed(stack: Stack) -> None:
    with pytest.raises(Refused) as refused:
        await embed(stack, "one", application=CHAT)
    assert refused.value.reason == "NO_USABLE_CREDENTIAL"
