"""The wire of OpenAI responses, as far as it is read: one flat shape for all events and one for all items.

A flat shape instead of a tagged union: an unknown type is then data to ignore and not an error.
"""

import msgspec

from router_service.dialects.reading import NO_RAW


class EventWire(msgspec.Struct, gc=False):
    """One event."""

    type: str = ""
    output_index: int | None = None
    content_index: int | None = None
    summary_index: int | None = None
    delta: str | msgspec.Raw | None = None
    text: str | None = None
    refusal: str | None = None
    arguments: str | dict[str, msgspec.Raw] | None = None
    item: msgspec.Raw = NO_RAW
    part: msgspec.Raw = NO_RAW
    annotation: msgspec.Raw = NO_RAW
    response: msgspec.Raw = NO_RAW
    error: msgspec.Raw = NO_RAW


class PieceWire(msgspec.Struct, gc=False):
    """A piece of a message's content, or of reasoning's content or summary."""

    type: str = ""
    text: str | None = None
    refusal: str | None = None
    annotations: list[msgspec.Raw] | None = None


class ActionWire(msgspec.Struct, gc=False):
    """What a provider's own tool did."""

    type: str = ""


class ItemWire(msgspec.Struct, gc=False):
    """An item of the output, empty at its start in a stream and full at its end. Some servers write calls' arguments
    as an object and not as text.
    """

    type: str = ""
    id: str | None = None
    call_id: str | None = None
    name: str | None = None
    namespace: str | None = None
    phase: str | None = None
    execution: str | None = None
    arguments: str | dict[str, msgspec.Raw] | None = None
    content: list[PieceWire] | None = None
    summary: list[PieceWire] | None = None
    encrypted_content: str | None = None
    result: str | dict[str, msgspec.Raw] | list[msgspec.Raw] | None = None
    output_format: str | None = None
    action: ActionWire | None = None


class IncompleteWire(msgspec.Struct, gc=False):
    """Why an answer is incomplete."""

    reason: str | None = None


class ResponseWire(msgspec.Struct, gc=False):
    """The answer as a whole: its beginning and its end in a stream, all of it in a body."""

    object: str | None = None
    id: str | None = None
    model: str | None = None
    status: str | None = None
    store: bool | None = None
    output: list[msgspec.Raw] | None = None
    usage: msgspec.Raw = NO_RAW
    error: msgspec.Raw = NO_RAW
    incomplete_details: IncompleteWire | None = None


class DetailsWire(msgspec.Struct, gc=False):
    """Both kinds of details of a usage report."""

    cached_tokens: int | float | None = None
    cache_write_tokens: int | float | None = None
    audio_tokens: int | float | None = None
    image_tokens: int | float | None = None
    reasoning_tokens: int | float | None = None


class UsageWire(msgspec.Struct, gc=False):
    """A usage report with the names of all servers that are known."""

    input_tokens: int | float | None = None
    output_tokens: int | float | None = None
    input_tokens_details: DetailsWire | None = None
    output_tokens_details: DetailsWire | None = None
    cost: msgspec.Raw = NO_RAW
    cost_in_usd_ticks: msgspec.Raw = NO_RAW


class AnnotationWire(msgspec.Struct, gc=False):
    """A source of the text, with the code points that it supports where it says them."""

    type: str = ""
    url: str | None = None
    title: str | None = None
    file_id: str | None = None
    filename: str | None = None
    quote: str | None = None
    start_index: int | None = None
    end_index: int | None = None


read_event = msgspec.json.Decoder(EventWire)
read_item = msgspec.json.Decoder(ItemWire)
read_piece = msgspec.json.Decoder(PieceWire)
read_response = msgspec.json.Decoder(ResponseWire)
read_usage = msgspec.json.Decoder(UsageWire)
read_annotation = msgspec.json.Decoder(AnnotationWire)
