"""What is asked for, as values: the completion that a dialect encodes. Mirrors completion.proto and settings.proto."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from router_service.core.content import Message


class ReasoningEffort(Enum):
    """How much to think, from nothing to all that can be."""

    OFF = "off"
    MINIMAL = "minimal"
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    XHIGH = "xhigh"
    MAX = "max"


class ToolMode(Enum):
    """A rule for tool calls."""

    AUTO = "auto"
    NONE = "none"
    REQUIRED = "required"


@dataclass(frozen=True, slots=True)
class FunctionTool:
    """A tool that the caller runs. `parameters_json` is a JSON Schema as text; empty means no arguments."""

    name: str
    description: str = ""
    parameters_json: str = ""
    strict: bool = False


@dataclass(frozen=True, slots=True)
class ProviderTool:
    """A tool that the provider runs; `json` goes among the upstream request's tools unchanged."""

    dialect: str
    json: str


@dataclass(frozen=True, slots=True)
class ToolChoice:
    """How the model may call tools: a mode, or one named tool."""

    mode: ToolMode = ToolMode.AUTO
    tool_name: str = ""


@dataclass(frozen=True, slots=True)
class TextFormat:
    """Free text."""


@dataclass(frozen=True, slots=True)
class JsonFormat:
    """Any JSON object."""


@dataclass(frozen=True, slots=True)
class JsonSchemaFormat:
    """JSON that fits a schema (JSON text)."""

    name: str
    schema_json: str
    strict: bool = False
    description: str = ""


ResponseFormat = TextFormat | JsonFormat | JsonSchemaFormat


@dataclass(frozen=True, slots=True)
class Sampling:
    """Randomness; None means not set."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: int | None = None
    stop_sequences: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ReasoningSettings:
    """How much to think; None means not set."""

    effort: ReasoningEffort | None = None
    budget_tokens: int | None = None
    include_thoughts: bool | None = None


@dataclass(frozen=True, slots=True)
class ProviderOptions:
    """One entry of options in a provider's own words."""

    namespace: str
    json: str


@dataclass(frozen=True, slots=True)
class UpstreamMaxPrice:
    """The highest list price of an upstream, in nano-USD (per million tokens, per request, per image)."""

    input_usd_nanos_per_million_tokens: int | None = None
    output_usd_nanos_per_million_tokens: int | None = None
    request_usd_nanos: int | None = None
    image_usd_nanos: int | None = None


@dataclass(frozen=True, slots=True)
class UpstreamRouting:
    """How a router-like provider picks among its own upstreams. `data_collection` is "allow", "deny" or ""."""

    order: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    allow_fallbacks: bool | None = None
    require_parameters: bool | None = None
    data_collection: str = ""
    zero_data_retention: bool | None = None
    quantizations: tuple[str, ...] = ()
    sort: str = ""
    max_price: UpstreamMaxPrice | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """How to generate; every field may be unset, and a lower layer then decides."""

    sampling: Sampling = Sampling()
    max_output_tokens: int | None = None
    reasoning: ReasoningSettings | None = None
    provider_options: tuple[ProviderOptions, ...] = ()
    upstream_routing: UpstreamRouting | None = None


@dataclass(frozen=True, slots=True)
class Completion:
    """What a dialect encodes for one attempt: everything is decided, only the wire's words are missing.

    `model` is the upstream's model id. `stream` says whether events are wanted. `provider` is the resource name of the
    provider it goes to: opaque state and provider blocks of another one are left out with a warning.
    `settings` are already merged over all layers; `options` are the applying provider options, parsed, in order.
    """

    model: str
    provider: str
    messages: tuple[Message, ...]
    stream: bool = True
    tools: tuple[FunctionTool | ProviderTool, ...] = ()
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat = TextFormat()
    settings: Settings = Settings()
    options: tuple[Mapping[str, object], ...] = field(default=())


class Purpose(Enum):
    """What a model is for."""

    COMPLETION = "completion"
    EMBEDDING = "embedding"


class EmbeddingTask(Enum):
    """What vectors are for."""

    QUERY = "query"
    DOCUMENT = "document"


@dataclass(frozen=True, slots=True)
class Embedding:
    """What an embedder encodes for one attempt. Its fields are as those of Completion; `task` None is the model's own.

    `dimensions` is the length of the vectors, None the model's own.
    """

    model: str
    provider: str
    inputs: tuple[str, ...]
    dimensions: int | None = None
    task: EmbeddingTask | None = None
    settings: Settings = Settings()  # of these only the provider options and the upstream routing
    options: tuple[Mapping[str, object], ...] = field(default=())
    stream: bool = field(default=False, init=False)


class WarningReason(Enum):
    """What became of something asked for."""

    IGNORED = "ignored"
    ADJUSTED = "adjusted"
    REPLACED = "replaced"
    NOT_GUARANTEED = "not_guaranteed"
    CONTENT_DROPPED = "content_dropped"


@dataclass(frozen=True, slots=True)
class Notice:
    """Something asked for that was not done as asked. `field` is a path from CompletionSpec."""

    field: str
    reason: WarningReason
    message: str
