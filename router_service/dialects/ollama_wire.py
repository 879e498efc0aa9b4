"""The shapes of Ollama's /api/chat, as far as they are needed. Unknown fields are passed over.

Source: https://docs.ollama.com/api/chat.
"""

import msgspec

from router_service.dialects.reading import NO_RAW


class FunctionWire(msgspec.Struct):
    """What a tool call names. The arguments are an object, or text of servers that copy the API."""

    name: str = ""
    arguments: msgspec.Raw = NO_RAW


class CallWire(msgspec.Struct):
    """A tool call; it comes whole. Only newer servers give it an id."""

    id: str | None = None
    function: FunctionWire = msgspec.field(default_factory=FunctionWire)


class MessageWire(msgspec.Struct):
    """A piece of the answer, or all of it."""

    content: str | None = None
    thinking: str | None = None
    tool_calls: list[CallWire] | None = None


class ChunkWire(msgspec.Struct):
    """A line of a stream, or a whole body."""

    model: str | None = None
    created_at: str | None = None
    message: MessageWire | None = None
    done: bool = False
    done_reason: str | None = None
    prompt_eval_count: msgspec.Raw = NO_RAW
    eval_count: msgspec.Raw = NO_RAW
    error: msgspec.Raw = NO_RAW


read_chunk = msgspec.json.Decoder(ChunkWire)
