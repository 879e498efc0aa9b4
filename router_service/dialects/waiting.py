"""How long a provider asks to wait. Only relative times, or absolute ones beside the answer's own date: no clock."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from enum import Enum
from typing import assert_never

from router_service.dialects.base import Headers

MAX_WAIT_SECONDS = 31 * 24 * 3600.0  # a monthly window is the longest that anybody has

_UNIT_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PIECE = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_NUMBER = re.compile(r"\d{1,15}(?:\.\d{1,9})?")
_IN_WORDS = re.compile(r"(?:try again in|retry in|retry after) ((?:\d{1,9}(?:\.\d{1,9})?(?:ms|s|m|h|d))+)")
_RESET_AT = re.compile(r"reset at (\d{4}-\d{2}-\d{2}[ t]\d{2}:\d{2}:\d{2})")


class ResetForm(Enum):
    """How a header says when a window starts anew."""

    DURATION = "duration"  # "6m0s", and plain seconds
    MILLISECONDS = "milliseconds"
    RFC3339 = "rfc3339"
    EPOCH = "epoch"  # in seconds or milliseconds: their lengths tell them apart


@dataclass(frozen=True, slots=True)
class ResetHeader:
    """A header of one provider. `remaining` names the one that is 0 where this window is the one used up."""

    name: str
    form: ResetForm = ResetForm.DURATION
    remaining: str = ""


def retry_after_seconds(
    headers: Headers, extra: Mapping[str, object], words: str, reset_headers: Sequence[ResetHeader] = ()
) -> float | None:
    """The wait that headers or body ask for; None when nobody says. `reset_headers` are a provider's own."""
    said = [wait for wait in _explicit(headers, extra) if wait is not None]
    if said:
        return max(said)
    own = (_read_reset(header, headers) for header in reset_headers)
    resets = [wait for wait in (*own, *_resets(headers, extra)) if wait is not None]
    if resets:
        return max(resets)
    match = _IN_WORDS.search(words)
    return parse_duration(match.group(1)) if match else None


def wait_in_words(words: str, utc_offset_hours: float, headers: Headers) -> float | None:
    """The wait until a time that prose names, in a zone that the provider's data names."""
    match = _RESET_AT.search(words)
    if match is None:
        return None
    moment = _rfc3339(match.group(1))
    return _until(moment - timedelta(hours=utc_offset_hours), headers) if moment is not None else None


def parse_duration(text: str) -> float | None:
    """Seconds of "6m0s", "12ms", "34s" or "1.5"."""
    text = text.strip().lower()
    if _NUMBER.fullmatch(text):
        return _bounded(float(text))
    seconds, position = 0.0, 0
    for piece in _PIECE.finditer(text):
        if piece.start() != position:
            return None
        seconds += float(piece.group(1)) * _UNIT_SECONDS[piece.group(2)]
        position = piece.end()
    return _bounded(seconds) if text and position == len(text) else None


def _explicit(headers: Headers, extra: Mapping[str, object]) -> Iterator[float | None]:
    for name in ("retry-after-ms", "x-ms-retry-after-ms"):
        text = headers.get(name, "").strip()
        if _NUMBER.fullmatch(text):
            yield _bounded(float(text) / 1000)
    text = headers.get("retry-after", "").strip()
    if text:
        yield parse_duration(text) if _NUMBER.fullmatch(text) else _until(_http_date(text), headers)
    metadata = extra.get("metadata")
    for holder in (extra, metadata, metadata.get("availability") if isinstance(metadata, dict) else None):
        if isinstance(holder, dict):
            value = holder.get("retry_after", holder.get("retry_after_seconds"))
            if isinstance(value, int | float) and not isinstance(value, bool) and value >= 0:
                yield _bounded(float(value))
    details = extra.get("details")
    for detail in details if isinstance(details, list) else ():
        if isinstance(detail, dict) and isinstance(detail.get("retryDelay"), str):
            yield parse_duration(detail["retryDelay"])


def _resets(headers: Headers, extra: Mapping[str, object]) -> Iterator[float | None]:
    """When the windows that are used up start anew."""
    for kind in ("requests", "tokens"):
        if headers.get(f"x-ratelimit-remaining-{kind}", "").strip() == "0":
            yield parse_duration(headers.get(f"x-ratelimit-reset-{kind}", ""))
    for kind in ("requests", "tokens", "input-tokens", "output-tokens"):
        prefix = f"anthropic-ratelimit-{kind}"
        if headers.get(f"{prefix}-remaining", "").strip() == "0":
            yield _until(_rfc3339(headers.get(f"{prefix}-reset", "")), headers)
    yield _until(_epoch(headers.get("x-ratelimit-reset", "")), headers)
    metadata = extra.get("metadata")
    inner = metadata.get("headers") if isinstance(metadata, dict) else None
    if isinstance(inner, dict):
        yield _until(_epoch(str(inner.get("X-RateLimit-Reset", ""))), headers)


def _read_reset(header: ResetHeader, headers: Headers) -> float | None:
    text = headers.get(header.name, "").strip()
    if not text or (header.remaining and headers.get(header.remaining, "").strip() not in {"0", "0.0"}):
        return None
    match header.form:
        case ResetForm.DURATION:
            return parse_duration(text)
        case ResetForm.MILLISECONDS:
            return _bounded(float(text) / 1000) if _NUMBER.fullmatch(text) else None
        case ResetForm.RFC3339:
            return _until(_rfc3339(text), headers)
        case ResetForm.EPOCH:
            return _until(_epoch(text), headers)
        case _:
            assert_never(header.form)


def parse_moment(value: object) -> datetime | None:
    """The moment that a JSON value names: RFC 3339, or seconds or milliseconds since 1970."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        return None
    return _epoch(str(value)) or _rfc3339(str(value))


def seconds_until(moment: datetime, now: float) -> float:
    """From `now`, in seconds since 1970; within what anybody may be asked to wait."""
    return _bounded(moment.timestamp() - now)


def _until(moment: datetime | None, headers: Headers) -> float | None:
    now = _http_date(headers.get("date", ""))
    return None if moment is None or now is None else seconds_until(moment, now.timestamp())


def _http_date(text: str) -> datetime | None:
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _rfc3339(text: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _epoch(text: str) -> datetime | None:
    text = text.strip()
    if not (text.isascii() and text.isdigit() and len(text) in {10, 13}):
        return None
    return datetime.fromtimestamp(int(text) / (1000 if len(text) == 13 else 1), UTC)


def _bounded(seconds: float) -> float:
    return min(max(seconds, 0.0), MAX_WAIT_SECONDS)
