"""Counts and vectors on Vertex AI and Bedrock: the same requests as the vendors' clients, the same answers read."""

import base64
import json
from typing import Any

import pytest
from google.genai.types import CountTokensConfig, FunctionDeclaration, Tool

from router_service.core.content import Message, Part, Role, Text
from router_service.core.faults import Fault
from router_service.core.request import (
    Completion,
    Embedding,
    EmbeddingTask,
    FunctionTool,
    Settings,
    UpstreamRouting,
    WarningReason,
)
from router_service.dialects.base import BodyFrame, Carrier, EmbeddingApi, Encoded, Quirks
from router_service.dialects.registry import COUNTERS, EMBEDDERS
from tests.suites.cloud_clients import ANTHROPIC_BASE, BEDROCK_BASE, GOOGLE_BASE, Exchanged, anthropic, bedrock, google
from tests.unit.dialects.test_embeddings import decode, usage, vectors

SCHEMA: dict[str, Any] = {"type": "object", "properties": {"city": {"type": "string"}}}
COMPLETION = Completion(
    "m",
    "providers/p",
    (Message(Role.SYSTEM, (Part(Text("Be brief.")),)), Message(Role.USER, (Part(Text("hi")),))),
    stream=False,
    tools=(FunctionTool("weather", "tells it", json.dumps(SCHEMA)),),
)
VERTEX, PREDICT = Quirks(carrier=Carrier.VERTEX), Quirks(carrier=Carrier.VERTEX, embedding_api=EmbeddingApi.PREDICT)
TITAN = Quirks(embedding_api=EmbeddingApi.TITAN)
COHERE_3 = Quirks(embedding_api=EmbeddingApi.COHERE, dimensions_field="")
COHERE_4 = Quirks(embedding_api=EmbeddingApi.COHERE, dimensions_field="output_dimension")


def check(encoded: Encoded, base: str, theirs: Exchanged) -> None:
    assert f"{base}{encoded.path}" == theirs.url
    assert json.loads(encoded.body) == theirs.body


def test_gemini_on_vertex_is_counted_as_googles_client_does() -> None:
    answer = {"totalTokens": 31, "totalBillableCharacters": 90}
    theirs = Exchanged(answer)
    weather = FunctionDeclaration(name="weather", description="tells it", parameters_json_schema=SCHEMA)
    config = CountTokensConfig(system_instruction="Be brief.", tools=[Tool(function_declarations=[weather])])
    counted = google(theirs).models.count_tokens(model="m", contents="hi", config=config)
    theirs.body["systemInstruction"].pop("role")  # an instruction has none
    (declared,) = theirs.body["tools"][0]["functionDeclarations"]
    declared["parametersJsonSchema"] = declared.pop("parameters_json_schema")  # Google's JSON takes both spellings
    check(COUNTERS["gemini"].encode_count(COMPLETION, VERTEX), GOOGLE_BASE, theirs)
    assert usage(decode(COUNTERS["gemini"].count_decoder(VERTEX), answer)) == [(counted.total_tokens, 0)]


def test_claude_on_vertex_is_counted_as_anthropics_client_does() -> None:
    answer = {"input_tokens": 14}
    theirs = Exchanged(answer)
    counted = anthropic(theirs).messages.count_tokens(
        model="m",
        messages=[{"role": "user", "content": [{"type": "text", "text": "hi"}]}],
        system=[{"type": "text", "text": "Be brief."}],
        tools=[{"name": "weather", "description": "tells it", "input_schema": SCHEMA}],
    )
    # The client says the version of Anthropic's own API; that of Vertex is the one which Google documents.
    theirs.body["anthropic_version"] = "vertex-2023-10-16"
    encoded = COUNTERS["anthropic_messages"].encode_count(COMPLETION, VERTEX)
    check(encoded, ANTHROPIC_BASE, theirs)
    assert "anthropic-version" not in encoded.headers
    decoder = COUNTERS["anthropic_messages"].count_decoder(VERTEX)
    assert usage(decode(decoder, answer)) == [(counted.input_tokens, 0)]


def test_converse_is_counted_as_awss_client_does() -> None:
    answer = {"inputTokens": 17}
    theirs = Exchanged(answer)
    counted = bedrock(theirs).count_tokens(
        modelId="anthropic.claude-test-v1:0",
        input={
            "converse": {
                "messages": [{"role": "user", "content": [{"text": "hi"}]}],
                "system": [{"text": "Be brief."}],
                "toolConfig": {
                    "tools": [
                        {"toolSpec": {"name": "weather", "description": "tells it", "inputSchema": {"json": SCHEMA}}}
                    ]
                },
            }
        },
    )
    quirks = Quirks(count_model="anthropic.claude-test-v1:0")  # "m" is the name of an inference profile
    check(COUNTERS["bedrock_converse"].encode_count(COMPLETION, quirks), BEDROCK_BASE, theirs)
    decoder = COUNTERS["bedrock_converse"].count_decoder(quirks)
    assert usage(decode(decoder, answer)) == [(counted["inputTokens"], 0)]


def test_claude_under_invoke_model_is_counted_with_the_request_that_would_be_sent() -> None:
    quirks = Quirks(carrier=Carrier.BEDROCK)
    encoded = COUNTERS["anthropic_messages"].encode_count(COMPLETION, quirks)
    body = base64.b64decode(json.loads(encoded.body)["input"]["invokeModel"]["body"])
    theirs = Exchanged({"inputTokens": 9})
    counted = bedrock(theirs).count_tokens(modelId="m", input={"invokeModel": {"body": body}})
    check(encoded, BEDROCK_BASE, theirs)
    said = json.loads(body)
    assert (said["anthropic_version"], said["system"]) == (
        "bedrock-2023-05-31",
        [{"type": "text", "text": "Be brief."}],
    )
    assert {"messages", "tools", "max_tokens"} <= set(said)
    decoder = COUNTERS["anthropic_messages"].count_decoder(quirks)
    assert usage(decode(decoder, {"inputTokens": 9})) == [(counted["inputTokens"], 0)]


def test_one_text_on_vertex_is_embedded_as_googles_client_does() -> None:
    answer = {"embedding": {"values": [1.0, 0.5]}, "usageMetadata": {"promptTokenCount": 4}}
    theirs = Exchanged(answer)
    read = google(theirs).models.embed_content(
        model="gemini-embedding-001",
        contents={"parts": [{"text": "one"}]},
        config={"task_type": "RETRIEVAL_QUERY", "output_dimensionality": 2, "auto_truncate": False},
    )
    theirs.body["content"].pop("role", None)
    asked = Embedding("gemini-embedding-001", "providers/p", ("one",), 2, EmbeddingTask.QUERY)
    check(EMBEDDERS["gemini"].encode_embedding(asked, VERTEX), GOOGLE_BASE, theirs)
    events = decode(EMBEDDERS["gemini"].embedding_decoder(asked, VERTEX), answer)
    assert vectors(events) == [one.values for one in read.embeddings or ()]
    assert usage(events) == [(4, 0)]


def test_several_texts_on_vertex_are_a_batch() -> None:
    statistics = [{"token_count": 3, "truncated": False}, {"token_count": 2, "truncated": False}]
    answer = {"embeddings": [{"values": [n, 1.0], "statistics": one} for n, one in enumerate(statistics)]}
    theirs = Exchanged(answer)
    read = google(theirs).models.embed_content(
        model="gemini-embedding-001", contents=["one", "two"], config={"auto_truncate": False}
    )
    asked = Embedding("gemini-embedding-001", "providers/p", ("one", "two"))
    encoded = EMBEDDERS["gemini"].encode_embedding(asked, VERTEX)
    assert f"{GOOGLE_BASE}{encoded.path}" == theirs.url
    ours = json.loads(encoded.body)["requests"]
    assert [one["content"]["parts"] for one in ours] == [[{"text": "one"}], [{"text": "two"}]]
    assert [one["content"]["parts"] for one in theirs.body["requests"]] == [[{"text": "one"}], [{"text": "two"}]]
    assert all(one["embedContentConfig"] == {"autoTruncate": False} for one in [*ours, *theirs.body["requests"][:1]])
    events = decode(EMBEDDERS["gemini"].embedding_decoder(asked, VERTEX), answer)
    assert vectors(events) == [one.values for one in read.embeddings or ()]
    assert usage(events) == [(5, 0)]


def test_predictions_of_vertex_are_asked_for_as_googles_client_does() -> None:
    statistics = {"token_count": 3, "truncated": False}
    answer = {"predictions": [{"embeddings": {"values": [0.5, 1.0], "statistics": statistics}}] * 2}
    theirs = Exchanged(answer)
    read = google(theirs).models.embed_content(
        model="text-embedding-005",
        contents=["one", "two"],
        config={"task_type": "RETRIEVAL_DOCUMENT", "output_dimensionality": 2, "auto_truncate": False},
    )
    asked = Embedding("text-embedding-005", "providers/p", ("one", "two"), 2, EmbeddingTask.DOCUMENT)
    check(EMBEDDERS["gemini"].encode_embedding(asked, PREDICT), GOOGLE_BASE, theirs)
    events = decode(EMBEDDERS["gemini"].embedding_decoder(asked, PREDICT), answer)
    assert vectors(events) == [one.values for one in read.embeddings or ()]
    assert usage(events) == [(6, 0)]


def test_a_text_without_a_count_leaves_the_usage_unknown() -> None:
    answer = {"predictions": [{"embeddings": {"values": [0.5]}}]}
    asked = Embedding("text-embedding-005", "providers/p", ("one",))
    assert usage(decode(EMBEDDERS["gemini"].embedding_decoder(asked, PREDICT), answer)) == []


def invoke(model: str, encoded: Encoded, answer: object) -> dict[str, Any]:
    theirs = Exchanged(answer)
    read = bedrock(theirs).invoke_model(modelId=model, body=encoded.body, contentType="application/json")
    check(encoded, BEDROCK_BASE, theirs)
    found: dict[str, Any] = json.loads(read["body"].read())
    return found


def test_titan_embeds_one_text() -> None:
    answer = {"embedding": [0.25, -1.0], "inputTextTokenCount": 3}
    asked = Embedding("amazon.titan-embed-text-v2:0", "providers/p", ("one",), 2, options=({"normalize": False},))
    encoded = EMBEDDERS["bedrock_converse"].encode_embedding(asked, TITAN)
    assert json.loads(encoded.body) == {"inputText": "one", "dimensions": 2, "normalize": False}
    read = invoke(asked.model, encoded, answer)
    events = decode(EMBEDDERS["bedrock_converse"].embedding_decoder(asked, TITAN), answer)
    assert (vectors(events), usage(events)) == ([read["embedding"]], [(3, 0)])


@pytest.mark.parametrize(
    ("quirks", "embeddings"),
    [(COHERE_3, [[1.0, 0.5], [0.0, 2.0]]), (COHERE_4, {"float": [[1.0, 0.5], [0.0, 2.0]]})],
)
def test_cohere_embeds_many(quirks: Quirks, embeddings: object) -> None:
    dimensions = 2 if quirks.dimensions_field else None
    asked = Embedding("cohere.embed-v4:0", "providers/p", ("one", "two"), dimensions, EmbeddingTask.QUERY)
    encoded = EMBEDDERS["bedrock_converse"].encode_embedding(asked, quirks)
    body = {"texts": ["one", "two"], "input_type": "search_query", "truncate": "NONE", "embedding_types": ["float"]}
    assert json.loads(encoded.body) == body | ({"output_dimension": 2} if dimensions else {})
    answer = {"id": "1", "embeddings": embeddings, "texts": ["one", "two"], "response_type": "embeddings_by_type"}
    invoke(asked.model, encoded, answer)
    for said, counted in (("7", [(7, 0)]), ("", []), ("-1", []), ("many", []), ("9" * 40, [])):
        decoder = EMBEDDERS["bedrock_converse"].embedding_decoder(asked, quirks)
        headers = {"x-amzn-bedrock-input-token-count": said} if said else {}
        events = [*decoder.feed(BodyFrame(json.dumps(answer).encode(), headers))]
        assert (vectors(events), usage(events)) == ([[1.0, 0.5], [0.0, 2.0]], counted)


def test_what_bedrocks_models_cannot_do_is_said() -> None:
    one = Embedding("m", "providers/p", ("one",))
    settings = Settings(upstream_routing=UpstreamRouting(order=("x",)))
    warned = Embedding("m", "providers/p", ("one",), task=EmbeddingTask.QUERY, settings=settings)
    encoded = EMBEDDERS["bedrock_converse"].encode_embedding(warned, TITAN)
    assert [(note.field, note.reason) for note in encoded.warnings] == [
        ("task", WarningReason.IGNORED),
        ("upstream_routing", WarningReason.IGNORED),
    ]
    encoded = EMBEDDERS["bedrock_converse"].encode_embedding(one, COHERE_3)
    assert [(note.field, note.reason) for note in encoded.warnings] == [("task", WarningReason.ADJUSTED)]
    refused = [
        (Embedding("m", "p", ("one", "two")), TITAN, "one input at a time"),
        (Embedding("m", "p", ("one",) * 97), COHERE_3, "at most 96"),
        (Embedding("m", "p", ("one",), 2), COHERE_3, "own length"),
        (Embedding("m", "p", ("one",)), Quirks(), "does not know how"),
        (Embedding("m", "p", ("one",), options=({"texts": ["x"]},)), COHERE_3, "cannot set"),
    ]
    for asked, quirks, words in refused:
        with pytest.raises(Fault, match=words):
            EMBEDDERS["bedrock_converse"].encode_embedding(asked, quirks)
