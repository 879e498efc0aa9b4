"""Ollama's own wire through the whole router, to a server that needs no key."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from keyswitch.router.v1 import content_pb2, stream_pb2

from tests.fakes.scripted_upstream import Action, Cut, Send, chunk, head, respond
from tests.service.router_answers import PRICE, Json
from tests.service.router_harness import Stack, make_call, running_stack

NDJSON = "application/x-ndjson"


def line(content: str = "", *, done: bool = False, **message: object) -> bytes:
    message = {"role": "assistant", "content": content, **message}
    said: Json = {"model": "qwen3", "created_at": "2026-11-20T10:00:00Z", "message": message}
    if done:
        said |= {"done_reason": "stop", "prompt_eval_count": 12, "eval_count": 7}
    return json.dumps({**said, "done": done}).encode() + b"\n"


def answer(*lines: bytes) -> list[Action]:
    return [Send(head(content_type=NDJSON)), *(Send(chunk(one)) for one in lines), Send(b"0\r\n\r\n")]


def configure(made: Json) -> None:
    host = made["providers"]["first"]["base_url"].removesuffix("/v1")
    local = {"template": "ollama-native", "parameters": {"host": host.removeprefix("http://")}}
    made["providers"]["local"] = {**local, "allowed_private_networks": ["127.0.0.1/32"]}
    made["models"]["test/local"] = {"endpoints": [{"provider": "local", "upstream_model": "qwen3"}], "price": PRICE}


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[Stack]:
    async with running_stack(tmp_path, configuration=configure) as running:
        yield running


async def test_two_turns_with_a_tool_and_thinking(stack: Stack) -> None:
    calls = [{"function": {"name": "weather", "arguments": {"city": "Köln"}}}]
    stack.first.script(
        answer(line(thinking="Look it up."), line(tool_calls=calls), line(done=True)),
        answer(line("Rain"), line("."), line(done=True)),
    )
    call = make_call(model="test/local")
    call.spec.tools.add().function.name = "weather"
    first = await stack.member.stream(call)
    assert first.receipt.attempts[0].usage.output_tokens == 7
    assert first.events[-1].response_ended.finish_reason == stream_pb2.FINISH_REASON_TOOL_CALLS
    started = [event.part_started for event in first.events if event.WhichOneof("event") == "part_started"]
    tool = next(one.tool_call for one in started if one.WhichOneof("kind") == "tool_call")
    received = stack.first.received[0]
    assert received.path == "/api/chat"
    assert "authorization" not in received.headers

    def part(**kind: object) -> content_pb2.Part:
        return content_pb2.Part(**kind)  # type: ignore[arg-type] # the kind of the part by its field

    said = content_pb2.ToolCallPart(id=tool.id, name="weather", arguments_json='{"city":"Köln"}')
    result = content_pb2.ToolResultPart(
        tool_call_id=tool.id, content=[content_pb2.ToolResultContent(text=content_pb2.TextPart(text="Rain"))]
    )
    parts = [part(reasoning=content_pb2.ReasoningPart(text="Look it up.")), part(tool_call=said)]
    call.spec.messages.add(role=content_pb2.ROLE_ASSISTANT, parts=parts)
    call.spec.messages.add(role=content_pb2.ROLE_TOOL, parts=[part(tool_result=result)])
    second = await stack.member.stream(call)
    assert second.text == "Rain."
    sent = json.loads(stack.first.received[1].body)["messages"][1:]
    assert sent == [
        {"role": "assistant", "content": "", "thinking": "Look it up.", "tool_calls": calls},
        {"role": "tool", "tool_name": "weather", "content": "Rain"},
    ]


async def test_a_whole_answer(stack: Stack) -> None:
    stack.first.script(respond(line("Hello", done=True)))
    found = await stack.member.complete(make_call(model="test/local"))
    assert found.message.parts[0].text.text == "Hello"
    assert json.loads(stack.first.received[0].body)["stream"] is False


async def test_faults_are_typed(stack: Stack) -> None:
    stack.first.script(
        respond(b'{"error":"model \'qwen3\' not found"}', status=404),
        answer(line("Hel"), b'{"error":"the runner died"}\n'),
        [Send(head(content_type=NDJSON)), Send(chunk(line("Hel"))), Cut()],
    )
    missing = (await stack.member.stream(make_call(model="test/local"))).refused
    assert missing.reason == "UPSTREAM_MODEL_MISSING"
    for reason in ("UPSTREAM_UNAVAILABLE", "UPSTREAM_PROTOCOL_VIOLATION"):
        broken = await stack.member.stream(make_call(model="test/local"))
        assert broken.text == "Hel"
        assert broken.refused.reason == reason
        assert broken.refused.metadata["committed"] == "true"
