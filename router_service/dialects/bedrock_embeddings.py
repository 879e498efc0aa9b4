"""Embeddings of Bedrock: InvokeModel with the words of the model's vendor, for Converse has none for vectors."""

from array import array
from collections.abc import Sequence
from typing import assert_never

import msgspec

from router_service.core.events import Event, Usage, UsageUpdated
from router_service.core.faults import invalid
from router_service.core.request import Embedding, EmbeddingTask, UpstreamRouting
from router_service.dialects.base import BodyFrame, Decoder, EmbeddingApi, Encoded, Quirks
from router_service.dialects.errors import fault_of, read_error
from router_service.dialects.paths import model_segment
from router_service.dialects.reading import NO_RAW, count, malformed, read, read_object
from router_service.dialects.vectors import WholeBodyDecoder, read_vector, vectors_event
from router_service.dialects.writing import Body, Notices, merge_options, wrong

MOST_COHERE_INPUTS = 96
_COUNT_HEADER = "x-amzn-bedrock-input-token-count"
_COHERE_TASKS = {EmbeddingTask.QUERY: "search_query", EmbeddingTask.DOCUMENT: "search_document"}

_OWN_FIELDS = ("inputText", "texts", "embedding_types", "embeddingTypes")  # what was asked, and what can be read


class _Titan(msgspec.Struct, rename="camel"):
    embedding: msgspec.Raw = NO_RAW
    input_text_token_count: int | float | None = None


_read_titan = msgspec.json.Decoder(_Titan)
_read_rows = msgspec.json.Decoder(list[msgspec.Raw])


class BedrockEmbeddings:
    """The embedder. Which vendor's words a model takes is data."""

    def encode_embedding(self, embedding: Embedding, quirks: Quirks) -> Encoded:
        """Says it in the wire's words."""
        notices = Notices()
        match quirks.embedding_api:
            case EmbeddingApi.TITAN:
                body = _write_titan(embedding, notices)
            case EmbeddingApi.COHERE:
                body = _write_cohere(embedding, notices)
            case EmbeddingApi.OWN | EmbeddingApi.PREDICT:
                message = "The router does not know how this model of Bedrock is asked for vectors."
                raise invalid("call.spec.model", f"{message} Its entry needs the quirk embedding_api.")
            case _:
                assert_never(quirks.embedding_api)
        if embedding.dimensions is not None:
            if not quirks.dimensions_field:
                raise wrong("dimensions", "This model gives vectors of its own length only.")
            body[quirks.dimensions_field] = embedding.dimensions
        routing = embedding.settings.upstream_routing
        if routing is not None and routing != UpstreamRouting():
            notices.ignore("upstream_routing", "This provider has no upstreams of its own to choose from.")
        for name in _OWN_FIELDS:
            if any(name in entry for entry in embedding.options):
                raise wrong("provider_options", f'Provider options cannot set "{name}".')
        merge_options(body, embedding.options, in_camel_case=False)
        path = f"/model/{model_segment(embedding.model)}/invoke"
        return Encoded(path, msgspec.json.encode(body), {"content-type": "application/json"}, tuple(notices.items))

    def embedding_decoder(self, embedding: Embedding, quirks: Quirks) -> Decoder:
        """A fresh decoder."""
        read_answer = _decode_cohere if quirks.embedding_api is EmbeddingApi.COHERE else _decode_titan
        return WholeBodyDecoder(lambda body: read_answer(body, embedding))


def _write_titan(embedding: Embedding, notices: Notices) -> Body:
    if len(embedding.inputs) > 1:
        raise wrong("inputs", "Titan takes one input at a time. Send one call for each.")
    if embedding.task is not None:
        notices.ignore("task", "Titan has one kind of vector for all purposes.")
    return {"inputText": embedding.inputs[0]}


def _write_cohere(embedding: Embedding, notices: Notices) -> Body:
    if len(embedding.inputs) > MOST_COHERE_INPUTS:
        raise wrong("inputs", f"Cohere takes at most {MOST_COHERE_INPUTS} inputs at once.")
    if embedding.task is None:
        notices.adjust("task", "Cohere wants to know what vectors are for; they are made as those of documents.")
    return {
        "texts": list(embedding.inputs),
        "input_type": _COHERE_TASKS[embedding.task or EmbeddingTask.DOCUMENT],
        "truncate": "NONE",
        "embedding_types": ["float"],
    }


def _decode_titan(body: BodyFrame, embedding: Embedding) -> Sequence[Event]:
    _check_body(body.data, "embedding")
    answer = read(_read_titan, body.data)
    usage = _usage("inputTextTokenCount", count(answer.input_text_token_count))
    return [*usage, vectors_event([read_vector(answer.embedding)], embedding)]


def _decode_cohere(body: BodyFrame, embedding: Embedding) -> Sequence[Event]:
    """Older models answer with a list of vectors, newer ones with a list for each kind of number.

    What was counted is in no body, only in Bedrock's header.
    """
    found = _check_body(body.data, "embeddings")
    kinds = read_object(found)
    rows = read(_read_rows, found if kinds is None else kinds.get("float", NO_RAW))
    vectors: list[array[float]] = [read_vector(row) for row in rows]
    said = body.headers.get(_COUNT_HEADER, "")
    usage = _usage(_COUNT_HEADER, count(int(said)) if said.isascii() and said.isdecimal() and len(said) < 19 else None)
    return [*usage, vectors_event(vectors, embedding)]


def _usage(name: str, tokens: int | None) -> Sequence[Event]:
    if tokens is None:
        return ()
    return (UsageUpdated(Usage(input_tokens=tokens, output_tokens=0), msgspec.json.encode({name: tokens}).decode()),)


def _check_body(data: bytes, field: str) -> msgspec.Raw:
    body = read_object(data)
    if body is None:
        raise malformed()
    if field not in body:
        raise fault_of(None, {}, read_error(data))
    return body[field]
