"""What all token counters need: the completion's own request cut to what is counted, and the number read."""

from collections.abc import Callable, Collection, Sequence

import msgspec

from router_service.core.events import Event, Usage, UsageUpdated
from router_service.core.faults import Fault
from router_service.dialects.base import BodyFrame, Encoded
from router_service.dialects.reading import NO_RAW, count, malformed, read_any, read_object, text_of
from router_service.dialects.vectors import WholeBodyDecoder


def pick_fields(encoded: Encoded, names: Collection[str]) -> dict[str, msgspec.Raw]:
    """These fields of a request that an encoder wrote."""
    body = msgspec.json.decode(encoded.body, type=dict[str, msgspec.Raw])
    return {name: value for name, value in body.items() if name in names}


def count_decoder(field: str, error: Callable[[bytes], Fault]) -> WholeBodyDecoder:
    """Reads a body whose `field` is the count of all prompt tokens. `error` reads one that has no such field."""

    def decode(frame: BodyFrame) -> Sequence[Event]:
        data = frame.data
        body = read_object(data)
        if body is None:
            raise malformed()
        if field not in body:
            raise error(data)
        tokens = count(read_any(body.get(field, NO_RAW)))
        if tokens is None:
            raise malformed()
        return (UsageUpdated(Usage(input_tokens=tokens, output_tokens=0), text_of(msgspec.Raw(data))),)

    return WholeBodyDecoder(decode)
