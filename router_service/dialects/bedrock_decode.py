"""The decoder of Bedrock's Converse: the messages of its event stream, or a whole body, into events.

The wire has part boundaries but says of text and reasoning only with their first piece what a block is; a block in
which nothing comes makes no part. Usage comes after the message has stopped, so the answer ends with it and not with
the stop. What the provider's own tools do, and the trace of a guardrail, become provider blocks.
"""

import base64
import binascii
from collections.abc import Callable, Mapping, Sequence
from enum import Enum

import msgspec

from router_service.core.content import Citation, Span, SpanUnit
from router_service.core.events import (
    ArgumentsDelta,
    CitationDelta,
    Event,
    Finished,
    FinishReason,
    MediaDelta,
    MediaStart,
    PartEnded,
    PartStarted,
    ProviderDelta,
    ProviderStart,
    ReasoningDelta,
    ReasoningStart,
    Start,
    TextDelta,
    TextStart,
    ToolCallStart,
)
from router_service.core.faults import Fault, violation
from router_service.dialects.base import AwsFrame, BodyFrame, Frame
from router_service.dialects.bedrock_errors import fault_of_exception
from router_service.dialects.bedrock_state import citations_state, reasoning_state
from router_service.dialects.bedrock_usage import usage_of
from router_service.dialects.bedrock_wire import (
    BlockWire,
    EventWire,
    ImageWire,
    ReasoningWire,
    ToolUseWire,
    read_block,
    read_body,
    read_citation,
    read_event,
    read_quote,
    read_text,
)
from router_service.dialects.reading import NO_RAW, malformed, read, read_any, read_object, says_something, text_of

DIALECT = "bedrock_converse"
TRACE = "trace"
"""The kind of the block that holds a guardrail's trace. It is about the answer and never goes back."""

_FINISH_REASONS: Mapping[str, FinishReason] = {
    "end_turn": FinishReason.STOP,
    "stop_sequence": FinishReason.STOP,
    "max_tokens": FinishReason.LENGTH,
    "model_context_window_exceeded": FinishReason.LENGTH,
    "tool_use": FinishReason.TOOL_CALLS,
    "guardrail_intervened": FinishReason.CONTENT_FILTER,
    "content_filtered": FinishReason.CONTENT_FILTER,
}


class _Kind(Enum):
    TEXT = "text"
    REASONING = "reasoning"
    CALL = "call"
    IMAGE = "image"
    OWN_CALL = "toolUse"
    OWN_RESULT = "toolResult"


class _OpenBlock:
    """A part whose end has not come. `pieces` is what its state or its JSON needs."""

    __slots__ = ("citations", "index", "is_empty", "kind", "pieces", "raw", "redacted", "results", "signature")

    def __init__(self, index: int, kind: _Kind, raw: dict[str, msgspec.Raw]) -> None:
        self.index = index
        self.kind = kind
        self.raw = raw
        self.pieces: list[str] = []
        self.citations: list[msgspec.Raw] = []
        self.results: list[msgspec.Raw] = []
        self.redacted = b""
        self.signature = ""
        self.is_empty = True


class BedrockConverseDecoder:
    """Decodes one response."""

    def __init__(self) -> None:
        self._blocks: dict[int, _OpenBlock] = {}
        self._started = 0
        self._stop_reason: str | None = None
        self._has_begun = False
        self._is_done = False
        self._handlers: Mapping[str, Callable[[EventWire, bytes], Sequence[Event]]] = {
            "contentBlockDelta": self._continue_block,
            "contentBlockStart": self._start_block,
            "contentBlockStop": self._stop_block,
            "messageStart": self._start_message,
            "messageStop": self._stop_message,
            "metadata": self._end_message,
        }

    def feed(self, frame: Frame) -> Sequence[Event]:
        """Takes a message or a whole body."""
        if self._is_done:
            return ()
        if isinstance(frame, BodyFrame):
            return self._feed_body(frame.data)
        if not isinstance(frame, AwsFrame):
            raise malformed()
        if frame.kind != "event":
            raise fault_of_exception(frame.event, frame.data)
        handler = self._handlers.get(frame.event)
        return handler(read(read_event, frame.data), frame.data) if handler else ()

    def close(self) -> Sequence[Event]:
        """The upstream closed cleanly. An answer that stopped is whole, although nobody said what it used."""
        if self._is_done:
            return ()
        if self._stop_reason is None:
            raise violation("truncated", "The provider's answer broke off before its end. Try again.")
        return self._finish()

    def _feed_body(self, data: bytes) -> Sequence[Event]:
        if read_object(data) is None:
            raise malformed()
        body = read(read_body, data)
        if body.output is None or body.output.message is None:
            raise _fault_in_body(data)
        out: list[Event] = []
        for number, raw in enumerate(body.output.message.content or ()):
            self._take(out, number, read(read_block, raw), raw)
            self._end_block(out, number)
        self._stop_reason = body.stop_reason or ""
        self._report(out, body.usage, body.trace)
        out.extend(self._finish())
        return out

    def _start_message(self, event: EventWire, data: bytes) -> Sequence[Event]:
        del event, data
        self._has_begun = True
        return ()

    def _start_block(self, event: EventWire, data: bytes) -> Sequence[Event]:
        number = self._number(event)
        if number in self._blocks:
            raise violation("order", "The provider started a block where none could start.")
        out: list[Event] = []
        if event.start is not None:
            self._take(out, number, event.start, _inner(data, "start"))
        return out

    def _continue_block(self, event: EventWire, data: bytes) -> Sequence[Event]:
        number, delta = self._number(event), event.delta
        if delta is None:
            raise violation("order", "The provider continued a block with nothing.")
        block = self._blocks.get(number)
        if delta.text and block is not None and block.kind is _Kind.TEXT:
            return (TextDelta(block.index, delta.text),)
        out: list[Event] = []
        self._take(out, number, delta, _inner(data, "delta") if delta.tool_result is not NO_RAW else NO_RAW)
        return out

    def _stop_block(self, event: EventWire, data: bytes) -> Sequence[Event]:
        del data
        out: list[Event] = []
        self._end_block(out, self._number(event))
        return out

    def _stop_message(self, event: EventWire, data: bytes) -> Sequence[Event]:
        del data
        if not self._has_begun:
            raise violation("order", "The provider ended an answer that had not begun.")
        self._stop_reason = event.stop_reason or ""
        return ()

    def _end_message(self, event: EventWire, data: bytes) -> Sequence[Event]:
        del data
        if self._stop_reason is None:
            raise violation("order", "The provider reported on an answer that had not stopped.")
        out: list[Event] = []
        self._report(out, event.usage, event.trace)
        out.extend(self._finish())
        return out

    def _number(self, event: EventWire) -> int:
        if not self._has_begun or event.content_block_index is None or self._stop_reason is not None:
            raise violation("order", "The provider sent a block where none could be.")
        return event.content_block_index

    def _report(self, out: list[Event], usage: msgspec.Raw, trace: msgspec.Raw) -> None:
        for number in list(self._blocks):
            self._end_block(out, number)
        if says_something(trace):
            index = self._begin(out, ProviderStart(DIALECT, TRACE))
            out += [
                ProviderDelta(index, msgspec.json.encode({TRACE: trace}).decode("utf-8", "replace")),
                PartEnded(index),
            ]
        if says_something(usage):
            out.append(usage_of(usage))

    def _finish(self) -> Sequence[Event]:
        self._is_done = True
        out: list[Event] = []
        for number in list(self._blocks):
            self._end_block(out, number)
        word = self._stop_reason or ""
        out.append(Finished(_FINISH_REASONS.get(word, FinishReason.UNKNOWN), word))
        return out

    # -- blocks ------------------------------------------------------------------------------------------------------

    def _take(self, out: list[Event], number: int, wire: BlockWire, raw: msgspec.Raw) -> None:
        """Takes the start of a block, more of it, or a whole one: they say what they hold in the same words."""
        if wire.text:
            block = self._open(out, number, _Kind.TEXT)
            out.append(TextDelta(block.index, wire.text))
        if wire.reasoning_content is not None:
            self._take_reasoning(out, number, wire.reasoning_content)
        if wire.tool_use is not None:
            self._take_call(out, number, wire.tool_use, raw)
        if wire.tool_result is not NO_RAW and says_something(wire.tool_result):
            self._take_result(out, number, wire.tool_result)
        if wire.citation is not NO_RAW:
            self._cite(out, number, wire.citation)
        if wire.citations_content is not None:
            for piece in wire.citations_content.content or ():
                block = self._open(out, number, _Kind.TEXT)
                out.append(TextDelta(block.index, read(read_quote, piece).text or ""))
            for citation in wire.citations_content.citations or ():
                self._cite(out, number, citation)
        if wire.image is not None:
            self._take_image(out, number, wire.image)

    def _take_reasoning(self, out: list[Event], number: int, wire: ReasoningWire) -> None:
        block = self._open(out, number, _Kind.REASONING)
        whole = wire.reasoning_text
        text = wire.text or (whole.text if whole is not None else "")
        if text:
            block.pieces.append(text)
            out.append(ReasoningDelta(block.index, text))
        block.signature += wire.signature or (whole.signature if whole is not None else "")
        if wire.redacted_content:
            block.redacted += _bytes_of(wire.redacted_content)

    def _take_call(self, out: list[Event], number: int, wire: ToolUseWire, raw: msgspec.Raw) -> None:
        block = self._blocks.get(number)
        if block is None:
            if not wire.name:
                raise violation("tool_call_without_name", "The provider sent a tool call without a name.")
            if wire.type:
                self._open(out, number, _Kind.OWN_CALL, read_object(_inner(raw, "toolUse")))
                return
            start = ToolCallStart(wire.tool_use_id or f"tooluse_{self._started}", wire.name)
            block = self._open(out, number, _Kind.CALL, start=start)
            if says_something(wire.input):  # a whole body
                block.is_empty = False
                out.append(ArgumentsDelta(block.index, text_of(wire.input)))
            return
        piece = read(read_text, wire.input) if wire.input is not NO_RAW else ""
        if block.kind is _Kind.OWN_CALL:
            block.pieces.append(piece)
        elif block.kind is not _Kind.CALL:
            raise _wrong_kind()
        elif piece:
            block.is_empty = False
            out.append(ArgumentsDelta(block.index, piece))

    def _take_result(self, out: list[Event], number: int, raw: msgspec.Raw) -> None:
        """What a tool of the provider answered. Its start, and a whole one, is an object; more of it is a list."""
        whole = read_object(raw)
        block = self._open(out, number, _Kind.OWN_RESULT, whole)
        if whole is None:
            block.results.extend(msgspec.Raw(msgspec.json.encode(piece)) for piece in _list_of(raw))

    def _take_image(self, out: list[Event], number: int, wire: ImageWire) -> None:
        block = self._open(out, number, _Kind.IMAGE, start=MediaStart(f"image/{wire.format or 'png'}"))
        if wire.source is not None and wire.source.bytes:
            out.append(MediaDelta(block.index, _bytes_of(wire.source.bytes)))

    def _cite(self, out: list[Event], number: int, raw: msgspec.Raw) -> None:
        block = self._open(out, number, _Kind.TEXT)
        block.citations.append(raw)
        out.append(CitationDelta(block.index, _citation(raw)))

    def _open(
        self,
        out: list[Event],
        number: int,
        kind: _Kind,
        raw: dict[str, msgspec.Raw] | None = None,
        start: Start | None = None,
    ) -> _OpenBlock:
        """The block of a number, begun where it is not open."""
        block = self._blocks.get(number)
        if block is not None:
            if block.kind is not kind:
                raise _wrong_kind()
            return block
        match kind:
            case _Kind.TEXT:
                start = TextStart()
            case _Kind.REASONING:
                start = ReasoningStart()
            case _Kind.OWN_CALL | _Kind.OWN_RESULT:
                start = ProviderStart(DIALECT, kind.value)
            case _Kind.CALL | _Kind.IMAGE:
                pass
        if start is None:
            raise _wrong_kind()
        block = self._blocks[number] = _OpenBlock(self._begin(out, start), kind, raw or {})
        return block

    def _begin(self, out: list[Event], start: Start) -> int:
        index = self._started
        self._started += 1
        out.append(PartStarted(index, start))
        return index

    def _end_block(self, out: list[Event], number: int) -> None:
        block = self._blocks.pop(number, None)
        if block is None:
            return  # one in which nothing came
        state = None
        match block.kind:
            case _Kind.TEXT:
                state = citations_state(block.citations)
            case _Kind.REASONING:
                state = reasoning_state("".join(block.pieces), block.signature, block.redacted)
            case _Kind.CALL:
                if block.is_empty:
                    out.append(ArgumentsDelta(block.index, "{}"))
            case _Kind.OWN_CALL | _Kind.OWN_RESULT:
                out.append(ProviderDelta(block.index, _whole_json(block)))
            case _Kind.IMAGE:
                pass
        out.append(PartEnded(block.index, state))


def _fault_in_body(data: bytes) -> Fault:
    """A body with status 200 that holds no answer."""
    found = read_object(data) or {}
    name = read_any(found.get("__type", NO_RAW))
    return fault_of_exception(name if isinstance(name, str) else "", data)


def _wrong_kind() -> Fault:
    return violation("order", "The provider continued a block with what does not belong to it.")


def _inner(data: bytes | msgspec.Raw, name: str) -> msgspec.Raw:
    return (read_object(data) or {}).get(name, NO_RAW)


def _list_of(raw: msgspec.Raw) -> list[object]:
    value = read_any(raw)
    return value if isinstance(value, list) else []


def _whole_json(block: _OpenBlock) -> str:
    """A block of the provider's own as it would have come whole."""
    whole = dict(block.raw)
    streamed = "".join(block.pieces)
    if streamed.strip():
        if read_object(streamed) is None:
            raise violation("malformed", "The provider sent the input of its own tool as broken JSON.")
        whole["input"] = msgspec.Raw(streamed.encode())
    if block.results:
        whole["content"] = msgspec.Raw(msgspec.json.encode(block.results))
    return msgspec.json.encode({block.kind.value: whole}).decode("utf-8", "replace")


def _bytes_of(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise violation("malformed", "The provider sent bytes that are not base64.") from None


def _citation(raw: msgspec.Raw) -> Citation:
    """A source. The span of a page is left out: the contract does not say from where pages count."""
    wire = read(read_citation, raw)
    where = wire.location
    found = None if where is None else (where.document_char or where.document_chunk or where.document_page)
    span = None
    if where is not None and found is not None and found is not where.document_page:
        unit = SpanUnit.CODE_POINT if found is where.document_char else SpanUnit.BLOCK
        if found.start is not None and found.end is not None and 0 <= found.start <= found.end:
            span = Span(unit, found.start, found.end)
    web = where.web.url if where is not None and where.web is not None else None
    return Citation(
        uri=web or wire.source or "",
        title=wire.title or "",
        quote="".join(piece.text or "" for piece in wire.source_content or ()),
        document_index=found.document_index if found is not None else None,
        source_span=span,
    )
