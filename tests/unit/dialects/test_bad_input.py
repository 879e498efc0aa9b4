"""What a provider may do wrong, item by item and on every wire: a typed fault, in bounded memory, or a whole answer."""

import random
from collections.abc import Sequence

import pytest

from router_service.core.events import Event
from router_service.core.faults import Fault, Reason
from router_service.core.grammar import Grammar
from router_service.dialects.base import Frame
from router_service.dialects.registry import DIALECTS
from tests.suites.dialect_fixtures import fixtures
from tests.suites.dialect_suite import QUIRKS, decode, decode_body, framer_of, is_whole_json

HTML = b"<!DOCTYPE html><html><head><title>502 Bad Gateway</title></head><body>nginx</body></html>"
PIECE = b"x" * (1024 * 1024)
MOST_PIECES = 17  # an event may have 16 MiB

SOUND = [
    pytest.param(name, case.body, id=f"{name}-{case.name}")
    for name, dialect in DIALECTS.items()
    for case in fixtures(name)
    if "fault" not in case.expected and case.is_stream and not is_whole_json(case.body, dialect.framing)
]


def frames_of(name: str, body: bytes) -> list[Frame]:
    framer = framer_of(DIALECTS[name])
    return [*framer.feed(body), *framer.close()]


def read_frames(name: str, frames: Sequence[Frame]) -> Fault | None:
    """Reads frames to their end: the fault, or None for an answer that keeps the grammar."""
    decoder, grammar = DIALECTS[name].decoder(QUIRKS), Grammar()

    def take(events: Sequence[Event]) -> None:
        for event in events:
            grammar.check(event)

    try:
        for frame in frames:
            take(decoder.feed(frame))
        take(decoder.close())
    except Fault as fault:
        return fault
    assert grammar.is_finished
    return None


@pytest.mark.parametrize(("name", "body"), SOUND)
def test_frames_twice_and_out_of_order(name: str, body: bytes) -> None:
    """Duplicate indices, starts after ends, a second usage report, an early end."""
    frames = frames_of(name, body)
    assert read_frames(name, frames) is None
    shuffled = list(frames)
    random.Random(len(body)).shuffle(shuffled)
    for damaged in ([frame for one in frames for frame in (one, one)], frames[::-1], shuffled, frames + frames):
        fault = read_frames(name, damaged)
        assert fault is None or fault.reason.value.startswith("UPSTREAM_")


@pytest.mark.parametrize(("name", "body"), SOUND)
def test_two_answers_in_one(name: str, body: bytes) -> None:
    """Every other stream of the wire, its frames between those of this one."""
    mine = frames_of(name, body)
    for case in fixtures(name):
        if case.is_stream and "fault" not in case.expected:
            others = frames_of(name, case.body)
            mixed = [frame for pair in zip(mine, others, strict=False) for frame in pair]
            fault = read_frames(name, mixed)
            assert fault is None or fault.reason.value.startswith("UPSTREAM_")


@pytest.mark.parametrize("name", DIALECTS)
def test_a_frame_without_end_is_given_up(name: str) -> None:
    framer = framer_of(DIALECTS[name])
    fed = 0

    def feed_on() -> None:
        nonlocal fed
        while fed < MOST_PIECES:
            fed += 1
            assert list(framer.feed(PIECE)) == []

    with pytest.raises(Fault) as caught:
        feed_on()
    assert caught.value.reason is Reason.UPSTREAM_PROTOCOL_VIOLATION


@pytest.mark.parametrize("body", [HTML, b"", b"\x00" * 64, b"\xff\xfe{}", b"null", b"[]", b"5"], ids=repr)
@pytest.mark.parametrize("name", DIALECTS)
def test_a_body_that_is_no_answer(name: str, body: bytes) -> None:
    with pytest.raises(Fault) as caught:
        decode_body(DIALECTS[name], body)
    assert caught.value.reason.value.startswith("UPSTREAM_")
    with pytest.raises(Fault) as caught:
        decode(DIALECTS[name], [body])
    assert caught.value.reason is Reason.UPSTREAM_PROTOCOL_VIOLATION


@pytest.mark.parametrize("name", DIALECTS)
def test_bytes_that_are_no_text_inside_of_json(name: str) -> None:
    for data in (b'{"error": "\xff\xfe"}', b'{"a": "\x00"}', b'{"usage": \x00}'):
        with pytest.raises(Fault) as caught:
            decode_body(DIALECTS[name], data)
        assert caught.value.reason.value.startswith("UPSTREAM_")


@pytest.mark.parametrize("status", [301, 404, 429, 500, 502, 503])
@pytest.mark.parametrize("name", DIALECTS)
def test_an_error_page_says_what_its_status_says(name: str, status: int) -> None:
    fault = DIALECTS[name].decode_error(status, {"content-type": "text/html"}, HTML)
    assert fault.metadata["upstreamStatus"] == str(status)
    assert "nginx" not in fault.message
    if status >= 500:
        assert fault.reason is Reason.UPSTREAM_UNAVAILABLE


def test_the_end_of_an_openai_stream_too_early() -> None:
    body = next(case.body for case in fixtures("openai_chat") if case.name == "parallel_tools_interleaved")
    with pytest.raises(Fault) as caught:
        decode(DIALECTS["openai_chat"], [b"data: [DONE]\n\n" + body])
    assert caught.value.metadata["violation"] == "truncated"


def test_the_end_of_an_openai_stream_never() -> None:
    body = next(case.body for case in fixtures("openai_chat") if case.name == "parallel_tools_interleaved")
    without = body.replace(b"data: [DONE]", b"")
    assert decode(DIALECTS["openai_chat"], [without]) == decode(DIALECTS["openai_chat"], [body])
