"""Every shared recording of Bedrock's Converse, against botocore's own reading of it."""

import base64
import json
from typing import Any

import pytest

from router_service.core.content import ProviderBlock, Reasoning, Text, ToolCall
from router_service.core.events import FinishReason
from router_service.core.faults import Reason
from router_service.core.fold import Answer
from router_service.dialects.bedrock_converse import BedrockConverse
from router_service.dialects.bedrock_decode import TRACE
from tests.suites.aws_oracle import read_body, read_stream
from tests.suites.dialect_suite import Recording, check_cuts, check_prefixes, is_whole_json, recordings, run

DIALECT = BedrockConverse()
RECORDINGS = recordings("bedrock-converse")
ANSWERS = [r for r in RECORDINGS if r.status == 200]
STREAMS = [r for r in ANSWERS if not is_whole_json(r.body)]
NEEDS_RECORDINGS = pytest.mark.skipif(not RECORDINGS, reason="no recordings: set KEYSWITCH_RECORDINGS")

ERRORS = {
    "handles-context-length-exceeded-errors": Reason.CONTEXT_TOO_LONG,
    "raises-appropriate-auth-error": Reason.UPSTREAM_CREDENTIAL_REJECTED,
    "uploaded-file-image-bedrock-claude": Reason.UPSTREAM_REJECTED_REQUEST,
}

FINISH = {
    "end_turn": FinishReason.STOP,
    "tool_use": FinishReason.TOOL_CALLS,
    "max_tokens": FinishReason.LENGTH,
    "guardrail_intervened": FinishReason.CONTENT_FILTER,
}


def wanted_blocks(recording: Recording) -> tuple[list[tuple[Any, ...]], str, dict[str, Any], Any]:
    """The blocks that botocore reads, the stop reason, the usage and the trace."""
    if is_whole_json(recording.body):
        whole = read_body(recording.body)
        blocks = [block_of([block]) for block in whole["output"]["message"]["content"]]
        return [block for block in blocks if block], whole["stopReason"], whole["usage"], whole.get("trace")
    pieces: dict[int, list[dict[str, Any]]] = {}
    stop, usage, trace = "", {}, None
    for event in read_stream(recording.body):
        ((kind, value),) = event.items()
        if kind in {"contentBlockStart", "contentBlockDelta"}:
            pieces.setdefault(value["contentBlockIndex"], []).append(value.get("start") or value.get("delta") or {})
        elif kind == "messageStop":
            stop = value["stopReason"]
        elif kind == "metadata":
            usage, trace = value["usage"], value.get("trace")
    return [block for block in map(block_of, pieces.values()) if block], stop, usage, trace


def block_of(pieces: list[dict[str, Any]]) -> tuple[Any, ...] | None:
    """A block from its pieces, or from itself; None for one that is empty."""
    kinds = {kind for piece in pieces for kind in piece}
    if kinds == {"toolUse"}:
        uses = [piece["toolUse"] for piece in pieces]
        texts = [use["input"] for use in uses if isinstance(use.get("input"), str)]
        given = json.loads("".join(texts) or "{}") if texts or "input" not in uses[0] else uses[0]["input"]
        return ("own call" if "type" in uses[0] else "call", uses[0]["toolUseId"], uses[0]["name"], given)
    if kinds == {"toolResult"}:
        found = [piece["toolResult"] for piece in pieces]
        first = found[0]
        content = first.get("content") or [inner for piece in found if isinstance(piece, list) for inner in piece]
        return ("own result", first["toolUseId"], content)
    if kinds == {"reasoningContent"}:
        found = [piece["reasoningContent"] for piece in pieces]
        return (
            "reasoning",
            "".join(piece.get("text", "") for piece in found),
            "".join(piece.get("signature", "") for piece in found),
            b"".join(piece.get("redactedContent", b"") for piece in found),
        )
    text = "".join(piece.get("text", "") for piece in pieces)
    cited = [piece["citation"] for piece in pieces if "citation" in piece]
    cited += [inner for piece in pieces for inner in piece.get("citationsContent", {}).get("citations", ())]
    return ("text", text, [url_of(citation) for citation in cited]) if text or cited else None


def url_of(citation: dict[str, Any]) -> tuple[str, str]:
    return citation.get("location", {}).get("web", {}).get("url", ""), citation.get("title", "")


def our_blocks(answer: Answer) -> list[tuple[Any, ...]]:
    found: list[tuple[Any, ...]] = []
    for part in answer.parts:
        state = json.loads(part.provider_state.data) if part.provider_state else {}
        match part.kind:
            case Text(text, citations):
                assert len(state.get("citations", ())) == len(citations)
                found.append(("text", text, [(citation.uri, citation.title) for citation in citations]))
            case Reasoning(text):
                signed = state.get("reasoningText", {})
                assert signed.get("text", text) == text
                redacted = base64.b64decode(state.get("redactedContent", ""))
                found.append(("reasoning", text, signed.get("signature", ""), redacted))
            case ToolCall(call_id, name, arguments):
                found.append(("call", call_id, name, json.loads(arguments)))
            case ProviderBlock(kind="toolUse", json=block):
                use = json.loads(block)["toolUse"]
                found.append(("own call", use["toolUseId"], use["name"], use["input"]))
            case ProviderBlock(kind="toolResult", json=block):
                result = json.loads(block)["toolResult"]
                found.append(("own result", result["toolUseId"], result["content"]))
            case ProviderBlock(kind=kind):
                assert kind == TRACE
            case _:
                raise AssertionError(part)
    return found


def compare(recording: Recording, answer: Answer) -> None:
    blocks, stop, usage, trace = wanted_blocks(recording)
    assert our_blocks(answer) == blocks
    assert answer.finish is not None
    assert answer.finish.provider_reason == stop
    assert answer.finish.reason is FINISH[stop]
    assert any(isinstance(part.kind, ProviderBlock) and part.kind.kind == TRACE for part in answer.parts) == bool(trace)
    assert answer.usage is not None
    cached = usage.get("cacheReadInputTokens", 0) + usage.get("cacheWriteInputTokens", 0)
    assert answer.usage.input_tokens == usage["inputTokens"] + cached
    assert answer.usage.output_tokens == usage["outputTokens"]
    assert answer.usage.input_tokens + usage["outputTokens"] == usage["totalTokens"]
    assert answer.usage.cache_read_tokens == usage.get("cacheReadInputTokens")


@NEEDS_RECORDINGS
@pytest.mark.parametrize("recording", ANSWERS, ids=lambda r: r.id)
def test_a_recorded_answer_is_what_botocore_makes_of_it(recording: Recording) -> None:
    outcome = run(DIALECT, recording.body)
    assert outcome.answer is not None, outcome
    compare(recording, outcome.answer)
    if not is_whole_json(recording.body):
        check_cuts(DIALECT, recording.body, outcome, limit=100)


@NEEDS_RECORDINGS
@pytest.mark.parametrize("recording", STREAMS, ids=lambda r: r.id)
def test_a_recorded_stream_that_breaks_off_is_truncated(recording: Recording) -> None:
    assert check_prefixes(DIALECT, recording.body, lambda prefix: b"messageStop" in prefix) > 0


@NEEDS_RECORDINGS
@pytest.mark.parametrize("recording", STREAMS, ids=lambda r: r.id)
def test_a_recorded_stream_that_breaks_off_inside_a_message_is_truncated(recording: Recording) -> None:
    outcome = run(DIALECT, recording.body[:-1])
    assert outcome.metadata == {"violation": "truncated"}


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
            answer = run(DIALECT, recording.body).answer
            assert answer is not None
            compare(recording, answer)
        else:
            DIALECT.decode_error(recording.status, recording.headers, recording.body)
        read += 1
    with capsys.disabled():
        print(f"\nrecordings bedrock-converse: {read}/{len(RECORDINGS)}")
    assert read == len(RECORDINGS)
