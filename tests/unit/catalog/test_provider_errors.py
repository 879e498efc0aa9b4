"""What the errors of each built-in provider mean: reason, cause and wait, by its data over its dialect."""

import json
from typing import Any

import pytest

from router_service.catalog.loader import load_snapshot
from router_service.core.faults import Cause, Fault, Reason
from router_service.dialects.base import BodyFrame, SseFrame
from router_service.dialects.error_rules import classify
from router_service.dialects.registry import DIALECTS

PROVIDERS = load_snapshot("", source="f").providers
BALANCE = Reason.UPSTREAM_BALANCE_EXHAUSTED
KEY = Reason.UPSTREAM_CREDENTIAL_REJECTED
RATE = Reason.UPSTREAM_RATE_LIMITED
MODEL = Reason.UPSTREAM_MODEL_MISSING
REQUEST = Reason.UPSTREAM_REJECTED_REQUEST
DOWN = Reason.UPSTREAM_UNAVAILABLE
LONG = Reason.CONTEXT_TOO_LONG
PLAN = Reason.PLAN_MISMATCH
DATE = {"date": "Thu, 01 Jan 2026 04:00:00 GMT"}


def fault_of(provider_id: str, status: int, body: bytes, headers: dict[str, str] | None = None) -> Fault:
    provider = PROVIDERS[provider_id]
    fault = DIALECTS[provider.dialect].decode_error(status, headers or {}, body)
    return classify(fault, provider.errors, headers or {})


def said(message: str = "", **fields: Any) -> bytes:
    return json.dumps({"error": {"message": message, **fields}}).encode()


def google(code: int, message: str, status: str) -> bytes:
    return json.dumps({"error": {"code": code, "message": message, "status": status}}).encode()


def base_resp(code: int) -> bytes:
    return json.dumps({"base_resp": {"status_code": code, "status_msg": "words"}}).encode()


ROWS: list[tuple[str, int, bytes, Reason, Cause | None]] = [
    # Z.ai: one status for everything
    ("zai", 429, said("Insufficient balance or no resource package", code="1113"), BALANCE, Cause.BALANCE),
    ("zai", 429, said("High concurrency", code="1302"), RATE, Cause.CONCURRENCY),
    ("zai", 429, said("High frequency", code="1303"), RATE, Cause.RATE),
    ("zai", 429, said("daily", code="1304"), RATE, Cause.QUOTA_WINDOW),
    ("zai", 429, said("locked", code="1121"), KEY, Cause.ACCOUNT),
    ("zai", 401, said("token", code="1002"), KEY, None),
    ("zai", 400, said("who", code="1211"), MODEL, None),
    ("zai", 400, said("sensitive", code="1301"), REQUEST, None),
    ("zai", 400, said("parameter", code="1214"), REQUEST, None),
    ("zai", 429, said("fair use", code="1313"), RATE, Cause.ACCOUNT),
    ("zai", 400, said("repeated request", code="1231"), REQUEST, None),
    ("zai", 429, said("flow control", code="1305"), DOWN, Cause.OVERLOAD),
    ("zai", 429, said("busy", code="1312"), DOWN, Cause.OVERLOAD),
    ("zai", 500, said("the account cannot be read now", code="1120"), DOWN, None),
    ("zai", 400, said("too long", code="1261"), LONG, None),
    ("zai-coding", 429, said("weekly", code="1310"), RATE, Cause.QUOTA_WINDOW),
    ("zai-coding", 429, said("not in this plan", code="1311"), BALANCE, Cause.MEMBERSHIP),
    ("zai-coding", 429, said("Insufficient balance", code="1113"), PLAN, Cause.PLAN_MISMATCH),
    ("zai-coding", 429, said("5 hour limit", code="1308"), RATE, Cause.QUOTA_WINDOW),
    ("zai-coding", 429, said("expired", code="1309"), BALANCE, Cause.MEMBERSHIP),
    ("zai-anthropic", 429, said("balance", code="1113"), PLAN, Cause.PLAN_MISMATCH),
    ("bigmodel-coding", 429, said("balance", code="1113"), PLAN, Cause.PLAN_MISMATCH),
    ("bigmodel", 429, said("balance", code="1113"), BALANCE, Cause.BALANCE),
    # MiniMax: numbers of its own
    ("minimax", 400, base_resp(1002), RATE, Cause.RATE),
    ("minimax", 400, base_resp(1039), RATE, Cause.RATE),
    ("minimax", 401, base_resp(1004), KEY, None),
    ("minimax-openai", 400, base_resp(1008), BALANCE, Cause.BALANCE),
    ("minimax-openai", 400, base_resp(1026), REQUEST, None),
    ("minimax-openai", 400, base_resp(1033), DOWN, Cause.OVERLOAD),
    ("minimax-openai", 400, base_resp(9999), DOWN, None),
    ("minimax-openai", 400, base_resp(1041), RATE, Cause.CONCURRENCY),
    ("minimax-openai", 400, base_resp(2056), RATE, Cause.QUOTA_WINDOW),
    ("minimax-openai", 400, base_resp(2013), REQUEST, None),
    ("minimax-openai", 400, base_resp(2049), KEY, None),
    # Moonshot and Kimi Code: the text decides
    ("moonshot", 403, said("Insufficient balance, please recharge"), BALANCE, Cause.BALANCE),
    (
        "moonshot",
        429,
        said("Your account is suspended due to insufficient balance", type="exceeded_current_quota_error"),
        BALANCE,
        Cause.BALANCE,
    ),
    (
        "moonshot",
        429,
        said("max organization concurrency: 1", type="rate_limit_reached_error"),
        RATE,
        Cause.CONCURRENCY,
    ),
    ("moonshot", 429, said("max organization RPM: 3", type="rate_limit_reached_error"), RATE, Cause.RATE),
    ("moonshot", 429, said("organization TPD: 5", type="rate_limit_reached_error"), RATE, Cause.QUOTA_WINDOW),
    ("moonshot", 429, said("overloaded", type="engine_overloaded_error"), DOWN, Cause.OVERLOAD),
    ("moonshot", 401, said("Invalid Authentication", type="invalid_authentication_error"), KEY, None),
    ("moonshot", 404, said("Not found the model", type="resource_not_found_error"), MODEL, None),
    (
        "moonshot",
        400,
        said("Your request exceeded model token limit: 262144", type="invalid_request_error"),
        LONG,
        None,
    ),
    ("kimi-code", 400, said("Your request exceeded model token limit: 262144"), LONG, None),
    ("kimi-code", 403, said("Access terminated"), KEY, Cause.ACCOUNT),
    ("kimi-code", 403, said("You've reached your usage limit for this billing cycle"), RATE, Cause.QUOTA_WINDOW),
    ("kimi-code", 401, said("The API Key appears to be invalid or may have expired"), KEY, None),
    ("kimi-code", 402, said("membership"), BALANCE, Cause.MEMBERSHIP),
    ("kimi-code", 403, said("Kimi Code is currently only available for Coding Agents"), KEY, Cause.ACCOUNT),
    ("kimi-code", 403, said("You've reached your monthly usage limit"), RATE, Cause.QUOTA_WINDOW),
    ("kimi-code", 429, said("You've reached your usage limit for this period"), RATE, Cause.QUOTA_WINDOW),
    ("kimi-code", 429, said("The engine is currently overloaded", type="rate_limit_error"), RATE, Cause.QUOTA_WINDOW),
    ("kimi-code", 429, said("The engine is currently overloaded"), DOWN, Cause.OVERLOAD),
    ("kimi-code", 429, said("We're receiving too many requests at the moment"), RATE, Cause.RATE),
    # OpenAI, Anthropic, Gemini
    ("openai", 429, said("slow", code="rate_limit_exceeded", type="requests"), RATE, Cause.RATE),
    (
        "openai",
        429,
        said("Limit reached on requests per day (RPD)", code="rate_limit_exceeded"),
        RATE,
        Cause.QUOTA_WINDOW,
    ),
    ("openai", 429, said("quota", code="insufficient_quota"), BALANCE, Cause.BALANCE),
    ("openai", 429, said("cap", code="project_spend_limit_exceeded"), BALANCE, Cause.SPEND_CAP),
    ("openai", 400, said("cap", code="billing_hard_limit_reached"), BALANCE, Cause.SPEND_CAP),
    ("openai", 503, said("Slow Down", code="slow_down"), RATE, Cause.OVERLOAD),
    ("openai", 403, said("no", code="unsupported_country_region_territory"), KEY, Cause.ACCOUNT),
    ("openai", 503, said("The engine is currently overloaded"), DOWN, Cause.OVERLOAD),
    ("anthropic", 529, said("Overloaded", type="overloaded_error"), DOWN, Cause.OVERLOAD),
    ("anthropic", 429, said("tokens per minute", type="rate_limit_error"), RATE, Cause.RATE),
    ("anthropic", 429, said("concurrent connections", type="rate_limit_error"), RATE, Cause.CONCURRENCY),
    ("anthropic", 400, said("reached your specified API usage limits"), BALANCE, Cause.SPEND_CAP),
    ("anthropic", 402, said("pay", type="billing_error"), BALANCE, Cause.BALANCE),
    ("anthropic", 429, said("enforced_spend_limit_reached", type="rate_limit_error"), BALANCE, Cause.SPEND_CAP),
    ("gemini", 402, google(402, "Your prepayment credits are depleted.", "RESOURCE_EXHAUSTED"), BALANCE, Cause.BALANCE),
    ("gemini", 429, google(429, "Your prepayment credits are depleted.", "RESOURCE_EXHAUSTED"), BALANCE, Cause.BALANCE),
    (
        "gemini",
        400,
        google(400, "User location is not supported for the API use.", "FAILED_PRECONDITION"),
        KEY,
        Cause.ACCOUNT,
    ),
    ("gemini", 429, b'{"error":{"code":429,"message":"quota","status":"RESOURCE_EXHAUSTED"}}', RATE, Cause.RATE),
    # routers
    ("openrouter", 402, said("Insufficient credits", code=402), BALANCE, Cause.BALANCE),
    ("openrouter", 402, said("x", metadata={"limit_source": "openrouter_in_flight_budget"}), RATE, Cause.CONCURRENCY),
    ("openrouter", 402, said("x", metadata={"error_type": "in_flight_budget_exhausted"}), RATE, Cause.CONCURRENCY),
    ("openrouter", 403, said("Key limit exceeded (total limit)", code=403), BALANCE, Cause.SPEND_CAP),
    ("openrouter", 403, said("Your chosen model requires moderation and your input was flagged"), REQUEST, None),
    ("openrouter", 429, said("Rate limit exceeded: free-models-per-day"), RATE, Cause.QUOTA_WINDOW),
    ("openrouter", 429, said("temporarily rate-limited upstream"), RATE, Cause.RATE),
    ("openrouter", 404, said("No endpoints found for x/y"), MODEL, None),
    ("openrouter", 502, said("Provider returned error"), DOWN, Cause.OVERLOAD),
    ("vercel", 402, said("no", type="insufficient_funds"), BALANCE, Cause.BALANCE),
    ("vercel", 403, said("no", type="customer_verification_required"), KEY, Cause.ACCOUNT),
    ("vercel", 403, said("no", type="free_tier_model_not_available"), KEY, Cause.ACCOUNT),
    ("novita", 403, said("no", code="INVALID_API_KEY"), KEY, None),
    ("novita", 400, said("no", code="BILLING_BALANCE_NOT_ENOUGH"), BALANCE, Cause.BALANCE),
    ("novita", 500, said("no", code="BILLING_FAILED"), DOWN, None),
    ("novita", 403, said("no", code="BILLING_AUTH_FAILED"), DOWN, None),
    ("novita", 400, said("no", code="MISSING_API_KEY"), KEY, None),
    ("novita", 403, said("no", code="NEED_REAL_NAME_VERIFY"), KEY, Cause.ACCOUNT),
    ("novita", 403, said("no", code="model_access_denied"), MODEL, None),
    ("novita", 403, said("identity verification needed"), KEY, Cause.ACCOUNT),
    ("novita", 429, said("no", code="RATE_LIMIT_EXCEEDED"), RATE, Cause.RATE),
    ("novita", 504, b"", DOWN, Cause.OVERLOAD),
    # OpenAI-compatible ones
    ("groq", 498, said("flex"), DOWN, Cause.OVERLOAD),
    ("groq", 429, said("on tokens per day (TPD): Limit 100000", code="rate_limit_exceeded"), RATE, Cause.QUOTA_WINDOW),
    ("groq", 400, said("x", code="organization_restricted"), KEY, Cause.ACCOUNT),
    ("groq", 400, said("x", code="blocked_api_access"), BALANCE, Cause.SPEND_CAP),
    ("together", 402, said("maximum allowed monthly spending limit"), BALANCE, Cause.SPEND_CAP),
    ("together", 503, said("Engine overloaded"), DOWN, Cause.OVERLOAD),
    ("together", 403, said("Input + max_new_tokens must be less"), LONG, None),
    ("together", 429, said("x", type="dynamic_request_limited"), RATE, Cause.OVERLOAD),
    ("fireworks", 412, said("Account suspended"), BALANCE, Cause.BALANCE),
    ("fireworks", 402, said("Payment required"), BALANCE, Cause.BALANCE),
    ("deepseek", 503, said("Server overloaded"), DOWN, Cause.OVERLOAD),
    ("deepseek", 422, said("Invalid parameters"), REQUEST, None),
    ("deepseek", 402, said("Insufficient Balance"), BALANCE, Cause.BALANCE),
    ("mistral", 429, said("Service tier capacity exceeded", code="3505"), RATE, Cause.OVERLOAD),
    ("xai", 400, said("Incorrect API key provided"), KEY, None),
    ("xai", 403, said("Your newly created team doesn't have any credits yet"), BALANCE, Cause.BALANCE),
    ("xai", 403, said("Your team is blocked"), KEY, Cause.ACCOUNT),
    ("cerebras", 402, said("Payment required"), BALANCE, Cause.BALANCE),
    ("cerebras", 429, said("busy", code="queue_exceeded"), DOWN, Cause.OVERLOAD),
    ("cerebras", 429, said("Tokens per day limit exceeded", code="token_quota_exceeded"), RATE, Cause.QUOTA_WINDOW),
    ("perplexity", 401, said("You exceeded your current quota", type="insufficient_quota"), BALANCE, Cause.BALANCE),
    ("alibaba", 400, said("x", code="Arrearage"), BALANCE, Cause.BALANCE),
    # the code that is money at OpenAI is the tokens of a minute here
    ("alibaba", 429, said("You exceeded your current quota", code="insufficient_quota"), RATE, Cause.RATE),
    ("alibaba", 429, said("x", code="Throttling.AllocationQuota"), RATE, Cause.RATE),
    ("alibaba", 403, said("x", code="AllocationQuota.FreeTierOnly"), BALANCE, Cause.BALANCE),
    ("cohere", 429, b'{"message":"You are using a Trial key, limited to 40 API calls / minute"}', RATE, Cause.RATE),
    ("cohere", 429, b'{"message":"a Trial key is limited to 1000 API calls / month"}', RATE, Cause.QUOTA_WINDOW),
    ("cohere", 400, b'{"message":"too many tokens: total number of tokens in the prompt"}', LONG, None),
    ("cohere", 402, b'{"message":"billing limit"}', BALANCE, Cause.BALANCE),
    ("sambanova", 410, said("gone"), MODEL, None),
    ("sambanova", 504, said("queue full"), DOWN, Cause.OVERLOAD),
    ("siliconflow", 400, json.dumps({"code": 20012, "message": "Model does not exist."}).encode(), MODEL, None),
    ("siliconflow", 403, json.dumps({"code": 1, "message": "real name needed"}).encode(), KEY, Cause.ACCOUNT),
    ("siliconflow", 429, json.dumps({"message": "TPD limit reached"}).encode(), RATE, Cause.QUOTA_WINDOW),
    ("siliconflow", 429, json.dumps({"message": "TPM limit reached"}).encode(), RATE, Cause.RATE),
    ("siliconflow", 403, json.dumps({"code": 30001, "message": "balance"}).encode(), BALANCE, Cause.BALANCE),
]


@pytest.mark.parametrize(("provider", "status", "body", "reason", "cause"), ROWS)
def test_an_error_has_its_reason_and_its_cause(
    provider: str, status: int, body: bytes, reason: Reason, cause: Cause | None
) -> None:
    fault = fault_of(provider, status, body)
    assert (fault.reason, fault.cause) == (reason, cause)
    assert fault.metadata.get("upstreamCause") == (cause.value if cause else None)


@pytest.mark.parametrize(
    ("provider", "body", "reason"), [(row[0], row[2], row[3]) for row in ROWS if b'"error"' in row[2]]
)
def test_in_a_stream_or_a_body_with_status_200_it_means_the_same_or_no_more_than_a_failure(
    provider: str, body: bytes, reason: Reason
) -> None:
    found = PROVIDERS[provider]
    for frame in (SseFrame("", body), BodyFrame(body)):
        with pytest.raises(Fault) as raised:
            DIALECTS[found.dialect].decoder(found.quirks).feed(frame)
        # Where only the status would tell, it is a failure that is tried again: never money for a limit or the reverse.
        assert classify(raised.value, found.errors, {}).reason in {reason, DOWN}


@pytest.mark.parametrize(
    ("provider", "detected"), [("zai-coding", "zai"), ("zai-anthropic", "zai"), ("bigmodel-coding", "bigmodel")]
)
def test_a_key_of_another_plan_names_the_plan_that_it_looks_like(provider: str, detected: str) -> None:
    fault = fault_of(provider, 429, said("balance", code="1113"))
    assert fault.metadata["detectedPlan"] == f"providers/{detected}"


WAITS: list[tuple[str, int, dict[str, str], bytes, float | None]] = [
    (
        "zai-coding",
        429,
        DATE,
        said("Usage limit reached for 5 hour. Your limit will reset at 2026-01-01 12:30:00", code="1308"),
        1800.0,
    ),
    ("zai-coding", 429, {}, said("Your limit will reset at 2026-01-01 12:30:00", code="1308"), None),
    ("kimi-code", 429, {}, said("You've reached your usage limit for this period"), 1200.0),
    (
        "cerebras",
        429,
        {"x-ratelimit-reset-tokens-minute": "12.5", "x-ratelimit-remaining-tokens-minute": "0"},
        b"",
        12.5,
    ),
    (
        "cerebras",
        429,
        {"x-ratelimit-reset-tokens-minute": "12.5", "x-ratelimit-remaining-tokens-minute": "9"},
        b"",
        None,
    ),
    ("mistral", 429, {"ratelimitbysize-reset": "33", "ratelimitbysize-remaining": "0"}, b"", 33.0),
    (
        "sambanova",
        429,
        {"x-ratelimit-reset-requests-day": "1767240060", "x-ratelimit-remaining-requests-day": "0", **DATE},
        b"",
        60.0,
    ),
    ("kimi-code", 429, {"retry-after": "60"}, said("You've reached your usage limit for this period"), 60.0),
]


@pytest.mark.parametrize(("provider", "status", "headers", "body", "seconds"), WAITS)
def test_the_wait_comes_from_where_the_provider_says_it(
    provider: str, status: int, headers: dict[str, str], body: bytes, seconds: float | None
) -> None:
    assert fault_of(provider, status, body, headers).retry_after_seconds == seconds


def test_an_error_in_a_body_with_status_200_is_read_alike() -> None:
    provider = PROVIDERS["minimax-openai"]
    body = json.dumps(
        {"id": "x", "choices": None, "base_resp": {"status_code": 1008, "status_msg": "no money"}}
    ).encode()
    for frame in (BodyFrame(body), SseFrame("", body)):
        with pytest.raises(Fault) as raised:
            DIALECTS[provider.dialect].decoder(provider.quirks).feed(frame)
        found = classify(raised.value, provider.errors, {})
        assert (found.reason, found.cause) == (BALANCE, Cause.BALANCE)


def test_what_the_provider_said_is_in_no_text_of_the_fault() -> None:
    fault = fault_of("zai", 429, said("sk-secret-words", code="1113"))
    assert "secret" not in str(fault) + repr(fault) + fault.message + repr(fault.metadata)
