"""Google's errors (google.rpc.Status) made into faults.

The HTTP status says little: 400 is also a wrong key and a prompt that is too long, 429 is a minute's limit, a day's
limit, a plan without any quota for the model, and a spending cap. The details say which, where there are details.
"""

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, timedelta
from email.utils import parsedate_to_datetime

from router_service.core.faults import Fault, Reason, UpstreamError
from router_service.dialects.base import Headers
from router_service.dialects.errors import fault_of, fault_of_status, read_error

_HTTP_STATUSES: Mapping[str, int] = {
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "OUT_OF_RANGE": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "ABORTED": 409,
    "RESOURCE_EXHAUSTED": 429,
    "CANCELLED": 503,
    "UNKNOWN": 500,
    "INTERNAL": 500,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}

_BALANCE_REASONS = frozenset({"BILLING_DISABLED", "BILLING_NOT_ACTIVE"})
_BALANCE_WORDS = ("spending cap", "spend cap", "spending limit", "credits are depleted", "enable billing")
_CONTEXT_WORDS = ("exceeds the maximum number of tokens", "token count exceeds", "context window")
_NO_QUOTA = re.compile(r"\blimit: 0\b(?!\.\d)")
_LIMIT = re.compile(r"tokens allowed \(?(\d{3,9})")
_DAY_SECONDS = 24 * 3600
_DAY = re.compile(r"per_?day", re.IGNORECASE)


def fault_of_response(status: int, headers: Headers, body: bytes) -> Fault:
    """The fault of an answer with an error status."""
    if status < 400:
        return fault_of_status(status, headers, body)
    return _fault(status, headers, read_error(body))


def fault_in_stream(data: bytes) -> Fault:
    """The fault of an error inside a stream, or in a body with status 200."""
    return _fault(None, {}, read_error(data))


def _fault(status: int | None, headers: Headers, error: UpstreamError) -> Fault:
    word = error.extra.get("status")
    word = word if isinstance(word, str) else ""
    if status is None:
        code = int(error.code) if len(error.code) == 3 and error.code.isascii() and error.code.isdigit() else 0
        status = code if code >= 400 else _HTTP_STATUSES.get(word, 500)
    info = next((_text(detail, "reason") for detail in _details(error, "ErrorInfo")), "")
    violations = list(_violations(error))
    reason = _reason(status, info, error.words, violations)
    quota = next((_text(violation, "quotaId") for violation in violations), "")
    shown = UpstreamError(quota or info or word, word, error.words, error.extra)
    fault = fault_of(status, headers, shown, reason)
    if fault.reason is Reason.CONTEXT_TOO_LONG and (limit := _LIMIT.search(error.words)):
        fault.metadata["limitTokens"] = limit.group(1)
    if fault.reason is Reason.UPSTREAM_RATE_LIMITED and any(_is_daily(violation) for violation in violations):
        fault.retry_after_seconds = max(fault.retry_after_seconds or 0.0, _day_seconds(headers) or 0.0) or None
    return fault


def _reason(status: int, info: str, words: str, violations: list[Mapping[str, object]]) -> Reason | None:
    """What it means, where the details or the words say it; None leaves it to the status."""
    if info in _BALANCE_REASONS or (status < 500 and any(phrase in words for phrase in _BALANCE_WORDS)):
        return Reason.UPSTREAM_BALANCE_EXHAUSTED
    if status == 429:
        has_none = any(_text(violation, "quotaValue") == "0" for violation in violations) or _NO_QUOTA.search(words)
        # Waiting would not help: this account has no quota for this model at all.
        return Reason.UPSTREAM_BALANCE_EXHAUSTED if has_none else Reason.UPSTREAM_RATE_LIMITED
    if status == 400 and info.startswith("API_KEY_"):
        return Reason.UPSTREAM_CREDENTIAL_REJECTED
    if status == 400 and any(phrase in words for phrase in _CONTEXT_WORDS):
        return Reason.CONTEXT_TOO_LONG
    return None


def _details(error: UpstreamError, kind: str) -> Iterator[Mapping[str, object]]:
    details = error.extra.get("details")
    for detail in details if isinstance(details, list) else ():
        if isinstance(detail, dict) and _text(detail, "@type").endswith(f"google.rpc.{kind}"):
            yield detail


def _violations(error: UpstreamError) -> Iterator[Mapping[str, object]]:
    for detail in _details(error, "QuotaFailure"):
        found = detail.get("violations")
        yield from (
            violation for violation in (found if isinstance(found, list) else ()) if isinstance(violation, dict)
        )


def _is_daily(violation: Mapping[str, object]) -> bool:
    return bool(_DAY.search(_text(violation, "quotaId")))


def _text(detail: Mapping[str, object], name: str) -> str:
    value = detail.get(name)
    return value if isinstance(value, str) else ""


def _day_seconds(headers: Headers) -> float | None:
    """How long a day's quota is used up: to midnight in California, taken as 08:00 UTC.

    RetryInfo asks for less than a minute here too. In summer the day ends an hour sooner; a retry is then a little
    late, which costs nothing, where one too early costs a request that fails.
    """
    try:
        now = parsedate_to_datetime(headers.get("date", ""))
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    now = now if now.tzinfo else now.replace(tzinfo=UTC)
    reset = timedelta(hours=8)
    since_midnight = timedelta(seconds=now.timestamp() % _DAY_SECONDS)
    return ((reset - since_midnight) % timedelta(seconds=_DAY_SECONDS)).total_seconds()
