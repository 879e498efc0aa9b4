"""The seam between the router and a wire format. A dialect is pure: no socket, clock, environment, price or key.

A new provider on a known dialect is data (quirks); a new wire is one module that implements `Dialect`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from router_service.core.events import Event
from router_service.core.faults import Fault
from router_service.core.request import Completion, Embedding, Notice

Headers = Mapping[str, str]  # names in lower case


class Framing(Enum):
    """How a streamed body is cut into frames."""

    SSE = "sse"
    AWS_EVENT_STREAM = "aws_event_stream"
    AWS_CHUNKS = "aws_chunks"  # the same, but each message wraps an event of another wire
    JSON_LINES = "json_lines"


class ReasoningStyle(Enum):
    """How an OpenAI-style provider wants to be told how much to think."""

    EFFORT = "effort"  # reasoning_effort: "low"
    OPENROUTER = "openrouter"  # reasoning: {effort | max_tokens | enabled | exclude}
    BINARY = "binary"  # thinking: {type: enabled | disabled}
    NONE = "none"


class AnthropicThinking(Enum):
    """How an Anthropic-style model wants to be told how much to think."""

    ADAPTIVE = "adaptive"  # thinking adaptive + output_config.effort
    BUDGET = "budget"  # thinking enabled + budget_tokens
    NONE = "none"


class GeminiThinking(Enum):
    """How a Gemini model wants to be told how much to think."""

    LEVEL = "level"  # thinkingConfig.thinkingLevel: "LOW"
    BUDGET = "budget"  # thinkingConfig.thinkingBudget
    NONE = "none"


class Carrier(Enum):
    """Whose API carries the wire: the path, the version and the framing are that API's."""

    OWN = "own"
    BEDROCK = "bedrock"  # InvokeModel
    VERTEX = "vertex"  # rawPredict; of Gemini, its own calls for counts and vectors


class SamplingRule(Enum):
    """When a model takes temperature, top_p and the like; else it refuses the whole request."""

    ALWAYS = "always"
    WITHOUT_THINKING = "without_thinking"  # only while its thinking is switched off
    NEVER = "never"


class EmbeddingApi(Enum):
    """Whose request for vectors an endpoint takes, where its wire has several."""

    OWN = "own"  # the wire's own
    PREDICT = "predict"  # Vertex's predict
    TITAN = "titan"  # Amazon Titan under InvokeModel
    COHERE = "cohere"  # Cohere under InvokeModel


class BedrockReasoning(Enum):
    """How a model on Bedrock wants to be told how much to think: its vendor's words."""

    CLAUDE_ADAPTIVE = "claude_adaptive"  # thinking adaptive + outputConfig.effort
    CLAUDE_BUDGET = "claude_budget"  # thinking enabled + budget_tokens
    NOVA = "nova"  # reasoningConfig: {type, maxReasoningEffort}
    EFFORT = "effort"  # reasoning_effort: "low"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Quirks:
    """In what an endpoint differs from its dialect. Comes from the provider's and the model's data, never from code.

    `efforts` are the levels that the model has (names of ReasoningEffort in lower case); empty means all that the
    dialect knows. `is_reasoning_mandatory`: OFF is refused. `options_family` is the family of its provider options.
    """

    reasoning_style: ReasoningStyle = ReasoningStyle.EFFORT
    anthropic_thinking: AnthropicThinking = AnthropicThinking.ADAPTIVE
    gemini_thinking: GeminiThinking = GeminiThinking.LEVEL
    bedrock_reasoning: BedrockReasoning = BedrockReasoning.NONE
    carrier: Carrier = Carrier.OWN
    sampling: SamplingRule = SamplingRule.ALWAYS
    efforts: tuple[str, ...] = ()
    is_reasoning_mandatory: bool = False
    claude_off: str = "disabled"  # how Claude is told not to think: "disabled" or "between_tools"
    max_tokens_field: str = "max_completion_tokens"
    supports_stream_options: bool = True
    supports_strict_schema: bool = True
    supports_top_k: bool = False
    supports_penalties: bool = True
    supports_seed: bool = True
    supports_stop: bool = True
    supports_forced_tools: bool = True  # a call may insist on a tool call
    supports_parallel_tool_calls: bool = True
    replay_reasoning_field: str = ""  # "reasoning_content" or "reasoning": goes back with assistant messages
    system_role: str = "system"  # or "developer"
    is_router_like: bool = False  # takes upstream routing (OpenRouter)
    takes_gateway_options: bool = False  # takes upstream routing as providerOptions.gateway (Vercel)
    default_max_output_tokens: int | None = None  # where the wire demands a number
    options_family: str = ""
    supports_tool_result_media: bool = False  # Gemini's function responses with parts
    needs_call_signatures: bool = False  # Gemini refuses a tool call of another model without a placeholder
    counts_searches_once: bool = False  # Gemini 2.5: one fee for an answer, however many queries it took
    counts_reasoning_apart: bool = False  # its completion_tokens leave reasoning out
    counts_cache_apart: bool = False  # its prompt_tokens leave cached tokens out
    counts_tokens: bool = False  # it has the call of its wire that counts a prompt
    count_model: str = ""  # the name that this call has for the model, where it is another
    supports_base64_vectors: bool = False  # it takes encoding_format "base64" for embeddings
    embedding_api: EmbeddingApi = EmbeddingApi.OWN
    dimensions_field: str = "dimensions"  # how embeddings ask for a length; empty: it cannot be asked for


@dataclass(frozen=True, slots=True)
class SseFrame:
    """One server-sent event."""

    event: str
    data: bytes


@dataclass(frozen=True, slots=True)
class AwsFrame:
    """One message of AWS's event stream. `kind` is "event", "exception" or "error"; `event` says which one."""

    kind: str
    event: str
    data: bytes


@dataclass(frozen=True, slots=True)
class LineFrame:
    """One line of a body of JSON lines. It has no name."""

    data: bytes
    event: str = ""


@dataclass(frozen=True, slots=True)
class BodyFrame:
    """A whole JSON body. A few answers say in `headers` what stands nowhere in them."""

    data: bytes
    headers: Headers = field(default_factory=dict)


Frame = SseFrame | AwsFrame | LineFrame | BodyFrame


@dataclass(frozen=True, slots=True)
class Encoded:
    """An HTTP request without a credential. `path` is joined to the provider's base URL."""

    path: str
    body: bytes
    headers: Headers = field(default_factory=dict)
    warnings: tuple[Notice, ...] = ()
    method: str = "POST"


class Decoder(Protocol):
    """One per response: a state machine. Both methods raise Fault for what the provider did wrong."""

    def feed(self, frame: Frame) -> Sequence[Event]:
        """Takes a frame and gives the events that it completes. An error inside the stream is raised."""
        ...

    def close(self) -> Sequence[Event]:
        """The upstream closed cleanly: gives what is still owed, or raises the fault of a cut answer."""
        ...


class Dialect(Protocol):
    """A wire format. Stateless."""

    name: str
    framing: Framing

    def encode(self, completion: Completion, quirks: Quirks) -> Encoded:
        """Says it in the wire's words. Raises Fault INVALID_REQUEST for content that the wire cannot carry."""
        ...

    def decoder(self, quirks: Quirks) -> Decoder:
        """A fresh decoder for one response."""
        ...

    def decode_error(self, status: int, headers: Headers, body: bytes) -> Fault:
        """What an answer with an error status means. Never fails, whatever the body is."""
        ...


class Embedder(Protocol):
    """The part of a wire that turns texts into vectors. Stateless. Its answers are whole bodies."""

    def encode_embedding(self, embedding: Embedding, quirks: Quirks) -> Encoded:
        """Says it in the wire's words. Raises Fault INVALID_REQUEST for what the wire cannot carry."""
        ...

    def embedding_decoder(self, embedding: Embedding, quirks: Quirks) -> Decoder:
        """A fresh decoder for one response: it gives Vectors, exactly as many as were asked for, and Finished."""
        ...


class TokenCounter(Protocol):
    """The part of a wire that counts a prompt. Stateless. Its answers are whole bodies."""

    def encode_count(self, completion: Completion, quirks: Quirks) -> Encoded:
        """The request that counts what this completion would send."""
        ...

    def count_decoder(self, quirks: Quirks) -> Decoder:
        """A fresh decoder for one response: it gives a UsageUpdated with the input tokens, and Finished."""
        ...
