"""The items of an answer on the Responses wire, each while it is open: what of it was sent, and how it ends.

The wire says everything twice: in deltas, and whole at the end of the piece, of the item and of the answer. What was
sent is remembered, and an end adds only what the deltas left out.
"""

import base64
import binascii

import msgspec

from router_service.core.content import Citation, Span, SpanUnit
from router_service.core.events import (
    ArgumentsDelta,
    CitationDelta,
    Event,
    MediaDelta,
    MediaStart,
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
from router_service.core.faults import violation
from router_service.dialects.openai_responses_state import State, image_state, reasoning_state, write_state
from router_service.dialects.openai_responses_wire import ItemWire, PieceWire, read_annotation
from router_service.dialects.reading import read, text_of

DIALECT = "openai_responses"

_IMAGE_TYPES = {b"\x89PNG": "image/png", b"\xff\xd8\xff": "image/jpeg", b"RIFF": "image/webp", b"GIF8": "image/gif"}


class Numbers:
    """The indices of parts, in the order of their starts."""

    __slots__ = ("_next",)

    def __init__(self) -> None:
        self._next = 0

    def take(self) -> int:
        """The next index."""
        self._next += 1
        return self._next - 1


class Text:
    """A piece of a message's content: text or a refusal."""

    __slots__ = ("_annotations", "_index", "_sent", "is_open", "is_refusal")

    def __init__(self, index: int, piece: PieceWire, out: list[Event]) -> None:
        self._index = index
        self.is_refusal = piece.type == "refusal"
        self._sent: list[str] = []
        self._annotations: list[msgspec.Raw] = []
        self.is_open = True
        out.append(PartStarted(index, TextStart()))
        self.complete(piece, out)

    def add(self, text: str, out: list[Event]) -> None:
        """More text."""
        self._sent.append(text)
        out.append(TextDelta(self._index, text))

    def annotate(self, raw: msgspec.Raw, out: list[Event]) -> None:
        """A source."""
        self._annotations.append(raw)
        citation = _citation(raw)
        if citation is not None:
            out.append(CitationDelta(self._index, citation))

    def complete(self, piece: PieceWire, out: list[Event]) -> None:
        """Adds what of the whole piece has not come yet."""
        rest = rest_of(piece.refusal if self.is_refusal else piece.text, self._sent)
        if rest:
            self.add(rest, out)
        for raw in (piece.annotations or ())[len(self._annotations) :]:
            self.annotate(raw, out)

    def end(self, item: ItemWire, reasoning_id: str, out: list[Event]) -> None:
        """The piece is complete; `item` is its message."""
        self.is_open = False
        state = State(
            id=item.id or "",
            reasoning=reasoning_id,
            phase=item.phase or "",
            is_refusal=self.is_refusal,
            annotations=self._annotations,
        )
        out.append(PartEnded(self._index, write_state(state)))


class MessageItem:
    """A message: its pieces by their numbers."""

    __slots__ = ("_numbers", "_reasoning_id", "_texts", "wire")

    def __init__(self, wire: ItemWire, numbers: Numbers, reasoning_id: str) -> None:
        self.wire = wire
        self._numbers = numbers
        self._reasoning_id = reasoning_id
        self._texts: dict[int, Text] = {}

    @property
    def has_refusal(self) -> bool:
        """Whether the model declined."""
        return any(text.is_refusal for text in self._texts.values())

    def piece(self, number: int, given: PieceWire, out: list[Event]) -> Text:
        """The piece of a number, begun where it is new."""
        text = self._texts.get(number)
        if text is None:
            text = self._texts[number] = Text(self._numbers.take(), given, out)
        elif not text.is_open:
            raise violation("order", "The provider continued a piece of its message after that piece's end.")
        return text

    def end_piece(self, number: int, given: PieceWire, out: list[Event]) -> None:
        """A piece is complete."""
        text = self.piece(number, given, out)
        text.complete(given, out)
        text.end(self.wire, self._reasoning_id, out)

    def end(self, wire: ItemWire, _raw: msgspec.Raw, out: list[Event]) -> None:
        """The message is complete. Its pieces are told by their order: some servers count them from 1."""
        self.wire = wire
        numbers = sorted(self._texts)
        for place, given in enumerate(wire.content or ()):
            if place >= len(numbers):
                numbers.append(numbers[-1] + 1 if numbers else 0)
            text = self._texts.get(numbers[place])
            if text is None or text.is_open:
                self.end_piece(numbers[place], given, out)
        for text in self._texts.values():
            if text.is_open:
                text.end(wire, self._reasoning_id, out)


class ReasoningItem:
    """Reasoning: one part, its summaries with an empty line between them. Where there are none, its full text."""

    __slots__ = ("_index", "_is_stored", "_key", "_sent", "_source", "wire")

    def __init__(self, wire: ItemWire, index: int, *, is_stored: bool, out: list[Event]) -> None:
        self.wire = wire
        self._index = index
        self._is_stored = is_stored
        self._source = ""
        self._key = 0
        self._sent: list[str] = []
        out.append(PartStarted(index, ReasoningStart()))

    def add(self, source: str, number: int, text: str, out: list[Event]) -> None:
        """More of a summary or of the full text: of the one that comes first, for they say the same."""
        if self._source not in {"", source}:
            return
        if self._source and number != self._key:
            text = f"\n\n{text}"
        self._source, self._key = source, number
        self._sent.append(text)
        out.append(ReasoningDelta(self._index, text))

    def end(self, wire: ItemWire, raw: msgspec.Raw, out: list[Event]) -> None:
        """The reasoning is complete."""
        pieces = wire.summary or wire.content if not self._source else getattr(wire, self._source)
        rest = rest_of("\n\n".join(piece.text or "" for piece in pieces or ()), self._sent)
        if rest:
            out.append(ReasoningDelta(self._index, rest))
        out.append(PartEnded(self._index, reasoning_state(raw, is_stored=self._is_stored)))


class CallItem:
    """A call of one of the caller's tools."""

    __slots__ = ("_index", "_reasoning_id", "_sent", "wire")

    def __init__(self, wire: ItemWire, index: int, call_id: str, reasoning_id: str, out: list[Event]) -> None:
        if not wire.name:
            raise violation("tool_call_without_name", "The provider sent a tool call without a name.")
        self.wire = wire
        self._index = index
        self._reasoning_id = reasoning_id
        self._sent: list[str] = []
        out.append(PartStarted(index, ToolCallStart(call_id, wire.name)))

    def add(self, arguments: str, out: list[Event]) -> None:
        """More of the arguments."""
        self._sent.append(arguments)
        out.append(ArgumentsDelta(self._index, arguments))

    def complete(self, arguments: str | dict[str, msgspec.Raw] | None, out: list[Event]) -> None:
        """Adds what of the whole arguments has not come yet."""
        if isinstance(arguments, dict):
            arguments = msgspec.json.encode(arguments).decode()
        rest = rest_of(arguments, self._sent)
        if rest:
            self.add(rest, out)

    def end(self, wire: ItemWire, _raw: msgspec.Raw, out: list[Event]) -> None:
        """The call is complete."""
        self.complete(wire.arguments, out)
        if not self._sent:
            self.add("{}", out)
        state = State(id=wire.id or "", reasoning=self._reasoning_id, namespace=wire.namespace or "")
        out.append(PartEnded(self._index, write_state(state)))


class ProviderItem:
    """An item that only this dialect understands; it is sent whole, at its end."""

    __slots__ = ("_index", "wire")

    def __init__(self, wire: ItemWire, index: int, out: list[Event]) -> None:
        self.wire = wire
        self._index = index
        out.append(PartStarted(index, ProviderStart(DIALECT, wire.type)))

    def end(self, _wire: ItemWire, raw: msgspec.Raw, out: list[Event]) -> None:
        """The item is complete."""
        out += [ProviderDelta(self._index, text_of(raw)), PartEnded(self._index)]


class ImageItem:
    """An image that the provider's own tool made. It begins at its end: only then is its type known."""

    __slots__ = ("_numbers", "wire")

    def __init__(self, wire: ItemWire, numbers: Numbers) -> None:
        self.wire = wire
        self._numbers = numbers

    def end(self, wire: ItemWire, raw: msgspec.Raw, out: list[Event]) -> None:
        """The image is complete; where it is not one, the item goes out as it came."""
        data = _bytes_of(wire.result)
        if not data:
            ProviderItem(wire, self._numbers.take(), out).end(wire, raw, out)
            return
        index = self._numbers.take()
        out.append(PartStarted(index, MediaStart(_image_type(wire, data))))
        out += [MediaDelta(index, data), PartEnded(index, image_state(raw))]


Item = MessageItem | ReasoningItem | CallItem | ImageItem | ProviderItem


def rest_of(whole: str | None, sent: list[str]) -> str:
    """What of a whole text has not been sent. Where the two differ, what was sent stands: a caller has it already."""
    if not whole:
        return ""
    before = "".join(sent)
    return whole[len(before) :] if whole.startswith(before) else ""


def _bytes_of(result: object) -> bytes:
    if not isinstance(result, str):
        return b""
    try:
        return base64.b64decode(result, validate=True)
    except (binascii.Error, ValueError):
        return b""


def _image_type(wire: ItemWire, data: bytes) -> str:
    if wire.output_format:
        return f"image/{wire.output_format}"
    return next((found for head, found in _IMAGE_TYPES.items() if data.startswith(head)), "image/png")


def _citation(raw: msgspec.Raw) -> Citation | None:
    wire = read(read_annotation, raw)
    source = wire.url or wire.file_id
    if not source:
        return None
    span = None
    if wire.start_index is not None and wire.end_index is not None and 0 <= wire.start_index < wire.end_index:
        span = Span(SpanUnit.CODE_POINT, wire.start_index, wire.end_index)
    return Citation(uri=source, title=wire.title or wire.filename or "", quote=wire.quote or "", text_span=span)
