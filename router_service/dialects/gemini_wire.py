"""The wire of Gemini's generateContent, as far as it is read. Every chunk of a stream is a whole response.

Nothing is required: a chunk may hold only usage, a candidate no content, and content no parts. A part has no type of
its own; the field that it has says what it is.
"""

import msgspec

from router_service.dialects.reading import NO_RAW


class PartialArgumentWire(msgspec.Struct, gc=False, rename="camel"):
    """A piece of streamed arguments: the place in the object (a JSONPath) and one value."""

    json_path: str = ""
    string_value: str | None = None
    number_value: msgspec.Raw = NO_RAW
    bool_value: bool | None = None
    will_continue: bool | None = None


class FunctionCallWire(msgspec.Struct, gc=False, rename="camel"):
    """A function call, whole or, with `will_continue`, a piece of one."""

    id: str | None = None
    name: str | None = None
    args: msgspec.Raw = NO_RAW
    partial_args: list[PartialArgumentWire] | None = None
    will_continue: bool | None = None


class BlobWire(msgspec.Struct, gc=False, rename="camel"):
    """Media, inline or by reference."""

    mime_type: str | None = None
    data: str | None = None
    file_uri: str | None = None


class PartWire(msgspec.Struct, gc=False, rename="camel"):
    """A part of the kinds that have a neutral form; of any other kind all fields are unset."""

    text: str | None = None
    thought: bool | None = None
    thought_signature: str | None = None
    function_call: FunctionCallWire | None = None
    inline_data: BlobWire | None = None
    file_data: BlobWire | None = None


class ContentWire(msgspec.Struct, gc=False):
    """What the model said."""

    parts: list[PartWire] | None = None


class CandidateWire(msgspec.Struct, gc=False, rename="camel"):
    """One of the answers; only the first is read."""

    index: int | None = None
    content: ContentWire | None = None
    finish_reason: str | None = None
    citation_metadata: msgspec.Raw = NO_RAW
    grounding_metadata: msgspec.Raw = NO_RAW
    url_context_metadata: msgspec.Raw = NO_RAW


class FeedbackWire(msgspec.Struct, gc=False, rename="camel"):
    """What the provider thinks of the prompt."""

    block_reason: str | None = None
    block_reason_message: str | None = None


class ChunkWire(msgspec.Struct, gc=False, rename="camel"):
    """A chunk of a stream, or a whole body."""

    candidates: list[CandidateWire] | None = None
    usage_metadata: msgspec.Raw = NO_RAW
    model_version: str | None = None
    response_id: str | None = None
    prompt_feedback: FeedbackWire | None = None
    error: msgspec.Raw = NO_RAW


class RawContentWire(msgspec.Struct, gc=False):
    """Content whose parts are left as they came."""

    parts: list[msgspec.Raw] | None = None


class RawCandidateWire(msgspec.Struct, gc=False):
    """A candidate, for its parts."""

    index: int | None = None
    content: RawContentWire | None = None


class RawChunkWire(msgspec.Struct, gc=False):
    """A chunk read a second time, for a part of a kind that has no neutral form."""

    candidates: list[RawCandidateWire] | None = None


class ModalityWire(msgspec.Struct, gc=False, rename="camel"):
    """The tokens of one kind of content."""

    modality: str | None = None
    token_count: int | float | None = None


class UsageWire(msgspec.Struct, gc=False, rename="camel"):
    """A usage report."""

    prompt_token_count: int | float | None = None
    cached_content_token_count: int | float | None = None
    candidates_token_count: int | float | None = None
    thoughts_token_count: int | float | None = None
    tool_use_prompt_token_count: int | float | None = None
    total_token_count: int | float | None = None
    prompt_tokens_details: list[ModalityWire] | None = None
    tool_use_prompt_tokens_details: list[ModalityWire] | None = None
    candidates_tokens_details: list[ModalityWire] | None = None


class SourceWire(msgspec.Struct, gc=False, rename="camel"):
    """A source that the text repeats; the place is counted in bytes of UTF-8."""

    uri: str | None = None
    title: str | None = None
    start_index: int | None = None
    end_index: int | None = None


class CitationsWire(msgspec.Struct, gc=False, rename="camel"):
    """Sources, under AI Studio's name or under Vertex's."""

    citation_sources: list[SourceWire] | None = None
    citations: list[SourceWire] | None = None


class GroundWire(msgspec.Struct, gc=False, rename="camel"):
    """A page, a document or a place that supports the answer."""

    uri: str | None = None
    title: str | None = None
    text: str | None = None


class GroundChunkWire(msgspec.Struct, gc=False, rename="camel"):
    """A source of one of three kinds."""

    web: GroundWire | None = None
    retrieved_context: GroundWire | None = None
    maps: GroundWire | None = None


class SegmentWire(msgspec.Struct, gc=False, rename="camel"):
    """A piece of the answer; the place is counted in bytes of UTF-8."""

    start_index: int | None = None
    end_index: int | None = None
    text: str | None = None


class SupportWire(msgspec.Struct, gc=False, rename="camel"):
    """Which sources support which piece."""

    segment: SegmentWire | None = None
    grounding_chunk_indices: list[int] | None = None


class GroundingWire(msgspec.Struct, gc=False, rename="camel"):
    """What a search found."""

    grounding_chunks: list[GroundChunkWire] | None = None
    grounding_supports: list[SupportWire] | None = None
    web_search_queries: list[str] | None = None


read_chunk = msgspec.json.Decoder(ChunkWire)
read_raw_chunk = msgspec.json.Decoder(RawChunkWire)
read_chunks = msgspec.json.Decoder(list[msgspec.Raw])
read_usage = msgspec.json.Decoder(UsageWire)
read_citations = msgspec.json.Decoder(CitationsWire)
read_grounding = msgspec.json.Decoder(GroundingWire)
