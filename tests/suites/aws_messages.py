"""Messages of AWS's event stream, written for tests: botocore reads them and does not write them."""

import struct
from collections.abc import Iterable, Mapping
from zlib import crc32


def string_header(name: str, value: str) -> bytes:
    """A header with a string."""
    written, text = name.encode(), value.encode()
    return bytes([len(written)]) + written + b"\x07" + struct.pack("!H", len(text)) + text


def message(headers: bytes, payload: bytes) -> bytes:
    """A message with right lengths and checksums."""
    prelude = struct.pack("!II", 16 + len(headers) + len(payload), len(headers))
    head = prelude + struct.pack("!I", crc32(prelude)) + headers + payload
    return head + struct.pack("!I", crc32(head))


def event(name: str, payload: bytes, kind: str = "event") -> bytes:
    """An event as Bedrock sends it, or an exception."""
    name_header = {"event": ":event-type", "exception": ":exception-type"}[kind]
    headers = {name_header: name, ":content-type": "application/json", ":message-type": kind}
    return message(b"".join(string_header(*header) for header in headers.items()), payload)


def stream(events: Iterable[tuple[str, bytes]] | Mapping[str, bytes]) -> bytes:
    """A whole body."""
    pairs = events.items() if isinstance(events, Mapping) else events
    return b"".join(event(name, payload) for name, payload in pairs)
