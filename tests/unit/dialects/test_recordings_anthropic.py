"""Every shared recording of Anthropic messages, against the official SDK's own accumulation."""

import json
from typing import Any

import httpx2
import pytest
from anthropic._models import construct_type
from anthropic.lib.streaming._beta_messages import accumulate_event
from anthropic.types.beta import BetaMessage, BetaRawMessageStreamEvent

from router_service.core.content import Part, ProviderBlock, Reasoning, Text, ToolCall
from router_service.core.events import FinishReason
from router_service.core.faults import Reason
from router_service.core.fold import Answer
from router_service.dialects.anthropic_messages import AnthropicMessages
from tests.suites.dialect_suite import (
    Recording,
    check_cuts,
    check_prefixes,
    is_whole_json,
    json_events,
    recordings,
    run,
)

DIALECT = AnthropicMessages()
RECORDINGS = recordings("anthropic-messages")
NEEDS_RECORDINGS = pytest.mark.skipif(not RECORDINGS, reason="no recordings: set KEYSWITCH_RECORDINGS")

ERROR_REASONS = {
    "raises-appropriate-auth-error": Reason.UPSTREAM_CREDENTIAL_REJECTED,
    "context-length-exceeded-errors": Reason.CONTEXT_TOO_LONG,
    "xhigh-unsupported-model-errors": Reason.UPSTREAM_REJECTED_REQUEST,
    "model-name-suggestion": Reason.UPSTREAM_MODEL_MISSING,
    "claude-3-sonnet-20240229-basic": Reason.UPSTREAM_MODEL_MISSING,
}

FINISH = {
    "end_turn": FinishReason.STOP,
    "stop_sequence": FinishReason.STOP,
    "max_tokens": FinishReason.LENGTH,
    "model_context_window_exceeded": FinishReason.LENGTH,
    "tool_use": FinishReason.TOOL_CALLS,
    "pause_turn": FinishReason.PAUSED,
    "refusal": FinishReason.REFUSAL,
}


def oracle(recording: Recording) -> dict[str, Any]:
    """What the SDK makes of it, as JSON."""
    if is_whole_json(recording.body):
        whole: Any = construct_type(type_=BetaMessage, value=json.loads(recording.body))
    else:
        whole, buffers = None, dict[int, bytes]()
        for event in json_events(recording.body):
            if event["type"] == "ping":
                continue
            typed: Any = construct_type(type_=BetaRawMessageStreamEvent, value=event)
            whole = accumulate_event(
                event=typed, current_snapshot=whole, json_bufs=buffers, request_headers=httpx2.Headers()
            )
            if event["type"] == "message_stop":
                break  # one recording holds a second answer after the first
    found: dict[str, Any] = json.loads(whole.to_json(indent=None, warnings=False))
    return found


def compare_part(part: Part, block: dict[str, Any]) -> None:
    kind, state = part.kind, json.loads(part.provider_state.data) if part.provider_state else None
    match block["type"]:
        case "text":
            assert isinstance(kind, Text)
            assert kind.text == block["text"]
            citations = block.get("citations") or []
            assert [found.quote for found in kind.citations] == [wanted["cited_text"] for wanted in citations]
            assert (state or {}).get("citations", []) == citations
        case "thinking":
            assert kind == Reasoning(block["thinking"])
            assert state == {"type": "thinking", "thinking": block["thinking"], "signature": block["signature"]}
        case "redacted_thinking":
            assert kind == Reasoning("")
            assert state == {"type": "redacted_thinking", "data": block["data"]}
        case "tool_use":
            assert isinstance(kind, ToolCall)
            assert (kind.id, kind.name, json.loads(kind.arguments_json)) == (block["id"], block["name"], block["input"])
        case other:
            assert isinstance(kind, ProviderBlock)
            assert kind.kind == other
            assert json.loads(kind.json) == block


def compare(answer: Answer, wanted: dict[str, Any]) -> None:
    assert len(answer.parts) == len(wanted["content"])
    for part, block in zip(answer.parts, wanted["content"], strict=True):
        compare_part(part, block)
    assert answer.finish is not None
    assert answer.finish.provider_reason == wanted["stop_reason"]
    assert answer.finish.reason is FINISH[wanted["stop_reason"]]
    assert (answer.identity.request_id, answer.identity.model) == (wanted["id"], wanted["model"])
    usage, report = answer.usage, wanted["usage"]
    assert usage is not None
    written, read = report.get("cache_creation_input_tokens"), report.get("cache_read_input_tokens")
    assert usage.input_tokens == report["input_tokens"] + (written or 0) + (read or 0)
    assert (usage.cache_write_tokens, usage.cache_read_tokens) == (written, read)
    assert usage.output_tokens == report["output_tokens"]
    assert usage.reasoning_tokens == (report.get("output_tokens_details") or {}).get("thinking_tokens")
    requests = {f"{found.tool}_requests": found.request_count for found in usage.tool_requests}
    assert requests == {name: number for name, number in (report.get("server_tool_use") or {}).items() if number}


@NEEDS_RECORDINGS
@pytest.mark.parametrize("recording", [r for r in RECORDINGS if r.status == 200], ids=lambda r: r.id)
def test_a_recorded_answer_is_what_the_sdk_makes_of_it(recording: Recording) -> None:
    outcome = run(DIALECT, recording.body)
    assert outcome.answer is not None
    compare(outcome.answer, oracle(recording))
    if not is_whole_json(recording.body):
        check_cuts(DIALECT, recording.body, outcome, limit=8)


@NEEDS_RECORDINGS
@pytest.mark.parametrize(
    "recording", [r for r in RECORDINGS if r.status == 200 and not is_whole_json(r.body)], ids=lambda r: r.id
)
def test_a_recorded_stream_that_breaks_off_is_truncated(recording: Recording) -> None:
    assert check_prefixes(DIALECT, recording.body, lambda prefix: b'"message_stop"' in prefix) > 2


@NEEDS_RECORDINGS
@pytest.mark.parametrize("recording", [r for r in RECORDINGS if r.status != 200], ids=lambda r: r.id)
def test_a_recorded_error_has_its_reason(recording: Recording) -> None:
    fault = DIALECT.decode_error(recording.status, recording.headers, recording.body)
    assert fault.reason is next(reason for name, reason in ERROR_REASONS.items() if name in recording.id)
    assert fault.metadata["upstreamStatus"] == str(recording.status)


@NEEDS_RECORDINGS
def test_all_recordings_are_read(capsys: pytest.CaptureFixture[str]) -> None:
    read = 0
    for recording in RECORDINGS:
        if recording.status == 200:
            outcome = run(DIALECT, recording.body)
            assert outcome.answer is not None
            compare(outcome.answer, oracle(recording))
        else:
            DIALECT.decode_error(recording.status, recording.headers, recording.body)
        read += 1
    with capsys.disabled():
        print(f"\nrecordings anthropic_messages: {read}/{len(RECORDINGS)}")
    assert read == len(RECORDINGS)
