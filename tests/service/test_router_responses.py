"""OpenAI's Responses wire through the whole router: one key, two wires, and reasoning that comes back as it went."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from keyswitch.router.v1 import content_pb2, stream_pb2

from tests.fakes.scripted_upstream import respond, stream
from tests.service.router_answers import PRICE, Json, answer
from tests.service.router_harness import DEMO, Stack, make_call, running_stack
from tests.suites.dialect_fixtures import fixtures

CASES = {case.name: case.body for case in fixtures("openai_responses")}
MODEL = "test/reasoner"


def add_model(configuration: Json) -> None:
    endpoint = {"provider": "first", "upstream_model": "reasoner", "dialect": "openai_responses"}
    configuration["models"][MODEL] = {"endpoints": [endpoint], "price": PRICE}


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[Stack]:
    async with running_stack(tmp_path, configuration=add_model) as running:
        await running.save_key(f"{DEMO}/credentials/first", provider="first")
        yield running


def events_of(name: str) -> list[bytes]:
    return [event + b"\n\n" for event in CASES[name].split(b"\n\n") if event.strip()]


def last_body(stack: Stack) -> dict[str, Any]:
    received = stack.first.received[-1]
    assert received.path == "/v1/responses"
    body = received.json
    assert isinstance(body, dict)
    return body


def fold(events: list[stream_pb2.StreamEvent]) -> list[content_pb2.Part]:
    parts: list[content_pb2.Part] = []
    for event in events:
        if event.HasField("part_started"):
            part = content_pb2.Part()
            if event.part_started.HasField("tool_call"):
                part.tool_call.id = event.part_started.tool_call.id
                part.tool_call.name = event.part_started.tool_call.name
            parts.append(part)
        elif event.HasField("part_delta"):
            part, delta = parts[event.part_delta.index], event.part_delta
            if delta.HasField("reasoning"):
                part.reasoning.text += delta.reasoning.text
            if delta.HasField("arguments"):
                part.tool_call.arguments_json += delta.arguments.json
        elif event.HasField("part_ended"):
            parts[event.part_ended.index].provider_state.CopyFrom(event.part_ended.provider_state)
    return parts


async def test_a_turn_with_reasoning_and_tools_streams_and_goes_back(stack: Stack) -> None:
    stack.first.script(stream(*events_of("reasoning_and_parallel_tools")))
    found = await stack.member.stream(make_call("1 and 2?", model=MODEL))
    found.check()
    body = last_body(stack)
    assert (body["model"], body["store"], body["stream"]) == ("reasoner", False, True)
    parts = fold(found.events)
    assert {part.provider_state.dialect for part in parts} == {"openai_responses"}
    assert [part.tool_call.arguments_json for part in parts[1:]] == ['{"a":1}', '{"b":2}']

    stack.first.script(stream(*events_of("turn_with_tool_results")))
    call = make_call("1 and 2?", model=MODEL)
    call.spec.messages.append(content_pb2.Message(role=content_pb2.ROLE_ASSISTANT, parts=parts))
    results = [
        content_pb2.Part(
            tool_result=content_pb2.ToolResultPart(
                tool_call_id=name,
                content=[content_pb2.ToolResultContent(text=content_pb2.TextPart(text="ok"))],
            )
        )
        for name in ("call_a", "call_b")
    ]
    call.spec.messages.append(content_pb2.Message(role=content_pb2.ROLE_TOOL, parts=results))
    assert (await stack.member.stream(call)).text == "Three."
    sent = last_body(stack)["input"]
    sealed = json.loads(parts[0].provider_state.data)
    assert sent[1] == sealed
    assert sealed["encrypted_content"] == "sealed=="
    assert [item.get("id") for item in sent[2:]] == ["fc_1", "fc_2", None, None]


async def test_a_whole_answer_comes_without_a_stream(stack: Stack) -> None:
    stack.first.script(respond(CASES["whole_body"]))
    answered = await stack.member.complete(make_call(model=MODEL))
    assert [part.WhichOneof("kind") for part in answered.message.parts] == ["reasoning", "tool_call", "provider"]


async def test_one_key_serves_both_wires(stack: Stack) -> None:
    stack.first.script(answer("Hi"), stream(*events_of("refusal")))
    assert (await stack.member.stream(make_call(model="test/echo"))).text == "Hi"
    assert (await stack.member.stream(make_call(model=MODEL))).text == "I will not."
    chat, responses = stack.first.received
    assert (chat.path, responses.path) == ("/v1/chat/completions", "/v1/responses")
    assert chat.headers["authorization"] == responses.headers["authorization"]


@pytest.mark.parametrize(
    ("case", "reason"), [("error_in_stream", "UPSTREAM_UNAVAILABLE"), ("cut", "UPSTREAM_PROTOCOL_VIOLATION")]
)
async def test_an_answer_that_breaks_off_after_its_first_words_is_a_fault(stack: Stack, case: str, reason: str) -> None:
    stack.first.script(stream(*events_of(case)))
    found = await stack.member.stream(make_call(model=MODEL))
    assert found.refused.reason == reason
    assert found.text
