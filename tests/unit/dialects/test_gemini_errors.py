"""Google's errors: one row per thing that goes wrong."""

import json
from typing import Any

import pytest

from router_service.core.faults import Cause, Reason
from router_service.dialects.gemini import Gemini

DIALECT = Gemini()
NOON = {"date": "Sat, 21 Nov 2026 12:00:00 GMT"}


def error(code: int, status: str, message: str = "", *details: dict[str, Any]) -> bytes:
    return json.dumps({"error": {"code": code, "status": status, "message": message, "details": details}}).encode()


def info(reason: str) -> dict[str, Any]:
    return {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason}


def quota(quota_id: str, **more: str) -> dict[str, Any]:
    violation = {"quotaId": quota_id, **more}
    return {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [violation]}


RETRY = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "48.5s"}


@pytest.mark.parametrize(
    ("body", "reason", "code"),
    [
        (error(400, "INVALID_ARGUMENT", "API key not valid.", info("API_KEY_INVALID")),
         Reason.UPSTREAM_CREDENTIAL_REJECTED, "API_KEY_INVALID"),
        (error(400, "INVALID_ARGUMENT", "API key expired.", info("API_KEY_EXPIRED")),
         Reason.UPSTREAM_CREDENTIAL_REJECTED, "API_KEY_EXPIRED"),
        (error(401, "UNAUTHENTICATED", "", info("ACCESS_TOKEN_EXPIRED")),
         Reason.UPSTREAM_CREDENTIAL_REJECTED, "ACCESS_TOKEN_EXPIRED"),
        (error(403, "PERMISSION_DENIED", "", info("SERVICE_DISABLED")),
         Reason.UPSTREAM_CREDENTIAL_REJECTED, "SERVICE_DISABLED"),
        (error(403, "PERMISSION_DENIED", "", info("BILLING_DISABLED")),
         Reason.UPSTREAM_BALANCE_EXHAUSTED, "BILLING_DISABLED"),
        (error(400, "INVALID_ARGUMENT", "Unknown name \"x\"."), Reason.UPSTREAM_REJECTED_REQUEST, "INVALID_ARGUMENT"),
        (error(400, "FAILED_PRECONDITION", "User location is not supported."),
         Reason.UPSTREAM_REJECTED_REQUEST, "FAILED_PRECONDITION"),
        (error(400, "FAILED_PRECONDITION", "Not available here. Please enable billing on your project."),
         Reason.UPSTREAM_BALANCE_EXHAUSTED, "FAILED_PRECONDITION"),
        (error(404, "NOT_FOUND", "models/x is not found"), Reason.UPSTREAM_MODEL_MISSING, "NOT_FOUND"),
        (error(429, "RESOURCE_EXHAUSTED", "Resource exhausted."), Reason.UPSTREAM_RATE_LIMITED, "RESOURCE_EXHAUSTED"),
        (error(429, "RESOURCE_EXHAUSTED", "You exceeded your current quota.", quota("PerMinute")),
         Reason.UPSTREAM_RATE_LIMITED, "PerMinute"),
        (error(429, "RESOURCE_EXHAUSTED", "Quota exceeded for metric: x, limit: 0, model: m\nPlease retry in 9s."),
         Reason.UPSTREAM_BALANCE_EXHAUSTED, "RESOURCE_EXHAUSTED"),
        (error(429, "RESOURCE_EXHAUSTED", "Quota exceeded", quota("PerDay-FreeTier", quotaValue="0"), RETRY),
         Reason.UPSTREAM_BALANCE_EXHAUSTED, "PerDay-FreeTier"),
        (error(429, "RESOURCE_EXHAUSTED", "Your project has exceeded its monthly spending cap."),
         Reason.UPSTREAM_BALANCE_EXHAUSTED, "RESOURCE_EXHAUSTED"),
        (error(500, "INTERNAL", "An internal error has occurred."), Reason.UPSTREAM_UNAVAILABLE, "INTERNAL"),
        (error(503, "UNAVAILABLE", "The model is overloaded."), Reason.UPSTREAM_UNAVAILABLE, "UNAVAILABLE"),
        (error(504, "DEADLINE_EXCEEDED"), Reason.UPSTREAM_UNAVAILABLE, "DEADLINE_EXCEEDED"),
    ],
)  # fmt: skip
def test_each_error(body: bytes, reason: Reason, code: str) -> None:
    status = json.loads(body)["error"]["code"]
    for text in (body, b"[" + body + b"]"):
        fault = DIALECT.decode_error(status, {}, text)
        assert fault.reason is reason
        fault.metadata.pop("upstreamCause", None)
        assert fault.metadata == {"upstreamStatus": str(status), "upstreamCode": code}


def test_a_prompt_that_is_too_long_names_the_limit() -> None:
    message = "The input token count (1250074) exceeds the maximum number of tokens allowed (1048576)."
    fault = DIALECT.decode_error(400, {}, error(400, "INVALID_ARGUMENT", message))
    assert fault.reason is Reason.CONTEXT_TOO_LONG
    assert fault.metadata["limitTokens"] == "1048576"


@pytest.mark.parametrize(
    ("quota_id", "headers", "wait"),
    [
        ("GenerateRequestsPerMinutePerProjectPerModel", NOON, 48.5),
        ("GenerateRequestsPerDayPerProjectPerModel-FreeTier", NOON, 20 * 3600.0),  # to 08:00 UTC
        ("GenerateRequestsPerDayPerProjectPerModel-FreeTier", {"date": "Sat, 21 Nov 2026 07:59:59 GMT"}, 48.5),
        ("GenerateRequestsPerDayPerProjectPerModel-FreeTier", {"date": "no date"}, 48.5),
        ("GenerateRequestsPerDayPerProjectPerModel-FreeTier", {}, 48.5),
    ],
)
def test_how_long_to_wait(quota_id: str, headers: dict[str, str], wait: float) -> None:
    body = error(429, "RESOURCE_EXHAUSTED", "Quota exceeded", quota(quota_id, quotaValue="20"), RETRY)
    fault = DIALECT.decode_error(429, headers, body)
    assert fault.retry_after_seconds == wait
    assert fault.cause is (Cause.QUOTA_WINDOW if "PerDay" in quota_id else Cause.RATE)


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"{}", b"[]", b'{"error":1}', b'{"error":{"details":[1,{"@type":2}]}}']
)
def test_whatever_the_body_is(body: bytes) -> None:
    assert DIALECT.decode_error(503, {}, body).reason is Reason.UPSTREAM_UNAVAILABLE
    assert DIALECT.decode_error(429, {}, body).reason is Reason.UPSTREAM_RATE_LIMITED
    assert DIALECT.decode_error(302, {}, body).reason is Reason.UPSTREAM_PROTOCOL_VIOLATION
