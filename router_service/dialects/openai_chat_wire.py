"""The wire of OpenAI chat completions, as far as it is read: typed where it is common, raw where it is rare.

A server of this wire is any of some twenty that differ in what they add. So nothing is required, what is not read is
not typed, and a number that may come as text is left open.
"""

import msgspec

from router_service.dialects.reading import NO_RAW


class FunctionWire(msgspec.Struct, gc=False):
    """A function call. Some servers write the arguments as an object and not as text."""

    name: str | None = None
    arguments: str | dict[str, msgspec.Raw] | None = None


class CallWire(msgspec.Struct, gc=False):
    """A piece of a tool call. `extra_content` holds Gemini's thought signature."""

    index: int | None = None
    id: str | int | None = None
    function: FunctionWire | None = None
    extra_content: msgspec.Raw = NO_RAW


class MessageWire(msgspec.Struct, gc=False):
    """A delta of a stream, or the message of a whole body."""

    content: str | list[msgspec.Raw] | None = None
    reasoning_content: str | None = None
    reasoning: str | dict[str, msgspec.Raw] | None = None
    reasoning_details: list[msgspec.Raw] | None = None
    refusal: str | None = None
    tool_calls: list[CallWire] | None = None
    function_call: FunctionWire | None = None
    images: list[msgspec.Raw] | None = None
    annotations: list[msgspec.Raw] | None = None
    extra_content: msgspec.Raw = NO_RAW


class ChoiceWire(msgspec.Struct, gc=False):
    """One of the answers; only the first is read."""

    index: int | None = None
    delta: MessageWire | None = None
    message: MessageWire | None = None
    finish_reason: str | None = None
    error: msgspec.Raw = NO_RAW


class ChunkWire(msgspec.Struct, gc=False):
    """A chunk of a stream, or a whole body."""

    id: str | int | None = None
    model: str | None = None
    provider: str | dict[str, msgspec.Raw] | None = None
    object: str | None = None
    choices: list[ChoiceWire] | None = None
    usage: msgspec.Raw = NO_RAW
    error: msgspec.Raw = NO_RAW
    base_resp: msgspec.Raw = NO_RAW
    x_groq: msgspec.Raw = NO_RAW
    citations: msgspec.Raw = NO_RAW
    search_results: msgspec.Raw = NO_RAW


class DetailsWire(msgspec.Struct, gc=False):
    """Both kinds of details of a usage report."""

    cached_tokens: int | float | None = None
    cache_write_tokens: int | float | None = None
    audio_tokens: int | float | None = None
    image_tokens: int | float | None = None
    reasoning_tokens: int | float | None = None


class UsageWire(msgspec.Struct, gc=False):
    """A usage report with the names of all servers that are known."""

    prompt_tokens: int | float | None = None
    completion_tokens: int | float | None = None
    total_tokens: int | float | None = None
    prompt_tokens_details: DetailsWire | None = None
    completion_tokens_details: DetailsWire | None = None
    cached_tokens: int | float | None = None
    prompt_cache_hit_tokens: int | float | None = None
    cache_creation_input_tokens: int | float | None = None
    reasoning_tokens: int | float | None = None
    server_tool_use: dict[str, msgspec.Raw] | None = None
    server_tool_use_details: dict[str, msgspec.Raw] | None = None
    cost: msgspec.Raw = NO_RAW
    cost_in_usd_ticks: msgspec.Raw = NO_RAW


class UrlWire(msgspec.Struct, gc=False):
    """Something that has a URL."""

    url: str = ""


class UrlCitationWire(msgspec.Struct, gc=False):
    """A source on the web, with the code points of the answer that it supports."""

    url: str = ""
    title: str | None = None
    content: str | None = None
    start_index: int | None = None
    end_index: int | None = None


class AnnotationWire(msgspec.Struct, gc=False):
    """A note beside the text."""

    type: str = ""
    url_citation: UrlCitationWire | None = None


class ImageWire(msgspec.Struct, gc=False):
    """An image that the model made."""

    image_url: UrlWire | None = None


class ThinkingPieceWire(msgspec.Struct, gc=False):
    """A piece of thinking inside a block."""

    text: str | None = None


class BlockWire(msgspec.Struct, gc=False):
    """A block of content, where a server writes content as blocks (Mistral's reasoning models)."""

    type: str = ""
    text: str | None = None
    thinking: str | list[ThinkingPieceWire] | None = None
    image_url: UrlWire | str | None = None


class SearchResultWire(msgspec.Struct, gc=False):
    """A source of the whole answer (Perplexity)."""

    url: str = ""
    title: str | None = None
    snippet: str | None = None


read_chunk = msgspec.json.Decoder(ChunkWire)
read_usage = msgspec.json.Decoder(UsageWire)
read_annotation = msgspec.json.Decoder(AnnotationWire)
read_image = msgspec.json.Decoder(ImageWire)
read_block = msgspec.json.Decoder(BlockWire)
read_search_results = msgspec.json.Decoder(list[SearchResultWire])
read_urls = msgspec.json.Decoder(list[str])
