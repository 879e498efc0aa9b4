"""JSON lines from bytes: any cut, any line end, and a cap."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_service.core.faults import Fault
from router_service.dialects.base import LineFrame
from router_service.framing import json_lines
from router_service.framing.json_lines import JsonLinesFramer


def frames(pieces: list[bytes]) -> list[LineFrame]:
    framer = JsonLinesFramer()
    found = [frame for piece in pieces for frame in framer.feed(piece)]
    return [*found, *framer.close()]


@given(st.lists(st.binary(max_size=12), max_size=12))
def test_where_bytes_are_cut_changes_nothing(pieces: list[bytes]) -> None:
    whole = b"".join(pieces)
    wanted = [LineFrame(line.strip()) for line in whole.split(b"\n") if line.strip()]
    assert frames(pieces) == wanted
    assert frames([whole]) == wanted
    assert frames([whole[at : at + 1] for at in range(len(whole))]) == wanted


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\n\n", b"\r\n\r\n"])
def test_line_ends(line_end: bytes) -> None:
    assert frames([line_end.join([b"{}", b"[1]", b""])]) == [LineFrame(b"{}"), LineFrame(b"[1]")]


def test_lines_are_given_as_soon_as_they_are_whole() -> None:
    framer = JsonLinesFramer()
    assert framer.feed(b'{"a":1}\n{"b"') == [LineFrame(b'{"a":1}')]
    assert framer.feed(b":2}") == []
    assert framer.feed(b"\n") == [LineFrame(b'{"b":2}')]
    assert framer.close() == []


def test_an_endless_line_is_refused_in_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_lines, "MAX_EVENT_BYTES", 1000)
    framer = JsonLinesFramer()
    for _ in range(10):
        assert framer.feed(b"x" * 100) == []
    with pytest.raises(Fault) as caught:
        framer.feed(b"x")
    assert caught.value.metadata["violation"] == "frame_too_large"
    with pytest.raises(Fault):
        JsonLinesFramer().feed(b"x" * 1001 + b"\n")
