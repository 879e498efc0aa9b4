"""Embeddings of the Gemini wire, as Google AI Studio has them."""

from collections.abc import Mapping, Sequence

import msgspec

from router_service.core.events import Event, Usage, UsageUpdated
from router_service.core.request import Embedding, EmbeddingTask, UpstreamRouting
from router_service.dialects.base import Decoder, Encoded, Quirks
from router_service.dialects.gemini_encode import model_path
from router_service.dialects.gemini_errors import fault_in_stream
from router_service.dialects.reading import NO_RAW, count, malformed, read, read_any, read_object, text_of
from router_service.dialects.vectors import WholeBodyDecoder, read_vector, vectors_event
from router_service.dialects.writing import Body, Notices, merge_options

_TASKS: Mapping[EmbeddingTask, str] = {
    EmbeddingTask.QUERY: "RETRIEVAL_QUERY",
    EmbeddingTask.DOCUMENT: "RETRIEVAL_DOCUMENT",
}


class _Item(msgspec.Struct):
    values: msgspec.Raw = msgspec.Raw(b"[]")


class _Answer(msgspec.Struct, rename="camel"):
    embeddings: list[_Item] | None = None
    usage_metadata: msgspec.Raw = NO_RAW


_read_answer = msgspec.json.Decoder(_Answer)


class GeminiEmbeddings:
    """The embedder. Its batch is one request per input, each with all that is asked for."""

    def encode_embedding(self, embedding: Embedding, quirks: Quirks) -> Encoded:
        """Says it in the wire's words."""
        del quirks
        notices = Notices()
        path = model_path(embedding.model)
        common: Body = {"model": path.removeprefix("/")}
        if embedding.task is not None:
            common["taskType"] = _TASKS[embedding.task]
        if embedding.dimensions is not None:
            common["outputDimensionality"] = embedding.dimensions
        routing = embedding.settings.upstream_routing
        if routing is not None and routing != UpstreamRouting():
            notices.ignore("upstream_routing", "This provider has no upstreams of its own to choose from.")
        merge_options(common, embedding.options, in_camel_case=False)
        requests = [{**common, "content": {"parts": [{"text": text}]}} for text in embedding.inputs]
        return Encoded(
            f"{path}:batchEmbedContents",
            msgspec.json.encode({"requests": requests}),
            {"content-type": "application/json"},
            tuple(notices.items),
        )

    def embedding_decoder(self, embedding: Embedding, quirks: Quirks) -> Decoder:
        """A fresh decoder."""
        del quirks
        return WholeBodyDecoder(lambda data: _decode(data, embedding))


def _decode(data: bytes, embedding: Embedding) -> Sequence[Event]:
    if read_object(data) is None:
        raise malformed()
    answer = read(_read_answer, data)
    if answer.embeddings is None:
        raise fault_in_stream(data)
    vectors = vectors_event([read_vector(item.values) for item in answer.embeddings], embedding)
    report = read_object(answer.usage_metadata) or {}
    tokens = count(read_any(report.get("promptTokenCount", NO_RAW)))
    if tokens is None:
        return (vectors,)  # older models do not say what they used
    return (UsageUpdated(Usage(input_tokens=tokens, output_tokens=0), text_of(answer.usage_metadata)), vectors)
