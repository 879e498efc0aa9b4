"""What a model says, as events. Decoders make them, the grammar checks them, the fold and the wire read them.

Starts carry identity, deltas carry content, ends carry opaque state. Indices count 0, 1, 2, ... in the order of the
starts. They are not the vendor's indices.
"""

from array import array
from dataclasses import dataclass
from enum import Enum

from router_service.core.content import Citation


class FinishReason(Enum):
    """Why a completion stopped."""

    UNKNOWN = "unknown"
    STOP = "stop"
    LENGTH = "length"
    TOOL_CALLS = "tool_calls"
    CONTENT_FILTER = "content_filter"
    REFUSAL = "refusal"
    PAUSED = "paused"


@dataclass(frozen=True, slots=True)
class ToolRequests:
    """How often a provider's own tool was asked."""

    tool: str
    request_count: int


@dataclass(frozen=True, slots=True)
class Usage:
    """What was used so far: a running total, never an increment. None means that the provider did not say.

    `input_tokens` contains the cached ones, `output_tokens` contains reasoning.
    """

    input_tokens: int | None = None
    cache_read_tokens: int | None = None
    cache_write_tokens: int | None = None
    output_tokens: int | None = None
    reasoning_tokens: int | None = None
    cache_write_five_minute_tokens: int | None = None
    cache_write_one_hour_tokens: int | None = None
    input_audio_tokens: int | None = None
    input_image_tokens: int | None = None
    output_audio_tokens: int | None = None
    output_image_tokens: int | None = None
    tool_requests: tuple[ToolRequests, ...] = ()


@dataclass(frozen=True, slots=True)
class TextStart:
    """Text follows."""


@dataclass(frozen=True, slots=True)
class ReasoningStart:
    """Reasoning follows."""


@dataclass(frozen=True, slots=True)
class ToolCallStart:
    """A tool call; its arguments follow."""

    id: str
    name: str


@dataclass(frozen=True, slots=True)
class MediaStart:
    """Media; its bytes follow unless `uri` is set."""

    media_type: str
    uri: str = ""
    filename: str = ""


@dataclass(frozen=True, slots=True)
class ProviderStart:
    """A provider's own block; its JSON follows."""

    dialect: str
    kind: str


Start = TextStart | ReasoningStart | ToolCallStart | MediaStart | ProviderStart


@dataclass(frozen=True, slots=True)
class PartStarted:
    """A new part begins."""

    index: int
    start: Start


@dataclass(slots=True)
class TextDelta:
    """Text to append: whole code points. (The deltas are not frozen because building them is on the hot path.)"""

    index: int
    text: str


@dataclass(slots=True)
class ReasoningDelta:
    """Reasoning to append: whole code points."""

    index: int
    text: str


@dataclass(slots=True)
class ArgumentsDelta:
    """JSON text to append to a tool call's arguments; not valid JSON by itself."""

    index: int
    json: str


@dataclass(slots=True)
class MediaDelta:
    """Bytes to append."""

    index: int
    data: bytes


@dataclass(slots=True)
class CitationDelta:
    """A citation to add to a text part."""

    index: int
    citation: Citation


@dataclass(slots=True)
class ProviderDelta:
    """JSON text to append to a provider's own block."""

    index: int
    json: str


Delta = TextDelta | ReasoningDelta | ArgumentsDelta | MediaDelta | CitationDelta | ProviderDelta


@dataclass(frozen=True, slots=True)
class PartEnded:
    """A part is complete. `state` is what the provider wants back with it; None when nothing."""

    index: int
    state: bytes | None = None


@dataclass(frozen=True, slots=True)
class UsageUpdated:
    """A running total of what was used. `json` is the provider's own report, as text, when this event carries one.

    `charged_usd_nanos` is what the upstream says it charges, when it does.
    """

    usage: Usage
    json: str = ""
    charged_usd_nanos: int | None = None


@dataclass(frozen=True, slots=True)
class Identified:
    """What the provider says of itself: its id of the request, the model it ran, the backend it chose. May repeat."""

    request_id: str = ""
    model: str = ""
    backend: str = ""


@dataclass(frozen=True, slots=True)
class Finished:
    """The decoder's last event: the answer is complete. `provider_reason` is the provider's own word."""

    reason: FinishReason
    provider_reason: str = ""


@dataclass(frozen=True, slots=True)
class Vectors:
    """The answer to an embedding, whole: one vector of 32-bit floats per input, in the order of the inputs."""

    values: tuple["array[float]", ...]


PartEvent = PartStarted | Delta | PartEnded
Event = PartEvent | UsageUpdated | Identified | Vectors | Finished
