"""No bytes do more than a fault: random ones, broken fixtures, and JSON of the right keys with wrong values."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router_service.core.faults import Fault
from router_service.dialects.base import Framing
from router_service.dialects.registry import DIALECTS
from tests.suites.aws_messages import event
from tests.suites.dialect_fixtures import fixtures
from tests.suites.dialect_suite import decode, decode_body, texts_of

BODIES = {name: [case.body for case in fixtures(name)] for name in DIALECTS}

KEYS = {
    "openai_chat": [
        *("id", "model", "object", "choices", "usage", "error", "index", "delta", "message", "content", "text", "type"),
        *("reasoning", "reasoning_content", "reasoning_details", "tool_calls", "function", "name", "arguments", "cost"),
        *("finish_reason", "refusal", "images", "image_url", "url", "annotations", "url_citation", "prompt_tokens"),
        *("completion_tokens", "total_tokens", "x_groq", "base_resp", "status_code", "search_results", "citations"),
        *("extra_content", "provider", "prompt_tokens_details", "cached_tokens", "thinking", "function_call", "code"),
    ],
    "openai_responses": [
        *("type", "output_index", "content_index", "summary_index", "delta", "item", "part", "annotation", "response"),
        *("error", "id", "call_id", "name", "arguments", "content", "summary", "text", "refusal", "annotations"),
        *("encrypted_content", "result", "output_format", "action", "status", "output", "usage", "incomplete_details"),
        *("reason", "model", "store", "input_tokens", "output_tokens", "input_tokens_details", "cached_tokens", "cost"),
        *("url", "title", "start_index", "end_index", "code", "message", "cost_in_usd_ticks", "phase", "namespace"),
    ],
    "anthropic_messages": [
        *("type", "index", "delta", "message", "content_block", "usage", "error", "text", "partial_json", "thinking"),
        *("signature", "citation", "stop_reason", "id", "model", "content", "input_tokens", "output_tokens", "name"),
        *("input", "citations", "data", "cache_creation", "server_tool_use", "web_search_requests", "base_resp"),
    ],
    "gemini": [
        *(
            "candidates",
            "content",
            "parts",
            "text",
            "thought",
            "thoughtSignature",
            "functionCall",
            "name",
            "args",
            "id",
        ),
        *("partialArgs", "jsonPath", "stringValue", "numberValue", "willContinue", "inlineData", "mimeType", "data"),
        *(
            "executableCode",
            "finishReason",
            "citationMetadata",
            "citationSources",
            "citations",
            "startIndex",
            "endIndex",
        ),
        *(
            "uri",
            "groundingMetadata",
            "groundingChunks",
            "web",
            "groundingSupports",
            "groundingChunkIndices",
            "segment",
        ),
        *("usageMetadata", "promptTokenCount", "candidatesTokenCount", "totalTokenCount", "promptTokensDetails"),
        *("modality", "tokenCount", "promptFeedback", "blockReason", "error", "code", "status", "details", "index"),
    ],
    "bedrock_converse": [
        *("contentBlockIndex", "start", "delta", "text", "toolUse", "toolUseId", "name", "type", "input", "toolResult"),
        *("reasoningContent", "reasoningText", "signature", "redactedContent", "citation", "citationsContent", "image"),
        *(
            "source",
            "bytes",
            "format",
            "content",
            "citations",
            "title",
            "location",
            "web",
            "url",
            "documentChar",
            "end",
        ),
        *("sourceContent", "stopReason", "usage", "inputTokens", "outputTokens", "totalTokens", "cacheDetails", "ttl"),
        *("output", "message", "trace", "__type"),
    ],
}
KEYS["ollama_chat"] = [
    *("model", "created_at", "message", "content", "thinking", "tool_calls", "function", "name", "arguments", "id"),
    *("done", "done_reason", "prompt_eval_count", "eval_count", "error", "role", "images"),
]
EVENTS = ["messageStart", "contentBlockStart", "contentBlockDelta", "contentBlockStop", "messageStop", "metadata"]
WORDS = {
    "openai_chat": [
        "stop",
        "tool_calls",
        "error",
        "data:image/png;base64,AA==",
        "data:x",
        "{}",
        "{",
        "url_citation",
        "text",
    ],
    "openai_responses": [
        *("response.created", "response.output_item.added", "response.output_item.done", "response.completed"),
        *("response.content_part.added", "response.content_part.done", "response.output_text.delta", "message"),
        *("response.function_call_arguments.delta", "response.function_call_arguments.done", "response.incomplete"),
        *("response.reasoning_summary_text.delta", "response.reasoning_text.delta", "response.refusal.delta"),
        *("response.output_text.annotation.added", "response.failed", "error", "reasoning", "function_call"),
        *("image_generation_call", "web_search_call", "completed", "incomplete", "AA==", "refusal", "{"),
    ],
    "anthropic_messages": [
        *("message_start", "content_block_start", "content_block_delta", "content_block_stop", "message_delta"),
        *("message_stop", "error", "ping", "text", "thinking", "tool_use", "server_tool_use", "redacted_thinking"),
        *("text_delta", "thinking_delta", "input_json_delta", "signature_delta", "citations_delta", "message", "{"),
    ],
    "gemini": ["STOP", "SAFETY", "$", "$.a", "$.a.b[0]", "$[1]", "$['x y']", "AA==", "AA=", "AUDIO", "image/png", "ä"],
    "bedrock_converse": ["end_turn", "AA==", "AA=", "{}", "{", "server_tool_use", "png", "5m", "ä"],
    "ollama_chat": ["stop", "length", "load", "{}", "{", "2026-11-20T10:00:00Z", "ä"],
}


def values_of(name: str) -> st.SearchStrategy[Any]:
    leaves = st.one_of(
        st.none(), st.booleans(), st.integers(-2, 3), st.floats(), st.sampled_from(WORDS[name]), st.text(max_size=3)
    )
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(KEYS[name]), inner, max_size=5)
        ),
        max_leaves=14,
    )


def framed(name: str, payload: bytes, event_name: str = "contentBlockDelta") -> bytes:
    """One event of a dialect's stream."""
    if DIALECTS[name].framing is Framing.AWS_EVENT_STREAM:
        return event(event_name, payload)
    if DIALECTS[name].framing is Framing.JSON_LINES:
        return payload + b"\n"
    return b"data: " + payload + b"\n\n"


def read_all(name: str, body: bytes) -> None:
    for is_stream in (True, False):
        try:
            events = decode(DIALECTS[name], [body]) if is_stream else decode_body(DIALECTS[name], body)
        except Fault:
            continue
        for text in texts_of(events):
            text.encode()  # whole code points


@pytest.mark.parametrize("name", DIALECTS)
@settings(deadline=None)
@given(body=st.binary(max_size=300))
def test_random_bytes(name: str, body: bytes) -> None:
    read_all(name, body)
    read_all(name, framed(name, body))


@pytest.mark.parametrize("name", DIALECTS)
@settings(deadline=None, max_examples=200)
@given(data=st.data())
def test_broken_fixtures(name: str, data: st.DataObject) -> None:
    body = bytearray(data.draw(st.sampled_from(BODIES[name])))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(body) - 1))
        if data.draw(st.booleans()):
            body[at] = data.draw(st.integers(0, 255))
        else:
            del body[at : at + data.draw(st.integers(1, 40))]
            body = body or bytearray(b" ")
    read_all(name, bytes(body))


@pytest.mark.parametrize("name", DIALECTS)
@settings(deadline=None, max_examples=300)
@given(data=st.data())
def test_right_keys_with_wrong_values(name: str, data: st.DataObject) -> None:
    chunks = data.draw(st.lists(st.dictionaries(st.sampled_from(KEYS[name]), values_of(name), max_size=6), max_size=5))
    names = data.draw(st.lists(st.sampled_from(EVENTS), min_size=5, max_size=5))
    body = framed(name, b"{}", "messageStart")
    body += b"".join(framed(name, json.dumps(chunk).encode(), word) for chunk, word in zip(chunks, names, strict=False))
    read_all(name, body)
    for chunk in chunks:
        read_all(name, json.dumps(chunk).encode())


@pytest.mark.parametrize("name", DIALECTS)
def test_json_nested_too_deep(name: str) -> None:
    deep = b'{"usage":' + b"[" * 200_000 + b"]" * 200_000 + b"}"
    read_all(name, deep)
    read_all(name, framed(name, deep))
    assert isinstance(DIALECTS[name].decode_error(500, {}, deep), Fault)
