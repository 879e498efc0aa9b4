"""Whole round trips through the router to someone else's mock of the providers, on every wire that both speak."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from keyswitch.router.v1 import content_pb2, stream_pb2

from router_service.dialects.registry import DIALECTS
from tests.fakes.aimock_server import running_aimock
from tests.service.router_answers import Json
from tests.service.router_harness import Refused, Stack, make_call, running_stack

GREETING = "Hello, I am someone else's mock."
WEATHER = "What is the weather?"
FIXTURES: list[Json] = [
    {"match": {"userMessage": "Say hello"}, "response": {"content": GREETING}},
    {
        "match": {"userMessage": WEATHER, "hasToolResult": False},
        "response": {"toolCalls": [{"name": "weather", "arguments": {"city": "Köln"}}]},
    },
    {"match": {"userMessage": WEATHER, "hasToolResult": True}, "response": {"content": "It rains in Köln."}},
    {
        "match": {"userMessage": "Be throttled"},
        "response": {"error": {"message": "Slow down.", "type": "rate_limit_error"}, "status": 429},
    },
    {
        "match": {"userMessage": "Break down"},
        "response": {"error": {"message": "Overloaded.", "type": "server_error"}, "status": 503},
    },
]

# By dialect: the path of the base URL, and the scheme of the key.
WIRES = {
    "openai_chat": ("/v1", "bearer"),
    "openai_responses": ("/v1", "bearer"),
    "anthropic_messages": ("", "x-api-key"),
    "gemini": ("/v1beta", "x-goog-api-key"),
    "bedrock_converse": ("", "bearer"),
    "ollama_chat": ("", "none"),
}
DIALECT_NAMES = sorted(DIALECTS)


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_aimock(FIXTURES, tmp_path_factory.mktemp("aimock")) as found:
        yield found


@pytest.fixture(params=DIALECT_NAMES)
async def stack(request: pytest.FixtureRequest, origin: str, tmp_path: Path) -> AsyncIterator[Stack]:
    path, auth = WIRES[request.param]

    def configure(configuration: Json) -> None:
        first = configuration["providers"]["first"]
        first.update({"dialect": request.param, "auth": auth, "base_url": origin + path})

    async with running_stack(tmp_path, configuration=configure) as running:
        if auth != "none":
            await running.save_key("organizations/demo/credentials/first", provider="first")
        yield running


async def test_a_text_streams_and_comes_whole(stack: Stack) -> None:
    streamed = await stack.member.stream(make_call("Say hello"))
    assert streamed.text == GREETING
    assert streamed.events[-1].response_ended.finish_reason == stream_pb2.FINISH_REASON_STOP
    whole = await stack.member.complete(make_call("Say hello"))
    assert "".join(part.text.text for part in whole.message.parts) == GREETING


async def test_a_tool_is_called_and_its_result_goes_back(stack: Stack) -> None:
    call = make_call(WEATHER)
    call.spec.tools.add().function.name = "weather"
    streamed = await stack.member.stream(call)
    ended = streamed.events[-1].response_ended
    # The mock ends Gemini's calls with a word that Gemini does not have; the real one says STOP.
    if ended.provider_finish_reason != "FUNCTION_CALL":
        assert ended.finish_reason == stream_pb2.FINISH_REASON_TOOL_CALLS
    whole = await stack.member.complete(call)
    (part,) = (part for part in whole.message.parts if part.HasField("tool_call"))
    assert part.tool_call.name == "weather"
    assert "Köln" in part.tool_call.arguments_json
    call.spec.messages.append(whole.message)
    result = content_pb2.ToolResultPart(
        tool_call_id=part.tool_call.id,
        content=[content_pb2.ToolResultContent(text=content_pb2.TextPart(text="rain"))],
    )
    call.spec.messages.append(
        content_pb2.Message(role=content_pb2.ROLE_TOOL, parts=[content_pb2.Part(tool_result=result)])
    )
    assert (await stack.member.stream(call)).text == "It rains in Köln."


@pytest.mark.parametrize(
    ("text", "reason"), [("Be throttled", "UPSTREAM_RATE_LIMITED"), ("Break down", "UPSTREAM_UNAVAILABLE")]
)
async def test_an_error_has_its_reason(stack: Stack, text: str, reason: str) -> None:
    with pytest.raises(Refused) as caught:
        await stack.member.complete(make_call(text))
    assert caught.value.reason == reason
    assert (await stack.member.stream(make_call(text))).refused.reason == reason


def test_every_dialect_is_tried() -> None:
    assert set(WIRES) == set(DIALECTS)
