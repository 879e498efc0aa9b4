"""Embeddings of the Gemini wire: a batch at Google AI Studio; on Vertex one text or a batch, or Vertex's predict."""

from collections.abc import Mapping, Sequence

import msgspec

from router_service.core.events import Event, Usage, UsageUpdated
from router_service.core.request import Embedding, EmbeddingTask, UpstreamRouting
from router_service.dialects.base import Carrier, Decoder, EmbeddingApi, Encoded, Quirks
from router_service.dialects.gemini_encode import model_path
from router_service.dialects.gemini_errors import fault_in_stream
from router_service.dialects.reading import NO_RAW, count, malformed, read, read_any, read_object, text_of
from router_service.dialects.vectors import WholeBodyDecoder, read_vector, vectors_event
from router_service.dialects.writing import Body, Notices, merge_options

_TASKS: Mapping[EmbeddingTask, str] = {
    EmbeddingTask.QUERY: "RETRIEVAL_QUERY",
    EmbeddingTask.DOCUMENT: "RETRIEVAL_DOCUMENT",
}


class _Statistics(msgspec.Struct):
    token_count: int | float | None = None


class _Item(msgspec.Struct):
    values: msgspec.Raw = msgspec.Raw(b"[]")
    statistics: _Statistics | None = None


class _Prediction(msgspec.Struct):
    embeddings: _Item = msgspec.field(default_factory=_Item)


class _Answer(msgspec.Struct, rename="camel"):
    embeddings: list[_Item] | None = None
    embedding: _Item | None = None
    predictions: list[_Prediction] | None = None
    usage_metadata: msgspec.Raw = NO_RAW


_read_answer = msgspec.json.Decoder(_Answer)


class GeminiEmbeddings:
    """The embedder. Where a batch is sent, it is one request per input, each with all that is asked for."""

    def encode_embedding(self, embedding: Embedding, quirks: Quirks) -> Encoded:
        """Says it in the wire's words."""
        notices = Notices()
        routing = embedding.settings.upstream_routing
        if routing is not None and routing != UpstreamRouting():
            notices.ignore("upstream_routing", "This provider has no upstreams of its own to choose from.")
        path = model_path(embedding.model)
        if quirks.embedding_api is EmbeddingApi.PREDICT:
            method, body = "predict", _write_prediction(embedding)
        elif quirks.carrier is Carrier.VERTEX:
            method, body = _write_vertex(embedding)
        else:
            method, body = "batchEmbedContents", _write_batch(embedding, path.removeprefix("/"))
        return Encoded(
            f"{path}:{method}",
            msgspec.json.encode(body),
            {"content-type": "application/json"},
            tuple(notices.items),
        )

    def embedding_decoder(self, embedding: Embedding, quirks: Quirks) -> Decoder:
        """A fresh decoder."""
        del quirks
        return WholeBodyDecoder(lambda body: _decode(body.data, embedding))


def _write_batch(embedding: Embedding, model: str) -> Body:
    common: Body = {"model": model, **_asked(embedding)}
    merge_options(common, embedding.options, in_camel_case=False)
    return {"requests": [{**common, "content": _content(text)} for text in embedding.inputs]}


def _write_vertex(embedding: Embedding) -> tuple[str, Body]:
    """A text that is too long is an error, as elsewhere: without a word Vertex would cut it."""
    config: Body = {**_asked(embedding), "autoTruncate": False}
    merge_options(config, embedding.options, in_camel_case=False)
    requests = [{"content": _content(text), "embedContentConfig": config} for text in embedding.inputs]
    if len(requests) == 1:
        return "embedContent", dict(requests[0])
    return "batchEmbedContents", {"requests": requests}


def _write_prediction(embedding: Embedding) -> Body:
    asked = _asked(embedding)
    task = {"task_type": asked.pop("taskType")} if "taskType" in asked else {}
    parameters: Body = {**asked, "autoTruncate": False}
    merge_options(parameters, embedding.options, in_camel_case=False)
    return {"instances": [{"content": text, **task} for text in embedding.inputs], "parameters": parameters}


def _asked(embedding: Embedding) -> Body:
    asked: Body = {}
    if embedding.task is not None:
        asked["taskType"] = _TASKS[embedding.task]
    if embedding.dimensions is not None:
        asked["outputDimensionality"] = embedding.dimensions
    return asked


def _content(text: str) -> Body:
    return {"parts": [{"text": text}]}


def _decode(data: bytes, embedding: Embedding) -> Sequence[Event]:
    if read_object(data) is None:
        raise malformed()
    answer = read(_read_answer, data)
    items = _items(answer)
    if items is None:
        raise fault_in_stream(data)
    vectors = vectors_event([read_vector(item.values) for item in items], embedding)
    tokens, said = _usage(answer, items)
    if tokens is None:
        return (vectors,)  # older models do not say what they used
    return (UsageUpdated(Usage(input_tokens=tokens, output_tokens=0), said), vectors)


def _items(answer: _Answer) -> list[_Item] | None:
    if answer.predictions is not None:
        return [prediction.embeddings for prediction in answer.predictions]
    return [answer.embedding] if answer.embedding is not None else answer.embeddings


def _usage(answer: _Answer, items: Sequence[_Item]) -> tuple[int | None, str]:
    """The prompt's tokens and what says so: the report of the whole, else those of all the texts."""
    report = read_object(answer.usage_metadata) or {}
    tokens = count(read_any(report.get("promptTokenCount", NO_RAW)))
    if tokens is not None:
        return tokens, text_of(answer.usage_metadata)
    counted = [count(item.statistics.token_count) if item.statistics is not None else None for item in items]
    total = sum(number for number in counted if number is not None)
    if None in counted or not counted:
        return None, ""
    return total, msgspec.json.encode({"token_count": total}).decode()
