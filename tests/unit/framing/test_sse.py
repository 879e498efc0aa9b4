"""The framer: the WHATWG rules, any cut, the size cap, and what a missing blank line means."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_service.core.faults import Fault, Reason
from router_service.dialects.base import SseFrame
from router_service.framing import sse
from router_service.framing.sse import SseFramer


def frames_of(*pieces: bytes) -> list[SseFrame]:
    framer = SseFramer()
    found = [frame for piece in pieces for frame in framer.feed(piece)]
    return found + framer.close()


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"data: a\n\ndata: b\n\n", [("", b"a"), ("", b"b")]),
        (b"data: a\r\n\r\ndata: b\r\n\r\n", [("", b"a"), ("", b"b")]),
        (b"data: a\r\rdata: b\r\r", [("", b"a"), ("", b"b")]),
        (b"data: a\r\n\ndata: b\n\r\n", [("", b"a"), ("", b"b")]),
        (b"\xef\xbb\xbfdata: a\n\n", [("", b"a")]),
        (b": comment\n\n: another\ndata: a\n\n", [("", b"a")]),
        (b"event: ping\ndata: {}\n\n", [("ping", b"{}")]),
        (b"event: ping\n\n", []),
        (b"data: a\ndata: b\n\n", [("", b"a\nb")]),
        (b"data\n\n", [("", b"")]),
        (b"data:a\n\n", [("", b"a")]),
        (b"data:  a\n\n", [("", b" a")]),
        (b"id: 7\nretry: 10\nunknown: x\ndata: a\n\n", [("", b"a")]),
        (b"\n\n\n\ndata: a\n\n\n\n\ndata: b\n\n", [("", b"a"), ("", b"b")]),
        (b"data: \xf0\x9f\x8c\x8d\n\n", [("", "🌍".encode())]),
        (b"", []),
    ],
)
def test_a_body_is_read_by_the_rules_wherever_it_is_cut(body: bytes, expected: list[tuple[str, bytes]]) -> None:
    wanted = [SseFrame(event, data) for event, data in expected]
    assert frames_of(body) == wanted
    assert frames_of(*[body[at : at + 1] for at in range(len(body))]) == wanted
    for at in range(len(body) + 1):
        assert frames_of(body[:at], body[at:]) == wanted


@pytest.mark.parametrize(
    ("tail", "data"),
    [
        (b"data: [DONE]\n", b"[DONE]"),
        (b"data: [DONE]", b"[DONE]"),
        (b'data: {"a":{"b":1}}', b'{"a":{"b":1}}'),
        (b"event: x\r\ndata: 1\r\n", b"1"),
    ],
)
def test_a_last_event_that_lacks_only_its_blank_line_counts(tail: bytes, data: bytes) -> None:
    assert [frame.data for frame in frames_of(b"data: a\n\n" + tail)] == [b"a", data]


@pytest.mark.parametrize(
    "tail", [b"data: [DON", b'data: {"a":{"b":1}', b'data: {"a"', b"da", b"event: x", b"data: tru"]
)
def test_half_a_line_never_counts(tail: bytes) -> None:
    assert [frame.data for frame in frames_of(b"data: a\n\n" + tail)] == [b"a"]


@pytest.mark.parametrize("chunk_bytes", [7, 1000, 10_000])
def test_an_event_above_the_cap_is_refused_however_it_comes(monkeypatch: pytest.MonkeyPatch, chunk_bytes: int) -> None:
    monkeypatch.setattr(sse, "MAX_EVENT_BYTES", 1000)
    body = b"data: " + b"x" * 2000 + b"\n\n"
    with pytest.raises(Fault) as caught:
        frames_of(*[body[at : at + chunk_bytes] for at in range(0, len(body), chunk_bytes)])
    assert caught.value.reason is Reason.UPSTREAM_PROTOCOL_VIOLATION
    assert caught.value.metadata["violation"] == "frame_too_large"


def test_many_events_above_the_cap_together_are_fine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "MAX_EVENT_BYTES", 100)
    assert len(frames_of(b"data: x\n\n" * 1000)) == 1000


def test_the_work_is_linear_in_the_bytes() -> None:
    """Bytes copied, not time: an event that comes byte by byte is joined once."""
    framer = SseFramer()
    size = 20_000
    for _ in range(size):
        assert framer.feed(b"x") == []
    assert len(framer._pending) == size
    framer.feed(b"\n\n")
    assert framer._pending == []


@given(
    st.lists(st.sampled_from([b"data: a", b"data", b"event: e", b":", b"\n", b"\r", b"\r\n", b"\xef\xbb\xbf", b"x"]))
)
def test_cuts_never_change_a_body(pieces: list[bytes]) -> None:
    body = b"".join(pieces)
    assert frames_of(*pieces) == frames_of(body) == frames_of(*[body[at : at + 1] for at in range(len(body))])


@given(st.binary(max_size=400))
def test_any_bytes_are_read(body: bytes) -> None:
    for frame in frames_of(body):
        assert isinstance(frame, SseFrame)
