"""AWS's event stream from bytes (application/vnd.amazon.eventstream): binary messages with two checksums, any cut.

A message is its length and its headers' length (two 32-bit numbers), the CRC32 of those, headers, a payload, and the
CRC32 of all before. A length is believed only once its checksum is right, so a broken one allocates nothing.
"""

import struct
from collections.abc import Iterator
from struct import Struct
from zlib import crc32

from router_service.core.faults import Fault, violation
from router_service.dialects.base import AwsFrame

# The limits of AWS's own clients.
MAX_HEADERS_BYTES = 128 * 1024
MAX_PAYLOAD_BYTES = 24 * 1024 * 1024

_PRELUDE = Struct("!III")
_CHECKSUM = Struct("!I")
_OVERHEAD_BYTES = _PRELUDE.size + _CHECKSUM.size

_STRING = 7
_LENGTH = Struct("!H")
_SIZED = frozenset({6, _STRING})  # byte array and string: a length stands before the value
_FIXED_BYTES = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}  # booleans, integers, timestamp, UUID

_NAME_HEADERS = {"event": ":event-type", "exception": ":exception-type", "error": ":error-code"}


class AwsEventStreamFramer:
    """Cuts a body into messages. A broken message ends the stream: nothing after it is read."""

    __slots__ = ("_pending", "_wanted_bytes")

    def __init__(self) -> None:
        self._pending = bytearray()
        self._wanted_bytes = _PRELUDE.size

    def feed(self, data: bytes) -> Iterator[AwsFrame]:
        """Gives the messages that these bytes complete, and then the fault of the first broken one."""
        pending = self._pending
        pending += data
        if len(pending) < self._wanted_bytes:
            return
        at, self._wanted_bytes = 0, _PRELUDE.size
        try:
            while len(pending) - at >= _PRELUDE.size:
                total_bytes, headers_bytes = _read_prelude(pending, at)
                if len(pending) - at < total_bytes:
                    self._wanted_bytes = total_bytes
                    break
                frame = _read_message(bytes(pending[at : at + total_bytes]), headers_bytes)
                at += total_bytes
                yield frame
        finally:
            del pending[:at]

    def close(self) -> tuple[AwsFrame, ...]:
        """The body ended. A message that has begun is a cut answer."""
        if self._pending:
            raise violation("truncated", "The provider's answer broke off inside a message. Try again.")
        return ()


def _read_prelude(data: bytearray, at: int) -> tuple[int, int]:
    """The lengths of a message and of its headers."""
    total_bytes, headers_bytes, checksum = _PRELUDE.unpack_from(data, at)
    if crc32(data[at : at + _PRELUDE.size - _CHECKSUM.size]) != checksum:
        raise _broken_checksum()
    payload_bytes = total_bytes - headers_bytes - _OVERHEAD_BYTES
    if payload_bytes < 0:
        raise _malformed()
    if headers_bytes > MAX_HEADERS_BYTES or payload_bytes > MAX_PAYLOAD_BYTES:
        raise violation("frame_too_large", f"The provider sent a message of more than {MAX_PAYLOAD_BYTES} bytes.")
    return total_bytes, headers_bytes


def _read_message(message: bytes, headers_bytes: int) -> AwsFrame:
    end = len(message) - _CHECKSUM.size
    (checksum,) = _CHECKSUM.unpack_from(message, end)
    if crc32(message[:end]) != checksum:
        raise _broken_checksum()
    headers_end = _PRELUDE.size + headers_bytes
    headers = _read_headers(message[_PRELUDE.size : headers_end])
    kind = headers.get(":message-type", "")
    name_header = _NAME_HEADERS.get(kind)
    if name_header is None:
        raise _malformed()
    payload = headers.get(":error-message", "").encode() if kind == "error" else message[headers_end:end]
    return AwsFrame(kind, headers.get(name_header, ""), payload)


def _read_headers(data: bytes) -> dict[str, str]:
    """The headers whose values are strings. Those of other types are only skipped: no message is told by one."""
    headers: dict[str, str] = {}
    seen: set[bytes] = set()
    at = 0
    try:
        while at < len(data):
            name_end = at + 1 + data[at]
            name, kind = data[at + 1 : name_end], data[name_end]
            at = name_end + 1
            if kind in _SIZED:
                (size,) = _LENGTH.unpack_from(data, at)
                at += _LENGTH.size
            else:
                size = _FIXED_BYTES[kind]
            value = data[at : at + size]
            at += size
            if at > len(data) or name in seen:
                raise _malformed()
            seen.add(name)
            if kind == _STRING:
                headers[name.decode()] = value.decode()
    except (IndexError, KeyError, struct.error, UnicodeDecodeError):
        raise _malformed() from None
    return headers


def _broken_checksum() -> Fault:
    return violation("checksum", "A message of the provider's answer was damaged on its way. Try again.")


def _malformed() -> Fault:
    return violation("malformed", "The provider sent a message that is not one of AWS's event stream.")
