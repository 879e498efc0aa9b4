"""What servers of the Anthropic wire may do wrong or newly."""

import json
from typing import Any

import pytest

from router_service.core.content import Part, ProviderBlock, Text
from router_service.core.events import FinishReason, TextDelta, UsageUpdated
from router_service.core.faults import Fault, Reason
from router_service.core.fold import Answer, fold
from router_service.dialects.anthropic_messages import AnthropicMessages
from router_service.dialects.base import BodyFrame, Quirks, SseFrame
from tests.suites.dialect_suite import decode

DIALECT = AnthropicMessages()
START: dict[str, Any] = {
    "type": "message_start",
    "message": {"id": "m", "model": "c", "usage": {"input_tokens": 3, "output_tokens": 1}},
}
BLOCK: dict[str, Any] = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
DELTA: dict[str, Any] = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "a"}}
BLOCK_END: dict[str, Any] = {"type": "content_block_stop", "index": 0}
END: list[dict[str, Any]] = [
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 5}},
    {"type": "message_stop"},
]


def stream(*events: dict[str, Any]) -> bytes:
    return b"".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in events)


def answer_of(*events: dict[str, Any]) -> Answer:
    return fold(decode(DIALECT, [stream(*events)]), dialect=DIALECT.name, provider="p")


def test_the_first_content_is_not_held_back() -> None:
    decoder = DIALECT.decoder(Quirks())
    for event in (START, BLOCK):
        decoder.feed(SseFrame(event["type"], json.dumps(event).encode()))
    assert list(decoder.feed(SseFrame("", json.dumps(DELTA).encode()))) == [TextDelta(0, "a")]


def test_the_placeholder_of_the_output_is_not_taken() -> None:
    events = decode(DIALECT, [stream(START, *END)])
    totals = [event.usage for event in events if isinstance(event, UsageUpdated)]
    assert [(total.input_tokens, total.output_tokens) for total in totals] == [(3, None), (3, 5)]


def test_text_at_the_start_of_a_block_is_text() -> None:
    block = {**BLOCK, "content_block": {"type": "text", "text": "x"}}
    assert answer_of(START, block, DELTA, BLOCK_END, *END).parts == (Part(Text("xa")),)


def test_a_block_that_was_not_ended_ends_with_the_message() -> None:
    assert answer_of(START, BLOCK, DELTA, *END).parts == (Part(Text("a")),)


def test_a_block_nobody_knows_is_kept_whole() -> None:
    block = {**BLOCK, "content_block": {"type": "hologram", "x": 1.0}}
    newer = {**DELTA, "delta": {"type": "photon_delta", "y": 1}}
    assert answer_of(START, block, newer, BLOCK_END, *END).parts == (
        Part(ProviderBlock("anthropic_messages", "hologram", '{"type": "hologram", "x": 1.0}')),
    )


def test_a_stop_nobody_knows_is_unknown() -> None:
    stop = {"type": "message_delta", "delta": {"stop_reason": "tired"}, "usage": {}}
    answer = answer_of(START, stop, END[1])
    assert answer.finish is not None
    assert (answer.finish.reason, answer.finish.provider_reason) == (FinishReason.UNKNOWN, "tired")


@pytest.mark.parametrize(
    "events",
    [
        [BLOCK],
        [DELTA],
        [END[1]],
        [START, DELTA],
        [START, BLOCK_END],
        [START, BLOCK, BLOCK],
        [START, BLOCK, BLOCK_END, DELTA],
        [START, BLOCK, {**DELTA, "delta": {"type": "thinking_delta", "thinking": "x"}}],
        [START, BLOCK, {**DELTA, "index": 1}],
        [START, {**BLOCK, "content_block": {"type": "tool_use", "id": "x"}}],
        [{"type": "message_start"}],
        [START, {"type": "content_block_start", "index": 0}],
    ],
)
def test_a_broken_order_is_the_providers_fault(events: list[dict[str, Any]]) -> None:
    with pytest.raises(Fault) as caught:
        answer_of(*events, *END)
    assert caught.value.reason is Reason.UPSTREAM_PROTOCOL_VIOLATION


def test_broken_input_of_a_server_tool_is_the_providers_fault() -> None:
    block = {**BLOCK, "content_block": {"type": "server_tool_use", "id": "s", "name": "n", "input": {}}}
    piece = {**DELTA, "delta": {"type": "input_json_delta", "partial_json": '{"a":1},"b":{'}}
    with pytest.raises(Fault):
        answer_of(START, block, piece, BLOCK_END, *END)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        ({"type": "overloaded_error"}, Reason.UPSTREAM_UNAVAILABLE),
        ({"type": "api_error"}, Reason.UPSTREAM_UNAVAILABLE),
        ({"type": "rate_limit_error"}, Reason.UPSTREAM_RATE_LIMITED),
        ({"type": "authentication_error"}, Reason.UPSTREAM_CREDENTIAL_REJECTED),
        ({"type": "billing_error"}, Reason.UPSTREAM_BALANCE_EXHAUSTED),
        ({"type": "invalid_request_error", "message": "bad"}, Reason.UPSTREAM_REJECTED_REQUEST),
        ({"type": "not_found_error"}, Reason.UPSTREAM_MODEL_MISSING),
        ({"type": "newer_error"}, Reason.UPSTREAM_UNAVAILABLE),
    ],
)
def test_an_error_inside_a_stream_is_raised(error: dict[str, Any], reason: Reason) -> None:
    with pytest.raises(Fault) as caught:
        answer_of(START, {"type": "error", "error": error})
    assert caught.value.reason is reason


@pytest.mark.parametrize("kind", ["", "ping", "message_delta"])
def test_minimaxs_own_error_inside_a_stream_is_raised_with_its_code(kind: str) -> None:
    with pytest.raises(Fault) as caught:
        answer_of(START, {"type": kind, "base_resp": {"status_code": 1002, "status_msg": "rate limit"}})
    assert (caught.value.reason, caught.value.metadata["upstreamCode"]) == (Reason.UPSTREAM_UNAVAILABLE, "1002")
    assert answer_of(START, {"type": kind, "base_resp": {"status_code": 0}}, *END).parts == ()


def test_an_error_event_that_is_not_json_is_still_an_error() -> None:
    with pytest.raises(Fault) as caught:
        decode(DIALECT, [b"event: error\ndata: overloaded\n\n"])
    assert caught.value.reason is Reason.UPSTREAM_UNAVAILABLE


@pytest.mark.parametrize("data", [b"{", b"[]", b"1", b'{"type":5}', b'{"type":"\xff"}'])
def test_what_is_not_the_protocol_is_a_violation(data: bytes) -> None:
    for frame in (SseFrame("", data), BodyFrame(data)):
        with pytest.raises(Fault) as caught:
            DIALECT.decoder(Quirks()).feed(frame)
        assert caught.value.reason is Reason.UPSTREAM_PROTOCOL_VIOLATION


def test_content_at_the_start_of_a_message_is_content() -> None:
    citation = {"type": "char_location", "cited_text": "q", "start_char_index": 0, "end_char_index": 1}
    text = {"type": "text", "text": "a", "citations": [citation]}
    start = {**START, "message": {**START["message"], "content": [text]}}
    answer = answer_of(start, {**BLOCK, "index": 1}, {**BLOCK_END, "index": 1}, *END)
    first, second = (part.kind for part in answer.parts)
    assert isinstance(first, Text)
    assert (first.text, [found.quote for found in first.citations], second) == ("a", ["q"], Text(""))


def test_nothing_after_the_end_is_read() -> None:
    decoder = DIALECT.decoder(Quirks())
    for event in (START, *END):
        decoder.feed(SseFrame("", json.dumps(event).encode()))
    assert list(decoder.feed(SseFrame("", b"{broken"))) == []
    assert list(decoder.close()) == []


def test_empty_data_is_nothing() -> None:
    assert list(DIALECT.decoder(Quirks()).feed(SseFrame("ping", b" "))) == []
