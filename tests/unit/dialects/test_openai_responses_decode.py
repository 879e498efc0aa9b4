"""What is read of OpenAI's Responses wire, beyond the fixtures: servers that leave things out or break the order."""

import json
from typing import Any

import pytest

from router_service.core.content import Media, ProviderBlock, Reasoning, Text, ToolCall
from router_service.core.events import FinishReason, TextDelta
from router_service.core.faults import Reason
from router_service.dialects.openai_responses import OpenAIResponses
from tests.suites.dialect_suite import Outcome, decode, run

DIALECT = OpenAIResponses()
CREATED = {"type": "response.created", "response": {"id": "resp_1", "model": "m", "status": "in_progress"}}
MESSAGE = {"type": "message", "id": "msg_1", "role": "assistant", "content": []}
CALL = {"type": "function_call", "id": "fc_1", "call_id": "call_a", "name": "add", "arguments": ""}


def stream(*events: dict[str, Any]) -> bytes:
    return b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)


def added(number: int, item: dict[str, Any]) -> dict[str, Any]:
    return {"type": "response.output_item.added", "output_index": number, "item": item}


def done(number: int, item: dict[str, Any]) -> dict[str, Any]:
    return {"type": "response.output_item.done", "output_index": number, "item": item}


def text(number: int, delta: str, place: int = 0) -> dict[str, Any]:
    return {"type": "response.output_text.delta", "output_index": number, "content_index": place, "delta": delta}


def arguments(number: int, delta: str) -> dict[str, Any]:
    return {"type": "response.function_call_arguments.delta", "output_index": number, "delta": delta}


def end(kind: str = "completed", **fields: Any) -> dict[str, Any]:
    return {"type": f"response.{kind}", "response": {"id": "resp_1", "model": "m", "status": kind, **fields}}


def message(content: str) -> dict[str, Any]:
    return {**MESSAGE, "content": [{"type": "output_text", "text": content, "annotations": []}]}


def kinds(outcome: Outcome) -> list[object]:
    assert outcome.answer is not None, outcome
    return [part.kind for part in outcome.answer.parts]


def violation(outcome: Outcome) -> str:
    assert outcome.reason is Reason.UPSTREAM_PROTOCOL_VIOLATION
    return outcome.metadata["violation"]


@pytest.mark.parametrize(
    "events",
    [
        (text(0, "x"),),
        (added(0, CALL), text(0, "x")),
        (added(0, MESSAGE), arguments(0, "{}")),
        (added(0, MESSAGE), {"type": "response.reasoning_text.delta", "output_index": 0, "delta": "x"}),
        (added(0, MESSAGE), added(0, CALL)),
        (added(0, MESSAGE), done(0, MESSAGE), added(0, MESSAGE)),
        (added(0, MESSAGE), done(0, CALL)),
        (added(0, MESSAGE), done(0, message("x")), text(0, "y")),
        (added(0, MESSAGE), end(output=[CALL])),
    ],
)
def test_what_does_not_belong_together_is_a_violation(events: tuple[dict[str, Any], ...]) -> None:
    assert violation(run(DIALECT, stream(CREATED, *events, end()))) == "order"


def test_a_piece_is_not_continued_after_its_end() -> None:
    piece = {"type": "output_text", "text": "x"}
    stop = {"type": "response.content_part.done", "output_index": 0, "content_index": 0, "part": piece}
    assert violation(run(DIALECT, stream(CREATED, added(0, MESSAGE), stop, text(0, "y"), end()))) == "order"


def test_a_call_without_a_name_is_a_violation() -> None:
    assert violation(run(DIALECT, stream(CREATED, added(0, {**CALL, "name": ""}), end()))) == "tool_call_without_name"


def test_interleaved_items_are_told_apart() -> None:
    body = stream(
        CREATED,
        added(0, MESSAGE),
        text(0, "a"),
        added(1, CALL),
        added(2, {**CALL, "id": "fc_2", "call_id": "call_b"}),
        arguments(2, '{"n":'),
        arguments(1, "{}"),
        text(0, "b"),
        arguments(2, "2}"),
        end(),
    )
    assert kinds(run(DIALECT, body)) == [
        Text("ab"),
        ToolCall("call_a", "add", "{}"),
        ToolCall("call_b", "add", '{"n":2}'),
    ]


def test_a_server_may_say_only_the_ends() -> None:
    outcome = run(DIALECT, stream(CREATED, done(0, message("x")), done(1, {**CALL, "arguments": '{"n":1}'}), end()))
    assert kinds(outcome) == [Text("x"), ToolCall("call_a", "add", '{"n":1}')]


def test_an_end_that_is_repeated_says_nothing_new() -> None:
    body = stream(CREATED, added(0, MESSAGE), text(0, "x"), done(0, message("x")), done(0, message("x")), end())
    assert kinds(run(DIALECT, body)) == [Text("x")]


def test_an_end_adds_what_the_deltas_left_out() -> None:
    body = stream(CREATED, added(0, MESSAGE), text(0, "Gr"), end(output=[message("Grüße")]))
    assert [event.text for event in decode(DIALECT, [body]) if isinstance(event, TextDelta)] == ["Gr", "üße"]


def test_what_was_streamed_stands_where_the_end_says_otherwise() -> None:
    body = stream(CREATED, added(0, MESSAGE), text(0, "yes"), done(0, message("no")), end(output=[message("no")]))
    assert kinds(run(DIALECT, body)) == [Text("yes")]


def test_an_answer_without_usage_has_none() -> None:
    outcome = run(DIALECT, stream(CREATED, done(0, message("x")), end()))
    assert outcome.answer is not None
    assert outcome.answer.usage is None


def test_a_part_of_the_usage_is_never_larger_than_its_whole() -> None:
    usage = {"input_tokens": 5, "input_tokens_details": {"cached_tokens": 9}, "output_tokens": 2.0}
    outcome = run(DIALECT, stream(CREATED, end(usage=usage)))
    assert outcome.answer is not None
    assert outcome.answer.usage is not None
    assert (outcome.answer.usage.cache_read_tokens, outcome.answer.usage.output_tokens) == (5, 2)


@pytest.mark.parametrize(
    ("fields", "reason", "word"),
    [
        ({"incomplete_details": {"reason": "max_output_tokens"}}, FinishReason.LENGTH, "max_output_tokens"),
        ({"incomplete_details": {"reason": "content_filter"}}, FinishReason.CONTENT_FILTER, "content_filter"),
        ({"incomplete_details": {"reason": "new_word"}}, FinishReason.UNKNOWN, "new_word"),
        ({"incomplete_details": None}, FinishReason.UNKNOWN, "incomplete"),
    ],
)
def test_an_incomplete_answer_says_why(fields: dict[str, Any], reason: FinishReason, word: str) -> None:
    answer = run(DIALECT, stream(CREATED, end("incomplete", **fields))).answer
    assert answer is not None
    assert answer.finish is not None
    assert (answer.finish.reason, answer.finish.provider_reason) == (reason, word)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("server_error", Reason.UPSTREAM_UNAVAILABLE),
        ("rate_limit_exceeded", Reason.UPSTREAM_RATE_LIMITED),
        ("insufficient_quota", Reason.UPSTREAM_BALANCE_EXHAUSTED),
        ("invalid_prompt", Reason.UPSTREAM_REJECTED_REQUEST),
        ("failed_to_download_image", Reason.UPSTREAM_REJECTED_REQUEST),
        ("context_length_exceeded", Reason.CONTEXT_TOO_LONG),
        ("vector_store_timeout", Reason.UPSTREAM_UNAVAILABLE),
    ],
)
def test_a_failure_is_the_same_in_every_place(code: str, reason: Reason) -> None:
    error = {"code": code, "message": "words"}
    failed = end("failed", error=error, output=[])
    for body in (
        stream(CREATED, {"type": "error", **error, "param": None}),
        stream(CREATED, {"type": "error", "error": error}),
        stream(CREATED, failed),
        json.dumps(failed["response"]).encode(),
        json.dumps({"error": error}).encode(),
    ):
        assert run(DIALECT, body).reason is reason


def test_an_event_named_error_that_is_no_json_is_an_error() -> None:
    assert run(DIALECT, b"event: error\ndata: upstream gone\n\n").reason is Reason.UPSTREAM_UNAVAILABLE


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"<html><body>Bad gateway</body></html>", "truncated"),
        (b"data: [DONE]\n\n", "truncated"),
        (stream(CREATED) + b"data: [DONE]\n\n", "truncated"),
        (b'{"id":"r","status":"in_progress","output":[]}', "no_answer"),
        (b'{"id":"r","status":"queued","output":[]}', "no_answer"),
        (b"[1]", "malformed"),
    ],
)
def test_what_is_no_answer_is_a_violation(body: bytes, kind: str) -> None:
    assert violation(run(DIALECT, body)) == kind


def test_a_cancelled_answer_is_a_failure() -> None:
    assert run(DIALECT, b'{"id":"r","status":"cancelled","output":[]}').reason is Reason.UPSTREAM_UNAVAILABLE


def test_nothing_is_read_after_the_end() -> None:
    assert kinds(run(DIALECT, stream(CREATED, end(), added(0, MESSAGE), {"type": "error"}))) == []


def test_summaries_win_over_the_full_text_of_reasoning() -> None:
    """They say the same; the one that comes first is shown."""
    item = {"type": "reasoning", "id": "rs_1", "summary": []}
    summary = {
        "type": "response.reasoning_summary_text.delta",
        "output_index": 0,
        "summary_index": 0,
        "delta": "Short.",
    }
    full = {"type": "response.reasoning_text.delta", "output_index": 0, "content_index": 0, "delta": "Long."}
    whole = {
        **item,
        "summary": [{"type": "summary_text", "text": "Short."}],
        "content": [{"type": "reasoning_text", "text": "Long."}],
    }
    assert kinds(run(DIALECT, stream(CREATED, added(0, item), summary, full, done(0, whole), end()))) == [
        Reasoning("Short.")
    ]
    assert kinds(run(DIALECT, stream(CREATED, done(0, whole), end()))) == [Reasoning("Short.")]


def test_an_image_that_is_no_base64_is_a_block() -> None:
    item = {"type": "image_generation_call", "id": "ig_1", "result": "not base64"}
    assert kinds(run(DIALECT, stream(CREATED, done(0, item), end()))) == [
        ProviderBlock("openai_responses", "image_generation_call", json.dumps(item))
    ]


@pytest.mark.parametrize(
    ("result", "media_type"), [("/9j/AAAA", "image/jpeg"), ("iVBORw0K", "image/png"), ("R0lGODlh", "image/gif")]
)
def test_an_image_without_a_format_is_known_by_its_head(result: str, media_type: str) -> None:
    item = {"type": "image_generation_call", "id": "ig_1", "result": result}
    (image,) = kinds(run(DIALECT, stream(CREATED, done(0, item), end())))
    assert isinstance(image, Media)
    assert image.media_type == media_type


@pytest.mark.parametrize(
    "item",
    [
        {"type": "custom_tool_call", "id": "ctc_1", "call_id": "c", "name": "n", "input": "x"},
        {"type": "tool_search_call", "id": "tsc_1", "execution": "client"},
        {"type": "mcp_approval_request", "id": "mcpr_1"},
    ],
)
def test_a_call_that_the_caller_runs_ends_the_answer_as_a_tool_call(item: dict[str, Any]) -> None:
    answer = run(DIALECT, stream(CREATED, done(0, item), end())).answer
    assert answer is not None
    assert answer.finish is not None
    assert answer.finish.reason is FinishReason.TOOL_CALLS
