"""JSON values from bytes, one a line (NDJSON): LF or CRLF, empty lines between them, any cut."""

from router_service.core.faults import Fault, violation
from router_service.dialects.base import LineFrame
from router_service.framing.sse import MAX_EVENT_BYTES


class JsonLinesFramer:
    """Cuts a body into lines. `feed` is linear in all bytes fed, wherever they are cut."""

    __slots__ = ("_pending", "_pending_bytes")

    def __init__(self) -> None:
        self._pending: list[bytes] = []
        self._pending_bytes = 0

    def feed(self, data: bytes) -> list[LineFrame]:
        """Gives the lines that these bytes complete."""
        whole, line_end, rest = data.rpartition(b"\n")
        if not line_end:
            self._keep(data)
            return []
        self._pending.append(whole)
        found = b"".join(self._pending)
        self._pending = []
        self._pending_bytes = 0
        self._keep(rest)
        return _parse_lines(found)

    def close(self) -> list[LineFrame]:
        """The body ended. A last line without its end is given as it is: whether it is whole, its JSON says."""
        rest = b"".join(self._pending)
        self._pending = []
        return _parse_lines(rest)

    def _keep(self, data: bytes) -> None:
        if not data:
            return
        self._pending.append(data)
        self._pending_bytes += len(data)
        if self._pending_bytes > MAX_EVENT_BYTES:
            raise _too_large()


def _parse_lines(text: bytes) -> list[LineFrame]:
    frames = []
    for line in text.split(b"\n"):
        if len(line) > MAX_EVENT_BYTES:
            raise _too_large()
        stripped = line.strip()
        if stripped:
            frames.append(LineFrame(stripped))
    return frames


def _too_large() -> Fault:
    return violation("frame_too_large", f"The provider sent a line of more than {MAX_EVENT_BYTES} bytes.")
