"""Citations between protobuf and values."""

from collections.abc import Mapping

from keyswitch.router.v1 import content_pb2

from router_service.core.content import Citation, Span, SpanUnit

UNITS: Mapping[SpanUnit, "content_pb2.SpanUnit.ValueType"] = {
    SpanUnit.UNKNOWN: content_pb2.SPAN_UNIT_UNSPECIFIED,
    SpanUnit.CODE_POINT: content_pb2.SPAN_UNIT_CODE_POINT,
    SpanUnit.PAGE: content_pb2.SPAN_UNIT_PAGE,
    SpanUnit.BLOCK: content_pb2.SPAN_UNIT_BLOCK,
}
_BY_NUMBER: Mapping[int, SpanUnit] = {number: unit for unit, number in UNITS.items()}


def parse_citation(given: content_pb2.Citation) -> Citation:
    """A citation that comes back in a request."""
    return Citation(
        given.uri,
        given.title,
        given.quote,
        given.document_index if given.HasField("document_index") else None,
        _parse_span(given.source_span) if given.HasField("source_span") else None,
        _parse_span(given.text_span) if given.HasField("text_span") else None,
    )


def build_citation(citation: Citation) -> content_pb2.Citation:
    """A citation of an answer."""
    built = content_pb2.Citation(uri=citation.uri, title=citation.title, quote=citation.quote)
    if citation.document_index is not None:
        built.document_index = citation.document_index
    if citation.source_span is not None:
        built.source_span.CopyFrom(_build_span(citation.source_span))
    if citation.text_span is not None:
        built.text_span.CopyFrom(_build_span(citation.text_span))
    return built


def _parse_span(given: content_pb2.Span) -> Span:
    return Span(_BY_NUMBER.get(given.unit, SpanUnit.UNKNOWN), given.start, given.end)


def _build_span(span: Span) -> content_pb2.Span:
    return content_pb2.Span(unit=UNITS[span.unit], start=span.start, end=span.end)
