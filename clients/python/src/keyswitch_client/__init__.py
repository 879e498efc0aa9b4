"""A thin typed client of Keyswitch: the generated stubs, with builders, a fold and errors that can be read."""

from keyswitch_client.asynchronous import AsyncClient, AsyncStream
from keyswitch_client.certificate import ClientCertificate
from keyswitch_client.errors import FieldViolation, KeyswitchError
from keyswitch_client.fold import Fold
from keyswitch_client.messages import (
    assistant,
    document,
    image,
    system,
    text,
    text_of,
    tool,
    tool_calls_of,
    tool_result,
    user,
)
from keyswitch_client.options import CallOptions
from keyswitch_client.synchronous import Client, Stream

__all__ = [
    "AsyncClient",
    "AsyncStream",
    "CallOptions",
    "Client",
    "ClientCertificate",
    "FieldViolation",
    "Fold",
    "KeyswitchError",
    "Stream",
    "assistant",
    "document",
    "image",
    "system",
    "text",
    "text_of",
    "tool",
    "tool_calls_of",
    "tool_result",
    "user",
]
