"""A secret that cannot be printed by accident, and the redaction of log events.

Redaction works by structure (names of keys, kinds of values), not by a list of known secrets: nothing here
remembers one.
"""

import re
from collections.abc import Mapping
from enum import Enum
from hmac import compare_digest
from typing import NoReturn

HIDDEN = "[redacted]"

_DEPTH_MAX = 8
_NAMES = re.compile(
    r"(?:^|[^a-z0-9])(?:authorization|proxy-authorization|apikey|api[_-]key|secret|password|passwd|passphrase|token|bearer"
    r"|cookie|private[_-]key|key[_-]material|sealed[_-]key|plaintext)$"
)
_VALUES = re.compile(
    r"\b(bearer|basic)\s+\S+"  # an authorization header's value
    r"|\b(?:sk|rk|pk|xai|gsk|pplx|hf|ksw)[-_][A-Za-z0-9_\-]{6,}"  # the shapes of providers' keys
    r"|\bAIza[A-Za-z0-9_\-]{20,}"
    r"|\bA(?:KIA|SIA)[A-Z0-9]{12,}"
    r"|\beyJ[A-Za-z0-9_\-]{8,}\.[A-Za-z0-9_\-]+(?:\.[A-Za-z0-9_\-]*)?",  # a JSON Web Token
    re.IGNORECASE,
)


class Secret:
    """A text that only `reveal()` gives out. str, repr, format, JSON and pickle do not.

    Two secrets compare in constant time; a secret never equals a plain text, so a comparison cannot be used to guess.
    """

    __slots__ = ("__value",)

    def __init__(self, value: str) -> None:
        self.__value = value

    def reveal(self) -> str:
        """The text itself. To be called where it is put on the wire and nowhere else."""
        return self.__value

    def __repr__(self) -> str:
        return "Secret(…)"

    __str__ = __repr__

    def __format__(self, format_spec: str) -> str:
        return repr(self)

    def __bool__(self) -> bool:
        return bool(self.__value)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return compare_digest(
            self.__value.encode("utf-8", "surrogatepass"), other.reveal().encode("utf-8", "surrogatepass")
        )

    __hash__ = None  # type: ignore[assignment]  # a hash of a short secret can be guessed

    def __copy__(self) -> "Secret":
        return self

    def __deepcopy__(self, memo: object) -> "Secret":
        return self

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a secret is not pickled")

    def __getstate__(self) -> NoReturn:
        raise TypeError("a secret is not copied into a state")


def redact(event: Mapping[str, object]) -> dict[str, object]:
    """A copy of a log event that is safe to render.

    Values under secret-like names are dropped, keys and tokens inside texts are masked, bytes become their length,
    exceptions and unknown objects become the name of their class, because their text is not ours.
    """
    return {mask(str(name)): HIDDEN if _is_secret_name(name) else _clean(value, 0) for name, value in event.items()}


def mask(text: str) -> str:
    """A text with everything that looks like a key, a token or an authorization header's value replaced."""
    return _VALUES.sub(lambda match: f"{match[1]} {HIDDEN}" if match[1] else HIDDEN, text)


def _is_secret_name(name: object) -> bool:
    return isinstance(name, str) and _NAMES.search(name.lower()) is not None


def _clean(value: object, depth: int) -> object:
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, Enum):
        return _clean(value.value, depth)
    if isinstance(value, str):
        return mask(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return f"[{len(value)} bytes]"
    if isinstance(value, Secret):
        return HIDDEN
    if depth >= _DEPTH_MAX:
        return "[too deep]"
    if isinstance(value, Mapping):
        return {
            mask(str(name)): HIDDEN if _is_secret_name(name) else _clean(inner, depth + 1)
            for name, inner in value.items()
        }
    if isinstance(value, list | tuple | set | frozenset):
        return [_clean(inner, depth + 1) for inner in value]
    return f"<{type(value).__qualname__}>"
