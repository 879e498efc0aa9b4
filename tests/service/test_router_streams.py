"""Answers over the wire: the grammar, what is held and what is merged, and that Complete is the fold of the stream."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from keyswitch.router.v1 import content_pb2, error_reason_pb2, payer_pb2, receipt_pb2, resolution_pb2, stream_pb2

from tests.fakes.scripted_upstream import LAST_CHUNK, Action, Pause, Reached, Send, chunk, head, respond, stream
from tests.service.router_answers import USAGE, Json, answer, answer_events, anthropic_events, whole_answer
from tests.service.router_harness import (
    CHAT,
    DEMO,
    Answer,
    Stack,
    follow,
    make_call,
    read_response_id,
    running_stack,
)


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[Stack]:
    async with running_stack(tmp_path) as running:
        yield running


@pytest.fixture
async def keyed(stack: Stack) -> Stack:
    """A stack whose organization has keys for every provider."""
    for provider in ("first", "second", "claude"):
        await stack.save_key(f"{DEMO}/credentials/{provider}", provider=provider)
    return stack


def fold(found: Answer) -> list[content_pb2.Part]:
    """The parts that a stream adds up to, as stream.proto says."""
    parts: dict[int, content_pb2.Part] = {}
    for event in found.events:
        match event.WhichOneof("event"):
            case "part_started":
                part = parts[event.part_started.index] = content_pb2.Part()
                match event.part_started.WhichOneof("kind"):
                    case "text":
                        part.text.SetInParent()
                    case "reasoning":
                        part.reasoning.SetInParent()
                    case "tool_call":
                        part.tool_call.id = event.part_started.tool_call.id
                        part.tool_call.name = event.part_started.tool_call.name
                    case other:
                        raise AssertionError(other)
            case "part_delta":
                delta, part = event.part_delta, parts[event.part_delta.index]
                if delta.HasField("text"):
                    part.text.text += delta.text.text
                if delta.HasField("reasoning"):
                    part.reasoning.text += delta.reasoning.text
                if delta.HasField("arguments"):
                    part.tool_call.arguments_json += delta.arguments.json
            case "part_ended":
                if event.part_ended.HasField("provider_state"):
                    parts[event.part_ended.index].provider_state.CopyFrom(event.part_ended.provider_state)
            case _:
                pass
    return [parts[index] for index in sorted(parts)]


async def test_an_answer_says_who_answered_on_whose_key_and_what_it_cost(keyed: Stack) -> None:
    keyed.first.script(answer("Hello", " world"))
    found = await keyed.member.stream()
    assert found.text == "Hello world"
    started = found.events[0].response_started
    assert started.response_id == found.response_id != ""
    assert started.resolution.model == "test/echo"
    assert started.resolution.model_source == resolution_pb2.MODEL_SOURCE_APPLICATION_DEFAULT
    assert started.resolution.provider == "providers/first"
    assert started.resolution.payer == payer_pb2.PAYER_ORGANIZATION_KEY
    assert started.resolution.credential_version == f"{DEMO}/credentials/first/versions/1"
    receipt = found.receipt
    assert receipt.state == receipt_pb2.RECEIPT_STATE_SUCCEEDED
    assert (receipt.usage.input_tokens, receipt.usage.output_tokens) == USAGE
    assert receipt.cost.list_price_usd_nanos == USAGE[0] * 1000 + USAGE[1] * 4000
    assert receipt.cost.charged_usd_nanos == 0
    assert not receipt.HasField("markup_basis_points")
    assert found.events[-1].response_ended.finish_reason == stream_pb2.FINISH_REASON_STOP
    assert await keyed.member.receipt(found.response_id) == receipt
    assert keyed.first.received[0].headers["authorization"] == "Bearer sk-first-0123456789"


async def test_the_other_dialect_answers_with_the_same_events(keyed: Stack) -> None:
    keyed.second.script(stream(*anthropic_events("Hello", " world")))
    found = await keyed.member.stream(make_call(model="test/claude"))
    assert found.text == "Hello world"
    assert (found.receipt.usage.input_tokens, found.receipt.usage.output_tokens) == USAGE
    assert keyed.second.received[0].headers["x-api-key"] == "sk-claude-0123456789"


CHOICES: list[Json] = [
    {"delta": {"role": "assistant", "reasoning_content": "I think"}},
    {"delta": {"content": "Let me see."}},
    {"delta": {"tool_calls": [{"index": 0, "id": "a", "function": {"name": "one", "arguments": ""}}]}},
    {"delta": {"tool_calls": [{"index": 0, "function": {"arguments": '{"x":'}}]}},
    {"delta": {"tool_calls": [{"index": 1, "id": "b", "function": {"name": "two", "arguments": '{"y"'}}]}},
    {"delta": {"tool_calls": [{"index": 0, "function": {"arguments": "9007199254740993}"}}]}},
    {"delta": {"tool_calls": [{"index": 1, "function": {"arguments": ": 1.10}"}}]}},
    {"delta": {}, "finish_reason": "tool_calls"},
]


def sse(choices: list[Json]) -> list[bytes]:
    """Choices as events of a stream."""
    chunks = [{"id": "1", "model": "m", "choices": [{"index": 0, **choice}]} for choice in choices]
    return [b"data: " + json.dumps(one).encode() + b"\n\n" for one in chunks] + [b"data: [DONE]\n\n"]


TOOLS = sse(CHOICES)

SCRIPTS: dict[str, tuple[str, list[Action]]] = {
    "text": ("test/echo", answer("Hel", "lo", " world")),
    "parallel tools": ("test/echo", stream(*TOOLS)),
    "a whole body though a stream was asked for": ("test/echo", respond(whole_answer())),
    "anthropic": ("test/claude", stream(*anthropic_events("Hello", " world"))),
}


@pytest.mark.parametrize("name", SCRIPTS)
async def test_complete_is_the_fold_of_the_stream(keyed: Stack, name: str) -> None:
    model, script = SCRIPTS[name]
    upstream = keyed.second if model == "test/claude" else keyed.first
    call = make_call(model=model)
    call.spec.settings.max_output_tokens = 20_000  # long answers are streamed by the provider in both methods
    upstream.script(script, script)
    streamed = await keyed.member.stream(call)
    folded = await keyed.member.complete(call)
    assert upstream.received[0].body == upstream.received[1].body
    assert fold(streamed) == list(folded.message.parts)
    assert folded.message.role == content_pb2.ROLE_ASSISTANT
    ended = streamed.events[-1].response_ended
    assert folded.finish_reason == ended.finish_reason
    assert folded.provider_finish_reason == ended.provider_finish_reason
    assert folded.receipt.usage == ended.receipt.usage
    assert folded.receipt.cost == ended.receipt.cost
    assert folded.resolution == streamed.events[0].response_started.resolution
    assert folded.warnings == streamed.events[0].response_started.warnings


async def test_adjacent_deltas_of_one_tool_call_are_merged(keyed: Stack) -> None:
    def more(index: int, text: str) -> Json:
        return {"delta": {"tool_calls": [{"index": index, "function": {"arguments": text}}]}}

    choices = [*CHOICES[:3], more(0, "{"), more(0, '"x":'), more(0, "1}"), *CHOICES[4:5], more(1, ": 2}"), CHOICES[-1]]
    keyed.first.script([Send(head() + b"".join(chunk(event) for event in sse(choices)) + LAST_CHUNK)])
    found = await keyed.member.stream()
    arguments = [
        (event.part_delta.index, event.part_delta.arguments.json)
        for event in found.events
        if event.part_delta.HasField("arguments")
    ]
    assert arguments == [(2, '{"x":1}'), (3, '{"y": 2}')]


async def test_a_unary_call_is_unary_upstream(keyed: Stack) -> None:
    keyed.first.script(respond(whole_answer("Hello")))
    found = await keyed.member.complete()
    assert found.message.parts[0].text.text == "Hello"
    body = keyed.first.received[0].json
    assert isinstance(body, dict)
    assert not body.get("stream")


async def test_nothing_is_seen_before_the_first_content(keyed: Stack) -> None:
    events = answer_events("Hello")
    reached, go_on = asyncio.Event(), asyncio.Event()
    begin: list[Action] = [Send(head() + chunk(events[0])), Reached(reached), Pause(go_on)]
    keyed.first.script([*begin, *(Send(chunk(event)) for event in events[1:]), Send(LAST_CHUNK)])
    opened = keyed.member.open()
    reading = asyncio.ensure_future(opened.read())
    await reached.wait()
    response_id = await read_response_id(opened)
    assert (await keyed.member.receipt(response_id)).state == receipt_pb2.RECEIPT_STATE_IN_FLIGHT
    assert not reading.done()
    go_on.set()
    first = await reading
    kinds = [event.WhichOneof("event") for event in first.events]
    assert kinds[:3] == ["response_started", "part_started", "part_delta"]
    assert (await follow(opened)).error is None


async def test_what_is_ready_together_travels_together(keyed: Stack) -> None:
    events = answer_events(*(f"{number} " for number in range(50)))
    keyed.first.script([Send(head() + b"".join(chunk(event) for event in events) + LAST_CHUNK)])
    found = await keyed.member.stream()
    assert found.text == "".join(f"{number} " for number in range(50))
    assert found.kinds.count("part_delta") < 25
    assert len(found.messages) < 25


async def test_a_flush_interval_merges_what_comes_meanwhile(keyed: Stack) -> None:
    events = answer_events(*(f"{number} " for number in range(40)))
    keyed.first.script(stream(*events))
    found = await keyed.member.stream(min_flush_seconds=1.0)
    assert found.text == "".join(f"{number} " for number in range(40))
    assert len(found.messages) <= 3


async def test_merged_events_go_out_although_the_upstream_pauses(keyed: Stack) -> None:
    events = answer_events("one ", "two ", "three ")
    go_on = asyncio.Event()
    sent: list[Action] = [Send(chunk(event)) for event in events]
    keyed.first.script([Send(head()), *sent[:4], Pause(go_on), *sent[4:], Send(LAST_CHUNK)])
    opened = keyed.member.open(min_flush_seconds=0.05)
    text = ""
    while text != "one two three ":  # the upstream is silent: only the interval can bring the rest
        message = await opened.read()
        text += "".join(event.part_delta.text.text for event in message.events)
    go_on.set()
    assert (await follow(opened)).error is None


async def test_a_burst_within_a_flush_interval_is_bounded(keyed: Stack) -> None:
    piece = "x" * 4096
    keyed.first.script(stream(*answer_events(*([piece] * 512))))
    found = await keyed.member.stream(min_flush_seconds=1.0)
    assert len(found.text) == 512 * 4096
    assert max(message.ByteSize() for message in found.messages) < 512 * 1024


async def test_what_follows_the_end_of_an_answer_is_not_read(keyed: Stack) -> None:
    """Whether it comes in the same read or later is the network's whim and must change nothing."""
    whole = b"".join(answer_events("Hello")) + b"data: {broken\n\n"
    keyed.first.script([Send(head() + chunk(whole) + LAST_CHUNK)])
    found = await keyed.member.stream()
    assert found.error is None
    assert found.text == "Hello"


async def test_the_connection_of_a_whole_answer_serves_the_next_call(keyed: Stack) -> None:
    keyed.first.script(answer(), answer())
    await keyed.member.stream()
    await keyed.rest()
    await keyed.member.stream()
    assert keyed.first.open_connections == 1


async def test_the_settings_of_the_model_and_the_call_meet_in_the_request(keyed: Stack) -> None:
    keyed.first.script(answer())
    call = make_call(model="echo", application=CHAT)
    call.spec.settings.sampling.temperature = 0.5
    found = await keyed.member.stream(call)
    assert found.events[0].response_started.resolution.requested_model == "echo"
    assert found.events[0].response_started.resolution.model_source == resolution_pb2.MODEL_SOURCE_CALL
    body = keyed.first.received[0].json
    assert isinstance(body, dict)
    assert body["temperature"] == 0.5
    assert body["model"] == "echo"
    assert found.receipt.failure_reason == error_reason_pb2.ERROR_REASON_UNSPECIFIED
