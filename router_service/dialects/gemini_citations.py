"""Gemini's sources made into citations.

The wire counts bytes of the answer's UTF-8 text, ours count code points of one part. The counts of the wire are not
always right (an answer of several parts, a text that was cut), so a place holds only where it lies on whole code
points of the open text and, if the wire repeats the words, where these stand there.
"""

from collections.abc import Iterator

import msgspec

from router_service.core.content import Citation, Span, SpanUnit
from router_service.dialects.gemini_wire import GroundChunkWire, read_citations, read_grounding
from router_service.dialects.reading import read

_MAX_TEXT_CHARS = 200_000  # longer than any answer; the places in a longer one are not looked for


def read_sources(raw: msgspec.Raw, text: str) -> Iterator[Citation]:
    """The citations of a citationMetadata."""
    wire = read(read_citations, raw)
    for source in (*(wire.citation_sources or ()), *(wire.citations or ())):
        span = _span(text, source.start_index, source.end_index, None)
        yield Citation(uri=source.uri or "", title=source.title or "", text_span=span)


def read_grounds(raw: msgspec.Raw, text: str) -> Iterator[Citation]:
    """The citations of a groundingMetadata: one for each source of each segment, and one for each source without."""
    wire = read(read_grounding, raw)
    sources = [_source(chunk) for chunk in wire.grounding_chunks or ()]
    used: set[int] = set()
    for support in wire.grounding_supports or ():
        segment = support.segment
        span = _span(text, segment.start_index, segment.end_index, segment.text) if segment else None
        for number in support.grounding_chunk_indices or ():
            if 0 <= number < len(sources):
                used.add(number)
                source = sources[number]
                yield Citation(uri=source.uri, title=source.title, quote=source.quote, text_span=span)
    yield from (source for number, source in enumerate(sources) if number not in used)


def read_queries(raw: msgspec.Raw) -> tuple[str, ...]:
    """What was searched for on the web."""
    return tuple(read(read_grounding, raw).web_search_queries or ())


def _source(chunk: GroundChunkWire) -> Citation:
    ground = chunk.web or chunk.retrieved_context or chunk.maps
    if ground is None:
        return Citation()
    return Citation(uri=ground.uri or "", title=ground.title or "", quote=ground.text or "")


def _span(text: str, start: int | None, end: int | None, words: str | None) -> Span | None:
    start = start or 0
    if end is None or not 0 <= start < end or len(text) > _MAX_TEXT_CHARS:
        return None
    span = _span_of_bytes(text.encode(), start, end)
    if span is not None and (words is None or text[span.start : span.end] == words):
        return span
    if words and (at := text.find(words)) >= 0 and text.find(words, at + 1) < 0:
        return Span(SpanUnit.CODE_POINT, at, at + len(words))
    return None


def _span_of_bytes(data: bytes, start: int, end: int) -> Span | None:
    if end > len(data):
        return None
    try:
        first = len(data[:start].decode())
        return Span(SpanUnit.CODE_POINT, first, first + len(data[start:end].decode()))
    except UnicodeDecodeError:
        return None
