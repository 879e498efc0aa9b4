"""Which framer cuts a streamed body: the dialect says how its wire frames, the response's type whether this body is.

A body of another type is read whole: providers answer a streamed call with one JSON object when they refuse it late.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Final, Protocol

from router_service.dialects.base import Carrier, Dialect, Frame, Framing, Quirks
from router_service.framing.aws_chunks import AwsChunksFramer
from router_service.framing.aws_eventstream import AwsEventStreamFramer
from router_service.framing.json_lines import JsonLinesFramer
from router_service.framing.sse import SseFramer


class Framer(Protocol):
    """Cuts a body into frames. Linear in all bytes fed, wherever they are cut; bounded in memory.

    What is fed must be iterated to its end. A fault is raised where its frame would be: those before it come first.
    """

    def feed(self, data: bytes) -> Iterable[Frame]:
        """Gives the frames that these bytes complete."""
        ...

    def close(self) -> Iterable[Frame]:
        """The body ended. Gives what is still whole, or raises the fault of a cut answer."""
        ...


CONTENT_TYPES: Final[Mapping[Framing, str]] = {
    Framing.SSE: "text/event-stream",
    Framing.AWS_EVENT_STREAM: "application/vnd.amazon.eventstream",
    Framing.AWS_CHUNKS: "application/vnd.amazon.eventstream",
    Framing.JSON_LINES: "application/x-ndjson",
}

_FRAMERS: Final[Mapping[Framing, Callable[[], Framer]]] = {
    Framing.SSE: SseFramer,
    Framing.AWS_EVENT_STREAM: AwsEventStreamFramer,
    Framing.AWS_CHUNKS: AwsChunksFramer,
    Framing.JSON_LINES: JsonLinesFramer,
}


def framing_of(dialect: Dialect, quirks: Quirks) -> Framing:
    """How an endpoint frames: as its dialect does, unless another's API carries it."""
    return Framing.AWS_CHUNKS if quirks.carrier is Carrier.BEDROCK else dialect.framing


def open_framer(framing: Framing, content_type: str) -> Framer | None:
    """A fresh framer for a body of this type; None where the body is to be read whole."""
    is_framed = content_type.strip().lower().startswith(CONTENT_TYPES[framing])
    return _FRAMERS[framing]() if is_framed else None
