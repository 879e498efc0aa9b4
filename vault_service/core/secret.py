"""Secret bytes, wrapped so that they cannot be printed, logged, pickled or compared by accident.

The memory is not wiped: Python keeps copies that nobody owns. What is promised is that nothing prints it.
"""

import hmac
import re
from typing import NoReturn

from vault_service.core.faults import Fault, Reason

API_KEY_MIN_CHARACTERS = 8
API_KEY_MAX_CHARACTERS = 4096
FINGERPRINT_MIN_CHARACTERS = 24

_VENDOR_PREFIX = re.compile(r"[A-Za-z]{2,6}[-_]|AIza|AKIA|ASIA")


class Secret:
    """Holds secret bytes. `reveal` is the only way to them."""

    __slots__ = ("_value",)

    def __init__(self, value: bytes) -> None:
        self._value = value

    def reveal(self) -> bytes:
        """Gives the bytes, to be sealed or encrypted at once and kept nowhere."""
        return self._value

    def __repr__(self) -> str:
        return "Secret([redacted])"

    def __str__(self) -> NoReturn:
        raise TypeError("a secret has no text")

    def __format__(self, format_spec: str) -> NoReturn:
        raise TypeError("a secret has no text")

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret cannot be pickled")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self._value, other._value)

    __hash__ = None  # type: ignore[assignment] # a hash of a secret would help to guess it


def check_key_text(text: str, field: str) -> str:
    """Lets a key pass that is 8 to 4096 printable ASCII characters without spaces and quotes."""
    cause = _key_defect(text)
    if cause is not None:
        raise Fault(Reason.INVALID_SECRET, {"field": field, "cause": cause})
    return text


def make_fingerprint(key: str) -> str:
    """Gives the vendor's prefix and the last 4 characters; nothing for keys so short that it would help to guess."""
    if len(key) < FINGERPRINT_MIN_CHARACTERS:
        return ""
    prefix = _VENDOR_PREFIX.match(key)
    return f"{prefix.group() if prefix else ''}…{key[-4:]}"


def _key_defect(text: str) -> str | None:
    if any(character.isspace() for character in text):
        return "whitespace"
    if any(character in "\"'" for character in text):
        return "quotes"
    if not all("!" <= character <= "~" for character in text):
        return "characters"
    if len(text) < API_KEY_MIN_CHARACTERS:
        return "too_short"
    if len(text) > API_KEY_MAX_CHARACTERS:
        return "too_long"
    return None
