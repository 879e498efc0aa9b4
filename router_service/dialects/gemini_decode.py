"""The decoder of Gemini's generateContent: chunks of a stream, or a whole body, into events.

When is an answer complete? The wire has no sentinel. A `finishReason` says that the candidate is complete, but more
may follow it (usage, sources, even text and another reason, which then is the one that counts), so the answer ends at
the clean close. A clean close without a `finishReason` is a cut answer. A prompt that was blocked has no candidate at
all; its `blockReason` is the end.

Parts have no boundaries: neighbouring texts of one kind are one part, and so are neighbouring thoughts.
"""

import base64
import binascii
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice

import msgspec

from router_service.core.content import Citation
from router_service.core.events import Event, Finished, FinishReason, Identified
from router_service.core.faults import Fault, violation
from router_service.dialects.base import BodyFrame, Frame, Quirks
from router_service.dialects.gemini_arguments import PartialArguments
from router_service.dialects.gemini_citations import read_grounds, read_queries, read_sources
from router_service.dialects.gemini_errors import fault_in_stream
from router_service.dialects.gemini_state import SignedText, write_state
from router_service.dialects.gemini_usage import RunningUsage
from router_service.dialects.gemini_wire import (
    BlobWire,
    CandidateWire,
    ChunkWire,
    FunctionCallWire,
    PartWire,
    read_chunk,
    read_chunks,
    read_raw_chunk,
)
from router_service.dialects.parts import Parts
from router_service.dialects.reading import NO_RAW, malformed, read, read_object, says_something, text_of

DIALECT = "gemini"

# Blocks about the answer as a whole; they are no parts of the wire and do not go back.
METADATA_KINDS = frozenset({"groundingMetadata", "urlContextMetadata"})

_FINISH_REASONS: Mapping[str, FinishReason] = {
    "STOP": FinishReason.STOP,
    "MAX_TOKENS": FinishReason.LENGTH,
    **dict.fromkeys(
        (
            *("SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "MODEL_ARMOR"),
            *("IMAGE_SAFETY", "IMAGE_PROHIBITED_CONTENT", "IMAGE_RECITATION"),
        ),
        FinishReason.CONTENT_FILTER,
    ),
}
# Finding a place takes time in proportion to the text; more sources than this are no sources.
_MAX_SOURCES = 2_000

_NO_REASON = "FINISH_REASON_UNSPECIFIED"

# What a part has beside the field that says what it is.
_SIDE_FIELDS = frozenset({"thought", "thoughtSignature", "partMetadata", "videoMetadata", "mediaResolution"})


class _PartialCall:
    """A function call that comes in pieces."""

    __slots__ = ("arguments", "key")

    def __init__(self, key: int) -> None:
        self.key = key
        self.arguments = PartialArguments()


class GeminiDecoder:
    """Decodes one response."""

    def __init__(self, quirks: Quirks) -> None:
        self._counts_searches_once = quirks.counts_searches_once
        self._queries: set[str] = set()
        self._signed = SignedText()
        self._parts = Parts(lambda _: self._end_prose(), self._name_call)
        self._usage = RunningUsage()
        self._last_usage: msgspec.Raw = NO_RAW
        self._identity = Identified()
        self._response_id: str | None = None
        self._model: str | None = None
        self._text: list[str] = []  # of the text part that is open: sources count in it
        self._cited: set[Citation] = set()
        self._sources_left = _MAX_SOURCES
        self._metadata: dict[str, msgspec.Raw] = {}
        self._raw_parts: list[msgspec.Raw] | None = None  # of the chunk, once a part of it needed them
        self._calls = 0
        self._partial: _PartialCall | None = None
        self._finish_word: str | None = None
        self._is_blocked = False
        self._is_done = False

    def feed(self, frame: Frame) -> Sequence[Event]:
        """Takes a chunk or a whole body."""
        if self._is_done:
            return ()
        data = frame.data
        if isinstance(frame, BodyFrame):
            return self._feed_body(data)
        if not data.startswith(b"{"):
            stripped = data.strip()
            if not stripped or stripped == b"[DONE]":  # not of this wire; proxies add it
                return ()
        out: list[Event] = []
        try:
            self._feed_chunk(read(read_chunk, data), data, out)
        except Fault:
            lines = data.split(b"\n")
            if out or len(lines) == 1 or any(read_object(line) is None for line in lines):
                raise
            for line in lines:  # a server that sets no blank lines between its events
                self._feed_chunk(read(read_chunk, line), line, out)
        return out

    def close(self) -> Sequence[Event]:
        """The upstream closed cleanly."""
        return () if self._is_done else self._finish()

    def _feed_body(self, data: bytes) -> Sequence[Event]:
        """A body is one response, or a list of chunks (a stream that was not asked for as events)."""
        out: list[Event] = []
        chunks = read(read_chunks, data) if data.lstrip()[:1] == b"[" else [msgspec.Raw(data)]
        has_answer = False
        for raw in chunks:
            if read_object(raw) is None:
                raise malformed()
            chunk = read(read_chunk, raw)
            has_answer = has_answer or bool(chunk.candidates) or chunk.prompt_feedback is not None
            self._feed_chunk(chunk, raw, out)
        if not has_answer:
            raise violation("no_answer", "The provider sent a whole answer without a candidate in it.")
        if self._finish_word is None:
            self._finish_word = ""  # a whole body is complete, even if it does not say why
        out.extend(self._finish())
        return out

    def _feed_chunk(self, chunk: ChunkWire, data: bytes | msgspec.Raw, out: list[Event]) -> None:
        if chunk.error is not NO_RAW and says_something(chunk.error):
            raise fault_in_stream(bytes(data))
        if chunk.response_id != self._response_id or chunk.model_version != self._model:
            self._identify(chunk, out)
        for candidate in chunk.candidates or ():
            if not candidate.index:
                self._feed_candidate(candidate, data, out)
                break
        feedback = chunk.prompt_feedback
        if feedback is not None and (feedback.block_reason or (feedback.block_reason_message and not chunk.candidates)):
            self._is_blocked = True
            self._finish_word = feedback.block_reason or ""
        if chunk.usage_metadata is not NO_RAW and chunk.usage_metadata != self._last_usage:
            self._last_usage = chunk.usage_metadata
            if says_something(chunk.usage_metadata) and (event := self._usage.update(chunk.usage_metadata)):
                out.append(event)
        elif self._queries and (event := self._usage.settle()):
            out.append(event)

    def _feed_candidate(self, candidate: CandidateWire, data: bytes | msgspec.Raw, out: list[Event]) -> None:
        content = candidate.content
        if content is not None and content.parts:
            self._raw_parts = None
            for number, part in enumerate(content.parts):
                text = part.text
                if text is None:
                    self._feed_rare(part, number, data, out)
                elif part.thought:
                    self._feed_thought(text, part.thought_signature, out)
                elif text or part.thought_signature:
                    self._feed_text(text, part.thought_signature, out)
        if candidate.citation_metadata is not NO_RAW and says_something(candidate.citation_metadata):
            self._cite(read_sources(candidate.citation_metadata, self._open_text()), out)
        if candidate.grounding_metadata is not NO_RAW and says_something(candidate.grounding_metadata):
            self._feed_grounding(candidate.grounding_metadata, out)
        if candidate.url_context_metadata is not NO_RAW and says_something(candidate.url_context_metadata):
            self._metadata["urlContextMetadata"] = candidate.url_context_metadata
        if candidate.finish_reason and candidate.finish_reason != _NO_REASON:
            self._finish_word = candidate.finish_reason

    def _feed_text(self, text: str, signature: str | None, out: list[Event]) -> None:
        self._parts.add_text(out, text)
        self._text.append(text)
        if signature:
            self._signed.sign(text, signature)
        else:
            self._signed.add(text)

    def _feed_thought(self, text: str, signature: str | None, out: list[Event]) -> None:
        if not text and not signature:
            return
        self._parts.add_reasoning(out, text)
        if signature:
            self._signed.sign(text, signature)
        else:
            self._signed.add(text)

    def _feed_rare(self, part: PartWire, number: int, data: bytes | msgspec.Raw, out: list[Event]) -> None:
        if part.function_call is not None:
            self._feed_call(part.function_call, part.thought_signature, out)
            return
        media = part.inline_data or part.file_data
        if media is not None and not part.thought:
            self._feed_media(media, part.thought_signature, out)
            return
        if self._raw_parts is None:
            self._raw_parts = _raw_parts(data)
        raw = self._raw_parts[number]
        kind = next((name for name in read_object(raw) or {} if name not in _SIDE_FIELDS), "")
        if kind:
            self._parts.add_block(out, DIALECT, kind, text_of(raw))
        elif part.thought_signature:
            self._feed_text("", part.thought_signature, out)  # a signature without a part of its own

    def _feed_media(self, media: BlobWire, signature: str | None, out: list[Event]) -> None:
        media_type = media.mime_type or "application/octet-stream"
        state = write_state(signature=signature)
        if media.file_uri:
            self._parts.add_media(out, media_type, b"", media.file_uri, state)
        else:
            self._parts.add_media(out, media_type, _bytes_of(media.data or ""), "", state)

    def _feed_call(self, call: FunctionCallWire, signature: str | None, out: list[Event]) -> None:
        if call.name:
            self._end_partial(out)
            key = self._calls
            self._calls += 1
            arguments = text_of(call.args) if call.args is not NO_RAW and says_something(call.args) else ""
            if arguments and read_object(arguments) is None:
                raise malformed()
            state = write_state(signature=signature, call_id=call.id)
            self._parts.add_call(out, key, call.id or "", call.name, arguments, state)
            if call.will_continue or call.partial_args:
                self._partial = _PartialCall(key)
        elif self._partial is None:
            raise violation("tool_call_without_name", "The provider sent a tool call without a name.")
        if self._partial is not None:
            for piece in call.partial_args or ():
                self._partial.arguments.add(piece)
            if not call.will_continue:
                self._end_partial(out)

    def _end_partial(self, out: list[Event]) -> None:
        partial, self._partial = self._partial, None
        if partial is not None:
            self._parts.add_call(out, partial.key, "", "", partial.arguments.to_json())

    def _feed_grounding(self, raw: msgspec.Raw, out: list[Event]) -> None:
        self._metadata["groundingMetadata"] = raw
        self._queries.update(read_queries(raw))
        self._usage.count_searches(min(len(self._queries), 1) if self._counts_searches_once else len(self._queries))
        self._cite(read_grounds(raw, self._open_text()), out)

    def _open_text(self) -> str:
        self._text = ["".join(self._text)]
        return self._text[0]

    def _cite(self, citations: Iterator[Citation], out: list[Event]) -> None:
        """Servers repeat sources from chunk to chunk; each is given once."""
        for citation in islice(citations, self._sources_left):
            self._sources_left -= 1
            if citation != Citation() and citation not in self._cited:
                self._cited.add(citation)
                self._parts.add_citation(out, citation)

    def _identify(self, chunk: ChunkWire, out: list[Event]) -> None:
        self._response_id, self._model = chunk.response_id, chunk.model_version
        known = self._identity
        identity = Identified(known.request_id or chunk.response_id or "", chunk.model_version or known.model)
        if identity != known:
            self._identity = identity
            out.append(identity)

    def _finish(self) -> Sequence[Event]:
        if self._finish_word is None:
            raise violation("truncated", "The provider's answer broke off before its end. Try again.")
        self._is_done = True
        out: list[Event] = []
        self._end_partial(out)
        for kind, raw in self._metadata.items():
            self._parts.add_block(out, DIALECT, kind, msgspec.json.encode({kind: raw}).decode("utf-8", "replace"))
        self._parts.end(out)
        reason = _FINISH_REASONS.get(self._finish_word, FinishReason.UNKNOWN)
        if self._is_blocked:
            reason = FinishReason.CONTENT_FILTER
        elif reason is FinishReason.STOP and self._parts.has_calls:
            reason = FinishReason.TOOL_CALLS
        out.append(Finished(reason, self._finish_word))
        return out

    def _end_prose(self) -> bytes | None:
        self._text.clear()
        return self._signed.take()

    def _name_call(self, number: int) -> str:
        return f"call_{self._identity.request_id[-24:] or 'gemini'}_{number}"


def _raw_parts(data: bytes | msgspec.Raw) -> list[msgspec.Raw]:
    """The parts of a chunk as they came."""
    candidates = read(read_raw_chunk, data).candidates or ()
    content = next(candidate.content for candidate in candidates if not candidate.index)
    return (content.parts if content is not None else None) or []


def _bytes_of(text: str) -> bytes:
    """Bytes of base64 in either of its two alphabets, as JSON of protobuf has them."""
    text = text.translate({ord("-"): "+", ord("_"): "/"})
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise violation("malformed", "The provider sent media that are not base64.") from None
