"""The wires of the fault matrix, what goes wrong on them, and what an answer that stopped there has truly used."""

import base64
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from router_service.core.events import (
    ArgumentsDelta,
    Event,
    Finished,
    PartStarted,
    ReasoningDelta,
    TextDelta,
    ToolCallStart,
    Usage,
    UsageUpdated,
)
from router_service.core.faults import Fault
from router_service.dialects.base import Carrier, Quirks
from router_service.dialects.registry import DIALECTS
from router_service.framing.framer import CONTENT_TYPES, framing_of
from tests.fakes.scripted_upstream import LAST_CHUNK, Action, Cut, Reset, Send, Stall, chunk, head, respond
from tests.suites.aws_messages import event as aws_event
from tests.suites.dialect_fixtures import FIXTURES
from tests.suites.dialect_suite import framer_of

PRICE = {
    "input_usd_per_million": "1.000000037",
    "cache_read_usd_per_million": "0.100000003",
    "output_usd_per_million": "4.190000011",
    "checked": "2026-11-21",
}
MARKUP_BASIS_POINTS = 333  # neither divides evenly: every amount is rounded somewhere
_COUNTS = b"prompt_tokens|completion_tokens|input_tokens|output_tokens|promptTokenCount|candidatesTokenCount"
_COUNTS += b"|thoughtsTokenCount|inputTokens|outputTokens|prompt_eval_count|eval_count"
COUNT = re.compile(rb'"(' + _COUNTS + rb')"(\s*:\s*)(\d+)')


@dataclass(frozen=True)
class Wire:
    """A dialect, the fixture that answers with tools over it, and one whose stream breaks with an error."""

    name: str
    dialect: str
    answer: str
    broken: str
    auth: str = "bearer"
    carrier: Carrier = Carrier.OWN

    @property
    def quirks(self) -> Quirks:
        return Quirks(carrier=self.carrier)

    @property
    def content_type(self) -> str:
        return CONTENT_TYPES[framing_of(DIALECTS[self.dialect], self.quirks)]

    def raw(self, fixture: str) -> list[bytes]:
        """The events of a fixture as they are written there."""
        (path,) = (FIXTURES / self.dialect / fixture).glob("response.*")
        if path.suffix == ".sse":
            return [one + b"\n\n" for one in path.read_bytes().replace(b"\r\n", b"\n").split(b"\n\n") if one.strip()]
        return path.read_bytes().splitlines(keepends=True)

    def frame(self, raw: bytes) -> bytes:
        """An event as it travels."""
        if self.carrier is Carrier.BEDROCK:
            inner = next(line[5:].strip() for line in raw.splitlines() if line.startswith(b"data:"))
            return aws_event("chunk", json.dumps({"bytes": base64.b64encode(inner).decode()}).encode())
        if self.dialect == "bedrock_converse":
            name, _, payload = raw.decode().strip().partition(" ")
            return aws_event(name.lstrip("!"), payload.encode(), "exception" if name.startswith("!") else "event")
        return raw

    def true_usage(self) -> tuple[int, int]:
        """What the fixture's author says that the whole answer used."""
        expected = json.loads((FIXTURES / self.dialect / self.answer / "expected.json").read_text())["usage"]
        return expected["input_tokens"], expected["output_tokens"]


WIRES = (
    Wire("openai_chat", "openai_chat", "parallel_tools_interleaved", "error_in_stream"),
    Wire("openai_responses", "openai_responses", "reasoning_and_parallel_tools", "error_in_stream"),
    Wire("anthropic_messages", "anthropic_messages", "parallel_tools_interleaved", "overloaded_in_stream"),
    Wire(
        "anthropic_messages over Bedrock",
        "anthropic_messages",
        "parallel_tools_interleaved",
        "overloaded_in_stream",
        auth="aws",
        carrier=Carrier.BEDROCK,
    ),
    Wire("gemini", "gemini", "parallel_tools", "rate_limit_in_stream"),
    Wire("bedrock_converse", "bedrock_converse", "parallel_tools_interleaved", "throttled_in_stream", auth="aws"),
    Wire("ollama_chat", "ollama_chat", "parallel_tools", "error_in_stream"),
)


@dataclass(frozen=True)
class Told:
    """What the provider had said when an answer stopped, read without the router."""

    usage: Usage | None
    has_content: bool
    is_finished: bool
    output_size: int
    is_begun: bool = True  # its stream was opened

    @classmethod
    def by(cls, wire: Wire, events: Sequence[bytes]) -> "Told":
        """Reads these events as they are framed."""
        decoder, framer = DIALECTS[wire.dialect].decoder(wire.quirks), framer_of(DIALECTS[wire.dialect], wire.quirks)
        found: list[Event] = []
        try:
            for one in events:
                for frame in framer.feed(one):
                    found += decoder.feed(frame)
        except Fault:
            pass  # the rest of the body is not read
        said = [event.usage for event in found if isinstance(event, UsageUpdated)]
        return cls(
            said[-1] if said else None,
            any(_is_content(event) for event in found),
            any(isinstance(event, Finished) for event in found),
            sum(_size(event) for event in found),
        )


def _is_content(event: Event) -> bool:
    return _size(event) > 0 or isinstance(event, Finished) or _is_tool(event)


def _is_tool(event: Event) -> bool:
    return isinstance(event, PartStarted) and isinstance(event.start, ToolCallStart)


def _size(event: Event) -> int:
    match event:
        case TextDelta() | ReasoningDelta():
            return len(event.text)
        case ArgumentsDelta():
            return len(event.json)
        case _:
            return 0


def first_content(wire: Wire, events: Sequence[bytes], *, tool: bool = False) -> int:
    """After how many events there is content, or a tool call."""
    decoder, framer = DIALECTS[wire.dialect].decoder(wire.quirks), framer_of(DIALECTS[wire.dialect], wire.quirks)
    for number, one in enumerate(events, 1):
        found = [event for frame in framer.feed(one) for event in decoder.feed(frame)]
        if any(_is_tool(event) if tool else _is_content(event) for event in found):
            return number
    raise AssertionError("a fixture of the matrix has content and a tool call")


@dataclass(frozen=True)
class Case:
    """What the provider does, what it has said by then, and what else is away."""

    actions: list[Action]
    told: Told
    timeout: str = ""  # which time-out is short
    is_cancelled: bool = False
    away: str = ""


NOTHING = Told(None, has_content=False, is_finished=False, output_size=0, is_begun=False)


def _opened(wire: Wire, sent: Sequence[bytes], *then: Action) -> list[Action]:
    # In one piece: what the router has read when the fault comes is then certain.
    return [Send(head(200, wire.content_type)), *([Send(chunk(b"".join(sent)))] if sent else []), *then]


def _whole(wire: Wire, sent: Sequence[bytes], away: str = "") -> Case:
    return Case(_opened(wire, sent, Send(LAST_CHUNK)), Told.by(wire, sent), away=away)


def _stopped(wire: Wire, kind: str, where: str) -> Case:
    """An answer that is cut, stands still, or is cancelled, somewhere."""
    events = [wire.frame(one) for one in wire.raw(wire.answer)]
    content = first_content(wire, events)
    places = {
        "before the head": 0,
        "before content": content - 1,
        "after content": content,
        "in a tool call": first_content(wire, events, tool=True),
    }
    sent = events[: places[where] if where in places else int(where)]
    end: Action = Cut() if kind == "cut" else Stall()
    is_begun = where in ("after content", "in a tool call")
    timeout = ("idle_timeout" if is_begun else "first_content_timeout") if kind == "stall" else ""
    actions = [end] if where == "before the head" else _opened(wire, sent, end)
    told = NOTHING if where == "before the head" else Told.by(wire, sent)
    return Case(actions, told, timeout, is_cancelled=kind == "cancel")


def _miscounted(wire: Wire, how: str) -> Case:
    """A whole answer whose report of what it used is wrong, or in the wrong place."""
    raw = wire.raw(wire.answer)
    events = [wire.frame(one) for one in raw]
    if how == "twice":
        last = max(number for number, one in enumerate(raw) if COUNT.search(one))
        return _whole(wire, [*events[: last + 1], *events[last:]])
    if how == "after an error":
        content = first_content(wire, events)
        return _whole(wire, [*events[:content], wire.frame(wire.raw(wire.broken)[-1]), *events[content:]])
    to = {
        "negative": rb'"\1"\2-7',
        "absurd": rb'"\1"\g<2>9000000000000000',
        "missing": rb'"not_\1"\2\3',
    }[how]
    return _whole(wire, [wire.frame(COUNT.sub(to, one)) for one in raw])


UNHEARD: dict[str, list[Action]] = {
    "before the head:reset": [Reset()],
    "before the head:closed": [Cut()],
    "in the head": [Send(head()[:30]), Cut()],
    "status:429": respond(b"{}", status=429),
    "status:500": respond(b"{}", status=500),
}


def case_of(wire: Wire, fault: str) -> Case:
    """A fault on a wire."""
    if fault in UNHEARD:
        return Case(UNHEARD[fault], NOTHING)
    kind, _, how = fault.partition(":")
    if kind in ("cut", "stall", "cancel"):
        return _stopped(wire, kind, how)
    if kind == "usage":
        return _miscounted(wire, how)
    away = {"away": how, "ledger": "settle"}.get(kind, "")
    return _whole(wire, [wire.frame(one) for one in wire.raw(wire.answer)], away)


FAULTS = (
    "none",
    "before the head:reset",
    "before the head:closed",
    "in the head",
    "status:429",
    "status:500",
    "cut:before content",
    "cut:after content",
    "cut:in a tool call",
    "stall:before the head",
    "stall:before content",
    "stall:after content",
    "stall:in a tool call",
    "usage:negative",
    "usage:absurd",
    "usage:missing",
    "usage:twice",
    "usage:after an error",
    "cancel:before the head",
    "cancel:before content",
    "cancel:after content",
    "cancel:in a tool call",
    "ledger:settles late",
    "away:ledger",
    "away:limits",
    "away:credential service",
)


def every_event(wire: Wire) -> list[str]:
    """A cut and a cancel after each event of the answer but the last ones, which may have ended it."""
    events = [wire.frame(one) for one in wire.raw(wire.answer)]
    unfinished = [n for n in range(len(events)) if not Told.by(wire, events[:n]).is_finished]
    return [f"{fault}:{number}" for number in unfinished for fault in ("cut", "cancel")]


def fair_price(usage: Usage) -> tuple[int, int]:
    """The list price and what credits are charged for it, in nanos, computed from the price's decimals."""
    read = usage.cache_read_tokens or 0
    exact = ((usage.input_tokens or 0) - read) * Fraction(PRICE["input_usd_per_million"]) + read * Fraction(
        PRICE["cache_read_usd_per_million"]
    )
    exact += (usage.output_tokens or 0) * Fraction(PRICE["output_usd_per_million"])
    listed = round(exact * 1000)  # a fraction rounds half to even
    return listed, round(Fraction(listed * (10_000 + MARKUP_BASIS_POINTS), 10_000))
