"""What error bodies mean, on both wires."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_service.core.faults import Fault, Reason
from router_service.dialects.registry import DIALECTS

OPENAI, ANTHROPIC = DIALECTS["openai_chat"], DIALECTS["anthropic_messages"]
BALANCE = Reason.UPSTREAM_BALANCE_EXHAUSTED
KEY = Reason.UPSTREAM_CREDENTIAL_REJECTED
RATE = Reason.UPSTREAM_RATE_LIMITED
MODEL = Reason.UPSTREAM_MODEL_MISSING
REQUEST = Reason.UPSTREAM_REJECTED_REQUEST
DOWN = Reason.UPSTREAM_UNAVAILABLE
LONG = Reason.CONTEXT_TOO_LONG


def error(message: str = "", **fields: Any) -> bytes:
    return json.dumps({"error": {"message": message, **fields}}).encode()


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (400, error("bad"), REQUEST),
        (422, b'{"detail":[{"loc":["body"],"msg":"field required"}]}', REQUEST),
        (413, error("too large"), REQUEST),
        (418, b"", REQUEST),
        (401, error("no", code="invalid_request_error"), KEY),
        (403, error("no"), KEY),
        (403, error("Your input was flagged by moderation"), REQUEST),
        (402, b"", BALANCE),
        (402, error("in flight", metadata={"limit_source": "openrouter_in_flight_budget"}), RATE),
        (404, b"<html><body>Not Found</body></html>", MODEL),
        (410, b"", MODEL),
        (400, error("Model Not Exist"), MODEL),
        (400, error("Invalid model: x", type="invalid_model"), MODEL),
        (429, b"", RATE),
        (429, error("slow", code="slow_down"), RATE),
        (429, error("You exceeded your current quota, please check your plan", code="insufficient_quota"), BALANCE),
        (429, error("stop", code="project_spend_limit_exceeded"), BALANCE),
        (429, error("quota", type="exceeded_current_quota_error"), BALANCE),
        (429, error("You've reached your usage limit for this period", type="rate_limit_reached_error"), RATE),
        (400, error("balance", code="BILLING_BALANCE_NOT_ENOUGH"), BALANCE),
        (400, error("API key not valid. Please pass a valid API key."), KEY),
        (400, error("maximum context length is 8192 tokens", code="context_length_exceeded"), LONG),
        (400, error("filtered", code="content_filter"), REQUEST),
        (500, error("oops"), DOWN),
        (500, b"<html>", DOWN),
        (503, b"\xff\xfe", DOWN),
        (529, b"", DOWN),
        (408, b"", DOWN),
        (409, b"", DOWN),
        (400, b'[{"error":{"code":400,"status":"INVALID_ARGUMENT","message":"x"}}]', REQUEST),
        (400, b'{"base_resp":{"status_code":1002,"status_msg":"rate"}}', DOWN),
        (401, b'{"code":"x","error":"plain words"}', KEY),
    ],
)
def test_an_openai_style_error_has_its_reason(status: int, body: bytes, reason: Reason) -> None:
    fault = OPENAI.decode_error(status, {}, body)
    assert fault.reason is reason
    assert fault.metadata["upstreamStatus"] == str(status)


@pytest.mark.parametrize(
    ("status", "kind", "message", "reason"),
    [
        (400, "invalid_request_error", "bad", REQUEST),
        (400, "invalid_request_error", "prompt is too long: 5 tokens > 200000 maximum", LONG),
        (400, "invalid_request_error", "Your credit balance is too low to access the Anthropic API.", BALANCE),
        (400, "invalid_request_error", "You have reached your specified API usage limits.", BALANCE),
        (401, "authentication_error", "invalid x-api-key", KEY),
        (402, "billing_error", "pay", BALANCE),
        (403, "permission_error", "no", KEY),
        (404, "not_found_error", "model: x", MODEL),
        (413, "request_too_large", "big", REQUEST),
        (429, "rate_limit_error", "slow", RATE),
        (429, "rate_limit_error", "workspace spend limit reached", BALANCE),
        (500, "api_error", "oops", DOWN),
        (504, "timeout_error", "late", DOWN),
        (529, "overloaded_error", "busy", DOWN),
    ],
)
def test_an_anthropic_error_has_its_reason(status: int, kind: str, message: str, reason: Reason) -> None:
    body = json.dumps({"type": "error", "error": {"type": kind, "message": message}, "request_id": "r"}).encode()
    fault = ANTHROPIC.decode_error(status, {}, body)
    assert fault.reason is reason
    assert fault.metadata["upstreamCode"] == kind


def test_a_code_is_shown_in_safe_letters_and_the_words_are_not() -> None:
    fault = OPENAI.decode_error(400, {}, error("sk-secret <b>words</b>", code="Client said: \n nö!" + "x" * 99))
    assert fault.metadata["upstreamCode"] == "Client_said_n_" + "x" * 50
    assert "secret" not in str(fault) + repr(fault.metadata)


def test_the_limit_of_a_context_is_told() -> None:
    body = error("This model's maximum context length is 8192 tokens. However")
    assert OPENAI.decode_error(400, {}, body).metadata["limitTokens"] == "8192"


def test_a_redirect_is_not_followed_and_not_repeated() -> None:
    fault = OPENAI.decode_error(302, {"location": "https://elsewhere"}, b"")
    assert fault.reason is Reason.UPSTREAM_PROTOCOL_VIOLATION
    assert not fault.is_retryable_here


def test_a_provider_may_forbid_to_try_again() -> None:
    assert OPENAI.decode_error(500, {}, b"").is_retryable_here
    assert not OPENAI.decode_error(500, {"x-should-retry": "false"}, b"").is_retryable_here


@pytest.mark.parametrize("name", DIALECTS)
@given(
    status=st.integers(300, 599),
    body=st.one_of(st.binary(max_size=200), st.text(max_size=99).map(lambda s: error(s, code=s))),
)
def test_reading_an_error_never_fails(name: str, status: int, body: bytes) -> None:
    assert isinstance(DIALECTS[name].decode_error(status, {"retry-after": "soon"}, body), Fault)


DATE = {"date": "Tue, 07 Oct 2025 13:59:39 GMT"}


@pytest.mark.parametrize(
    ("headers", "body", "seconds"),
    [
        ({"retry-after": "7"}, b"", 7.0),
        ({"retry-after": "1", "retry-after-ms": "1500"}, b"", 1.5),
        ({"x-ms-retry-after-ms": "250"}, b"", 0.25),
        ({"retry-after": "Tue, 07 Oct 2025 14:00:09 GMT", **DATE}, b"", 30.0),
        ({"retry-after": "Tue, 07 Oct 2025 13:00:00 GMT", **DATE}, b"", 0.0),
        ({"retry-after": "Tue, 07 Oct 2025 14:00:09 GMT"}, b"", None),
        ({"retry-after": "soon"}, b"", None),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "6m0s"}, b"", 360.0),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "12ms"}, b"", 0.012),
        ({"x-ratelimit-remaining-requests": "5", "x-ratelimit-reset-requests": "12ms"}, b"", None),
        ({"x-ratelimit-reset": "1759845600000", **DATE}, b"", 21.0),
        (
            {
                "anthropic-ratelimit-tokens-remaining": "0",
                "anthropic-ratelimit-tokens-reset": "2025-10-07T14:00:39Z",
                **DATE,
            },
            b"",
            60.0,
        ),
        (DATE, error("x", metadata={"headers": {"X-RateLimit-Reset": "1759845600000"}}), 21.0),
        ({"x-ratelimit-reset": "1759845600", **DATE}, b"", 21.0),
        ({}, error("x", metadata={"availability": {"retry_after": 9}}), 9.0),
        ({}, error("Rate limit reached. Please try again in 1m2.5s."), 62.5),
        ({}, error("x", details=[{"@type": "RetryInfo", "retryDelay": "34s"}]), 34.0),
        ({"retry-after": "99999999999"}, b"", 31 * 24 * 3600.0),
        ({}, b"", None),
    ],
)
def test_the_wait_is_read_from_wherever_it_is(headers: dict[str, str], body: bytes, seconds: float | None) -> None:
    assert OPENAI.decode_error(429, headers, body).retry_after_seconds == seconds


def test_a_wait_means_nothing_for_a_wrong_request() -> None:
    assert OPENAI.decode_error(400, {"retry-after": "7"}, b"").retry_after_seconds is None
