"""Answers of Bedrock's Converse that keep no order, and its errors."""

import json
from typing import Any

import pytest

from router_service.core.faults import Fault, Reason
from router_service.dialects.base import AwsFrame, BodyFrame, Quirks, SseFrame
from router_service.dialects.bedrock_converse import BedrockConverse

DIALECT = BedrockConverse()
START: tuple[str, Any] = ("messageStart", {"role": "assistant"})
TEXT: tuple[str, Any] = ("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": "a"}})
STOP: tuple[str, Any] = ("messageStop", {"stopReason": "end_turn"})


def feed(*events: tuple[str, Any]) -> list[Any]:
    decoder = DIALECT.decoder(Quirks())
    return [found for name, value in events for found in decoder.feed(AwsFrame("event", name, encode(value)))]


def encode(value: Any) -> bytes:
    return value if isinstance(value, bytes) else json.dumps(value).encode()


def block(kind: str, index: Any = 0, **value: Any) -> tuple[str, Any]:
    return kind, {"contentBlockIndex": index, **value}


@pytest.mark.parametrize(
    "events",
    [
        (TEXT,),
        (STOP,),
        (START, ("metadata", {})),
        (START, STOP, TEXT),
        (START, block("contentBlockDelta", None, delta={"text": "a"})),
        (START, block("contentBlockDelta")),
        (START, TEXT, block("contentBlockStart", start={"toolUse": {"toolUseId": "t", "name": "f"}})),
        (START, TEXT, block("contentBlockDelta", delta={"reasoningContent": {"text": "a"}})),
        (START, TEXT, block("contentBlockDelta", delta={"toolUse": {"input": "{}"}})),
        (START, block("contentBlockDelta", delta={"image": {"source": {"bytes": "%"}}})),
        (START, block("contentBlockDelta", delta={"reasoningContent": {"redactedContent": "%"}})),
        (START, block("contentBlockStart", start={"toolUse": {"toolUseId": "t"}})),
        (START, block("contentBlockDelta", delta={"toolUse": {"input": "{}"}})),
        (START, ("contentBlockDelta", b"{broken")),
        (START, ("contentBlockDelta", b"[]")),
        (START, ("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": 7}})),
        (
            START,
            block("contentBlockStart", start={"toolUse": {"toolUseId": "t", "name": "n", "type": "server_tool_use"}}),
            block("contentBlockDelta", delta={"toolUse": {"input": "{broken"}}),
            block("contentBlockStop"),
        ),
    ],
)
def test_what_keeps_no_order_is_a_violation(events: tuple[tuple[str, Any], ...]) -> None:
    with pytest.raises(Fault) as caught:
        feed(*events)
    assert caught.value.reason is Reason.UPSTREAM_PROTOCOL_VIOLATION


def test_what_is_newer_than_this_code_is_passed_over() -> None:
    assert feed(("banana", {"a": 1}), START, block("contentBlockDelta", delta={"banana": 1})) == []
    assert feed(START, block("contentBlockStart", start={"banana": 1}), block("contentBlockStop")) == []


def test_nothing_is_read_after_the_end() -> None:
    assert len(feed(START, STOP, ("metadata", {}), TEXT)) == 1
    decoder = DIALECT.decoder(Quirks())
    list(decoder.feed(BodyFrame(b'{"output":{"message":{"content":[]}},"stopReason":"end_turn"}')))
    assert list(decoder.close()) == []


@pytest.mark.parametrize("frame", [SseFrame("", b"{}"), BodyFrame(b"[]"), BodyFrame(b"<html>")])
def test_another_wires_frame_is_a_violation(frame: SseFrame | BodyFrame) -> None:
    with pytest.raises(Fault) as caught:
        DIALECT.decoder(Quirks()).feed(frame)
    assert caught.value.metadata == {"violation": "malformed"}


@pytest.mark.parametrize(
    ("status", "name", "words", "reason"),
    [
        (403, "AccessDeniedException", "User is not authorized", Reason.UPSTREAM_CREDENTIAL_REJECTED),
        (403, "AccessDeniedException", "You don't have access to the model.", Reason.UPSTREAM_MODEL_MISSING),
        (403, "UnrecognizedClientException:http://internal/", "invalid", Reason.UPSTREAM_CREDENTIAL_REJECTED),
        (403, "InvalidSignatureException", "Signature expired", Reason.UPSTREAM_CREDENTIAL_REJECTED),
        (403, "ExpiredTokenException", "expired", Reason.UPSTREAM_CREDENTIAL_REJECTED),
        (403, "", "Bearer Token has expired", Reason.UPSTREAM_CREDENTIAL_REJECTED),
        (400, "ExpiredTokenException", "expired", Reason.UPSTREAM_CREDENTIAL_REJECTED),
        (429, "ThrottlingException", "Too many tokens, please wait", Reason.UPSTREAM_RATE_LIMITED),
        (400, "ServiceQuotaExceededException", "quota", Reason.UPSTREAM_RATE_LIMITED),
        (429, "ModelNotReadyException", "not ready", Reason.UPSTREAM_UNAVAILABLE),
        (404, "ResourceNotFoundException", "no", Reason.UPSTREAM_MODEL_MISSING),
        (400, "ValidationException", "The provided model identifier is invalid.", Reason.UPSTREAM_MODEL_MISSING),
        (
            400,
            "ValidationException",
            "Invocation of model ID x with on-demand throughput isn't supported.",
            Reason.UPSTREAM_MODEL_MISSING,
        ),
        (400, "ValidationException", "Input is too long for requested model.", Reason.CONTEXT_TOO_LONG),
        (400, "ValidationException", "prompt is too long: 9 tokens > 8 maximum", Reason.CONTEXT_TOO_LONG),
        (400, "ValidationException", "The text field is blank", Reason.UPSTREAM_REJECTED_REQUEST),
        (408, "ModelTimeoutException", "late", Reason.UPSTREAM_UNAVAILABLE),
        (424, "ModelErrorException", "failed", Reason.UPSTREAM_UNAVAILABLE),
        (500, "InternalServerException", "oops", Reason.UPSTREAM_UNAVAILABLE),
        (503, "ServiceUnavailableException", "later", Reason.UPSTREAM_UNAVAILABLE),
        (418, "TeapotException", "short and stout", Reason.UPSTREAM_REJECTED_REQUEST),
    ],
)
def test_an_error_is_known_by_its_name_and_its_words(status: int, name: str, words: str, reason: Reason) -> None:
    words += " (zebra)"
    body = json.dumps({"message": words}).encode()
    fault = DIALECT.decode_error(status, {"x-amzn-errortype": name}, body)
    assert fault.reason is reason
    assert "zebra" not in fault.message
    in_body = json.dumps({"__type": f"com.amazon.bedrock#{name}", "message": words}).encode()
    assert DIALECT.decode_error(status, {}, in_body).reason is reason


@pytest.mark.parametrize("status", [200, 302, 400, 500])
@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"null", b'{"message":7}', b"\xff"])
def test_any_body_is_an_error(status: int, body: bytes) -> None:
    assert isinstance(DIALECT.decode_error(status, {}, body), Fault)


@pytest.mark.parametrize(
    ("kind", "name", "reason"),
    [
        ("exception", "throttlingException", Reason.UPSTREAM_RATE_LIMITED),
        ("exception", "serviceUnavailableException", Reason.UPSTREAM_UNAVAILABLE),
        ("exception", "internalServerException", Reason.UPSTREAM_UNAVAILABLE),
        ("exception", "modelStreamErrorException", Reason.UPSTREAM_UNAVAILABLE),
        ("exception", "modelTimeoutException", Reason.UPSTREAM_UNAVAILABLE),
        ("exception", "validationException", Reason.UPSTREAM_REJECTED_REQUEST),
        ("exception", "", Reason.UPSTREAM_UNAVAILABLE),
        ("error", "InternalFailure", Reason.UPSTREAM_UNAVAILABLE),
    ],
)
def test_an_exception_in_the_stream_is_a_fault(kind: str, name: str, reason: Reason) -> None:
    with pytest.raises(Fault) as caught:
        DIALECT.decoder(Quirks()).feed(AwsFrame(kind, name, b'{"message":"why"}'))
    assert caught.value.reason is reason


def test_a_name_that_nobody_knows_is_not_shown() -> None:
    with pytest.raises(Fault) as caught:
        DIALECT.decoder(Quirks()).feed(AwsFrame("exception", "wJalrXUtnFEMIK7MDENG", b"{}"))
    assert "wJalrXUtnFEMIK7MDENG" not in str(caught.value.metadata)
