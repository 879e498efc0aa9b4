"""The decoder of Anthropic messages: the events of a stream, or a whole body, into events.

The wire has part boundaries, so this is a translation of block to part, with three additions. Thinking ends with its
whole block as state, because it must go back unmodified. Text with citations ends with the raw citations as state,
because a web citation carries an encrypted index that ours has no field for. A block that has no neutral form (a
server tool's call or result) becomes a provider block when it is complete.
"""

from collections.abc import Callable, Mapping, Sequence

import msgspec

from router_service.core.content import Citation, Span, SpanUnit
from router_service.core.events import (
    ArgumentsDelta,
    CitationDelta,
    Event,
    Finished,
    FinishReason,
    Identified,
    PartEnded,
    PartStarted,
    ProviderDelta,
    ProviderStart,
    ReasoningDelta,
    ReasoningStart,
    TextDelta,
    TextStart,
    ToolCallStart,
)
from router_service.core.faults import Fault, violation
from router_service.dialects.anthropic_state import citations_state, redacted_state, thinking_state
from router_service.dialects.anthropic_usage import RunningUsage
from router_service.dialects.anthropic_wire import (
    BlockWire,
    CitationWire,
    DeltaWire,
    EventWire,
    read_block,
    read_citation,
    read_event,
    read_message,
)
from router_service.dialects.base import BodyFrame, Frame
from router_service.dialects.errors import fault_of, is_refusal, read_error
from router_service.dialects.reading import NO_RAW, malformed, read, read_object, says_something, text_of

DIALECT = "anthropic_messages"

_FINISH_REASONS: Mapping[str, FinishReason] = {
    "end_turn": FinishReason.STOP,
    "stop_sequence": FinishReason.STOP,
    "max_tokens": FinishReason.LENGTH,
    "model_context_window_exceeded": FinishReason.LENGTH,
    "tool_use": FinishReason.TOOL_CALLS,
    "pause_turn": FinishReason.PAUSED,
    "refusal": FinishReason.REFUSAL,
}


class _OpenBlock:
    """A block whose end has not come. `pieces` is what its state or its JSON needs."""

    __slots__ = ("citations", "index", "is_empty", "kind", "pieces", "raw", "signature", "wire")

    def __init__(self, index: int, wire: BlockWire, raw: msgspec.Raw) -> None:
        self.index = index
        self.kind = wire.type
        self.wire = wire
        self.raw = raw
        self.pieces: list[str] = []
        self.citations: list[msgspec.Raw] = []
        self.signature = ""
        self.is_empty = True


class AnthropicMessagesDecoder:
    """Decodes one response."""

    def __init__(self) -> None:
        self._blocks: dict[int, _OpenBlock] = {}
        self._started = 0
        self._usage = RunningUsage()
        self._stop_reason = ""
        self._has_begun = False
        self._is_done = False
        self._handlers: Mapping[str, Callable[[EventWire], Sequence[Event]]] = {
            "content_block_delta": self._continue_block,
            "content_block_start": self._start_block,
            "content_block_stop": self._stop_block,
            "message_start": self._start_message,
            "message_delta": self._continue_message,
            "message_stop": self._stop_message,
        }

    def feed(self, frame: Frame) -> Sequence[Event]:
        """Takes an event or a whole body."""
        if self._is_done:
            return ()
        if isinstance(frame, BodyFrame):
            return self._feed_body(frame.data)
        data = frame.data
        if not data or data.isspace():
            return ()
        try:
            event = read(read_event, data)
        except Fault:
            if frame.event == "error":
                raise fault_of(None, {}, read_error(data)) from None
            raise
        if (
            event.type == "error"
            or (event.error is not NO_RAW and says_something(event.error))
            or is_refusal(event.base_resp)
        ):
            raise fault_of(None, {}, read_error(data))
        handler = self._handlers.get(event.type)
        return handler(event) if handler else ()

    def close(self) -> Sequence[Event]:
        """The upstream closed cleanly."""
        if not self._is_done:
            raise violation("truncated", "The provider's answer broke off before its end. Try again.")
        return ()

    def _feed_body(self, data: bytes) -> Sequence[Event]:
        if read_object(data) is None:
            raise malformed()
        message = read(read_message, data)
        if message.type != "message" or message.content is None or is_refusal(message.base_resp):
            raise fault_of(None, {}, read_error(data))
        out: list[Event] = [Identified(message.id or "", message.model or "")]
        for number, raw in enumerate(message.content):
            out.extend(self._whole_block(number, raw))
        if says_something(message.usage):
            out.append(self._usage.update(message.usage, is_start=False))
        self._stop_reason = message.stop_reason or ""
        out.extend(self._finish())
        return out

    def _start_message(self, event: EventWire) -> Sequence[Event]:
        message = read(read_message, event.message)
        self._has_begun = True
        out: list[Event] = [Identified(message.id or "", message.model or "")]
        if says_something(message.usage):
            out.append(self._usage.update(message.usage, is_start=True))
        for number, raw in enumerate(message.content or ()):
            out.extend(self._whole_block(number, raw))
        return out

    def _continue_message(self, event: EventWire) -> Sequence[Event]:
        if event.delta is not None and event.delta.stop_reason:
            self._stop_reason = event.delta.stop_reason
        if event.usage is not NO_RAW and says_something(event.usage):
            return (self._usage.update(event.usage, is_start=False),)
        return ()

    def _stop_message(self, event: EventWire) -> Sequence[Event]:
        if not self._has_begun:
            raise violation("order", f"The provider began its answer with {event.type}.")
        return self._finish()

    def _finish(self) -> Sequence[Event]:
        self._is_done = True
        out: list[Event] = []
        for number in list(self._blocks):
            out.extend(self._end_block(self._blocks.pop(number)))
        out.append(Finished(_FINISH_REASONS.get(self._stop_reason, FinishReason.UNKNOWN), self._stop_reason))
        return out

    def _whole_block(self, number: int, raw: msgspec.Raw) -> Sequence[Event]:
        out = list(self._begin_block(number, raw))
        out.extend(self._end_block(self._blocks.pop(number)))
        return out

    def _start_block(self, event: EventWire) -> Sequence[Event]:
        if not self._has_begun or event.index is None or event.index in self._blocks:
            raise violation("order", "The provider started a block where none could start.")
        return self._begin_block(event.index, event.content_block)

    def _begin_block(self, number: int, raw: msgspec.Raw) -> Sequence[Event]:
        wire = read(read_block, raw)
        block = self._blocks[number] = _OpenBlock(self._started, wire, raw)
        self._started += 1
        out: list[Event] = []
        match wire.type:
            case "text":
                out.append(PartStarted(block.index, TextStart()))
                if wire.text:
                    out.append(TextDelta(block.index, wire.text))
                for citation in wire.citations or ():
                    self._cite(block, citation, out)
            case "thinking":
                out.append(PartStarted(block.index, ReasoningStart()))
                block.signature = wire.signature or ""
                if wire.thinking:
                    block.pieces.append(wire.thinking)
                    out.append(ReasoningDelta(block.index, wire.thinking))
            case "redacted_thinking":
                out.append(PartStarted(block.index, ReasoningStart()))
            case "tool_use":
                if not wire.name:
                    raise violation("tool_call_without_name", "The provider sent a tool call without a name.")
                out.append(PartStarted(block.index, ToolCallStart(wire.id or f"toolu_{block.index}", wire.name)))
            case _:
                out.append(PartStarted(block.index, ProviderStart(DIALECT, wire.type)))
        return out

    def _continue_block(self, event: EventWire) -> Sequence[Event]:
        delta = event.delta
        block = self._blocks.get(-1 if event.index is None else event.index)
        if block is None or delta is None:
            raise violation("order", "The provider continued a block that is not open.")
        if delta.type == "text_delta" and block.kind == "text":
            return (TextDelta(block.index, delta.text),) if delta.text else ()
        return self._continue_rare(block, delta)

    def _continue_rare(self, block: _OpenBlock, delta: DeltaWire) -> Sequence[Event]:
        match delta.type, block.kind:
            case "thinking_delta", "thinking":
                if delta.thinking:
                    block.pieces.append(delta.thinking)
                    return (ReasoningDelta(block.index, delta.thinking),)
            case "signature_delta", "thinking":
                block.signature = delta.signature or block.signature
            case "input_json_delta", "tool_use":
                if delta.partial_json:
                    block.is_empty = False
                    return (ArgumentsDelta(block.index, delta.partial_json),)
            case "input_json_delta", _:
                block.pieces.append(delta.partial_json or "")
            case "citations_delta", "text":
                out: list[Event] = []
                self._cite(block, delta.citation, out)
                return out
            case (("text_delta" | "thinking_delta" | "citations_delta"), _):
                raise violation("order", "The provider continued a block with what does not belong to it.")
            case _:
                pass  # a kind of delta that is newer than this code
        return ()

    def _stop_block(self, event: EventWire) -> Sequence[Event]:
        block = self._blocks.pop(-1 if event.index is None else event.index, None)
        if block is None:
            raise violation("order", "The provider ended a block that is not open.")
        return self._end_block(block)

    def _end_block(self, block: _OpenBlock) -> Sequence[Event]:
        match block.kind:
            case "text":
                return (PartEnded(block.index, citations_state(block.citations)),)
            case "thinking":
                return (PartEnded(block.index, thinking_state("".join(block.pieces), block.signature)),)
            case "redacted_thinking":
                return (PartEnded(block.index, redacted_state(block.wire.data or "")),)
            case "tool_use":
                if not block.is_empty:
                    return (PartEnded(block.index),)
                given = block.wire.input
                arguments = text_of(given) if given is not NO_RAW and says_something(given) else "{}"
                return (ArgumentsDelta(block.index, arguments), PartEnded(block.index))
            case _:
                return (ProviderDelta(block.index, _whole_json(block)), PartEnded(block.index))

    @staticmethod
    def _cite(block: _OpenBlock, raw: msgspec.Raw, out: list[Event]) -> None:
        wire = read(read_citation, raw)
        block.citations.append(raw)
        out.append(CitationDelta(block.index, _citation(wire)))


def _whole_json(block: _OpenBlock) -> str:
    """The block as it came; with streamed input, that in its place."""
    streamed = "".join(block.pieces)
    if not streamed.strip():
        return text_of(block.raw)
    if read_object(streamed) is None:
        raise violation("malformed", "The provider sent the input of its own tool as broken JSON.")
    whole = dict(read_object(block.raw) or {})
    whole["input"] = msgspec.Raw(streamed.encode())
    return msgspec.json.encode(whole).decode("utf-8", "replace")


def _citation(wire: CitationWire) -> Citation:
    span = None
    for unit, start, end, first in (
        (SpanUnit.CODE_POINT, wire.start_char_index, wire.end_char_index, 0),
        (SpanUnit.PAGE, wire.start_page_number, wire.end_page_number, 1),  # the wire's pages count from 1
        (SpanUnit.BLOCK, wire.start_block_index, wire.end_block_index, 0),
    ):
        if start is not None and end is not None and first <= start <= end:
            span = Span(unit, start - first, end - first)
    return Citation(
        uri=wire.url or wire.source or "",
        title=wire.title or wire.document_title or "",
        quote=wire.cited_text or "",
        document_index=wire.document_index,
        source_span=span,
    )
