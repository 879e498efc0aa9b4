"""The wire of Anthropic messages, as far as it is read: one flat shape for all events and one for all blocks.

A flat shape instead of a tagged union: an unknown type is then data to ignore and not an error.
"""

import msgspec

from router_service.dialects.reading import NO_RAW


class DeltaWire(msgspec.Struct, gc=False):
    """More of a block, or the end of the message."""

    type: str = ""
    text: str | None = None
    partial_json: str | None = None
    thinking: str | None = None
    signature: str | None = None
    citation: msgspec.Raw = NO_RAW
    stop_reason: str | None = None


class EventWire(msgspec.Struct, gc=False):
    """One event."""

    type: str = ""
    index: int | None = None
    delta: DeltaWire | None = None
    content_block: msgspec.Raw = NO_RAW
    message: msgspec.Raw = NO_RAW
    usage: msgspec.Raw = NO_RAW
    error: msgspec.Raw = NO_RAW
    base_resp: msgspec.Raw = NO_RAW


class BlockWire(msgspec.Struct, gc=False):
    """A block, empty at its start in a stream and full in a whole body."""

    type: str = ""
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    data: str | None = None
    id: str | None = None
    name: str | None = None
    input: msgspec.Raw = NO_RAW
    citations: list[msgspec.Raw] | None = None


class MessageWire(msgspec.Struct, gc=False):
    """A message: its beginning in a stream, all of it in a body."""

    type: str = ""
    id: str | None = None
    model: str | None = None
    content: list[msgspec.Raw] | None = None
    stop_reason: str | None = None
    usage: msgspec.Raw = NO_RAW
    error: msgspec.Raw = NO_RAW
    base_resp: msgspec.Raw = NO_RAW


class CacheWire(msgspec.Struct, gc=False):
    """How long what was cached is kept."""

    ephemeral_5m_input_tokens: int | float | None = None
    ephemeral_1h_input_tokens: int | float | None = None


class OutputDetailsWire(msgspec.Struct, gc=False):
    """What the output was spent on."""

    thinking_tokens: int | float | None = None


class UsageWire(msgspec.Struct, gc=False):
    """A usage report; what is absent keeps its earlier value."""

    input_tokens: int | float | None = None
    cache_creation_input_tokens: int | float | None = None
    cache_read_input_tokens: int | float | None = None
    cache_creation: CacheWire | None = None
    output_tokens: int | float | None = None
    output_tokens_details: OutputDetailsWire | None = None
    server_tool_use: dict[str, msgspec.Raw] | None = None


class CitationWire(msgspec.Struct, gc=False):
    """A citation of any kind of source."""

    type: str = ""
    cited_text: str | None = None
    document_index: int | None = None
    document_title: str | None = None
    start_char_index: int | None = None
    end_char_index: int | None = None
    start_page_number: int | None = None
    end_page_number: int | None = None
    start_block_index: int | None = None
    end_block_index: int | None = None
    url: str | None = None
    source: str | None = None
    title: str | None = None


read_event = msgspec.json.Decoder(EventWire)
read_block = msgspec.json.Decoder(BlockWire)
read_message = msgspec.json.Decoder(MessageWire)
read_usage = msgspec.json.Decoder(UsageWire)
read_citation = msgspec.json.Decoder(CitationWire)
