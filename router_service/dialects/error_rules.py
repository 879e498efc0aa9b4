"""What a provider's errors mean, from its data: rules over what a dialect has read, tried before the shared tables."""

from collections.abc import Mapping
from dataclasses import dataclass

from router_service.core.faults import Cause, Fault, Reason, UpstreamError
from router_service.dialects.base import Headers
from router_service.dialects.errors import fault_of
from router_service.dialects.reset_report import ResetReport
from router_service.dialects.waiting import ResetHeader, wait_in_words


@dataclass(frozen=True, slots=True)
class ErrorRule:
    """One meaning. Every condition that is stated must hold; of several values one. Texts are in lower case.

    `wait_seconds` holds where the provider names no time. `detected_plan` is the id of the provider whose plan the
    key looks like.
    """

    reason: Reason
    cause: Cause | None = None
    statuses: tuple[int, ...] = ()
    codes: tuple[str, ...] = ()  # the error's code or its type
    words: tuple[str, ...] = ()  # phrases anywhere in the body
    wait_seconds: float | None = None
    is_retryable_here: bool | None = None
    detected_plan: str = ""

    def matches(self, status: int | None, said: UpstreamError) -> bool:
        """Whether an error is the one that the rule is for."""
        if self.statuses and status not in self.statuses:
            return False
        if self.codes and not {said.code.lower(), said.type.lower()} & set(self.codes):
            return False
        return not self.words or any(phrase in said.words for phrase in self.words)


@dataclass(frozen=True, slots=True)
class ErrorGuide:
    """All that a provider's data says of its errors. The first rule that matches decides.

    `utc_offset_hours` is the zone of the times that its prose names ("will reset at 2026-01-01 12:30:00").
    `reset_report` is where it tells a key when the windows of its plan start anew.
    """

    rules: tuple[ErrorRule, ...] = ()
    reset_headers: tuple[ResetHeader, ...] = ()
    utc_offset_hours: float | None = None
    reset_report: ResetReport | None = None


def classify(fault: Fault, guide: ErrorGuide, headers: Headers) -> Fault:
    """The fault by the provider's own data; the same one where that says nothing of it."""
    said = fault.said
    if said is None or guide == ErrorGuide():
        return fault
    status = _read_status(fault.metadata)
    rule = next((rule for rule in guide.rules if rule.matches(status, said)), None)
    if rule is None and not guide.reset_headers:
        return fault
    reason, cause = (rule.reason, rule.cause) if rule is not None else (fault.reason, fault.cause)
    found = fault_of(status, headers, said, reason, cause=cause, reset_headers=guide.reset_headers)
    found.metadata = {**fault.metadata, **found.metadata} if reason is fault.reason else found.metadata
    if rule is None:
        # A dialect may know better than any header when a window starts anew.
        found.retry_after_seconds = _longest(fault.retry_after_seconds, found.retry_after_seconds)
        return found
    if (
        found.retry_after_seconds is None
        and reason is Reason.UPSTREAM_RATE_LIMITED
        and guide.utc_offset_hours is not None
    ):
        found.retry_after_seconds = wait_in_words(said.words, guide.utc_offset_hours, headers)
    if found.retry_after_seconds is None:
        found.retry_after_seconds = rule.wait_seconds
    if rule.is_retryable_here is not None:
        found.is_retryable_here = rule.is_retryable_here
    if rule.detected_plan:
        found.metadata["detectedPlan"] = f"providers/{rule.detected_plan}"
    return found


def _read_status(metadata: Mapping[str, str]) -> int | None:
    text = metadata.get("upstreamStatus", "")
    return int(text) if text.isascii() and text.isdigit() else None


def _longest(one: float | None, other: float | None) -> float | None:
    return max((wait for wait in (one, other) if wait is not None), default=None)
