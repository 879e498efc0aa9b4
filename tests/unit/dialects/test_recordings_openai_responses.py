"""Every shared recording of OpenAI responses, against the official SDK's own accumulation."""

import base64
import json
from typing import Any

import pytest
from openai import omit
from openai._models import construct_type
from openai.lib.streaming.responses._responses import ResponseStreamState
from openai.types.responses import (
    Response,
    ResponseFunctionToolCall,
    ResponseOutputMessage,
    ResponseReasoningItem,
    ResponseStreamEvent,
)

from router_service.core.content import Media, Part, ProviderBlock, Reasoning, Text, ToolCall
from router_service.core.events import FinishReason
from router_service.core.faults import Reason
from router_service.core.fold import Answer
from router_service.dialects.openai_responses import OpenAIResponses
from tests.suites.dialect_suite import (
    EXHAUSTIVE_BYTES,
    Recording,
    check_cuts,
    check_prefixes,
    is_whole_json,
    json_events,
    recordings,
    run,
)

DIALECT = OpenAIResponses()
RECORDINGS = recordings("openai-responses")
NEEDS_RECORDINGS = pytest.mark.skipif(not RECORDINGS, reason="no recordings: set KEYSWITCH_RECORDINGS")
COUNT = 71
# The SDK's types lack kinds of sources and servers' own fields; its accumulator warns when it copies them.
pytestmark = pytest.mark.filterwarnings("ignore:Pydantic serializer warnings:UserWarning")
CUTS = 40  # in each of the larger bodies, so some thousands in all

STREAM_FAULTS = {
    "openai-stream-unknown-error": Reason.UPSTREAM_UNAVAILABLE,
    "openai-stream-rate-limited": Reason.UPSTREAM_RATE_LIMITED,
    "fixtures-openai-error-1": Reason.UPSTREAM_BALANCE_EXHAUSTED,
    "fixtures-parallel-tool-call-wrapper": Reason.UPSTREAM_PROTOCOL_VIOLATION,  # two of its events lack a brace
}

ERRORS = {
    "xai-grok-4-1-fast-non-reasoning-raises-appropriate-auth-error": Reason.UPSTREAM_CREDENTIAL_REJECTED,
    "deepseek-responses-rejects-interleaved-function-calls": Reason.UPSTREAM_REJECTED_REQUEST,
    "handles-context-length-exceeded-errors": Reason.CONTEXT_TOO_LONG,
    "openai-gpt-5-nano-raises-appropriate-auth-error": Reason.UPSTREAM_CREDENTIAL_REJECTED,
    "test-inferred-model-name-suggestion": Reason.UPSTREAM_MODEL_MISSING,
}

CALLERS_CALLS = {"function_call", "local_shell_call", "apply_patch_call"}


def oracle(recording: Recording) -> Response:
    """What the SDK makes of it: of a stream its accumulated answer, and that of the last event where it has none."""
    if is_whole_json(recording.body):
        whole = construct_type(type_=Response, value=json.loads(recording.body))
        assert isinstance(whole, Response)
        return whole
    state: ResponseStreamState[None] = ResponseStreamState(input_tools=omit, text_format=omit)
    last = None
    for value in json_events(recording.body):
        if "bedrock-mantle-responses-chat" in recording.id and "content_index" in value:
            value["content_index"] = 0  # counted from 1 there, and the SDK takes it for a place in a list
        event: Any = construct_type(type_=ResponseStreamEvent, value=value)
        state.handle_event(event)
        last = getattr(event, "response", last)
    found = state._completed_response or last
    assert isinstance(found, Response)
    return found


def wanted_parts(answer: Response) -> list[tuple[str, str]]:
    """What there is in the output, in its order."""
    found: list[tuple[str, str]] = []
    for item in answer.output:
        if isinstance(item, ResponseOutputMessage):
            found += [("text", piece.text if piece.type == "output_text" else piece.refusal) for piece in item.content]
        elif isinstance(item, ResponseReasoningItem):
            pieces = [piece.text for piece in item.summary] or [piece.text for piece in item.content or ()]
            found.append(("reasoning", "\n\n".join(pieces)))
        elif isinstance(item, ResponseFunctionToolCall):
            found.append(("call", f"{item.call_id} {item.name} {item.arguments}"))
        elif item.type == "image_generation_call" and "..." not in (item.result or ""):
            found.append(("image", item.result or ""))
        else:
            found.append((item.type, getattr(item, "id", "") or ""))
    return found


def our_parts(answer: Answer) -> list[tuple[str, str]]:
    return [_our_part(part) for part in answer.parts]


def _our_part(part: Part) -> tuple[str, str]:
    match part.kind:
        case Text(text):
            return ("text", text)
        case Reasoning(text):
            return ("reasoning", text)
        case ToolCall(call_id, name, arguments):
            return ("call", f"{call_id} {name} {arguments}")
        case Media(data=bytes(data)):
            return ("image", base64.b64encode(data).decode())
        case ProviderBlock(kind=kind, json=block):
            return (kind, json.loads(block)["id"])
        case _:
            raise AssertionError(part)


def compare(recording: Recording, answer: Answer) -> None:
    wanted = oracle(recording)
    assert our_parts(answer) == wanted_parts(wanted)
    compare_sources(answer, wanted)
    compare_sealed(recording, answer)
    compare_end(answer, wanted)
    compare_usage(answer, wanted)


def compare_sources(answer: Answer, wanted: Response) -> None:
    ours = [
        (found.uri, found.title, found.text_span.start if found.text_span else None)
        for part in answer.parts
        if isinstance(part.kind, Text)
        for found in part.kind.citations
    ]
    assert ours == [
        (note.url, note.title or "", note.start_index)
        for item in wanted.output
        if isinstance(item, ResponseOutputMessage)
        for piece in item.content
        if piece.type == "output_text"
        for note in piece.annotations
        if note.type == "url_citation"
    ]


def compare_sealed(recording: Recording, answer: Answer) -> None:
    """Byte for byte, with its id, in its order. The last event of a stream has other seals than its items had."""
    states = [
        json.loads(part.provider_state.data)
        for part in answer.parts
        if isinstance(part.kind, Reasoning) and part.provider_state is not None
    ]
    ours = [(state["id"], state["encrypted_content"]) for state in states if "encrypted_content" in state]
    if is_whole_json(recording.body):
        items = json.loads(recording.body)["output"]
    else:
        ends = [event for event in json_events(recording.body) if event["type"] == "response.output_item.done"]
        items = [event["item"] for event in ends]
    assert ours == [
        (item["id"], item["encrypted_content"])
        for item in items
        if item["type"] == "reasoning" and item.get("encrypted_content")
    ]


def compare_end(answer: Answer, wanted: Response) -> None:
    assert answer.finish is not None
    assert answer.identity.model == wanted.model
    assert answer.identity.request_id == wanted.id
    if wanted.status == "incomplete":
        assert wanted.incomplete_details is not None
        assert wanted.incomplete_details.reason == answer.finish.provider_reason == "max_output_tokens"
        assert answer.finish.reason is FinishReason.LENGTH
        return
    assert answer.finish.provider_reason == wanted.status
    has_calls = any(item.type in CALLERS_CALLS for item in wanted.output)
    assert answer.finish.reason is (FinishReason.TOOL_CALLS if has_calls else FinishReason.STOP)


def compare_usage(answer: Answer, wanted: Response) -> None:
    assert (answer.usage is None) == (wanted.usage is None)
    if answer.usage is None or wanted.usage is None:
        return
    assert answer.usage.input_tokens == wanted.usage.input_tokens
    assert answer.usage.output_tokens == wanted.usage.output_tokens
    assert answer.usage.input_tokens + answer.usage.output_tokens == wanted.usage.total_tokens
    assert answer.usage.cache_read_tokens == wanted.usage.input_tokens_details.cached_tokens
    assert answer.usage.reasoning_tokens == wanted.usage.output_tokens_details.reasoning_tokens
    searches = [item for item in wanted.output if item.type == "web_search_call"]
    counted = sum(getattr(item.action, "type", "search") == "search" for item in searches)
    assert {tool.tool: tool.request_count for tool in answer.usage.tool_requests} == (
        {"web_search": counted} if counted else {}
    )


def expected_fault(recording: Recording) -> Reason | None:
    return next((reason for name, reason in STREAM_FAULTS.items() if name in recording.id), None)


def check(recording: Recording) -> None:
    outcome = run(DIALECT, recording.body)
    assert outcome.reason is expected_fault(recording)
    if outcome.answer is not None:
        compare(recording, outcome.answer)


@NEEDS_RECORDINGS
@pytest.mark.parametrize("recording", [r for r in RECORDINGS if r.status == 200], ids=lambda r: r.id)
def test_a_recorded_answer_is_what_the_sdk_makes_of_it(recording: Recording) -> None:
    check(recording)
    if not is_whole_json(recording.body):
        cuts = check_cuts(DIALECT, recording.body, run(DIALECT, recording.body), limit=CUTS)
        assert cuts == (CUTS if len(recording.body) >= EXHAUSTIVE_BYTES else len(recording.body) + 1)


def is_over(prefix: bytes) -> bool:
    ends = {"response.completed", "response.incomplete", "response.failed", "error"}
    return any(event.get("type") in ends for event in json_events(prefix))


STREAMS = [r for r in RECORDINGS if r.status == 200 and not is_whole_json(r.body)]


@NEEDS_RECORDINGS
@pytest.mark.parametrize("recording", [r for r in STREAMS if "parallel-tool-call" not in r.id], ids=lambda r: r.id)
def test_a_recorded_stream_that_breaks_off_is_truncated(recording: Recording) -> None:
    assert check_prefixes(DIALECT, recording.body, is_over) > 0


@NEEDS_RECORDINGS
@pytest.mark.parametrize("recording", [r for r in STREAMS if not expected_fault(r)], ids=lambda r: r.id)
def test_a_recorded_stream_is_the_same_as_its_last_event_read_as_a_body(recording: Recording) -> None:
    """What the server sends when it is not asked for events."""
    last = next(event for event in reversed(json_events(recording.body)) if "response" in event)
    ours, streamed = run(DIALECT, json.dumps(last["response"]).encode()).answer, run(DIALECT, recording.body).answer
    assert ours is not None
    assert streamed is not None
    if "openrouter" not in recording.id:  # the ids of its last event are not those of its items
        assert our_parts(ours) == our_parts(streamed)
    assert (ours.usage, ours.finish, ours.identity) == (streamed.usage, streamed.finish, streamed.identity)


@NEEDS_RECORDINGS
@pytest.mark.parametrize("recording", [r for r in RECORDINGS if r.status != 200], ids=lambda r: r.id)
def test_a_recorded_error_has_its_reason(recording: Recording) -> None:
    fault = DIALECT.decode_error(recording.status, recording.headers, recording.body)
    (reason,) = [wanted for name, wanted in ERRORS.items() if name in recording.id]
    assert fault.reason is reason
    assert fault.metadata["upstreamStatus"] == str(recording.status)


@NEEDS_RECORDINGS
def test_all_recordings_are_read(capsys: pytest.CaptureFixture[str]) -> None:
    read = 0
    for recording in RECORDINGS:
        if recording.status == 200:
            check(recording)
        else:
            DIALECT.decode_error(recording.status, recording.headers, recording.body)
        read += 1
    with capsys.disabled():
        print(f"\nrecordings openai_responses: {read}/{len(RECORDINGS)}")
    assert read == len(RECORDINGS) == COUNT
