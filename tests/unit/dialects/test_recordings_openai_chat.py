"""Every shared recording of OpenAI chat completions, against the official SDK's own accumulation."""

import json
from typing import Any

import pytest
from openai._models import construct_type
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types import CompletionUsage
from openai.types.chat import ChatCompletion, ChatCompletionChunk, ChatCompletionMessageCustomToolCall

from router_service.core.content import Reasoning, Text, ToolCall
from router_service.core.events import FinishReason
from router_service.core.faults import Reason
from router_service.core.fold import Answer
from router_service.dialects.openai_chat import OpenAIChat
from tests.suites.dialect_suite import (
    Recording,
    check_cuts,
    check_prefixes,
    is_whole_json,
    json_events,
    recordings,
    run,
)

DIALECT = OpenAIChat()
RECORDINGS = recordings("openai-chat")
NEEDS_RECORDINGS = pytest.mark.skipif(not RECORDINGS, reason="no recordings: set KEYSWITCH_RECORDINGS")

STREAM_FAULTS = {
    "test-openrouter-stream-error": Reason.UPSTREAM_REJECTED_REQUEST,
    "llama-3-3-70b-instruct-free-object-streaming": Reason.UPSTREAM_UNAVAILABLE,
    "test-groq-test-tool-use-failed-error-streaming-with-text": Reason.UPSTREAM_REJECTED_REQUEST,
    "test-groq-test-tool-use-failed-error-streaming.0": Reason.UPSTREAM_REJECTED_REQUEST,
    "llama-4-scout-17b-16e-instruct-object-streaming": Reason.UPSTREAM_REJECTED_REQUEST,
}

ERROR_REASONS = {
    400: Reason.UPSTREAM_REJECTED_REQUEST,
    401: Reason.UPSTREAM_CREDENTIAL_REJECTED,
    403: Reason.UPSTREAM_CREDENTIAL_REJECTED,
    404: Reason.UPSTREAM_MODEL_MISSING,
    429: Reason.UPSTREAM_RATE_LIMITED,
}
ERROR_EXCEPTIONS = {
    "context-length-exceeded-errors": {400: Reason.CONTEXT_TOO_LONG},
    "x-ai-grok-code-fast-1-reasoning-basic": {403: Reason.UPSTREAM_REJECTED_REQUEST},  # a flagged prompt
}

FINISH = {
    "stop": FinishReason.STOP,
    "length": FinishReason.LENGTH,
    "tool_calls": FinishReason.TOOL_CALLS,
    "function_call": FinishReason.TOOL_CALLS,
    "eos": FinishReason.STOP,
    "content_filter": FinishReason.CONTENT_FILTER,
}


def oracle(recording: Recording) -> ChatCompletion:
    """What the SDK makes of it."""
    if is_whole_json(recording.body):
        whole = construct_type(type_=ChatCompletion, value=json.loads(recording.body))
        assert isinstance(whole, ChatCompletion)
        return whole
    state: ChatCompletionStreamState[None] = ChatCompletionStreamState()
    ranks: dict[int, int] = {}  # the SDK takes a call's number for its place in a list; one server counts from 1
    for event in json_events(recording.body):
        chunk = construct_type(type_=ChatCompletionChunk, value=_for_the_sdk(event, ranks))
        assert isinstance(chunk, ChatCompletionChunk)
        state.handle_chunk(chunk)
    whole = state.current_completion_snapshot
    whole.usage = last_usage(recording)
    whole.model = next((event["model"] for event in json_events(recording.body) if event.get("model")), "")
    return whole


def _for_the_sdk(event: dict[str, Any], ranks: dict[int, int]) -> dict[str, Any]:
    """What the SDK's accumulator cannot read of other servers' chunks is taken out of its way, content never."""
    for choice in event.get("choices", ()):
        for call in choice.get("delta", {}).get("tool_calls") or ():
            call["index"] = ranks.setdefault(call["index"], len(ranks))
        choice.setdefault("finish_reason", None)
        delta = choice.get("delta", {})
        delta.pop("reasoning_details", None)
        delta.pop("executed_tools", None)
        content = delta.get("content")
        if isinstance(content, list):
            delta["content"] = "".join(block.get("text") or "" for block in content)
            delta["reasoning_content"] = "".join(
                piece["text"] for block in content for piece in block.get("thinking") or ()
            )
    return event


def plain_text(answer: Answer) -> str:
    return "".join(part.kind.text for part in answer.parts if isinstance(part.kind, Text))


def reasoning_text(answer: Answer) -> str:
    return "".join(part.kind.text for part in answer.parts if isinstance(part.kind, Reasoning))


def compare(answer: Answer, wanted: ChatCompletion) -> None:
    choice = wanted.choices[0]
    message = choice.message
    assert plain_text(answer) == (message.content or "") + (message.refusal or "")
    extra = message.model_extra or {}
    thought = extra.get("reasoning_content") or extra.get("reasoning") or ""
    assert reasoning_text(answer) == thought
    calls = [part.kind for part in answer.parts if isinstance(part.kind, ToolCall)]
    wanted_calls = [
        (call.id or f"call_{wanted.id[-24:]}_{number}", call.function.name, call.function.arguments or "{}")
        for number, call in enumerate(message.tool_calls or ())
        if not isinstance(call, ChatCompletionMessageCustomToolCall)
    ]
    assert [(call.id, call.name, call.arguments_json) for call in calls] == wanted_calls
    compare_end(answer, wanted)


def compare_end(answer: Answer, wanted: ChatCompletion) -> None:
    assert answer.finish is not None
    word = wanted.choices[0].finish_reason
    assert answer.finish.provider_reason == word
    calls = wanted.choices[0].message.tool_calls
    assert answer.finish.reason is (FinishReason.TOOL_CALLS if calls and word == "stop" else FINISH[word])
    assert answer.identity.model == wanted.model
    compare_usage(answer, wanted.usage)


def compare_usage(answer: Answer, usage: CompletionUsage | None) -> None:
    assert (answer.usage is None) == (usage is None)
    if usage is None or answer.usage is None:
        return
    outputs, inputs = usage.completion_tokens_details, usage.prompt_tokens_details
    thought = (outputs.reasoning_tokens if outputs else None) or 0
    cached = (inputs.cached_tokens if inputs else None) or 0
    total = usage.prompt_tokens + usage.completion_tokens + thought
    is_apart = thought > usage.completion_tokens or (thought and usage.total_tokens == total)
    assert answer.usage.input_tokens == usage.prompt_tokens + (cached if cached > usage.prompt_tokens else 0)
    assert answer.usage.output_tokens == usage.completion_tokens + (thought if is_apart else 0)
    assert (answer.usage.reasoning_tokens or 0) == thought
    if inputs is not None and inputs.cached_tokens is not None:
        assert answer.usage.cache_read_tokens == cached
    assert json.loads(answer.usage_json)["prompt_tokens"] == usage.prompt_tokens


def last_usage(recording: Recording) -> CompletionUsage | None:
    """The last report of a stream: the SDK's accumulator drops some that are not in their usual place."""
    found = None
    for event in json_events(recording.body):
        found = event.get("usage") or (event.get("x_groq") or {}).get("usage") or found
    return construct_type(type_=CompletionUsage, value=found) if found else None  # type: ignore[return-value] # the SDK's helper is untyped


def expected_fault(recording: Recording) -> Reason | None:
    return next((reason for name, reason in STREAM_FAULTS.items() if name in recording.id), None)


@NEEDS_RECORDINGS
@pytest.mark.parametrize("recording", [r for r in RECORDINGS if r.status == 200], ids=lambda r: r.id)
def test_a_recorded_answer_is_what_the_sdk_makes_of_it(recording: Recording) -> None:
    outcome = run(DIALECT, recording.body)
    assert outcome.reason is expected_fault(recording)
    if outcome.answer is not None:
        compare(outcome.answer, oracle(recording))
    if not is_whole_json(recording.body):
        check_cuts(DIALECT, recording.body, outcome, limit=8)


def has_finish_reason(prefix: bytes) -> bool:
    return any(choice.get("finish_reason") for event in json_events(prefix) for choice in event.get("choices", ()))


@NEEDS_RECORDINGS
@pytest.mark.parametrize(
    "recording",
    [r for r in RECORDINGS if r.status == 200 and not is_whole_json(r.body) and not expected_fault(r)],
    ids=lambda r: r.id,
)
def test_a_recorded_stream_that_breaks_off_is_truncated(recording: Recording) -> None:
    assert check_prefixes(DIALECT, recording.body, has_finish_reason) > 0


@NEEDS_RECORDINGS
@pytest.mark.parametrize("recording", [r for r in RECORDINGS if r.status != 200], ids=lambda r: r.id)
def test_a_recorded_error_has_its_reason(recording: Recording) -> None:
    fault = DIALECT.decode_error(recording.status, recording.headers, recording.body)
    wanted = ERROR_REASONS[recording.status]
    for name, by_status in ERROR_EXCEPTIONS.items():
        if name in recording.id:
            wanted = by_status.get(recording.status, wanted)
    assert fault.reason is wanted
    assert fault.metadata["upstreamStatus"] == str(recording.status)


@NEEDS_RECORDINGS
def test_all_recordings_are_read(capsys: pytest.CaptureFixture[str]) -> None:
    read = 0
    for recording in RECORDINGS:
        if recording.status == 200:
            outcome = run(DIALECT, recording.body)
            assert outcome.reason is expected_fault(recording)
            if outcome.answer is not None:
                compare(outcome.answer, oracle(recording))
        else:
            DIALECT.decode_error(recording.status, recording.headers, recording.body)
        read += 1
    with capsys.disabled():
        print(f"\nrecordings openai_chat: {read}/{len(RECORDINGS)}")
    assert read == len(RECORDINGS)
