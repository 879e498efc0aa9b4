"""The conformance suite of dialects: what every decoder must do with every body, wherever the body is cut.

A body is fed through the real framer, in the pieces that a test chooses, and every event passes the grammar.
"""

import base64
import json
import os
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from router_service.core.events import ArgumentsDelta, Delta, Event, ProviderDelta, ReasoningDelta, TextDelta
from router_service.core.faults import Fault, Reason
from router_service.core.fold import Answer, fold
from router_service.core.grammar import Grammar
from router_service.dialects.base import BodyFrame, Dialect, Framing, Quirks
from router_service.framing.framer import CONTENT_TYPES, Framer, framing_of, open_framer

PROVIDER = "providers/test"
QUIRKS = Quirks()
EXHAUSTIVE_BYTES = 4096  # below this a body is cut at every position


@dataclass(frozen=True)
class Outcome:
    """What a body became: an answer, or the fault that took its place."""

    answer: Answer | None = None
    reason: Reason | None = None
    metadata: dict[str, str] = field(default_factory=dict)


def framer_of(dialect: Dialect, quirks: Quirks = QUIRKS) -> Framer:
    """A fresh framer for a stream of this dialect."""
    framing = framing_of(dialect, quirks)
    framer = open_framer(framing, CONTENT_TYPES[framing])
    assert framer is not None
    return framer


def decode(dialect: Dialect, pieces: Iterable[bytes], quirks: Quirks = QUIRKS) -> list[Event]:
    """All events of a streamed body, checked by the grammar. Raises the fault that it ends with."""
    framer, decoder, grammar = framer_of(dialect, quirks), dialect.decoder(quirks), Grammar()
    events: list[Event] = []

    def take(new: Sequence[Event]) -> None:
        for event in new:
            grammar.check(event)
            events.append(event)

    for piece in pieces:
        for frame in framer.feed(piece):
            take(decoder.feed(frame))
    for frame in framer.close():
        take(decoder.feed(frame))
    take(decoder.close())
    assert grammar.is_finished
    return events


def decode_body(dialect: Dialect, body: bytes, quirks: Quirks = QUIRKS) -> list[Event]:
    """All events of a whole JSON body, checked by the grammar."""
    decoder, grammar = dialect.decoder(quirks), Grammar()
    events = [*decoder.feed(BodyFrame(body)), *decoder.close()]
    for event in events:
        grammar.check(event)
    assert grammar.is_finished
    return events


def is_whole_json(body: bytes, framing: Framing = Framing.SSE) -> bool:
    """Whether a body is one JSON value and not a stream. Of JSON lines a single one is a whole body."""
    if framing is Framing.JSON_LINES and len(body.split()) > 1:
        return len([line for line in body.splitlines() if line.strip()]) == 1
    return body.lstrip()[:1] in {b"{", b"["}


def run(dialect: Dialect, body: bytes, pieces: Iterable[bytes] | None = None, quirks: Quirks = QUIRKS) -> Outcome:
    """What a body becomes."""
    try:
        if is_whole_json(body, framing_of(dialect, quirks)):
            events = decode_body(dialect, body, quirks)
        else:
            events = decode(dialect, [body] if pieces is None else pieces, quirks)
    except Fault as fault:
        return Outcome(reason=fault.reason, metadata=fault.metadata)
    return Outcome(answer=fold(events, dialect=dialect.name, provider=PROVIDER))


def cut_positions(body: bytes, *, limit: int = 64, seed: int = 0) -> Sequence[int]:
    """Where to cut a body: everywhere if it is small, else at chosen places."""
    if len(body) < EXHAUSTIVE_BYTES:
        return range(len(body) + 1)
    chosen = random.Random(seed)
    return sorted(chosen.sample(range(len(body) + 1), limit))


def check_cuts(dialect: Dialect, body: bytes, expected: Outcome, *, limit: int = 64, quirks: Quirks = QUIRKS) -> int:
    """Cutting changes nothing: in two at many places, in single bytes, and in random pieces."""
    positions = cut_positions(body, limit=limit)
    for position in positions:
        assert run(dialect, body, [body[:position], body[position:]], quirks) == expected, f"cut at {position}"
    single = [body[at : at + 1] for at in range(len(body))]
    assert run(dialect, body, single, quirks) == expected, "single bytes"
    chosen = random.Random(len(body))
    pieces, at = [], 0
    while at < len(body):
        size = chosen.randint(1, 200)
        pieces.append(body[at : at + size])
        at += size
    assert run(dialect, body, pieces, quirks) == expected, "random pieces"
    return len(positions)


def prefixes(body: bytes, framing: Framing = Framing.SSE) -> Iterator[bytes]:
    """Everything that a stream is before each of its events is complete."""
    if framing is Framing.AWS_EVENT_STREAM:
        at = 0
        while at < len(body):
            yield body[:at]
            at += int.from_bytes(body[at : at + 4], "big")
        return
    if framing is Framing.JSON_LINES:
        yield b""
        at = body.find(b"\n")
        while at >= 0:
            yield body[: at + 1]
            at = body.find(b"\n", at + 1)
        return
    unified = body.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    yield b""
    at = unified.find(b"\n\n")
    while at >= 0:
        yield unified[: at + 2]
        at = unified.find(b"\n\n", at + 2)


def check_prefixes(dialect: Dialect, body: bytes, is_complete: Any, quirks: Quirks = QUIRKS) -> int:
    """A stream that breaks off never looks finished. `is_complete(prefix)` says which prefixes are whole answers."""
    checked = 0
    for prefix in prefixes(body, dialect.framing):
        if is_complete(prefix):
            break
        with pytest.raises(Fault) as caught:
            decode(dialect, [prefix], quirks)
        assert caught.value.reason is Reason.UPSTREAM_PROTOCOL_VIOLATION
        assert caught.value.metadata["violation"] == "truncated"
        checked += 1
    return checked


def texts_of(events: Iterable[Event]) -> list[str]:
    """The streamed pieces of all kinds of text, in order."""
    found = []
    for event in events:
        if isinstance(event, TextDelta | ReasoningDelta):
            found.append(event.text)
        elif isinstance(event, ArgumentsDelta | ProviderDelta):
            found.append(event.json)
    return found


def first_delta(events: Iterable[Event]) -> Delta | None:
    """The first piece of content."""
    return next((event for event in events if isinstance(event, Delta)), None)


# -- recordings ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Recording:
    """One recorded answer, its body framed as it was on the wire."""

    id: str
    provider: str
    status: int
    headers: dict[str, str]
    body: bytes
    request: dict[str, Any]


def recordings_folder() -> Path | None:
    """Where the recordings are; None where they are absent."""
    folder = Path(os.environ.get("KEYSWITCH_RECORDINGS", "../shared/recordings"))
    return folder if (folder / "index.json").is_file() else None


def recordings(dialect: str) -> list[Recording]:
    """All recordings of a dialect (its name in the index, "openai-chat")."""
    folder = recordings_folder()
    if folder is None:
        return []
    index = json.loads((folder / "index.json").read_text())
    return [_load(folder / f"{case['id']}.json") for case in index["cases"] if case["dialect"] == dialect]


def _load(path: Path) -> Recording:
    case = json.loads(path.read_text())
    response = case["response"]
    is_binary = response["body_encoding"] == "base64"
    body = base64.b64decode(response["body"]) if is_binary else response["body"].encode()
    if case["framing"] == "jsonl":
        lines = [line for line in body.splitlines() if line.strip()]
        body = b"".join(b"data: " + line + b"\n\n" for line in lines)
    return Recording(
        id=case["id"],
        provider=case["provider"],
        status=response["status"] or 200,
        headers={name.lower(): str(value) for name, value in (response.get("headers") or {}).items()},
        body=body,
        request=case.get("request") or {},
    )


def json_events(body: bytes) -> list[dict[str, Any]]:
    """The JSON values of a stream, read in the plainest way: what the oracles are fed."""
    found = []
    for line in body.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n"):
        if line.startswith(b"data:"):
            data = line[5:].strip()
            if data and data != b"[DONE]":
                found.append(json.loads(data))
    return found
