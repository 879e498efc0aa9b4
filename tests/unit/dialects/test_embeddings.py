"""Embeddings and token counts on the wires, with the vendors' own types and clients as judges."""

import base64
import json
import struct
from typing import Any

import httpx2
import openai
import pytest
from anthropic.types import MessageCountTokensParams, MessageTokensCount
from google.genai.types import CountTokensResponse, EmbedContentResponse
from hypothesis import given
from hypothesis import strategies as st
from openai.types import CreateEmbeddingResponse, EmbeddingCreateParams
from openai.types.responses import InputTokenCountParams, InputTokenCountResponse
from pydantic import TypeAdapter

from router_service.core.content import Message, Part, Role, Text
from router_service.core.events import Event, Finished, UsageUpdated, Vectors
from router_service.core.faults import Fault
from router_service.core.grammar import Grammar
from router_service.core.request import Completion, Embedding, EmbeddingTask, FunctionTool, ProviderTool
from router_service.dialects.base import BodyFrame, Carrier, Decoder, EmbeddingApi, Quirks
from router_service.dialects.registry import COUNTERS, DIALECTS, EMBEDDERS
from router_service.policy.estimate import estimate_prompt_tokens

ASKED = Embedding("m", "providers/p", ("one", "two"))
COMPLETION = Completion(
    "m",
    "providers/p",
    (Message(Role.SYSTEM, (Part(Text("Be brief.")),)), Message(Role.USER, (Part(Text("hi")),))),
    stream=False,
    tools=(FunctionTool("weather", "tells it", '{"type":"object","properties":{}}'),),
)


def decode(decoder: Decoder, body: object) -> list[Event]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    events = [*decoder.feed(BodyFrame(data)), *decoder.close()]
    grammar = Grammar()
    for event in events:
        grammar.check(event)
    assert grammar.is_finished
    assert isinstance(events[-1], Finished)
    return events


def vectors(events: list[Event]) -> list[list[float]]:
    (found,) = (event for event in events if isinstance(event, Vectors))
    return [list(vector) for vector in found.values]


def usage(events: list[Event]) -> list[tuple[int | None, int | None]]:
    return [(e.usage.input_tokens, e.usage.output_tokens) for e in events if isinstance(e, UsageUpdated)]


def openai_body(*embeddings: object) -> dict[str, Any]:
    data = [{"object": "embedding", "index": n, "embedding": one} for n, one in enumerate(embeddings)]
    return {"object": "list", "data": data, "model": "m", "usage": {"prompt_tokens": 5, "total_tokens": 5}}


@pytest.mark.parametrize("as_base64", [True, False])
def test_openai_vectors_are_those_that_its_own_client_reads(as_base64: bool) -> None:
    rows = [[0.1, -2.5, 3e-8], [1.0, 0.0, -0.0]]
    packed = [base64.b64encode(struct.pack("<3f", *row)).decode() for row in rows]
    body = openai_body(*(packed if as_base64 else rows))
    CreateEmbeddingResponse.model_validate(openai_body(*rows))
    transport = httpx2.MockTransport(lambda _: httpx2.Response(200, json=body))
    client = openai.OpenAI(api_key="k", http_client=httpx2.Client(transport=transport), base_url="https://p.test")
    theirs = client.embeddings.create(model="m", input=["one", "two"])
    events = decode(EMBEDDERS["openai_chat"].embedding_decoder(ASKED, Quirks()), body)
    assert vectors(events) == [pytest.approx(one.embedding, rel=1e-6) for one in theirs.data]
    assert usage(events) == [(5, 0)]


def test_openai_requests_fit_its_types() -> None:
    asked = Embedding("m", "providers/p", ("one",), 3, EmbeddingTask.QUERY, options=({"user": "u"},))
    encoded = EMBEDDERS["openai_chat"].encode_embedding(asked, Quirks(supports_base64_vectors=True))
    body = json.loads(encoded.body)
    TypeAdapter(EmbeddingCreateParams).validate_python(body)
    assert (encoded.path, encoded.warnings) == ("/embeddings", ())
    assert body == {"model": "m", "input": ["one"], "dimensions": 3, "user": "u", "encoding_format": "base64"}
    mistral = EMBEDDERS["openai_chat"].encode_embedding(asked, Quirks(dimensions_field="output_dimension"))
    assert json.loads(mistral.body)["output_dimension"] == 3
    with pytest.raises(Fault, match="own length"):
        EMBEDDERS["openai_chat"].encode_embedding(asked, Quirks(dimensions_field=""))


def test_gemini_embeds_a_batch() -> None:
    asked = Embedding("gemini-embedding-001", "providers/p", ("one", "two"), 3, EmbeddingTask.DOCUMENT)
    encoded = EMBEDDERS["gemini"].encode_embedding(asked, Quirks())
    assert encoded.path == "/models/gemini-embedding-001:batchEmbedContents"
    assert json.loads(encoded.body)["requests"][1] == {
        "model": "models/gemini-embedding-001",
        "content": {"parts": [{"text": "two"}]},
        "taskType": "RETRIEVAL_DOCUMENT",
        "outputDimensionality": 3,
    }
    body = {"embeddings": [{"values": [1, 0.5, 0]}, {"values": [0, 1, 2]}], "usageMetadata": {"promptTokenCount": 4}}
    theirs = EmbedContentResponse.model_validate(body)
    events = decode(EMBEDDERS["gemini"].embedding_decoder(asked, Quirks()), body)
    assert vectors(events) == [one.values for one in theirs.embeddings or ()]
    assert usage(events) == [(4, 0)]
    del body["usageMetadata"]
    assert usage(decode(EMBEDDERS["gemini"].embedding_decoder(asked, Quirks()), body)) == []


def test_anthropic_counts_what_its_types_allow() -> None:
    encoded = COUNTERS["anthropic_messages"].encode_count(COMPLETION, Quirks())
    assert encoded.path == "/v1/messages/count_tokens"
    body = json.loads(encoded.body)
    TypeAdapter(MessageCountTokensParams).validate_python(body)
    assert set(body) == {"model", "messages", "system", "tools"}
    MessageTokensCount.model_validate({"input_tokens": 14})
    assert usage(decode(COUNTERS["anthropic_messages"].count_decoder(Quirks()), {"input_tokens": 14})) == [(14, 0)]


def test_gemini_counts_a_whole_request() -> None:
    encoded = COUNTERS["gemini"].encode_count(COMPLETION, Quirks())
    assert encoded.path == "/models/m:countTokens"
    request = json.loads(encoded.body)["generateContentRequest"]
    assert set(request) == {"model", "contents", "systemInstruction", "tools"}
    body = {"totalTokens": 31, "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 31}]}
    theirs = CountTokensResponse.model_validate({"totalTokens": 31})
    assert usage(decode(COUNTERS["gemini"].count_decoder(Quirks()), body)) == [(theirs.total_tokens, 0)]


def test_openai_counts_what_its_types_allow() -> None:
    encoded = COUNTERS["openai_responses"].encode_count(COMPLETION, Quirks())
    assert encoded.path == "/responses/input_tokens"
    body = json.loads(encoded.body)
    TypeAdapter(InputTokenCountParams).validate_python(body)
    assert {"model", "input", "tools"} <= set(body)
    assert not {"stream", "store", "include", "max_output_tokens"} & set(body)
    answer = InputTokenCountResponse.model_validate({"object": "response.input_tokens", "input_tokens": 9})
    decoder = COUNTERS["openai_responses"].count_decoder(Quirks())
    assert usage(decode(decoder, answer.model_dump())) == [(9, 0)]


def test_an_estimate_grows_with_every_word_and_never_guesses_at_tools_of_others() -> None:
    least = estimate_prompt_tokens(COMPLETION)
    longer = Completion("m", "p", (*COMPLETION.messages, Message(Role.USER, (Part(Text("more words")),))))
    assert least > 0
    assert estimate_prompt_tokens(longer) > estimate_prompt_tokens(Completion("m", "p", COMPLETION.messages))
    with pytest.raises(Fault, match="INVALID_REQUEST"):
        estimate_prompt_tokens(Completion("m", "p", COMPLETION.messages, tools=(ProviderTool("x", "{}"),)))


def decoders() -> list[tuple[str, Decoder]]:
    embedders = [
        (f"embed {name} {api.value}", one.embedding_decoder(ASKED, Quirks(embedding_api=api)))
        for name, one in EMBEDDERS.items()
        for api in EmbeddingApi
    ]
    counters = [
        (f"count {name} {carrier.value}", one.count_decoder(Quirks(carrier=carrier)))
        for name, one in COUNTERS.items()
        for carrier in Carrier
    ]
    return embedders + counters


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                [
                    *("data", "embedding", "index", "usage", "prompt_tokens", "total_tokens", "embeddings", "values"),
                    *("usageMetadata", "promptTokenCount", "input_tokens", "totalTokens", "error", "message", "code"),
                    *("predictions", "statistics", "token_count", "inputTextTokenCount", "float"),
                    *("inputTokens", "truncated"),
                ]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)


@given(body=st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
def test_no_bytes_do_more_than_a_fault(body: bytes) -> None:
    for name, decoder in decoders():
        try:
            events = [*decoder.feed(BodyFrame(body)), *decoder.close()]
        except Fault:
            continue
        assert isinstance(events[-1], Finished), name


def test_a_wire_with_embeddings_or_counts_is_a_dialect() -> None:
    assert set(EMBEDDERS) | set(COUNTERS) <= set(DIALECTS)
    for name, decoder in decoders():
        with pytest.raises(Fault, match="broke off"):
            decoder.close()
        assert name
