"""Times as text: seconds since 1970 in, RFC 3339 in UTC out."""

from datetime import UTC, datetime


def format_time(time_seconds: float) -> str:
    """Gives for example "2026-07-24T09:30:00Z"; parts of a second are dropped."""
    return datetime.fromtimestamp(int(time_seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
