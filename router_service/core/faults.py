"""Everything that can go wrong, as one exception with a reason. The gRPC status of each reason stands here too.

A fault's message is for the caller's developer: what happened, whose fault it is, what to do next. It never contains
a secret, an upstream body or another exception's text.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum


class Reason(Enum):
    """Values of ErrorReason, without the prefix."""

    INVALID_REQUEST = "INVALID_REQUEST"
    CALLER_UNKNOWN = "CALLER_UNKNOWN"
    CALLER_NOT_ALLOWED = "CALLER_NOT_ALLOWED"
    MODEL_NOT_FOUND = "MODEL_NOT_FOUND"
    MODEL_NOT_ALLOWED = "MODEL_NOT_ALLOWED"
    MODEL_NOT_ALLOWED_WITH_OWN_KEY = "MODEL_NOT_ALLOWED_WITH_OWN_KEY"
    NO_USABLE_CREDENTIAL = "NO_USABLE_CREDENTIAL"
    BYOK_DISABLED = "BYOK_DISABLED"
    PRICE_UNKNOWN = "PRICE_UNKNOWN"
    BUDGET_EXHAUSTED = "BUDGET_EXHAUSTED"
    CREDIT_EXHAUSTED = "CREDIT_EXHAUSTED"
    RATE_LIMITED = "RATE_LIMITED"
    CONCURRENCY_LIMITED = "CONCURRENCY_LIMITED"
    REQUEST_ID_REUSED = "REQUEST_ID_REUSED"
    UPSTREAM_REJECTED_REQUEST = "UPSTREAM_REJECTED_REQUEST"
    CONTEXT_TOO_LONG = "CONTEXT_TOO_LONG"
    UPSTREAM_CREDENTIAL_REJECTED = "UPSTREAM_CREDENTIAL_REJECTED"
    PLAN_MISMATCH = "PLAN_MISMATCH"
    UPSTREAM_BALANCE_EXHAUSTED = "UPSTREAM_BALANCE_EXHAUSTED"
    UPSTREAM_RATE_LIMITED = "UPSTREAM_RATE_LIMITED"
    UPSTREAM_MODEL_MISSING = "UPSTREAM_MODEL_MISSING"
    UPSTREAM_UNAVAILABLE = "UPSTREAM_UNAVAILABLE"
    UPSTREAM_TIMEOUT = "UPSTREAM_TIMEOUT"
    UPSTREAM_PROTOCOL_VIOLATION = "UPSTREAM_PROTOCOL_VIOLATION"
    CREDENTIALS_UNAVAILABLE = "CREDENTIALS_UNAVAILABLE"
    LEDGER_UNAVAILABLE = "LEDGER_UNAVAILABLE"
    LIMITS_UNAVAILABLE = "LIMITS_UNAVAILABLE"
    INTERNAL = "INTERNAL"
    ISSUER_UNAVAILABLE = "ISSUER_UNAVAILABLE"
    AUTHENTICATION_LIMITED = "AUTHENTICATION_LIMITED"
    CREDENTIAL_REVOKED = "CREDENTIAL_REVOKED"
    RESOURCE_NOT_FOUND = "RESOURCE_NOT_FOUND"
    RESOURCE_EXISTS = "RESOURCE_EXISTS"
    ETAG_MISMATCH = "ETAG_MISMATCH"
    RESOURCE_FIXED = "RESOURCE_FIXED"
    CONFIGURATION_UNAVAILABLE = "CONFIGURATION_UNAVAILABLE"


class Cause(Enum):
    """What stands behind a provider's refusal, where it tells: how long to keep away depends on it, not on the reason.

    In ErrorInfo it is `upstreamCause`.
    """

    RATE = "RATE"  # too many requests or tokens in a short time
    CONCURRENCY = "CONCURRENCY"  # too many requests at once
    QUOTA_WINDOW = "QUOTA_WINDOW"  # a day's, a week's or a plan's window is used up until it starts anew
    BALANCE = "BALANCE"  # no money left
    SPEND_CAP = "SPEND_CAP"  # a limit that the account's owner has set
    OVERLOAD = "OVERLOAD"  # the provider's own trouble
    MEMBERSHIP = "MEMBERSHIP"  # no subscription, or one that does not cover this
    PLAN_MISMATCH = "PLAN_MISMATCH"  # the key is one of another plan
    ACCOUNT = "ACCOUNT"  # blocked, not verified, or against the provider's terms


@dataclass(frozen=True, slots=True)
class UpstreamError:
    """A provider's error, read. `words` is all that it says, in lower case, to be searched and never shown."""

    code: str = ""
    type: str = ""
    words: str = ""
    extra: Mapping[str, object] = field(default_factory=dict)


class Code(Enum):
    """The gRPC status codes that faults use, by their canonical numbers."""

    INVALID_ARGUMENT = 3
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    INTERNAL = 13
    UNAVAILABLE = 14
    UNAUTHENTICATED = 16


@dataclass(frozen=True, slots=True)
class Law:
    """How a reason behaves.

    `is_retryable_here`: the same endpoint may be tried again. `may_fail_over`: another candidate may be tried.
    `is_upstream`: after the commit point its status is ABORTED.
    """

    code: Code
    is_retryable_here: bool = False
    may_fail_over: bool = False
    is_upstream: bool = False


LAWS: Mapping[Reason, Law] = {
    Reason.INVALID_REQUEST: Law(Code.INVALID_ARGUMENT),
    Reason.CALLER_UNKNOWN: Law(Code.UNAUTHENTICATED),
    Reason.CALLER_NOT_ALLOWED: Law(Code.PERMISSION_DENIED),
    Reason.MODEL_NOT_FOUND: Law(Code.NOT_FOUND),
    Reason.MODEL_NOT_ALLOWED: Law(Code.PERMISSION_DENIED),
    Reason.MODEL_NOT_ALLOWED_WITH_OWN_KEY: Law(Code.FAILED_PRECONDITION),
    Reason.NO_USABLE_CREDENTIAL: Law(Code.FAILED_PRECONDITION),
    Reason.BYOK_DISABLED: Law(Code.FAILED_PRECONDITION),
    Reason.PRICE_UNKNOWN: Law(Code.FAILED_PRECONDITION),
    Reason.BUDGET_EXHAUSTED: Law(Code.RESOURCE_EXHAUSTED),
    Reason.CREDIT_EXHAUSTED: Law(Code.RESOURCE_EXHAUSTED),
    Reason.RATE_LIMITED: Law(Code.RESOURCE_EXHAUSTED),
    Reason.CONCURRENCY_LIMITED: Law(Code.RESOURCE_EXHAUSTED, may_fail_over=True),
    Reason.REQUEST_ID_REUSED: Law(Code.ALREADY_EXISTS),
    Reason.UPSTREAM_REJECTED_REQUEST: Law(Code.INVALID_ARGUMENT, is_upstream=True),
    Reason.CONTEXT_TOO_LONG: Law(Code.INVALID_ARGUMENT, is_upstream=True),
    Reason.UPSTREAM_CREDENTIAL_REJECTED: Law(Code.FAILED_PRECONDITION, is_upstream=True),
    Reason.PLAN_MISMATCH: Law(Code.FAILED_PRECONDITION, is_upstream=True),
    Reason.UPSTREAM_BALANCE_EXHAUSTED: Law(Code.FAILED_PRECONDITION, may_fail_over=True, is_upstream=True),
    Reason.UPSTREAM_RATE_LIMITED: Law(Code.RESOURCE_EXHAUSTED, may_fail_over=True, is_upstream=True),
    Reason.UPSTREAM_MODEL_MISSING: Law(Code.FAILED_PRECONDITION, may_fail_over=True, is_upstream=True),
    Reason.UPSTREAM_UNAVAILABLE: Law(Code.UNAVAILABLE, is_retryable_here=True, may_fail_over=True, is_upstream=True),
    Reason.UPSTREAM_TIMEOUT: Law(Code.UNAVAILABLE, may_fail_over=True, is_upstream=True),
    Reason.UPSTREAM_PROTOCOL_VIOLATION: Law(
        Code.UNAVAILABLE, is_retryable_here=True, may_fail_over=True, is_upstream=True
    ),
    Reason.CREDENTIALS_UNAVAILABLE: Law(Code.UNAVAILABLE),
    Reason.LEDGER_UNAVAILABLE: Law(Code.UNAVAILABLE),
    Reason.LIMITS_UNAVAILABLE: Law(Code.UNAVAILABLE),
    Reason.INTERNAL: Law(Code.INTERNAL),
    Reason.ISSUER_UNAVAILABLE: Law(Code.UNAVAILABLE),
    Reason.AUTHENTICATION_LIMITED: Law(Code.RESOURCE_EXHAUSTED),
    Reason.CREDENTIAL_REVOKED: Law(Code.ABORTED),
    Reason.RESOURCE_NOT_FOUND: Law(Code.NOT_FOUND),
    Reason.RESOURCE_EXISTS: Law(Code.ALREADY_EXISTS),
    Reason.ETAG_MISMATCH: Law(Code.ABORTED),
    Reason.RESOURCE_FIXED: Law(Code.FAILED_PRECONDITION),
    Reason.CONFIGURATION_UNAVAILABLE: Law(Code.UNAVAILABLE),
}


class Fault(Exception):
    """One failure. `metadata` holds ErrorInfo's pairs (camelCase keys, no secrets); `fields` names wrong fields.

    `retry_after_seconds` is how long the caller or the router should wait, where somebody said so.
    `cause` is what stands behind it, where a provider tells. `said` is what the provider said: it is there to be
    classified by the provider's own data, and leaves the process in no form.
    """

    def __init__(
        self,
        reason: Reason,
        message: str,
        *,
        metadata: Mapping[str, str] | None = None,
        fields: Mapping[str, str] | None = None,
        retry_after_seconds: float | None = None,
        is_retryable_here: bool | None = None,
        cause: Cause | None = None,
        said: UpstreamError | None = None,
    ) -> None:
        super().__init__(f"{reason.value}: {message}")
        self.reason = reason
        self.message = message
        self.metadata = dict(metadata or {})
        self.fields = dict(fields or {})
        self.retry_after_seconds = retry_after_seconds
        self.cause = cause
        self.said = said
        if cause is not None:
            self.metadata["upstreamCause"] = cause.value
        law = LAWS[reason]
        self.is_retryable_here = law.is_retryable_here if is_retryable_here is None else is_retryable_here

    @property
    def law(self) -> Law:
        """How its reason behaves."""
        return LAWS[self.reason]


def invalid(field: str, message: str) -> Fault:
    """A field of the request is wrong."""
    return Fault(Reason.INVALID_REQUEST, message, metadata={"field": field}, fields={field: message})


def violation(kind: str, message: str) -> Fault:
    """A provider broke its own protocol, or cut its answer (`kind` "truncated")."""
    return Fault(Reason.UPSTREAM_PROTOCOL_VIOLATION, message, metadata={"violation": kind})
