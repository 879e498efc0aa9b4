"""Every shared recording of Gemini and Vertex, against the official SDK's own reading of each chunk."""

import json
import re
from typing import Any

import pytest
from google.genai import types
from google.genai.models import _GenerateContentResponse_from_mldev, _GenerateContentResponse_from_vertex

from router_service.core.content import Media, Part, ProviderBlock, Reasoning, Text, ToolCall
from router_service.core.events import FinishReason
from router_service.core.faults import Reason
from router_service.core.fold import Answer
from router_service.dialects.gemini import Gemini
from router_service.dialects.gemini_decode import METADATA_KINDS
from tests.suites.dialect_suite import (
    Recording,
    check_cuts,
    check_prefixes,
    is_whole_json,
    json_events,
    recordings,
    run,
)

DIALECT = Gemini()
NO_BASE64 = b"thought_abc123"  # the signature of a recording that somebody edited by hand
RECORDINGS = recordings("gemini")
NEEDS_RECORDINGS = pytest.mark.skipif(not RECORDINGS, reason="no recordings: set KEYSWITCH_RECORDINGS")

ERRORS = {
    "vertexai-gemini-2-5-flash-handles-context-length": (Reason.CONTEXT_TOO_LONG, None),
    "raises-appropriate-auth-error": (Reason.UPSTREAM_CREDENTIAL_REJECTED, None),
    "gemini-gemini-2-5-flash-handles-context-length": (Reason.UPSTREAM_RATE_LIMITED, 48.0),
    "generate-content-invalid-role": (Reason.UPSTREAM_REJECTED_REQUEST, None),
    "model-name-suggestion-google": (Reason.UPSTREAM_MODEL_MISSING, None),
    "gemini-2-5-flash-image-object-basic": (Reason.UPSTREAM_REJECTED_REQUEST, None),
    "generate-content-missing-model": (Reason.UPSTREAM_MODEL_MISSING, None),
    "gemini-live-2-5-flash-basic": (Reason.UPSTREAM_MODEL_MISSING, None),
}

FINISH = {
    types.FinishReason.STOP: FinishReason.STOP,
    types.FinishReason.MAX_TOKENS: FinishReason.LENGTH,
    types.FinishReason.SAFETY: FinishReason.CONTENT_FILTER,
    types.FinishReason.RECITATION: FinishReason.CONTENT_FILTER,
}


def oracle(recording: Recording) -> list[types.GenerateContentResponse]:
    """The chunks as the SDK reads them."""
    convert = _GenerateContentResponse_from_vertex
    if recording.provider == "gemini" and "stream-tool-call-arguments" not in recording.id:  # that one is of Vertex
        convert = _GenerateContentResponse_from_mldev
    values = [convert(value) for value in values_of(recording.body)]
    return [types.GenerateContentResponse._from_response(response=value, kwargs={}) for value in values]


def values_of(body: bytes) -> list[dict[str, Any]]:
    return [json.loads(body)] if is_whole_json(body) else json_events(body.replace(NO_BASE64, b"AAAA"))


def wire_parts(chunks: list[types.GenerateContentResponse]) -> list[types.Part]:
    candidates = [candidate for chunk in chunks for candidate in chunk.candidates or ()]
    return [part for found in candidates if found.content is not None for part in found.content.parts or ()]


def runs(parts: list[types.Part]) -> list[tuple[str, str]]:
    """The kinds of content in their order, neighbours of one kind joined."""
    found: list[tuple[str, str]] = []
    for part in parts:
        text = part.text or ""
        if part.function_call is not None:
            if part.function_call.name:
                found.append(("call", part.function_call.name))
        elif part.inline_data is not None:
            found.append(("media", part.inline_data.mime_type or ""))
        elif part.executable_code is not None:
            found.append(("executableCode", part.executable_code.code or ""))
        elif part.code_execution_result is not None:
            found.append(("codeExecutionResult", part.code_execution_result.output or ""))
        elif text or part.thought_signature:
            kind = "thought" if part.thought else "text"
            if found and found[-1][0] == kind:
                text = found.pop()[1] + text
            found.append((kind, text))
    return found


def our_runs(answer: Answer) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for part in answer.parts:
        match part.kind:
            case Text(text):
                found.append(("text", text))
            case Reasoning(text):
                found.append(("thought", text))
            case ToolCall(name=name):
                found.append(("call", name))
            case Media(media_type=media_type):
                found.append(("media", media_type))
            case ProviderBlock(kind=kind, json=block) if kind not in METADATA_KINDS:
                value = json.loads(block)[kind]
                found.append((kind, value.get("code") or value["output"]))
            case ProviderBlock():
                pass
            case _:
                raise AssertionError(part)
    return found


def compare(recording: Recording, answer: Answer) -> None:
    chunks = oracle(recording)
    parts = wire_parts(chunks)
    assert our_runs(answer) == runs(parts)
    compare_calls(answer, parts)
    compare_media(answer, parts)
    compare_signatures(recording, answer)
    compare_end(answer, chunks)
    compare_usage(answer, chunks)
    compare_sources(answer, chunks)


def compare_calls(answer: Answer, parts: list[types.Part]) -> None:
    calls = [part.kind for part in answer.parts if isinstance(part.kind, ToolCall)]
    assert len({call.id for call in calls}) == len(calls)
    wanted = [part.function_call for part in parts if part.function_call and part.function_call.name]
    for call, found in zip(calls, wanted, strict=True):
        assert call.id == found.id or found.id is None
        if not found.will_continue:
            assert json.loads(call.arguments_json) == (found.args or {})
    pieces = [p for part in parts if part.function_call for p in part.function_call.partial_args or ()]
    if pieces:
        assert [json.loads(call.arguments_json) for call in calls] == [
            {"location": "Boston"},
            {"location": "San Francisco"},
        ]
        assert "".join(piece.string_value or "" for piece in pieces) == "BostonSan Francisco"


def compare_media(answer: Answer, parts: list[types.Part]) -> None:
    media = [part.kind.data for part in answer.parts if isinstance(part.kind, Media)]
    assert media == [part.inline_data.data for part in parts if part.inline_data]


def signatures_of(part: Part) -> list[str]:
    if part.provider_state is None:
        return []
    state = json.loads(part.provider_state.data)
    found = [state.get("thoughtSignature"), *(piece.get("thoughtSignature") for piece in state.get("pieces", ()))]
    return [signature for signature in found if signature]


def compare_signatures(recording: Recording, answer: Answer) -> None:
    """Byte for byte as they came, in their order."""
    ours = [signature for part in answer.parts for signature in signatures_of(part)]
    wanted = re.findall(rb'"thoughtSignature": *"([^"]*)"', recording.body)
    assert ours == [signature.decode() for signature in wanted]


def compare_end(answer: Answer, chunks: list[types.GenerateContentResponse]) -> None:
    assert answer.finish is not None
    words = [found.finish_reason for chunk in chunks for found in chunk.candidates or () if found.finish_reason]
    blocks = [chunk.prompt_feedback for chunk in chunks if chunk.prompt_feedback is not None and not chunk.candidates]
    if blocks and not words:
        assert answer.finish.reason is FinishReason.CONTENT_FILTER
        assert answer.finish.provider_reason == (blocks[-1].block_reason.value if blocks[-1].block_reason else "")
    else:
        has_calls = any(isinstance(part.kind, ToolCall) for part in answer.parts)
        wanted = FINISH[words[-1]]
        assert answer.finish.provider_reason == words[-1].value
        assert answer.finish.reason is (FinishReason.TOOL_CALLS if has_calls else wanted)
    assert answer.identity.model == (next((c.model_version for c in reversed(chunks) if c.model_version), ""))
    assert answer.identity.request_id == (next((c.response_id for c in chunks if c.response_id), ""))


def compare_usage(answer: Answer, chunks: list[types.GenerateContentResponse]) -> None:
    reports = [
        chunk.usage_metadata for chunk in chunks if chunk.usage_metadata and chunk.usage_metadata.total_token_count
    ]
    assert (answer.usage is None) == (not reports)
    if answer.usage is None:
        return
    last = reports[-1]
    assert answer.usage.input_tokens == (last.prompt_token_count or 0) + (last.tool_use_prompt_token_count or 0)
    assert (answer.usage.reasoning_tokens or 0) == (last.thoughts_token_count or 0)
    assert answer.usage.cache_read_tokens == last.cached_content_token_count
    assert answer.usage.output_tokens is not None
    if last.candidates_token_count is not None:
        assert answer.usage.output_tokens == last.candidates_token_count + (last.thoughts_token_count or 0)
    if "image-invalid-safety-ratings" not in answer.usage_json:
        assert answer.usage.input_tokens + answer.usage.output_tokens == last.total_token_count


def compare_sources(answer: Answer, chunks: list[types.GenerateContentResponse]) -> None:
    uris = {citation.uri for part in answer.parts if isinstance(part.kind, Text) for citation in part.kind.citations}
    wanted = set()
    for candidate in (candidate for chunk in chunks for candidate in chunk.candidates or ()):
        if candidate.citation_metadata:
            wanted |= {found.uri for found in candidate.citation_metadata.citations or ()}
        if candidate.grounding_metadata:
            wanted |= {found.web.uri for found in candidate.grounding_metadata.grounding_chunks or () if found.web}
    assert uris == wanted


@NEEDS_RECORDINGS
@pytest.mark.parametrize("recording", [r for r in RECORDINGS if r.status == 200], ids=lambda r: r.id)
def test_a_recorded_answer_is_what_the_sdk_makes_of_it(recording: Recording) -> None:
    outcome = run(DIALECT, recording.body)
    assert outcome.answer is not None, outcome
    compare(recording, outcome.answer)
    if not is_whole_json(recording.body):
        check_cuts(DIALECT, recording.body, outcome, limit=8)


@NEEDS_RECORDINGS
@pytest.mark.parametrize(
    "recording", [r for r in RECORDINGS if r.status == 200 and not is_whole_json(r.body)], ids=lambda r: r.id
)
def test_a_recorded_stream_is_the_same_as_a_list_of_its_chunks(recording: Recording) -> None:
    """What the server sends when it is not asked for events."""
    whole = json.dumps(json_events(recording.body)).encode()
    ours, streamed = run(DIALECT, whole).answer, run(DIALECT, recording.body).answer
    assert ours is not None
    assert streamed is not None
    assert our_runs(ours) == our_runs(streamed)
    assert (ours.usage, ours.finish, ours.identity) == (streamed.usage, streamed.finish, streamed.identity)


def is_over(prefix: bytes) -> bool:
    events: list[dict[str, Any]] = json_events(prefix)
    return any(
        "blockReason" in event.get("promptFeedback", {})
        or any(candidate.get("finishReason") for candidate in event.get("candidates", ()))
        for event in events
    )


@NEEDS_RECORDINGS
@pytest.mark.parametrize(
    "recording", [r for r in RECORDINGS if r.status == 200 and not is_whole_json(r.body)], ids=lambda r: r.id
)
def test_a_recorded_stream_that_breaks_off_is_truncated(recording: Recording) -> None:
    assert check_prefixes(DIALECT, recording.body, is_over) > 0


@NEEDS_RECORDINGS
@pytest.mark.parametrize("recording", [r for r in RECORDINGS if r.status != 200], ids=lambda r: r.id)
def test_a_recorded_error_has_its_reason(recording: Recording) -> None:
    fault = DIALECT.decode_error(recording.status, recording.headers, recording.body)
    ((reason, wait),) = [wanted for name, wanted in ERRORS.items() if name in recording.id]
    assert fault.reason is reason
    assert fault.retry_after_seconds == wait
    assert fault.metadata["upstreamStatus"] == str(recording.status)


@NEEDS_RECORDINGS
def test_all_recordings_are_read(capsys: pytest.CaptureFixture[str]) -> None:
    read = 0
    for recording in RECORDINGS:
        if recording.status == 200:
            answer = run(DIALECT, recording.body).answer
            assert answer is not None
            compare(recording, answer)
        else:
            DIALECT.decode_error(recording.status, recording.headers, recording.body)
        read += 1
    with capsys.disabled():
        print(f"\nrecordings gemini: {read}/{len(RECORDINGS)}")
    assert read == len(RECORDINGS)
