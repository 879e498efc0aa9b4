"""Server-sent events from bytes (WHATWG HTML, section 9.2): CR, LF and CRLF, a BOM, comments, any cut.

Works on bytes, so a code point that is cut in two needs no care. Line ends are made LF as the bytes come in; whole
events are then found by one search for the last blank line, which is what makes a burst cheap: no loop runs over
lines unless an event has more than the usual one or two.
"""

import msgspec

from router_service.core.faults import violation
from router_service.dialects.base import SseFrame

# The longest legitimate event is an image as base64 in one line; the largest seen had 3 MiB. Clients of others stop
# at 1 MiB (bufio.Scanner with a raised limit) to 64 MiB (none in httpx-sse).
MAX_EVENT_BYTES = 16 * 1024 * 1024

_BOM = b"\xef\xbb\xbf"
_BLANK = b"\n\n"


class SseFramer:
    """Cuts a body into events. `feed` is linear in all bytes fed, wherever they are cut."""

    __slots__ = ("_ends_with_cr", "_head", "_pending", "_pending_bytes")

    def __init__(self) -> None:
        self._head: bytes | None = b""  # the first bytes, until it is known whether they are a BOM
        self._ends_with_cr = False
        self._pending: list[bytes] = []
        self._pending_bytes = 0

    def feed(self, data: bytes) -> list[SseFrame]:
        """Gives the events that these bytes complete."""
        if self._head is not None:
            data = self._strip_bom(data)
        if b"\r" in data or self._ends_with_cr:
            data = self._unify_line_ends(data)
        if not data:
            return []
        pending = self._pending
        if pending:
            straddles = pending[-1].endswith(b"\n") and data.startswith(b"\n")
            if not straddles and _BLANK not in data:
                self._keep(data)
                return []
            pending.append(data)
            data = b"".join(pending)
            pending.clear()
            self._pending_bytes = 0
        end = data.rfind(_BLANK)
        if end < 0:
            self._keep(data)
            return []
        if end + 2 < len(data):
            self._keep(data[end + 2 :])
        return _parse_events(data[:end])

    def close(self) -> list[SseFrame]:
        """The body ended. Gives the last event if it lacks nothing but its blank line.

        WHATWG drops an event without a blank line. Some servers leave it out after their last event, so an event
        whose lines are whole counts; half a line never does, or a cut answer would look like another one.
        """
        rest = b"".join(self._pending) if self._head is None else self._head
        self._head = None
        self._pending.clear()
        self._pending_bytes = 0
        if not rest:
            return []
        whole, line_end, last = rest.rpartition(b"\n")
        if last and not _is_whole_line(last):
            rest = whole + line_end
        return _parse_events(rest)

    def _keep(self, data: bytes) -> None:
        self._pending.append(data)
        self._pending_bytes += len(data)
        if self._pending_bytes > MAX_EVENT_BYTES:
            raise violation("frame_too_large", f"The provider sent an event of more than {MAX_EVENT_BYTES} bytes.")

    def _strip_bom(self, data: bytes) -> bytes:
        head = (self._head or b"") + data
        if len(head) < len(_BOM) and _BOM.startswith(head):
            self._head = head
            return b""
        self._head = None
        return head.removeprefix(_BOM)

    def _unify_line_ends(self, data: bytes) -> bytes:
        if not data:
            return data
        follows_cr = self._ends_with_cr
        self._ends_with_cr = data.endswith(b"\r")
        if follows_cr and data.startswith(b"\n"):
            data = data[1:]
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def _parse_events(text: bytes) -> list[SseFrame]:
    """Reads whole events that are separated by blank lines."""
    frames: list[SseFrame] = []
    is_large = len(text) > MAX_EVENT_BYTES
    for block in text.split(_BLANK):
        if is_large and len(block) > MAX_EVENT_BYTES:
            raise violation("frame_too_large", f"The provider sent an event of more than {MAX_EVENT_BYTES} bytes.")
        if block.startswith(b"data: ") and b"\n" not in block:
            frames.append(SseFrame("", block[6:]))
        elif frame := _parse_event(block):
            frames.append(frame)
    return frames


def _parse_event(block: bytes) -> SseFrame | None:
    """Reads one event line by line. None when it has no data line: a comment, or only blank lines."""
    event = ""
    data: list[bytes] = []
    for line in block.split(b"\n"):
        name, _, value = line.partition(b":")
        if name == b"data":
            data.append(value.removeprefix(b" "))
        elif name == b"event":
            event = value.removeprefix(b" ").decode("utf-8", "replace")
    return SseFrame(event, data[0] if len(data) == 1 else b"\n".join(data)) if data else None


def _is_whole_line(line: bytes) -> bool:
    """Whether a line without its end can be known to be whole: it holds the sentinel or a complete JSON value."""
    name, _, value = line.partition(b":")
    if name != b"data":
        return False
    value = value.strip()
    if value == b"[DONE]":
        return True
    try:
        msgspec.json.decode(value, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, ValueError, RecursionError):
        return False
    return True
