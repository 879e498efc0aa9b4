"""What providers say when they fail, read into one shape, and the reason that it means.

Providers answer with the same few statuses and say what they mean in a code, a type or only in prose. The order of
trust is: a code that names one thing; then prose where a status covers several things (429 is also "no money left",
400 is also "too long"); then the status. A balance is never taken for a rate limit: waiting would not help.
"""

import re
from collections.abc import Mapping, Sequence

import msgspec

from router_service.core.faults import Cause, Fault, Reason, UpstreamError
from router_service.dialects.base import Headers
from router_service.dialects.reading import NO_RAW, read_any, read_object
from router_service.dialects.waiting import ResetHeader, retry_after_seconds

_TEXT_CHARS = 8192  # how much of a body is searched for words


_CODES: Mapping[str, Reason] = {
    # no money: waiting does not help
    "insufficient_quota": Reason.UPSTREAM_BALANCE_EXHAUSTED,
    "credit_balance_exhausted": Reason.UPSTREAM_BALANCE_EXHAUSTED,
    "organization_usage_limit_exceeded": Reason.UPSTREAM_BALANCE_EXHAUSTED,
    "billing_error": Reason.UPSTREAM_BALANCE_EXHAUSTED,
    "billing_not_active": Reason.UPSTREAM_BALANCE_EXHAUSTED,
    "billing_hard_limit_reached": Reason.UPSTREAM_BALANCE_EXHAUSTED,
    "billing_balance_not_enough": Reason.UPSTREAM_BALANCE_EXHAUSTED,
    "exceeded_current_quota_error": Reason.UPSTREAM_BALANCE_EXHAUSTED,
    "insufficient_balance": Reason.UPSTREAM_BALANCE_EXHAUSTED,
    # throttled
    "rate_limit_exceeded": Reason.UPSTREAM_RATE_LIMITED,
    "rate_limit_error": Reason.UPSTREAM_RATE_LIMITED,
    "rate_limit_reached_error": Reason.UPSTREAM_RATE_LIMITED,
    "ratelimitreached": Reason.UPSTREAM_RATE_LIMITED,
    "slow_down": Reason.UPSTREAM_RATE_LIMITED,
    "too_many_requests": Reason.UPSTREAM_RATE_LIMITED,
    # the key
    "invalid_api_key": Reason.UPSTREAM_CREDENTIAL_REJECTED,
    "api_key_invalid": Reason.UPSTREAM_CREDENTIAL_REJECTED,
    "authentication_error": Reason.UPSTREAM_CREDENTIAL_REJECTED,
    "invalid_authentication_error": Reason.UPSTREAM_CREDENTIAL_REJECTED,
    "permission_error": Reason.UPSTREAM_CREDENTIAL_REJECTED,
    "permission_denied": Reason.UPSTREAM_CREDENTIAL_REJECTED,
    "account_deactivated": Reason.UPSTREAM_CREDENTIAL_REJECTED,
    # the model
    "model_not_found": Reason.UPSTREAM_MODEL_MISSING,
    "deploymentnotfound": Reason.UPSTREAM_MODEL_MISSING,
    "invalid_model": Reason.UPSTREAM_MODEL_MISSING,
    # the prompt
    "context_length_exceeded": Reason.CONTEXT_TOO_LONG,
    "too_many_prompt_tokens": Reason.CONTEXT_TOO_LONG,
    # the provider itself
    "overloaded_error": Reason.UPSTREAM_UNAVAILABLE,
    "engine_overloaded_error": Reason.UPSTREAM_UNAVAILABLE,
    "api_error": Reason.UPSTREAM_UNAVAILABLE,
    "server_error": Reason.UPSTREAM_UNAVAILABLE,
    "internal_server_error": Reason.UPSTREAM_UNAVAILABLE,
    "internal_error": Reason.UPSTREAM_UNAVAILABLE,
    "service_unavailable": Reason.UPSTREAM_UNAVAILABLE,
    "timeout_error": Reason.UPSTREAM_UNAVAILABLE,
    # the request
    "invalid_request_error": Reason.UPSTREAM_REJECTED_REQUEST,
    "not_found_error": Reason.UPSTREAM_MODEL_MISSING,
    "request_too_large": Reason.UPSTREAM_REJECTED_REQUEST,
    "content_filter": Reason.UPSTREAM_REJECTED_REQUEST,
    "tool_use_failed": Reason.UPSTREAM_REJECTED_REQUEST,
    # the request, as OpenAI's responses say it in a stream
    **dict.fromkeys(
        (
            *("invalid_prompt", "bio_policy", "misalignment_policy_violation", "data_residency_mismatch"),
            *("invalid_image", "invalid_image_format", "invalid_base64_image", "invalid_image_url"),
            *("invalid_image_mode", "image_too_large", "image_too_small", "image_parse_error", "image_file_too_large"),
            *("image_content_policy_violation", "image_file_not_found", "unsupported_image_media_type"),
            *("empty_image_file", "failed_to_download_image"),
        ),
        Reason.UPSTREAM_REJECTED_REQUEST,
    ),
}

# These say less than a status does, so they decide only where there is no status.
_VAGUE = frozenset({"invalid_request_error", "api_error", "not_found_error", "server_error", "internal_error"})

_BALANCE_WORDS = (
    "insufficient balance",
    "insufficient_quota",
    "credit balance is too low",
    "exceeded your current quota",
    "not enough balance",
    "insufficient credits",
    "spend limit",
    "spend_limit_exceeded",
    "reached your specified api usage limits",
)
_CAP_WORDS = ("spend limit", "spend_limit", "specified api usage limits", "hard limit", "hard_limit", "spending cap")
_CONCURRENCY_WORDS = ("concurren", "simultaneous")
_WINDOW_WORDS = (
    "usage limit for this period",
    "monthly usage limit",
    "weekly limit",
    "daily limit",
    "per day",
    "perday",
    "usage_limit_reached",
)
_ACCOUNT_WORDS = ("account_deactivated", "deactivated", "suspended", "banned", "identity verification")
_BUSY_STATUSES = frozenset({503, 529})
_CONTEXT_WORDS = (
    "context length",
    "context window",
    "context_length",
    "context size",
    "maximum context",
    "prompt is too long",
    "prompt too long",
    "input is too long",
    "maximum prompt length",
    "too many tokens",
    "maximum number of tokens allowed",
    "range of input length",
    "total length of all messages is too long",
)
_KEY_WORDS = ("api_key_invalid", "api key not valid", "incorrect api key")
_MODEL_WORDS = ("model not exist", "model does not exist", "model_not_found", "unknown model", "invalid model")
_CONTENT_WORDS = ("flagged", "moderation", "violates usage", "content policy", "usage guidelines")

_STATUSES: Mapping[int, Reason] = {
    401: Reason.UPSTREAM_CREDENTIAL_REJECTED,
    402: Reason.UPSTREAM_BALANCE_EXHAUSTED,
    403: Reason.UPSTREAM_CREDENTIAL_REJECTED,
    404: Reason.UPSTREAM_MODEL_MISSING,
    408: Reason.UPSTREAM_UNAVAILABLE,
    409: Reason.UPSTREAM_UNAVAILABLE,
    410: Reason.UPSTREAM_MODEL_MISSING,
    429: Reason.UPSTREAM_RATE_LIMITED,
}

_MESSAGES: Mapping[Reason, str] = {
    Reason.UPSTREAM_REJECTED_REQUEST: "The provider refused the request. Change what upstreamCode names and ask again.",
    Reason.CONTEXT_TOO_LONG: "The prompt does not fit the model. Shorten it or take a model with a larger context.",
    Reason.UPSTREAM_CREDENTIAL_REJECTED: "The provider refused our credential. Its owner should test or replace it.",
    Reason.PLAN_MISMATCH: "The credential belongs to another plan of the provider. Save it for that plan's provider.",
    Reason.UPSTREAM_BALANCE_EXHAUSTED: "The credential's account has no money left. Its owner should top it up.",
    Reason.UPSTREAM_RATE_LIMITED: "The provider throttles this credential. Wait, or ask less often.",
    Reason.UPSTREAM_MODEL_MISSING: "The provider does not know the model that the catalog gives it. Tell the operator.",
    Reason.UPSTREAM_UNAVAILABLE: "The provider is down or overloaded. Try again later.",
}


def read_error(body: bytes) -> UpstreamError:
    """Reads an error body, whatever it is: the known JSON shapes, any other JSON, HTML, nothing."""
    words = body[:_TEXT_CHARS].decode("utf-8", "replace").lower()
    value = read_any(body)
    if isinstance(value, list) and value:
        value = value[0]
    if not isinstance(value, dict):
        return UpstreamError(words=words)
    base = value.get("base_resp")
    if isinstance(base, dict) and base.get("status_code"):
        return UpstreamError(code=_word(base["status_code"]), type="base_resp", words=words, extra=base)
    inner = value.get("error", value)
    if isinstance(inner, dict):
        return UpstreamError(code=_word(inner.get("code")), type=_word(inner.get("type")), words=words, extra=inner)
    return UpstreamError(code=_word(value.get("code")), type=_word(value.get("type")), words=words, extra=value)


def is_refusal(base_resp: msgspec.Raw) -> bool:
    """Whether a `base_resp`, which MiniMax sends with whole answers too, says that it failed."""
    base = None if base_resp is NO_RAW else read_object(base_resp)
    return base is not None and bytes(base.get("status_code", NO_RAW)) not in {b"", b"0", b"null", b'"0"'}


def reason_of(status: int | None, error: UpstreamError) -> Reason:
    """What it means. `status` is None for an error inside a stream or in a body with status 200."""
    if status is None:
        status = _status_in(error)
    if error.type == "base_resp":
        return Reason.UPSTREAM_UNAVAILABLE  # its numbers mean something only by the provider's data
    if status is not None and status >= 500:
        return Reason.UPSTREAM_UNAVAILABLE
    if status == 401:
        return Reason.UPSTREAM_CREDENTIAL_REJECTED
    by_words = _reason_in_words(status, error.words)
    if by_words:
        return by_words
    for word in (error.code.lower(), error.type.lower()):
        if word in _CODES and (status is None or word not in _VAGUE):
            return _CODES[word]
    if status is None:
        return Reason.UPSTREAM_UNAVAILABLE
    return _STATUSES.get(status, Reason.UPSTREAM_REJECTED_REQUEST)


def cause_of(reason: Reason, status: int | None, error: UpstreamError) -> Cause | None:
    """What stands behind it, as far as words that many providers use tell."""
    words = error.words
    match reason:
        case Reason.UPSTREAM_RATE_LIMITED:
            if any(phrase in words for phrase in _CONCURRENCY_WORDS):
                return Cause.CONCURRENCY
            return Cause.QUOTA_WINDOW if any(phrase in words for phrase in _WINDOW_WORDS) else Cause.RATE
        case Reason.UPSTREAM_BALANCE_EXHAUSTED:
            return Cause.SPEND_CAP if any(phrase in words for phrase in _CAP_WORDS) else Cause.BALANCE
        case Reason.UPSTREAM_UNAVAILABLE:
            is_busy = status in _BUSY_STATUSES or "overloaded" in words or "capacity" in words
            return Cause.OVERLOAD if is_busy else None
        case Reason.UPSTREAM_CREDENTIAL_REJECTED:
            return Cause.ACCOUNT if any(phrase in words for phrase in _ACCOUNT_WORDS) else None
        case Reason.PLAN_MISMATCH:
            return Cause.PLAN_MISMATCH
        case _:
            return None


def fault_of(
    status: int | None,
    headers: Headers,
    error: UpstreamError,
    reason: Reason | None = None,
    *,
    cause: Cause | None = None,
    reset_headers: Sequence[ResetHeader] = (),
) -> Fault:
    """The fault of a provider's error. It shows the provider's code, never its words.

    `reason` and `cause` are for a dialect, or a provider's data, that know more than the shared tables.
    """
    reason = reason or reason_of(status, error)
    metadata = {}
    shown_status = status if status is not None else _status_in(error)
    if shown_status is not None:
        metadata["upstreamStatus"] = str(shown_status)
    code = _shown_code(error, shown_status)
    if code:
        metadata["upstreamCode"] = code
    wait = None
    if reason in {Reason.UPSTREAM_RATE_LIMITED, Reason.UPSTREAM_UNAVAILABLE}:
        wait = retry_after_seconds(headers, error.extra, error.words, reset_headers)
    if reason is Reason.CONTEXT_TOO_LONG and (limit := _LIMIT.search(error.words)):
        metadata["limitTokens"] = limit.group(1) or limit.group(2)
    may_repeat = False if headers.get("x-should-retry", "").strip().lower() == "false" else None
    return Fault(
        reason,
        _MESSAGES[reason],
        metadata=metadata,
        retry_after_seconds=wait,
        is_retryable_here=may_repeat,
        cause=cause or cause_of(reason, shown_status, error),
        said=error,
    )


def fault_of_status(status: int, headers: Headers, body: bytes) -> Fault:
    """The fault of an answer with an error status. Never fails."""
    if 300 <= status < 400:
        return Fault(
            Reason.UPSTREAM_PROTOCOL_VIOLATION,
            "The provider answered with a redirect, which the router does not follow. Correct the provider's base URL.",
            metadata={"violation": "redirect", "upstreamStatus": str(status)},
            is_retryable_here=False,
        )
    return fault_of(status if status >= 400 else None, headers, read_error(body))


_LIMIT = re.compile(r"(?:maximum context length is|maximum prompt length is) (\d{3,9})|> (\d{3,9}) maximum")
_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]+")


def _word(value: object) -> str:
    return str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""


def _status_in(error: UpstreamError) -> int | None:
    """Some errors inside a stream carry the status that they would have had."""
    for value in (error.extra.get("status_code"), error.extra.get("code"), error.extra.get("status")):
        text = _word(value)
        if len(text) == 3 and text.isdigit() and text >= "400":
            return int(text)
    return None


def _reason_in_words(status: int | None, words: str) -> Reason | None:
    """What prose says where the status covers several things."""
    if status == 402 and "openrouter_in_flight_budget" in words:
        return Reason.UPSTREAM_RATE_LIMITED  # the budget of calls in flight: it frees itself
    if any(phrase in words for phrase in _BALANCE_WORDS):
        return Reason.UPSTREAM_BALANCE_EXHAUSTED
    if status in {400, 413, 422, None} and any(phrase in words for phrase in _CONTEXT_WORDS):
        return Reason.CONTEXT_TOO_LONG
    if status == 400 and any(phrase in words for phrase in _KEY_WORDS):
        return Reason.UPSTREAM_CREDENTIAL_REJECTED
    if status == 400 and any(phrase in words for phrase in _MODEL_WORDS):
        return Reason.UPSTREAM_MODEL_MISSING
    if status == 403 and any(phrase in words for phrase in _CONTENT_WORDS):
        return Reason.UPSTREAM_REJECTED_REQUEST  # a flagged prompt says nothing about the key
    return None


def _shown_code(error: UpstreamError, status: int | None) -> str:
    for word in (error.code, error.type):
        if word and word != str(status):
            return _UNSAFE.sub("_", word)[:64]
    return ""
