"""What all decoders need to read a provider's JSON: faults for what cannot be read, and exact numbers."""

import re
from decimal import Decimal, InvalidOperation
from typing import TypeVar

import msgspec

from router_service.core.faults import Fault, violation

T = TypeVar("T")

NO_RAW = msgspec.Raw(b"null")
_NOTHING = frozenset({b"null", b'""', b"{}", b"[]", b"false", b""})

# A report above this is a mistake of the provider, and its digits would only cost memory.
_MAX_USD = Decimal(1_000_000)
_NANOS_PER_USD = Decimal(10) ** 9

# A pair of surrogates, half a pair (the group), or any other escape; strings hold no backslash outside of these.
_ESCAPE = re.compile(rb"\\u[dD][89abAB]..\\u[dD][c-fC-F]..|\\u([dD][89a-fA-F]..)|\\.", re.DOTALL)


def malformed() -> Fault:
    """The fault of bytes that are not what the wire has at this place."""
    return violation("malformed", "The provider sent something that is not the JSON of its protocol.")


def read(decoder: "msgspec.json.Decoder[T]", data: bytes | msgspec.Raw) -> T:
    """Reads one JSON value of a known shape."""
    try:
        return decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        mended = _mend_surrogates(bytes(data))
    try:
        return decoder.decode(mended)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise malformed() from None


def _mend_surrogates(data: bytes) -> bytes:
    """Replaces halves of surrogate pairs by U+FFFD: a server that cuts text between the halves is no reason to fail."""
    return _ESCAPE.sub(lambda match: match.group() if match.group(1) is None else b"\\ufffd", data)


def read_object(data: bytes | msgspec.Raw | str) -> dict[str, msgspec.Raw] | None:
    """Reads one level of a JSON object. None when it is something else."""
    try:
        return msgspec.json.decode(data, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def read_any(data: bytes | msgspec.Raw | str) -> object:
    """Reads any JSON value; None when it is none."""
    try:
        value: object = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return value


def says_something(raw: msgspec.Raw) -> bool:
    """Whether a value is more than null or empty."""
    return bytes(raw).strip() not in _NOTHING


def text_of(raw: msgspec.Raw) -> str:
    """The JSON text itself."""
    return bytes(raw).decode("utf-8", "replace")


def count(value: object) -> int | None:
    """A number of tokens; None for what is none. Some servers write 12.0."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value if 0 <= value < 2**63 else None
    if isinstance(value, float) and value.is_integer() and 0 <= value < 2**53:
        return int(value)
    return None


def usd_nanos(amount: str, scale: Decimal = _NANOS_PER_USD) -> int | None:
    """Nano-USD of an amount in decimal text, times `scale`. Exact; below one nano-USD it is rounded up.

    The text is read as it stands: through a float 0.1 + 0.2 would not be 0.3.
    """
    try:
        value = Decimal(amount.strip().strip('"'))
    except InvalidOperation:
        return None
    if not value.is_finite() or value < 0 or value > _MAX_USD * _NANOS_PER_USD / scale or value.adjusted() < -40:
        return 0 if value.is_finite() and value == 0 else None
    nanos = value * scale
    return int(nanos.to_integral_value(rounding="ROUND_CEILING"))
