"""Bedrock's InvokeModelWithResponseStream: AWS's event stream whose messages wrap events of a model's own wire."""

import base64
import binascii
from collections.abc import Iterator

import msgspec

from router_service.core.faults import violation
from router_service.dialects.base import SseFrame
from router_service.dialects.bedrock_errors import fault_of_exception
from router_service.framing.aws_eventstream import AwsEventStreamFramer


class _Chunk(msgspec.Struct, gc=False):
    bytes: str


_read_chunk = msgspec.json.Decoder(_Chunk)


class AwsChunksFramer:
    """Cuts a body into the events that it wraps. Unwrapped here, they are searched for secrets like any other."""

    __slots__ = ("_messages",)

    def __init__(self) -> None:
        self._messages = AwsEventStreamFramer()

    def feed(self, data: bytes) -> Iterator[SseFrame]:
        """Gives the events that these bytes complete, and then the fault of what is none."""
        for frame in self._messages.feed(data):
            if frame.kind != "event":
                raise fault_of_exception(frame.event, frame.data)
            if frame.event == "chunk":
                yield SseFrame("", _unwrap(frame.data))

    def close(self) -> tuple[SseFrame, ...]:
        """The body ended."""
        self._messages.close()
        return ()


def _unwrap(data: bytes) -> bytes:
    try:
        return base64.b64decode(_read_chunk.decode(data).bytes, validate=True)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, binascii.Error, ValueError):
        raise violation("malformed", "The provider sent a chunk that holds no event.") from None
