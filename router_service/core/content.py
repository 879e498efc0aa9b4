"""The words of a conversation as values: messages, their parts, citations. Mirrors content.proto without protobuf."""

from dataclasses import dataclass
from enum import Enum


class Role(Enum):
    """Who speaks a message."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


class CacheTtl(Enum):
    """How long a provider should keep a cached prompt."""

    FIVE_MINUTES = "5m"
    ONE_HOUR = "1h"


class MediaDetail(Enum):
    """How closely an image is looked at."""

    LOW = "low"
    HIGH = "high"


class SpanUnit(Enum):
    """What a span counts."""

    UNKNOWN = "unknown"
    CODE_POINT = "code_point"
    PAGE = "page"
    BLOCK = "block"


@dataclass(frozen=True, slots=True)
class Span:
    """A half-open range."""

    unit: SpanUnit
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Citation:
    """A source that supports a text. `document_index` counts the documents of the request from 0."""

    uri: str = ""
    title: str = ""
    quote: str = ""
    document_index: int | None = None
    source_span: Span | None = None
    text_span: Span | None = None


@dataclass(frozen=True, slots=True)
class ProviderState:
    """Opaque bytes that a provider wants back. `provider` is a resource name; valid only with this dialect there."""

    dialect: str
    provider: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Text:
    """Text and its sources."""

    text: str
    citations: tuple[Citation, ...] = ()


@dataclass(frozen=True, slots=True)
class Reasoning:
    """Reasoning, possibly a summary; empty where the provider withheld it."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A request by the model to run a tool. The arguments are JSON text, byte for byte as the model wrote them."""

    id: str
    name: str
    arguments_json: str


@dataclass(frozen=True, slots=True)
class Media:
    """An image, a sound or a document: the bytes, or a URL that the provider fetches. Exactly one of both is set."""

    media_type: str
    data: bytes | None = None
    uri: str = ""
    filename: str = ""
    detail: MediaDetail | None = None
    enable_citations: bool = False


@dataclass(frozen=True, slots=True)
class ProviderBlock:
    """A block that only its own dialect understands, as JSON text."""

    dialect: str
    kind: str
    json: str


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What a tool answered."""

    tool_call_id: str
    content: "tuple[Text | Media | ProviderBlock, ...]"
    is_error: bool = False


PartKind = Text | Reasoning | ToolCall | ToolResult | Media | ProviderBlock


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of content with what surrounds it: a cache hint (requests) and a provider's state."""

    kind: PartKind
    cache_breakpoint: CacheTtl | None = None
    provider_state: ProviderState | None = None


@dataclass(frozen=True, slots=True)
class Message:
    """One turn."""

    role: Role
    parts: tuple[Part, ...]
