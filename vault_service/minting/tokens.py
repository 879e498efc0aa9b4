"""What token endpoints give, as values."""

from dataclasses import dataclass, field
from typing import Any

from vault_service.minting.egress import MintUnavailable

UNKNOWN_LIFETIME_SECONDS = 300.0
"""Of a token whose endpoint does not say how long it lives."""
_MAX_LIFETIME_SECONDS = 10 * 365 * 86_400.0


@dataclass(frozen=True, slots=True)
class Minted:
    """A short-lived token. `expire_time` is in seconds since 1970."""

    token: str = field(repr=False)
    expire_time: float
    refresh_token: str = field(default="", repr=False)


def read_answer(answer: dict[str, Any], now: float) -> Minted:
    """Reads an OAuth answer (RFC 6749, 5.1). Raises MintUnavailable for one without a usable token."""
    token, refresh_token = answer.get("access_token"), answer.get("refresh_token") or ""
    if not isinstance(token, str) or not isinstance(refresh_token, str) or not _is_usable(token):
        raise MintUnavailable("malformed")
    try:
        lifetime = float(answer.get("expires_in") or UNKNOWN_LIFETIME_SECONDS)
    except (TypeError, ValueError):
        lifetime = UNKNOWN_LIFETIME_SECONDS
    if not 0 < lifetime <= _MAX_LIFETIME_SECONDS:
        raise MintUnavailable("malformed")
    return Minted(token, now + lifetime, refresh_token)


def _is_usable(token: str) -> bool:
    return bool(token) and all("!" <= character <= "~" for character in token)
