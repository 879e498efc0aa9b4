"""What all embedders need: vectors read from JSON or base64, and the answer checked against what was asked."""

import base64
import binascii
import math
import sys
from array import array
from collections.abc import Callable, Sequence

import msgspec

from router_service.core.events import Event, Finished, FinishReason, Vectors
from router_service.core.faults import violation
from router_service.core.request import Embedding
from router_service.dialects.base import BodyFrame, Frame
from router_service.dialects.reading import malformed, read

# No model's vector is nearly as long; what one sends is bounded before it becomes numbers, which take more room.
MAX_VECTOR_BYTES = 1024 * 1024

_read_floats = msgspec.json.Decoder(list[float])
_read_text = msgspec.json.Decoder(str)
_FLOAT_BYTES = 4


def read_vector(raw: msgspec.Raw) -> "array[float]":
    """A vector: a list of numbers, or base64 of little-endian 32-bit floats."""
    data = bytes(raw)
    if len(data) > MAX_VECTOR_BYTES:
        raise violation("frame_too_large", "The provider sent a vector that no model has.")
    vector = array("f")
    if data[:1] == b'"':
        try:
            packed = base64.b64decode(read(_read_text, raw), validate=True)
        except (binascii.Error, ValueError):
            raise malformed() from None
        if len(packed) % _FLOAT_BYTES:
            raise malformed()
        vector.frombytes(packed)
        if sys.byteorder == "big":
            vector.byteswap()
    else:
        floats = read(_read_floats, raw)
        vector.extend(floats)
    if not math.isfinite(sum(vector)):  # one that is not finite makes the sum so
        raise violation("malformed", "The provider sent a vector with a number that is none.")
    return vector


def vectors_event(found: Sequence["array[float]"], embedding: Embedding) -> Vectors:
    """The answer, if it is one vector per input, all of one length and of the length that was asked for."""
    if len(found) != len(embedding.inputs):
        message = f"The provider sent {len(found)} vectors for {len(embedding.inputs)} inputs."
        raise violation("vector_count", message)
    lengths = {len(vector) for vector in found}
    if len(lengths) != 1 or 0 in lengths:
        raise violation("vector_length", "The provider sent vectors of several lengths, or empty ones.")
    if embedding.dimensions is not None and lengths != {embedding.dimensions}:
        message = f"The provider sent vectors of length {lengths.pop()} where {embedding.dimensions} was asked for."
        raise violation("vector_length", message)
    return Vectors(tuple(found))


class WholeBodyDecoder:
    """A decoder of answers that are one JSON body. `decode` gives the events before the end."""

    def __init__(self, decode: Callable[[BodyFrame], Sequence[Event]]) -> None:
        self._decode = decode
        self._is_done = False

    def feed(self, frame: Frame) -> Sequence[Event]:
        """Takes the body."""
        if self._is_done:
            return ()
        if not isinstance(frame, BodyFrame):
            raise violation("streamed", "The provider streamed an answer that has no stream.")
        events = self._decode(frame)
        self._is_done = True
        return (*events, Finished(FinishReason.STOP))

    def close(self) -> Sequence[Event]:
        """The upstream closed."""
        if not self._is_done:
            raise violation("truncated", "The provider's answer broke off before its end. Try again.")
        return ()
