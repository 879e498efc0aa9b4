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
_GRAM_BYTES = 12
_HIDDEN_BYTES = HIDDEN.encode()
_PLAIN_BYTES = b"abcdefghijklmnopqrstuvwxyz0123456789-_"
_LONG_RUNS = re.compile(r"(?=[A-Za-z]*[0-9])(?=[0-9]*[A-Za-z])[A-Za-z0-9]{20,}")  # no model or resource is called so
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


class BearerToken(Secret):
    """A short-lived token that was fetched for a grant. It travels as `Authorization: Bearer`, whatever keys do."""

    __slots__ = ()


class AwsKeyPair(Secret):
    """A key pair of AWS. `reveal()` gives its secret half, which signs and is never sent."""

    __slots__ = ("access_key_id", "region", "session_token")

    def __init__(self, access_key_id: str, secret_access_key: str, session_token: str, region: str) -> None:
        super().__init__(secret_access_key)
        self.access_key_id = access_key_id
        self.session_token = Secret(session_token) if session_token else None
        self.region = region


class Hiding:
    """Takes secrets out of what a provider says; see `_Needle`. Of a key pair also its session token."""

    __slots__ = ("_needles",)

    def __init__(self, *secrets: Secret | None) -> None:
        known = [secret for secret in secrets if secret is not None]
        known += [pair.session_token for pair in known if isinstance(pair, AwsKeyPair) and pair.session_token]
        self._needles = tuple(_Needle(secret) for secret in known)

    def __call__(self, data: bytes) -> bytes:
        """The same bytes, without the secrets."""
        for needle in self._needles:
            data = needle(data)
        return data

    def text(self, text: str) -> str:
        """The same for a header's value."""
        data = text.encode("utf-8", "surrogatepass")
        hidden = self(data)
        return text if hidden is data else hidden.decode("utf-8", "replace")


class _Needle:
    """Takes a secret out of what a provider says: a provider that repeats the key it was sent must not spread it.

    Any run of the key's letters and digits that is 23 characters long or longer is found, in any case and although the
    rest was cut or escaped; of a key shorter than that, the whole key. What stands in its place is safe inside JSON.
    """

    __slots__ = ("_grams", "_key", "_whole")

    def __init__(self, secret: Secret) -> None:
        key = secret.reveal().encode()
        self._key = key.lower()
        self._whole = key if len(key) < _GRAM_BYTES * 2 else b""
        starts = range(0, len(key) - _GRAM_BYTES + 1, _GRAM_BYTES)
        self._grams = () if self._whole else tuple(self._key[start : start + _GRAM_BYTES] for start in starts)

    def __call__(self, data: bytes) -> bytes:
        """The same bytes, without the secret."""
        if self._whole:
            return data.replace(self._whole, _HIDDEN_BYTES) if self._whole in data else data
        lowered = data.lower()
        for number, gram in enumerate(self._grams):
            if gram in lowered:
                return self._hide_from(number, data)
        return data

    def _hide_from(self, first: int, data: bytes) -> bytes:
        for number in range(first, len(self._grams)):
            gram, offset = self._grams[number], number * _GRAM_BYTES
            found = data.lower().find(gram)
            while found >= 0:
                start, end = self._grow(data.lower(), found, offset)
                data = data[:start] + _HIDDEN_BYTES + data[end:]
                found = data.lower().find(gram, start + len(_HIDDEN_BYTES))
        return data

    def _grow(self, lowered: bytes, found: int, offset: int) -> tuple[int, int]:
        """The run around a gram that repeats the key, as far as its characters need no escape."""
        start, at = found, offset
        while start and at and lowered[start - 1] == self._key[at - 1] and lowered[start - 1] in _PLAIN_BYTES:
            start, at = start - 1, at - 1
        end, at = found + _GRAM_BYTES, offset + _GRAM_BYTES
        while end < len(lowered) and at < len(self._key) and lowered[end] == self._key[at] in _PLAIN_BYTES:
            end, at = end + 1, at + 1
        return start, end


def quote(text: str) -> str:
    """A caller's own word, to be said back to it: what looks like a key, written into the wrong field, is masked."""
    return _LONG_RUNS.sub(HIDDEN, mask(text))


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
