"""What Gemini's decoder makes of single chunks that no whole case shows."""

import json
from typing import Any

import pytest

from router_service.core.content import Media, ProviderBlock, Reasoning, Text, ToolCall
from router_service.core.events import FinishReason, ToolRequests
from router_service.core.faults import Fault, Reason
from router_service.core.fold import Answer
from router_service.dialects.base import Quirks
from router_service.dialects.gemini import Gemini
from tests.suites.dialect_suite import QUIRKS, decode, decode_body, run

DIALECT = Gemini()


def chunk(*parts: dict[str, Any], finish: str = "", **more: Any) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"parts": list(parts), "role": "model"}, **more}
    if finish:
        candidate["finishReason"] = finish
    return {"candidates": [candidate], "responseId": "r"}


def stream(*chunks: dict[str, Any]) -> bytes:
    return b"".join(b"data: " + json.dumps(value).encode() + b"\r\n\r\n" for value in chunks)


def answer_of(*chunks: dict[str, Any], quirks: Quirks = QUIRKS) -> Answer:
    outcome = run(DIALECT, stream(*chunks), quirks=quirks)
    assert outcome.answer is not None, outcome
    return outcome.answer


def fault_of(*chunks: dict[str, Any]) -> Fault:
    with pytest.raises(Fault) as caught:
        decode(DIALECT, [stream(*chunks)])
    return caught.value


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("STOP", FinishReason.STOP),
        ("MAX_TOKENS", FinishReason.LENGTH),
        *((word, FinishReason.CONTENT_FILTER) for word in ("SAFETY", "RECITATION", "BLOCKLIST", "SPII", "MODEL_ARMOR")),
        *((word, FinishReason.CONTENT_FILTER) for word in ("PROHIBITED_CONTENT", "IMAGE_SAFETY", "IMAGE_RECITATION")),
        *((word, FinishReason.UNKNOWN) for word in ("OTHER", "MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL")),
        *((word, FinishReason.UNKNOWN) for word in ("MISSING_THOUGHT_SIGNATURE", "LANGUAGE", "SOMETHING_NEW")),
    ],
)
def test_each_word_of_the_end(word: str, reason: FinishReason) -> None:
    finish = answer_of(chunk({"text": "a"}, finish=word)).finish
    assert finish is not None
    assert (finish.reason, finish.provider_reason) == (reason, word)


def test_a_word_that_says_nothing_is_no_end() -> None:
    assert fault_of(chunk({"text": "a"}, finish="FINISH_REASON_UNSPECIFIED")).metadata == {"violation": "truncated"}


def test_a_signature_between_texts_stays_with_its_own_piece() -> None:
    (part,) = answer_of(
        chunk({"text": "äb"}, {"text": "c", "thoughtSignature": "U0lH"}), chunk({"text": "d"}, finish="STOP")
    ).parts
    assert part.kind == Text("äbcd")
    assert part.provider_state is not None
    assert json.loads(part.provider_state.data) == {
        "pieces": [{"chars": 2}, {"chars": 1, "thoughtSignature": "U0lH"}, {"chars": 1}]
    }


def test_a_signature_after_a_call_has_a_part_of_its_own() -> None:
    call, text = answer_of(
        chunk({"functionCall": {"name": "f", "args": {"a": 9007199254740993}}}),
        chunk({"text": "", "thoughtSignature": "U0lH"}, finish="STOP"),
    ).parts
    assert call.kind == ToolCall("call_r_0", "f", '{"a": 9007199254740993}')
    assert call.provider_state is None
    assert text.kind == Text("")
    assert text.provider_state is not None
    assert json.loads(text.provider_state.data) == {"thoughtSignature": "U0lH"}


def test_thoughts_and_text_are_told_apart_in_one_chunk() -> None:
    parts = answer_of(
        chunk(
            {"text": "a", "thought": True}, {"text": "b", "thought": True}, {"text": "c"}, {"text": "", "thought": True}
        ),
        chunk({"text": "d", "thought": True, "thoughtSignature": "U0lH"}, finish="STOP"),
    ).parts
    assert [part.kind for part in parts] == [Reasoning("ab"), Text("c"), Reasoning("d")]
    assert [part.provider_state is None for part in parts] == [True, True, False]


@pytest.mark.parametrize("data", ["-_-_", "+/+/", "+/+/+w==", "-_-_-w"])
def test_media_in_both_alphabets_of_base64(data: str) -> None:
    (part,) = answer_of(chunk({"inlineData": {"mimeType": "image/png", "data": data}}, finish="STOP")).parts
    assert isinstance(part.kind, Media)
    assert part.kind.data is not None
    assert part.kind.data.startswith(b"\xfb\xff\xbf")


def test_media_by_reference_and_media_that_are_no_base64() -> None:
    (part,) = answer_of(chunk({"fileData": {"mimeType": "video/mp4", "fileUri": "gs://b/a"}}, finish="STOP")).parts
    assert part.kind == Media("video/mp4", uri="gs://b/a")
    assert fault_of(chunk({"inlineData": {"data": "a"}})).metadata == {"violation": "malformed"}


def test_a_part_of_an_unknown_kind_is_kept_as_it_came() -> None:
    part = {"thoughtSignature": "U0lH", "toolCall": {"toolType": "GOOGLE_SEARCH", "id": "1"}}
    thought = {"thought": True, "inlineData": {"mimeType": "image/png", "data": "AA=="}}
    answer = answer_of(chunk({"text": "a"}, part, thought, {"partMetadata": {}}, finish="STOP"))
    _, block, image = (found.kind for found in answer.parts)
    assert isinstance(block, ProviderBlock)
    assert isinstance(image, ProviderBlock)
    assert (block.kind, json.loads(block.json)) == ("toolCall", part)
    assert (image.kind, json.loads(image.json)) == ("inlineData", thought)


def test_other_candidates_are_not_read() -> None:
    first, second = chunk({"text": "a"}, finish="STOP"), chunk({"text": "b"}, finish="SAFETY", index=1)
    first["candidates"] += second["candidates"]
    assert [part.kind for part in answer_of(first).parts] == [Text("a")]


def test_sources_with_a_broken_character_keep_all_others() -> None:
    body = stream(
        chunk({"text": "Ja"}, groundingMetadata={"searchEntryPoint": {"renderedContent": "a@b"}}, finish="STOP")
    )
    events = decode(DIALECT, [body.replace(b"a@b", b"a\x80b")])
    assert any('"a\N{REPLACEMENT CHARACTER}b"' in repr(event) for event in events)


def test_sources_are_given_once_and_searches_counted() -> None:
    grounding = {
        "webSearchQueries": ["a", "b"],
        "groundingChunks": [{"web": {"uri": "https://example.com", "title": "E"}}, {}],
        "groundingSupports": [{"segment": {"endIndex": 2, "text": "Ja"}, "groundingChunkIndices": [0, 7]}],
    }
    repeated = (chunk({"text": "Ja"}, groundingMetadata=grounding), chunk(groundingMetadata=grounding, finish="STOP"))
    for quirks, count in ((QUIRKS, 2), (Quirks(counts_searches_once=True), 1)):
        answer = answer_of(*repeated, quirks=quirks)
        text, block = (part.kind for part in answer.parts)
        assert isinstance(text, Text)
        assert [(found.uri, found.text_span and found.text_span.end) for found in text.citations] == [
            ("https://example.com", 2)
        ]
        assert isinstance(block, ProviderBlock)
        assert json.loads(block.json) == {"groundingMetadata": grounding}
        assert answer.usage is not None
        assert answer.usage.tool_requests == (ToolRequests("web_search", count),)


def test_a_report_that_leaves_out_a_count_does_not_unsay_it() -> None:
    answer = answer_of(
        {
            **chunk({"text": "a"}),
            "usageMetadata": {"promptTokenCount": 5, "thoughtsTokenCount": 7, "totalTokenCount": 12},
        },
        {**chunk({"text": "b"}, finish="STOP"), "usageMetadata": {"promptTokenCount": 5, "candidatesTokenCount": 2}},
    )
    assert answer.usage is not None
    assert (answer.usage.input_tokens, answer.usage.output_tokens, answer.usage.reasoning_tokens) == (5, 9, 7)


def test_where_the_candidates_are_not_counted_the_total_tells() -> None:
    usage = {"promptTokenCount": 5, "toolUsePromptTokenCount": 3, "thoughtsTokenCount": 7, "totalTokenCount": 15}
    answer = answer_of({**chunk({"text": "a"}, finish="MAX_TOKENS"), "usageMetadata": usage})
    assert answer.usage is not None
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (8, 7)


@pytest.mark.parametrize(
    ("path", "is_right"),
    [
        ("$.a", True), ("$['a b'].c", True), ('$["a"][0]', True), ("a", False), ("$", False), ("$.a[1]", False),
        ("$.a..b", False), ("$[0]", False), ("$.a[999999]", False), ("$" + ".a" * 65, False), ("$['a", False),
    ],
)  # fmt: skip
def test_places_of_streamed_arguments(path: str, is_right: bool) -> None:
    piece = {"jsonPath": path, "stringValue": "x"}
    chunks = (chunk({"functionCall": {"name": "f", "partialArgs": [piece]}}), chunk(finish="STOP"))
    if is_right:
        ((part),) = answer_of(*chunks).parts
        assert isinstance(part.kind, ToolCall)
        assert "x" in part.kind.arguments_json
    else:
        assert fault_of(*chunks).metadata == {"violation": "malformed"}


def test_a_text_has_no_members() -> None:
    pieces = [{"jsonPath": "$.a", "stringValue": "x"}, {"jsonPath": "$.a.b", "stringValue": "x"}]
    assert fault_of(chunk({"functionCall": {"name": "f", "partialArgs": pieces}})).reason is (
        Reason.UPSTREAM_PROTOCOL_VIOLATION
    )


def test_a_streamed_call_that_is_not_continued_keeps_what_came() -> None:
    piece = {
        "functionCall": {"name": "f", "willContinue": True, "partialArgs": [{"jsonPath": "$.a", "numberValue": 1.50}]}
    }
    first, second = answer_of(chunk(piece), chunk({"functionCall": {"name": "g"}}, finish="MAX_TOKENS")).parts
    assert first.kind == ToolCall("call_r_0", "f", '{"a":1.5}')
    assert second.kind == ToolCall("call_r_1", "g", "{}")


@pytest.mark.parametrize("call", [{}, {"args": {}}, {"partialArgs": [{"jsonPath": "$.a", "stringValue": ""}]}])
def test_a_call_without_a_name(call: dict[str, Any]) -> None:
    assert fault_of(chunk({"functionCall": call})).metadata == {"violation": "tool_call_without_name"}


def test_arguments_that_are_no_object() -> None:
    assert fault_of(chunk({"functionCall": {"name": "f", "args": [1]}})).metadata == {"violation": "malformed"}


@pytest.mark.parametrize("body", [b"{}", b'{"candidates":[]}', b"[]", b'{"usageMetadata":{"promptTokenCount":1}}'])
def test_a_whole_body_without_an_answer(body: bytes) -> None:
    with pytest.raises(Fault) as caught:
        decode_body(DIALECT, body)
    assert caught.value.metadata == {"violation": "no_answer"}


@pytest.mark.parametrize("body", [b"<html>", b"[1]", b'"text"', b"[", b""])
def test_a_whole_body_that_is_something_else(body: bytes) -> None:
    with pytest.raises(Fault) as caught:
        decode_body(DIALECT, body)
    assert caught.value.metadata == {"violation": "malformed"}


def test_events_without_blank_lines_between_them() -> None:
    body = stream(chunk({"text": "a"}), chunk({"text": "b"}, finish="STOP")).replace(b"\r\n\r\n", b"\n")
    answer = run(DIALECT, body + b"\ndata: [DONE]\n\n").answer
    assert answer is not None
    assert [part.kind for part in answer.parts] == [Text("ab")]


def test_half_a_pair_of_surrogates() -> None:
    body = b'data: {"candidates":[{"content":{"parts":[{"text":"\\ud83d"}]},"finishReason":"STOP"}]}\n\n'
    answer = run(DIALECT, body).answer
    assert answer is not None
    assert answer.parts[0].kind == Text("�")
