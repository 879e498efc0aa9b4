"""Embeddings of the OpenAI wire, which most providers that have them speak."""

from array import array
from collections.abc import Sequence

import msgspec

from router_service.core.events import Event, Identified, Usage, UsageUpdated
from router_service.core.faults import Fault, violation
from router_service.core.request import Embedding, UpstreamRouting
from router_service.dialects.base import Decoder, Encoded, Quirks
from router_service.dialects.errors import fault_of, read_error
from router_service.dialects.openai_chat_usage import usage_event
from router_service.dialects.reading import NO_RAW, count, malformed, read, read_any, read_object, says_something
from router_service.dialects.vectors import WholeBodyDecoder, read_vector, vectors_event
from router_service.dialects.writing import Body, Notices, merge_options, wrong


class _Item(msgspec.Struct):
    embedding: msgspec.Raw = NO_RAW
    index: int | None = None


class _Answer(msgspec.Struct):
    data: list[_Item] | None = None
    id: str | None = None
    model: str | None = None
    usage: msgspec.Raw = NO_RAW


_read_answer = msgspec.json.Decoder(_Answer)


class OpenAIEmbeddings:
    """The embedder. The wire has no word for what vectors are for; models that care have it in their options."""

    def encode_embedding(self, embedding: Embedding, quirks: Quirks) -> Encoded:
        """Says it in the wire's words."""
        notices = Notices()
        body: Body = {"model": embedding.model, "input": list(embedding.inputs)}
        if embedding.dimensions is not None:
            if not quirks.dimensions_field:
                raise wrong("dimensions", "This provider gives vectors of the model's own length only.")
            body[quirks.dimensions_field] = embedding.dimensions
        routing = embedding.settings.upstream_routing
        if routing is not None and routing != UpstreamRouting():
            notices.ignore("upstream_routing", "Embeddings are not routed among a provider's upstreams.")
        merge_options(body, embedding.options, in_camel_case=bool(quirks.options_family))
        # After the options: what they ask for must be readable.
        body["encoding_format"] = "base64" if quirks.supports_base64_vectors else "float"
        return Encoded(
            "/embeddings", msgspec.json.encode(body), {"content-type": "application/json"}, tuple(notices.items)
        )

    def embedding_decoder(self, embedding: Embedding, quirks: Quirks) -> Decoder:
        """A fresh decoder."""
        return WholeBodyDecoder(lambda body: _decode(body.data, embedding, quirks))


def _decode(data: bytes, embedding: Embedding, quirks: Quirks) -> Sequence[Event]:
    if read_object(data) is None:
        raise malformed()
    answer = read(_read_answer, data)
    if answer.data is None:
        raise _error(data)
    vectors: list[array[float] | None] = [None] * len(answer.data)
    for place, item in enumerate(answer.data):
        index = place if item.index is None else item.index
        if not 0 <= index < len(vectors) or vectors[index] is not None:
            raise violation("order", "The provider numbered its vectors so that they belong to no input.")
        vectors[index] = read_vector(item.embedding)
    events: list[Event] = [Identified(answer.id or "", answer.model or "")]
    if says_something(answer.usage):
        events.append(_usage(answer.usage, quirks))
    return [*events, vectors_event([vector for vector in vectors if vector is not None], embedding)]


def _usage(raw: msgspec.Raw, quirks: Quirks) -> UsageUpdated:
    """The report. An embedding has no output, and some providers give only the total."""
    reported = usage_event(raw, quirks)
    tokens = reported.usage.input_tokens
    if tokens is None:
        total = (read_object(raw) or {}).get("total_tokens", NO_RAW)
        tokens = count(read_any(total))
    return UsageUpdated(Usage(input_tokens=tokens, output_tokens=0), reported.json, reported.charged_usd_nanos)


def _error(data: bytes) -> Fault:
    return fault_of(None, {}, read_error(data))
