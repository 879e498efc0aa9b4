"""The decoder of OpenAI chat completions: chunks of a stream, or a whole body, into events.

When is an answer complete? The usage report comes after the `finish_reason`, and some servers send more of the answer
there too, so parts stay open until `[DONE]` or, where a server leaves that out, a clean close. A clean close without a
`finish_reason` is a cut answer, even after `[DONE]`: nothing else tells a cut stream from a whole one.
"""

import re
from collections.abc import Hashable, Mapping, Sequence

import msgspec

from router_service.core.content import Citation, Span, SpanUnit
from router_service.core.events import Event, Finished, FinishReason, Identified
from router_service.core.faults import Fault, Reason, violation
from router_service.dialects.base import BodyFrame, Frame, Quirks
from router_service.dialects.errors import fault_of, is_refusal, read_error
from router_service.dialects.openai_chat_state import ReasoningDetails, reasoning_state, value_state
from router_service.dialects.openai_chat_usage import usage_event
from router_service.dialects.openai_chat_wire import (
    CallWire,
    ChoiceWire,
    ChunkWire,
    FunctionWire,
    MessageWire,
    read_annotation,
    read_block,
    read_chunk,
    read_image,
    read_search_results,
    read_urls,
)
from router_service.dialects.parts import Parts
from router_service.dialects.reading import NO_RAW, malformed, read, read_object, says_something
from router_service.dialects.urls import read_data_url

_FINISH_REASONS: Mapping[str, FinishReason] = {
    "stop": FinishReason.STOP,
    "end_turn": FinishReason.STOP,
    "eos": FinishReason.STOP,
    "length": FinishReason.LENGTH,
    "max_tokens": FinishReason.LENGTH,
    "model_length": FinishReason.LENGTH,
    "model_context_window_exceeded": FinishReason.LENGTH,
    "tool_calls": FinishReason.TOOL_CALLS,
    "function_call": FinishReason.TOOL_CALLS,
    "content_filter": FinishReason.CONTENT_FILTER,
    "sensitive": FinishReason.CONTENT_FILTER,
}

# Words for a failure, where others send an error object.
_FAILURES = frozenset({"error", "network_error", "insufficient_system_resource"})

_LEGACY_CALL = "function_call"


class OpenAIChatDecoder:
    """Decodes one response."""

    def __init__(self, quirks: Quirks) -> None:
        self._quirks = quirks
        self._replay_field = quirks.replay_reasoning_field
        self._parts = Parts(self._end_prose, self._name_call)
        self._identity = Identified()
        self._chunk_id: str | int | None = None
        self._model: str | None = None
        self._backend: str | dict[str, msgspec.Raw] | None = None
        self._finish_word: str | None = None
        self._is_refusal = False
        self._is_done = False
        self._is_body = False  # some servers send both a delta and a message in each of the two
        self._details = ReasoningDetails()
        self._reasoning: list[str] = []
        self._extra: msgspec.Raw = NO_RAW
        self._search_results: msgspec.Raw = NO_RAW
        self._urls: msgspec.Raw = NO_RAW
        self._call_keys: dict[int, Hashable] = {}
        self._last_call_key: Hashable = None

    def feed(self, frame: Frame) -> Sequence[Event]:
        """Takes a chunk or a whole body."""
        if self._is_done:
            return ()
        if isinstance(frame, BodyFrame):
            return self._feed_body(frame.data)
        data = frame.data
        if not data or data.isspace():
            return ()
        if data.startswith(b"[DONE]"):
            return self._finish()
        try:
            chunk = read(read_chunk, data)
        except Fault:
            if frame.event == "error":
                raise fault_of(None, {}, read_error(data)) from None
            raise
        return self._feed_chunk(chunk, data)

    def close(self) -> Sequence[Event]:
        """The upstream closed cleanly."""
        return () if self._is_done else self._finish()

    def _feed_body(self, data: bytes) -> Sequence[Event]:
        if read_object(data) is None:
            raise malformed()
        chunk = read(read_chunk, data)
        if not chunk.choices and chunk.error is NO_RAW and chunk.base_resp is NO_RAW:
            if chunk.choices is None:
                raise fault_of(None, {}, read_error(data))
            raise violation("no_answer", "The provider sent a whole answer without a choice in it.")
        self._is_body = True
        events = list(self._feed_chunk(chunk, data))
        if self._finish_word is None:
            self._finish_word = ""  # a whole body is complete, even if it does not say why
        events.extend(self._finish())
        return events

    def _feed_chunk(self, chunk: ChunkWire, data: bytes) -> Sequence[Event]:
        out: list[Event] = []
        if chunk.error is not NO_RAW or chunk.base_resp is not NO_RAW or chunk.object == "error":
            _raise_error(chunk, data)
        if chunk.id != self._chunk_id or chunk.model != self._model or chunk.provider != self._backend:
            self._identify(chunk, out)
        for choice in chunk.choices or ():
            if not choice.index:
                self._feed_choice(choice, out)
        if chunk.usage is not NO_RAW and says_something(chunk.usage):
            out.append(usage_event(chunk.usage, self._quirks))
        elif chunk.x_groq is not NO_RAW:
            usage = (read_object(chunk.x_groq) or {}).get("usage", NO_RAW)
            if says_something(usage):
                out.append(usage_event(usage, self._quirks))
        if chunk.search_results is not NO_RAW:
            self._search_results = chunk.search_results
        if chunk.citations is not NO_RAW:
            self._urls = chunk.citations
        return out

    def _feed_choice(self, choice: ChoiceWire, out: list[Event]) -> None:
        if choice.error is not NO_RAW and says_something(choice.error):
            raise fault_of(None, {}, read_error(bytes(choice.error)))
        message = (choice.message or choice.delta) if self._is_body else (choice.delta or choice.message)
        if message is not None:
            content = message.content
            if message.reasoning_content or message.reasoning or message.reasoning_details:
                self._feed_reasoning(message, out)
            if content:
                if isinstance(content, str):
                    self._parts.add_text(out, content)
                else:
                    for block in content:
                        self._feed_block(block, out)
            self._feed_rare(message, out)
            if message.tool_calls:
                for call in message.tool_calls:
                    self._feed_call(call, out)
        if choice.finish_reason:
            if choice.finish_reason in _FAILURES:
                raise Fault(
                    Reason.UPSTREAM_UNAVAILABLE,
                    "The provider gave up in the middle of its answer. Try again later.",
                    metadata={"upstreamCode": choice.finish_reason},
                )
            self._finish_word = choice.finish_reason

    def _feed_reasoning(self, message: MessageWire, out: list[Event]) -> None:
        text = message.reasoning_content or message.reasoning
        text = text if isinstance(text, str) else ""
        if message.reasoning_details:
            self._details.add(message.reasoning_details)
            text = text or self._details.text_of(message.reasoning_details)
        elif not text:
            return
        if not text and self._parts.is_text_open:
            return  # state that comes late waits for the end: a part for it here would tear the text in two
        if self._replay_field:
            self._reasoning.append(text)
        self._parts.add_reasoning(out, text)

    def _feed_block(self, raw: msgspec.Raw, out: list[Event]) -> None:
        block = read(read_block, raw)
        if block.thinking:
            pieces = block.thinking
            text = pieces if isinstance(pieces, str) else "".join(piece.text or "" for piece in pieces)
            if text:
                if self._replay_field:
                    self._reasoning.append(text)
                self._parts.add_reasoning(out, text)
        elif block.image_url:
            self._feed_media(block.image_url if isinstance(block.image_url, str) else block.image_url.url, out)
        elif block.text:
            self._parts.add_text(out, block.text)

    def _feed_call(self, call: CallWire, out: list[Event]) -> None:
        call_id = "" if call.id is None else str(call.id)
        key = self._call_key(call.index, call_id, call.function)
        function = call.function or _NO_FUNCTION
        state = None
        if call.extra_content is not NO_RAW and says_something(call.extra_content):
            state = value_state("extra_content", call.extra_content)
        self._parts.add_call(out, key, call_id, function.name or "", _arguments(function), state)

    def _call_key(self, index: int | None, call_id: str, function: FunctionWire | None) -> Hashable:
        """Which call a piece belongs to.

        Most servers number the calls. Some do not, and then an id that is new, or a name without an id, begins a call.
        Some number all calls 0 and send each one whole: a new id under a known number begins a call too.
        """
        begins = bool(call_id) and bool(function and function.name)
        if index is not None:
            key = self._call_keys.get(index, index)
            if begins and self._parts.call_id_at(key) not in {"", call_id}:
                key = self._call_keys[index] = (index, call_id)
        elif call_id:
            key = call_id
        elif self._last_call_key is None or (function is not None and function.name):
            key = ("unnamed", len(self._call_keys))
            self._call_keys[-1 - len(self._call_keys)] = key
        else:
            key = self._last_call_key
        self._last_call_key = key
        return key

    def _feed_rare(self, message: MessageWire, out: list[Event]) -> None:
        if message.refusal:
            self._is_refusal = True
            self._parts.add_text(out, message.refusal)
        for raw in message.annotations or ():
            self._feed_annotation(raw, out)
        for raw in message.images or ():
            image = read(read_image, raw)
            if image.image_url is not None:
                self._feed_media(image.image_url.url, out)
        if message.function_call is not None:
            function = message.function_call
            self._parts.add_call(out, _LEGACY_CALL, "", function.name or "", _arguments(function))
        if message.extra_content is not NO_RAW and says_something(message.extra_content):
            self._extra = message.extra_content

    def _feed_media(self, url: str, out: list[Event]) -> None:
        if url.startswith("data:"):
            media_type, data = read_data_url(url)
            self._parts.add_media(out, media_type, data, "")
        elif url:
            self._parts.add_media(out, "image/*", b"", url)

    def _feed_annotation(self, raw: msgspec.Raw, out: list[Event]) -> None:
        found = read(read_annotation, raw).url_citation
        if found is None or not found.url:
            return
        span = None
        if found.start_index is not None and found.end_index is not None and 0 <= found.start_index < found.end_index:
            span = Span(SpanUnit.CODE_POINT, found.start_index, found.end_index)
        citation = Citation(uri=found.url, title=found.title or "", quote=found.content or "", text_span=span)
        self._parts.add_citation(out, citation)

    def _identify(self, chunk: ChunkWire, out: list[Event]) -> None:
        self._chunk_id, self._model, self._backend = chunk.id, chunk.model, chunk.provider
        backend = chunk.provider if isinstance(chunk.provider, str) else ""
        known = self._identity
        identity = Identified(
            known.request_id or str(chunk.id or ""), chunk.model or known.model, backend or known.backend
        )
        if identity != known:
            self._identity = identity
            out.append(identity)

    def _finish(self) -> Sequence[Event]:
        if self._finish_word is None:
            raise violation("truncated", "The provider's answer broke off before its end. Try again.")
        self._is_done = True
        out: list[Event] = []
        self._cite_sources(out)
        if self._details.has_news or (self._extra is not NO_RAW and not self._parts.is_prose_open):
            self._parts.add_reasoning(out, "")  # state that no part has taken with it
        self._parts.end(out)
        reason = _FINISH_REASONS.get(self._finish_word, FinishReason.UNKNOWN)
        if reason is FinishReason.STOP and self._parts.has_calls:
            reason = FinishReason.TOOL_CALLS
        elif reason is FinishReason.STOP and self._is_refusal:
            reason = FinishReason.REFUSAL
        out.append(Finished(reason, self._finish_word))
        return out

    def _cite_sources(self, out: list[Event]) -> None:
        """Sources of the answer as a whole, which a server repeats in every chunk: given once, with the text."""
        if not self._parts.is_text_open:
            return
        if self._search_results is not NO_RAW and says_something(self._search_results):
            for found in read(read_search_results, self._search_results):
                self._parts.add_citation(out, Citation(found.url, found.title or "", found.snippet or ""))
        elif self._urls is not NO_RAW and says_something(self._urls):
            for url in read(read_urls, self._urls):
                self._parts.add_citation(out, Citation(url))

    def _end_prose(self, is_reasoning: bool) -> bytes | None:
        extra, self._extra = self._extra, NO_RAW
        if not is_reasoning:
            return None if extra is NO_RAW else value_state("extra_content", extra)
        text, self._reasoning = "".join(self._reasoning), []
        return reasoning_state(self._details.take(), text, self._replay_field, extra)

    def _name_call(self, number: int) -> str:
        safe = _UNSAFE.sub("", self._identity.request_id)
        return f"call_{safe[-24:] or 'local'}_{number}"  # OpenAI takes ids of at most 40 characters


_NO_FUNCTION = FunctionWire()
_UNSAFE = re.compile(r"[^A-Za-z0-9_-]")


def _arguments(function: FunctionWire) -> str:
    arguments = function.arguments
    if arguments is None:
        return ""
    return arguments if isinstance(arguments, str) else msgspec.json.encode(arguments).decode("utf-8", "replace")


def _raise_error(chunk: ChunkWire, data: bytes) -> None:
    if says_something(chunk.error) or chunk.object == "error" or is_refusal(chunk.base_resp):
        raise fault_of(None, {}, read_error(data))
