"""The framer of AWS's event stream: what botocore reads, any cut, damage anywhere, lengths that lie."""

import struct
from collections.abc import Iterable
from typing import Any
from zlib import crc32

import pytest
from botocore.eventstream import EventStreamBuffer, ParserError
from hypothesis import given
from hypothesis import strategies as st

from router_service.core.faults import Fault, Reason
from router_service.dialects.base import AwsFrame
from router_service.framing import aws_eventstream
from router_service.framing.aws_eventstream import AwsEventStreamFramer
from tests.suites.aws_messages import event, message, stream, string_header

BODY = stream([("messageStart", b'{"role":"assistant"}'), ("metadata", "{}🌍".encode()), ("empty", b"")])
FRAMES = [
    AwsFrame("event", "messageStart", b'{"role":"assistant"}'),
    AwsFrame("event", "metadata", "{}🌍".encode()),
    AwsFrame("event", "empty", b""),
]


def frames_of(*pieces: bytes) -> list[AwsFrame]:
    framer = AwsEventStreamFramer()
    return [frame for piece in pieces for frame in framer.feed(piece)] + list(framer.close())


def read_until_fault(pieces: Iterable[bytes]) -> tuple[list[AwsFrame], Fault | None]:
    framer = AwsEventStreamFramer()
    found: list[AwsFrame] = []
    try:
        for piece in pieces:
            found.extend(framer.feed(piece))  # keeps what came before a fault
        found.extend(framer.close())
    except Fault as fault:
        return found, fault
    return found, None


def oracle(body: bytes) -> tuple[list[AwsFrame], bool]:
    """What botocore reads, and whether it then fails or waits for more."""
    buffer: Any = EventStreamBuffer()  # its types are wrong about headers
    buffer.add_data(body)
    found: list[AwsFrame] = []
    names = {"event": ":event-type", "exception": ":exception-type", "error": ":error-code"}
    try:
        for read in buffer:
            kind = read.headers.get(":message-type")
            if kind not in names:
                return found, True
            found.append(AwsFrame(kind, str(read.headers.get(names[kind], "")), read.payload))
    except (ParserError, KeyError, struct.error, UnicodeDecodeError):
        return found, True
    return found, bool(buffer._data)


def test_a_body_is_read_wherever_it_is_cut() -> None:
    assert frames_of(BODY) == FRAMES
    assert frames_of(*[BODY[at : at + 1] for at in range(len(BODY))]) == FRAMES
    for at in range(len(BODY) + 1):
        assert frames_of(BODY[:at], BODY[at:]) == FRAMES


def test_a_body_that_breaks_off_inside_a_message_is_a_cut_answer() -> None:
    ends = {0, len(BODY)}
    for at in range(1, len(BODY)):
        read, fault = read_until_fault([BODY[:at]])
        assert read == FRAMES[: len(read)]
        if fault is None:
            ends.add(at)
        else:
            assert fault.metadata["violation"] == "truncated"
    assert len(ends) == len(FRAMES) + 1


def test_every_damaged_byte_is_noticed_and_what_came_before_is_kept() -> None:
    for at in range(len(BODY)):
        damaged = BODY[:at] + bytes([BODY[at] ^ 0x40]) + BODY[at + 1 :]
        read, fault = read_until_fault([damaged])
        assert fault is not None
        assert fault.reason is Reason.UPSTREAM_PROTOCOL_VIOLATION
        assert fault.metadata["violation"] == "checksum"
        assert read == oracle(damaged)[0]
        assert read_until_fault(damaged[at : at + 1] for at in range(len(damaged)))[0] == read


def test_a_broken_message_ends_the_stream() -> None:
    framer = AwsEventStreamFramer()
    for _ in range(2):
        with pytest.raises(Fault):
            list(framer.feed(b"\x00" * 12 + BODY))


@pytest.mark.parametrize(
    ("total", "headers", "kind"),
    [
        (0, 0, "malformed"),
        (15, 0, "malformed"),
        (16, 1, "malformed"),
        (20, 0xFFFFFFFF, "malformed"),
        (0xFFFFFFFF, 0, "frame_too_large"),
        (0xFFFFFFFF, 0xFFFFFF00, "frame_too_large"),
        (16 + aws_eventstream.MAX_PAYLOAD_BYTES + 1, 0, "frame_too_large"),
        (16 + aws_eventstream.MAX_HEADERS_BYTES + 1, aws_eventstream.MAX_HEADERS_BYTES + 1, "frame_too_large"),
    ],
)
def test_a_length_that_cannot_be_is_refused_at_once(total: int, headers: int, kind: str) -> None:
    lengths = struct.pack("!II", total, headers)
    _, fault = read_until_fault([lengths + struct.pack("!I", crc32(lengths))])
    assert fault is not None
    assert fault.metadata["violation"] == kind


def test_headers_of_every_type_are_skipped_or_read() -> None:
    others = b"".join(
        bytes([1]) + bytes([ord("a") + kind]) + bytes([kind]) + value
        for kind, value in enumerate(
            (b"", b"", b"x", b"xx", b"xxxx", b"x" * 8, b"\x00\x03abc", b"\x00\x02hi", b"x" * 8, b"x" * 16)
        )
    )
    body = message(others + string_header(":message-type", "event") + string_header(":event-type", "e"), b"1")
    assert frames_of(body) == [AwsFrame("event", "e", b"1")]
    assert oracle(body) == (frames_of(body), False)


@pytest.mark.parametrize(
    "headers",
    [
        b"",
        b"\x05ab",
        b"\x01a",
        b"\x01a\x0a",
        b"\x01a\x07\x00",
        b"\x01a\x07\x00\x05x",
        b"\x01a\x05xx",
        string_header(":message-type", "event") * 2,
        string_header(":message-type", "banana"),
        b"\x0d:message-type\x07\x00\x01\xff",
    ],
)
def test_headers_that_cannot_be_read_are_a_fault(headers: bytes) -> None:
    body = message(headers, b"{}")
    _, fault = read_until_fault([body])
    assert fault is not None
    assert fault.metadata["violation"] == "malformed"
    assert oracle(body) == ([], True)


def test_an_exception_and_an_error_are_told_apart_from_events() -> None:
    exception = event("throttlingException", b'{"message":"slow down"}', "exception")
    headers = {":message-type": "error", ":error-code": "InternalError", ":error-message": "no"}
    error = message(b"".join(string_header(*header) for header in headers.items()), b"")
    assert frames_of(exception + error) == [
        AwsFrame("exception", "throttlingException", b'{"message":"slow down"}'),
        AwsFrame("error", "InternalError", b"no"),
    ]


def test_a_message_that_comes_byte_by_byte_is_parsed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed = []
    real = aws_eventstream._read_prelude

    def count(data: bytearray, at: int) -> tuple[int, int]:
        parsed.append(at)
        return real(data, at)

    monkeypatch.setattr(aws_eventstream, "_read_prelude", count)
    body = event("contentBlockDelta", b"x" * 20_000)
    assert len(frames_of(*[body[at : at + 1] for at in range(len(body))])) == 1
    assert len(parsed) == 2  # when its length is known, and when it is whole


@given(
    st.lists(st.tuples(st.text(max_size=8), st.binary(max_size=40)), max_size=4),
    st.data(),
)
def test_it_reads_what_botocore_reads(events: list[tuple[str, bytes]], data: st.DataObject) -> None:
    body = bytearray(stream(events))
    for _ in range(data.draw(st.integers(0, 2)) if body else 0):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    if body and data.draw(st.booleans()):
        del body[data.draw(st.integers(0, len(body) - 1)) :]
    cut = data.draw(st.integers(0, len(body)))
    read, fault = read_until_fault([bytes(body[:cut]), bytes(body[cut:])])
    assert (read, fault is not None) == oracle(bytes(body))


@given(st.binary(max_size=200), st.binary(max_size=60))
def test_any_bytes_are_frames_or_a_fault(noise: bytes, headers: bytes) -> None:
    for body in (noise, message(headers, noise), BODY + noise):
        read, fault = read_until_fault([body])
        assert (read, fault is not None) == oracle(body)
