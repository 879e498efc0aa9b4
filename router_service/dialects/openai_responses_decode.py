"""The decoder of OpenAI responses: the events of a stream, or a whole body, into events.

The wire has boundaries, so this is a translation: a piece of a message is a text part, a reasoning item a reasoning
part, a function call a tool call, a made image media, and every other item a provider block. An answer ends with
exactly one of completed, incomplete and failed; what closes before that was cut. Of a server that streams nothing,
the answer is read from that last event.
"""

from collections.abc import Callable, Mapping, Sequence

import msgspec

from router_service.core.events import Event, Finished, FinishReason, Identified
from router_service.core.faults import Fault, Reason, violation
from router_service.dialects.base import BodyFrame, Frame
from router_service.dialects.errors import fault_of, read_error
from router_service.dialects.openai_responses_items import (
    CallItem,
    ImageItem,
    Item,
    MessageItem,
    Numbers,
    ProviderItem,
    ReasoningItem,
)
from router_service.dialects.openai_responses_usage import usage_event
from router_service.dialects.openai_responses_wire import (
    EventWire,
    ItemWire,
    PieceWire,
    ResponseWire,
    read_event,
    read_item,
    read_piece,
    read_response,
)
from router_service.dialects.reading import NO_RAW, malformed, read, read_object, says_something

_INCOMPLETE: Mapping[str, FinishReason] = {
    "max_output_tokens": FinishReason.LENGTH,
    "max_tokens": FinishReason.LENGTH,
    "content_filter": FinishReason.CONTENT_FILTER,
}

# Calls of a provider's tools that the caller runs: the answer waits for their results.
_CALLERS_CALLS = frozenset(
    {"custom_tool_call", "local_shell_call", "apply_patch_call", "computer_call", "mcp_approval_request"}
)
_BILLED_CALLS = {"web_search_call": "web_search", "file_search_call": "file_search"}
_NO_PIECE = PieceWire()


class OpenAIResponsesDecoder:
    """Decodes one response."""

    def __init__(self) -> None:
        self._items: dict[int, Item] = {}
        self._ended: dict[int, str | None] = {}
        self._numbers = Numbers()
        self._identity = Identified()
        self._is_stored = False
        self._reasoning_id = ""
        self._requests: dict[str, int] = {}
        self._has_calls = False
        self._has_refusal = False
        self._is_done = False
        self._handlers: Mapping[str, Callable[[EventWire, list[Event]], None]] = {
            "response.output_text.delta": self._add_text,
            "response.function_call_arguments.delta": self._add_arguments,
            "response.reasoning_summary_text.delta": self._add_summary,
            "response.reasoning_text.delta": self._add_reasoning,
            "response.refusal.delta": self._add_refusal,
            "response.output_text.annotation.added": self._annotate,
            "response.output_item.added": self._start_item,
            "response.output_item.done": self._stop_item,
            "response.content_part.added": self._start_piece,
            "response.content_part.done": self._stop_piece,
            "response.function_call_arguments.done": self._stop_arguments,
            "response.created": self._identify,
            "response.completed": self._finish,
            "response.incomplete": self._finish,
            "response.failed": self._finish,
            "response.done": self._finish,
        }

    def feed(self, frame: Frame) -> Sequence[Event]:
        """Takes an event or a whole body."""
        if self._is_done:
            return ()
        if isinstance(frame, BodyFrame):
            return self._feed_body(frame.data)
        data = frame.data
        if not data or data.isspace() or data.startswith(b"[DONE]"):
            return ()
        try:
            event = read(read_event, data)
        except Fault:
            if frame.event == "error":
                raise fault_of(None, {}, read_error(data)) from None
            raise
        if event.type == "error" or (event.error is not NO_RAW and says_something(event.error)):
            raise fault_of(None, {}, read_error(data))
        handler = self._handlers.get(event.type)
        if handler is None:
            return ()
        out: list[Event] = []
        handler(event, out)
        return out

    def close(self) -> Sequence[Event]:
        """The upstream closed cleanly."""
        if not self._is_done:
            raise violation("truncated", "The provider's answer broke off before its end. Try again.")
        return ()

    def _feed_body(self, data: bytes) -> Sequence[Event]:
        if read_object(data) is None:
            raise malformed()
        response = read(read_response, data)
        if response.output is None or response.status == "failed" or says_something(response.error):
            raise fault_of(None, {}, read_error(data))
        out: list[Event] = []
        self._finish_response(response, out)
        return out

    # -- the answer as a whole ---------------------------------------------------------------------------------------

    def _identify(self, event: EventWire, out: list[Event]) -> None:
        self._take_identity(read(read_response, event.response), out)

    def _take_identity(self, response: ResponseWire, out: list[Event]) -> None:
        self._is_stored = bool(response.store)
        known = self._identity
        identity = Identified(known.request_id or response.id or "", response.model or known.model)
        if identity != known:
            self._identity = identity
            out.append(identity)

    def _finish(self, event: EventWire, out: list[Event]) -> None:
        response = read(read_response, event.response)
        if event.type == "response.failed" or response.status == "failed" or says_something(response.error):
            raise fault_of(None, {}, read_error(bytes(response.error)))
        if event.type != "response.done":
            response.status = event.type.removeprefix("response.")
        self._finish_response(response, out)

    def _finish_response(self, response: ResponseWire, out: list[Event]) -> None:
        status = response.status or "completed"
        if status == "cancelled":
            message = "The provider gave up in the middle of its answer. Try again later."
            raise Fault(Reason.UPSTREAM_UNAVAILABLE, message, metadata={"upstreamCode": status})
        if status not in {"completed", "incomplete"}:
            raise violation("no_answer", "The provider sent an answer that it has not finished.")
        self._take_identity(response, out)
        output = response.output or []
        if not self._items and not self._ended:
            for number, raw in enumerate(output):
                self._whole_item(number, read(read_item, raw), raw, out)
        for number, item in list(self._items.items()):
            raw = output[number] if number < len(output) else NO_RAW
            wire = read(read_item, raw) if raw is not NO_RAW else item.wire
            if wire.type != item.wire.type:
                raise violation("order", "The provider's answer ends with other items than it began.")
            self._end_item(number, wire, raw if raw is not NO_RAW else msgspec.Raw(msgspec.json.encode(wire)), out)
        if says_something(response.usage):
            out.append(usage_event(response.usage, self._requests))
        self._is_done = True
        out.append(self._finished(status, response))

    def _finished(self, status: str, response: ResponseWire) -> Finished:
        if status == "incomplete":
            why = (response.incomplete_details.reason if response.incomplete_details else "") or ""
            return Finished(_INCOMPLETE.get(why, FinishReason.UNKNOWN), why or status)
        if self._has_calls:
            return Finished(FinishReason.TOOL_CALLS, status)
        return Finished(FinishReason.REFUSAL if self._has_refusal else FinishReason.STOP, status)

    # -- items -------------------------------------------------------------------------------------------------------

    def _start_item(self, event: EventWire, out: list[Event]) -> None:
        number = _number(event.output_index)
        wire = read(read_item, event.item)
        if number in self._items or (number in self._ended and self._ended[number] == wire.id):
            raise violation("order", "The provider started an item where none could start.")
        self._begin_item(number, wire, out)

    def _begin_item(self, number: int, wire: ItemWire, out: list[Event]) -> None:
        item: Item
        match wire.type:
            case "message":
                item = MessageItem(wire, self._numbers, self._reasoning_id)
            case "reasoning":
                item = ReasoningItem(wire, self._numbers.take(), is_stored=self._is_stored, out=out)
                self._reasoning_id = wire.id or ""
            case "function_call":
                self._has_calls = True
                index = self._numbers.take()
                item = CallItem(wire, index, wire.call_id or wire.id or self._name_call(index), self._reasoning_id, out)
            case "image_generation_call":
                item = ImageItem(wire, self._numbers)
            case _:
                item = ProviderItem(wire, self._numbers.take(), out)
        self._items[number] = item

    def _stop_item(self, event: EventWire, out: list[Event]) -> None:
        number = _number(event.output_index)
        wire = read(read_item, event.item)
        if number in self._items:
            if wire.type != self._items[number].wire.type:
                raise violation("order", "The provider ended an item that is not the one it began.")
            self._end_item(number, wire, event.item, out)
        elif number not in self._ended or self._ended[number] != wire.id:
            self._whole_item(number, wire, event.item, out)

    def _whole_item(self, number: int, wire: ItemWire, raw: msgspec.Raw, out: list[Event]) -> None:
        self._begin_item(number, wire, out)
        self._end_item(number, wire, raw, out)

    def _end_item(self, number: int, wire: ItemWire, raw: msgspec.Raw, out: list[Event]) -> None:
        item = self._items.pop(number)
        self._ended[number] = wire.id
        item.end(wire, raw, out)
        if isinstance(item, MessageItem):
            self._has_refusal = self._has_refusal or item.has_refusal
        elif wire.type in _CALLERS_CALLS or (wire.type == "tool_search_call" and wire.execution == "client"):
            self._has_calls = True
        elif wire.type in _BILLED_CALLS and (wire.action is None or wire.action.type in {"", "search"}):
            tool = _BILLED_CALLS[wire.type]  # opening a page that was found costs nothing
            self._requests[tool] = self._requests.get(tool, 0) + 1

    def _name_call(self, index: int) -> str:
        return f"call_{self._identity.request_id[-24:]}_{index}"

    # -- what continues an item --------------------------------------------------------------------------------------

    def _add_text(self, event: EventWire, out: list[Event]) -> None:
        if isinstance(event.delta, str) and event.delta:
            self._message(event).piece(event.content_index or 0, _NO_PIECE, out).add(event.delta, out)

    def _add_refusal(self, event: EventWire, out: list[Event]) -> None:
        if isinstance(event.delta, str) and event.delta:
            refusal = PieceWire(type="refusal")
            self._message(event).piece(event.content_index or 0, refusal, out).add(event.delta, out)

    def _annotate(self, event: EventWire, out: list[Event]) -> None:
        self._message(event).piece(event.content_index or 0, _NO_PIECE, out).annotate(event.annotation, out)

    def _start_piece(self, event: EventWire, out: list[Event]) -> None:
        item = self._item(event)
        if isinstance(item, MessageItem):  # reasoning has pieces too, and needs no word of their start
            item.piece(event.content_index or 0, read(read_piece, event.part), out)

    def _stop_piece(self, event: EventWire, out: list[Event]) -> None:
        item = self._item(event)
        if isinstance(item, MessageItem):
            item.end_piece(event.content_index or 0, read(read_piece, event.part), out)

    def _add_summary(self, event: EventWire, out: list[Event]) -> None:
        self._think(event, "summary", event.summary_index, out)

    def _add_reasoning(self, event: EventWire, out: list[Event]) -> None:
        self._think(event, "content", event.content_index, out)

    def _think(self, event: EventWire, source: str, number: int | None, out: list[Event]) -> None:
        item = self._item(event)
        if not isinstance(item, ReasoningItem):
            raise _mismatch()
        if isinstance(event.delta, str) and event.delta:
            item.add(source, number or 0, event.delta, out)

    def _add_arguments(self, event: EventWire, out: list[Event]) -> None:
        if isinstance(event.delta, str) and event.delta:
            self._call(event).add(event.delta, out)

    def _stop_arguments(self, event: EventWire, out: list[Event]) -> None:
        self._call(event).complete(event.arguments, out)

    def _item(self, event: EventWire) -> Item:
        item = self._items.get(_number(event.output_index))
        if item is None:
            raise violation("order", "The provider continued an item that is not open.")
        return item

    def _message(self, event: EventWire) -> MessageItem:
        item = self._item(event)
        if not isinstance(item, MessageItem):
            raise _mismatch()
        return item

    def _call(self, event: EventWire) -> CallItem:
        item = self._item(event)
        if not isinstance(item, CallItem):
            raise _mismatch()
        return item


def _number(output_index: int | None) -> int:
    return -1 if output_index is None else output_index


def _mismatch() -> Fault:
    return violation("order", "The provider continued an item with what does not belong to it.")
