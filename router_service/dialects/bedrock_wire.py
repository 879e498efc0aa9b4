"""The wire of Bedrock's Converse, as far as it is read: one flat shape for all events of a stream, one for a body."""

import msgspec

from router_service.dialects.reading import NO_RAW


class ReasoningTextWire(msgspec.Struct, gc=False):
    """Reasoning in a whole body."""

    text: str = ""
    signature: str = ""


class ReasoningWire(msgspec.Struct, rename="camel", gc=False):
    """Reasoning: in a stream `text` and `signature`, in a body `reasoning_text`; withheld, it is base64."""

    text: str | None = None
    signature: str | None = None
    redacted_content: str | None = None
    reasoning_text: ReasoningTextWire | None = None


class ToolUseWire(msgspec.Struct, rename="camel", gc=False):
    """A tool call; `type` is set where the provider runs the tool itself. In a stream `input` is a piece of text."""

    tool_use_id: str = ""
    name: str = ""
    type: str = ""
    input: msgspec.Raw = NO_RAW


class ImageSourceWire(msgspec.Struct, gc=False):
    """The bytes of an image."""

    bytes: str | None = None


class ImageWire(msgspec.Struct, gc=False):
    """An image that the model made."""

    format: str = ""
    source: ImageSourceWire | None = None


class CitationsWire(msgspec.Struct, gc=False):
    """Text with its sources, in a whole body."""

    content: list[msgspec.Raw] | None = None
    citations: list[msgspec.Raw] | None = None


class BlockWire(msgspec.Struct, rename="camel", gc=False):
    """A block of a body, the start of one, or more of one: which of the fields is set says of what kind it is."""

    text: str | None = None
    tool_use: ToolUseWire | None = None
    tool_result: msgspec.Raw = NO_RAW
    reasoning_content: ReasoningWire | None = None
    citation: msgspec.Raw = NO_RAW
    citations_content: CitationsWire | None = None
    image: ImageWire | None = None


class EventWire(msgspec.Struct, rename="camel", gc=False):
    """One event."""

    content_block_index: int | None = None
    start: BlockWire | None = None
    delta: BlockWire | None = None
    stop_reason: str | None = None
    usage: msgspec.Raw = NO_RAW
    trace: msgspec.Raw = NO_RAW


class MessageWire(msgspec.Struct, gc=False):
    """The message of a whole body."""

    content: list[msgspec.Raw] | None = None


class OutputWire(msgspec.Struct, gc=False):
    """What a whole body holds the message in."""

    message: MessageWire | None = None


class BodyWire(msgspec.Struct, rename="camel", gc=False):
    """A whole body."""

    output: OutputWire | None = None
    stop_reason: str | None = None
    usage: msgspec.Raw = NO_RAW
    trace: msgspec.Raw = NO_RAW


class CacheDetailWire(msgspec.Struct, rename="camel", gc=False):
    """What was written to a cache of one lifetime."""

    ttl: str = ""
    input_tokens: int | float | None = None


class UsageWire(msgspec.Struct, rename="camel", gc=False):
    """The usage report."""

    input_tokens: int | float | None = None
    output_tokens: int | float | None = None
    total_tokens: int | float | None = None
    cache_read_input_tokens: int | float | None = None
    cache_write_input_tokens: int | float | None = None
    cache_details: list[CacheDetailWire] | None = None


class RangeWire(msgspec.Struct, rename="camel", gc=False):
    """Where in a source."""

    document_index: int | None = None
    start: int | None = None
    end: int | None = None


class WebWire(msgspec.Struct, gc=False):
    """A page of the web."""

    url: str | None = None


class LocationWire(msgspec.Struct, rename="camel", gc=False):
    """Where a source is: one field is set."""

    web: WebWire | None = None
    document_char: RangeWire | None = None
    document_page: RangeWire | None = None
    document_chunk: RangeWire | None = None


class QuoteWire(msgspec.Struct, gc=False):
    """A piece of what a source says."""

    text: str | None = None


class CitationWire(msgspec.Struct, rename="camel", gc=False):
    """A source of a text."""

    title: str | None = None
    source: str | None = None
    source_content: list[QuoteWire] | None = None
    location: LocationWire | None = None


read_event = msgspec.json.Decoder(EventWire)
read_body = msgspec.json.Decoder(BodyWire)
read_block = msgspec.json.Decoder(BlockWire)
read_usage = msgspec.json.Decoder(UsageWire)
read_citation = msgspec.json.Decoder(CitationWire)
read_quote = msgspec.json.Decoder(QuoteWire)
read_text = msgspec.json.Decoder(str)
