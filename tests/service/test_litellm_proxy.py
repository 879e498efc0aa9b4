"""Whole calls through the router to a real LiteLLM proxy, with a provider that a test scripts behind it."""

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from keyswitch.router.v1 import model_service_pb2, model_service_pb2_grpc, stream_pb2

from tests.fakes.model_servers import running_litellm
from tests.fakes.scripted_upstream import Action, ScriptedUpstream, respond, scripted_upstream, stream
from tests.service.router_answers import PRICE, USAGE, Json, answer, whole_answer
from tests.service.router_harness import Stack, make_call, running_stack

pytestmark = pytest.mark.timeout(700)

KEY = "sk-0123456789-of-the-proxy"
TIMEOUT_SECONDS = 60.0


@pytest.fixture(scope="module")
async def behind() -> AsyncIterator[ScriptedUpstream]:
    async with scripted_upstream() as upstream:
        yield upstream


@pytest.fixture(scope="module")
def proxy(behind: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_litellm(tmp_path_factory.mktemp("litellm"), behind.base_url, KEY, {"house-model": "echo-1"}) as origin:
        yield origin


@pytest.fixture
async def stack(proxy: str, tmp_path: Path) -> AsyncIterator[Stack]:
    def configure(made: Json) -> None:
        local = {"template": "litellm", "base_url": f"{proxy}/v1", "allowed_private_networks": ["127.0.0.1/32"]}
        made["providers"]["proxy"] = local
        for model in ("house-model", "nobody-has-it"):
            endpoint = {"provider": "proxy", "upstream_model": model}
            made["models"][f"test/{model}"] = {"endpoints": [endpoint], "price": PRICE}

    async with running_stack(tmp_path, configuration=configure) as running:
        await running.save_key("organizations/demo/credentials/proxy", KEY, provider="proxy")
        yield running


def ask(model: str = "house-model", **fields: Any) -> Any:
    return make_call(model=f"test/{model}", **fields)


def tool_call() -> list[Action]:
    call = {
        "index": 0,
        "id": "call_1",
        "type": "function",
        "function": {"name": "weather", "arguments": '{"city":"Köln"}'},
    }
    common = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "echo-1"}
    chunks: list[Json] = [
        {"choices": [{"index": 0, "delta": {"role": "assistant", "tool_calls": [call]}, "finish_reason": None}]},
        {"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]},
        {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}},
    ]
    events = [b"data: " + json.dumps({**common, **one}).encode() + b"\n\n" for one in chunks]
    return stream(*events, b"data: [DONE]\n\n")


async def test_a_text_streams_and_comes_whole(stack: Stack, behind: ScriptedUpstream) -> None:
    behind.script(answer("Hello", " there"), respond(whole_answer("Hello there")))
    streamed = await stack.member.stream(ask(), timeout=TIMEOUT_SECONDS)
    assert streamed.text == "Hello there"
    usage = streamed.receipt.attempts[0].usage
    assert (usage.input_tokens, usage.output_tokens) == USAGE
    assert behind.received[-1].headers["authorization"] == "Bearer sk-behind-the-proxy"
    whole = await stack.member.complete(ask(), timeout=TIMEOUT_SECONDS)
    assert whole.message.parts[0].text.text == "Hello there"


async def test_a_tool_is_called(stack: Stack, behind: ScriptedUpstream) -> None:
    behind.script(tool_call())
    call = ask()
    call.spec.tools.add().function.name = "weather"
    streamed = await stack.member.stream(call, timeout=TIMEOUT_SECONDS)
    ended = streamed.events[-1].response_ended
    assert ended.finish_reason == stream_pb2.FINISH_REASON_TOOL_CALLS
    started = [event.part_started for event in streamed.events if event.WhichOneof("event") == "part_started"]
    assert [one.tool_call.name for one in started if one.WhichOneof("kind") == "tool_call"] == ["weather"]


@pytest.mark.parametrize(
    ("status", "said", "reason"),
    [
        (429, {"message": "Rate limit reached", "code": "rate_limit_exceeded"}, "UPSTREAM_RATE_LIMITED"),
        (
            429,
            {"message": "You exceeded your current quota", "code": "insufficient_quota"},
            "UPSTREAM_BALANCE_EXHAUSTED",
        ),
        (400, {"message": "maximum context length is 9 tokens", "code": "context_length_exceeded"}, "CONTEXT_TOO_LONG"),
        (400, {"message": "temperature is out of range"}, "UPSTREAM_REJECTED_REQUEST"),
        (503, {"message": "busy"}, "UPSTREAM_UNAVAILABLE"),
    ],
)
async def test_an_error_of_the_provider_behind_it_keeps_its_reason(
    stack: Stack, behind: ScriptedUpstream, status: int, said: Json, reason: str
) -> None:
    behind.script(respond(json.dumps({"error": said}).encode(), status=status))
    assert (await stack.member.stream(ask(), timeout=TIMEOUT_SECONDS)).refused.reason == reason


async def test_a_model_that_it_does_not_have_is_said(stack: Stack) -> None:
    refused = (await stack.member.stream(ask("nobody-has-it"), timeout=TIMEOUT_SECONDS)).refused
    assert refused.reason == "UPSTREAM_MODEL_MISSING"


async def test_a_key_that_it_does_not_know_is_said(stack: Stack) -> None:
    await stack.rotate_key("organizations/demo/credentials/proxy", "sk-9876543210-of-nobody")
    refused = (await stack.member.stream(ask(), timeout=TIMEOUT_SECONDS)).refused
    assert refused.reason == "UPSTREAM_CREDENTIAL_REJECTED"


async def test_its_models_are_listed(stack: Stack) -> None:
    version = await stack.rotate_key("organizations/demo/credentials/proxy", KEY)
    stub: Any = model_service_pb2_grpc.ModelServiceStub(stack.channel)
    request = model_service_pb2.DiscoverUpstreamModelsRequest(credential_version=version)
    admin = await stack.issue("ADMIN")
    found = await admin.call(stub.DiscoverUpstreamModels, request)
    assert [(one.upstream_model_id, one.model) for one in found.models] == [("house-model", "test/house-model")]
