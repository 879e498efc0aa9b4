"""No bytes do more than a fault: random ones, broken fixtures, and JSON of the right keys with wrong values."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router_service.core.faults import Fault
from router_service.dialects.base import BodyFrame, Frame, Framing
from router_service.dialects.reading import read_any
from router_service.dialects.registry import DIALECTS
from tests.suites.aws_messages import event
from tests.suites.dialect_fixtures import fixtures
from tests.suites.dialect_suite import decode, decode_body, framer_of, is_whole_json, texts_of

BODIES = {name: [case.body for case in fixtures(name)] for name in DIALECTS}

ODD_WORDS = ("", "{", "{}", "AA==", "AA=", "data:x", "$.a[0]", "[DONE]", "ä")
MOST_WORD_CHARS = 40


def frames_of(name: str, body: bytes) -> list[Frame]:
    """The frames of a body, as far as it has any."""
    if is_whole_json(body, DIALECTS[name].framing):
        return [BodyFrame(body)]
    framer = framer_of(DIALECTS[name])
    return [*framer.feed(body), *framer.close()]


def collect(value: Any, keys: set[str], words: set[str]) -> None:
    """The keys and the short texts in a value."""
    if isinstance(value, dict):
        keys.update(value)
        value = list(value.values())
    if isinstance(value, list):
        for inner in value:
            collect(inner, keys, words)
    elif isinstance(value, str) and len(value) <= MOST_WORD_CHARS:
        words.add(value)


def vocabulary(name: str) -> tuple[list[str], list[str], list[str]]:
    """The keys, the texts and the names of events that our own cases of a dialect use."""
    keys, words, events = {"error", "usage"}, set(ODD_WORDS), {""}
    for frame in (frame for body in BODIES[name] for frame in frames_of(name, body)):
        collect(read_any(frame.data), keys, words)
        events.add("" if isinstance(frame, BodyFrame) else frame.event)
    return sorted(keys), sorted(words), sorted(events)


VOCABULARY = {name: vocabulary(name) for name in DIALECTS}
KEYS = {name: found[0] for name, found in VOCABULARY.items()}
WORDS = {name: found[1] for name, found in VOCABULARY.items()}
EVENTS = {name: found[2] for name, found in VOCABULARY.items()}


def values_of(name: str) -> st.SearchStrategy[Any]:
    leaves = st.one_of(
        st.none(), st.booleans(), st.integers(-2, 3), st.floats(), st.sampled_from(WORDS[name]), st.text(max_size=3)
    )
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(KEYS[name]), inner, max_size=5)
        ),
        max_leaves=14,
    )


def framed(name: str, payload: bytes, event_name: str = "contentBlockDelta") -> bytes:
    """One event of a dialect's stream."""
    if DIALECTS[name].framing is Framing.AWS_EVENT_STREAM:
        return event(event_name, payload)
    if DIALECTS[name].framing is Framing.JSON_LINES:
        return payload + b"\n"
    return b"data: " + payload + b"\n\n"


def read_all(name: str, body: bytes) -> None:
    for is_stream in (True, False):
        try:
            events = decode(DIALECTS[name], [body]) if is_stream else decode_body(DIALECTS[name], body)
        except Fault:
            continue
        for text in texts_of(events):
            text.encode()  # whole code points


@pytest.mark.parametrize("name", DIALECTS)
@given(body=st.binary(max_size=300))
def test_random_bytes(name: str, body: bytes) -> None:
    read_all(name, body)
    read_all(name, framed(name, body))


@pytest.mark.parametrize("name", DIALECTS)
@settings(max_examples=200)
@given(data=st.data())
def test_broken_fixtures(name: str, data: st.DataObject) -> None:
    body = bytearray(data.draw(st.sampled_from(BODIES[name])))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(body) - 1))
        if data.draw(st.booleans()):
            body[at] = data.draw(st.integers(0, 255))
        else:
            del body[at : at + data.draw(st.integers(1, 40))]
            body = body or bytearray(b" ")
    read_all(name, bytes(body))


@pytest.mark.parametrize("name", DIALECTS)
@settings(max_examples=300)
@given(data=st.data())
def test_right_keys_with_wrong_values(name: str, data: st.DataObject) -> None:
    chunks = data.draw(st.lists(st.dictionaries(st.sampled_from(KEYS[name]), values_of(name), max_size=6), max_size=5))
    names = data.draw(st.lists(st.sampled_from(EVENTS[name]), min_size=5, max_size=5))
    body = framed(name, b"{}", "messageStart")
    body += b"".join(framed(name, json.dumps(chunk).encode(), word) for chunk, word in zip(chunks, names, strict=False))
    read_all(name, body)
    for chunk in chunks:
        read_all(name, json.dumps(chunk).encode())


@pytest.mark.parametrize("name", DIALECTS)
def test_the_words_are_of_the_wire(name: str) -> None:
    assert len(KEYS[name]) >= 10
    assert len(WORDS[name]) > len(ODD_WORDS)


@pytest.mark.parametrize("name", DIALECTS)
def test_json_nested_too_deep(name: str) -> None:
    deep = b'{"usage":' + b"[" * 200_000 + b"]" * 200_000 + b"}"
    read_all(name, deep)
    read_all(name, framed(name, deep))
    assert isinstance(DIALECTS[name].decode_error(500, {}, deep), Fault)
