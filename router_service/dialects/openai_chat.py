"""OpenAI chat completions, spoken by most providers."""

from router_service.core.faults import Fault
from router_service.core.request import Completion
from router_service.dialects.base import Decoder, Encoded, Framing, Headers, Quirks
from router_service.dialects.errors import fault_of_status
from router_service.dialects.openai_chat_decode import OpenAIChatDecoder
from router_service.dialects.openai_chat_encode import DIALECT, encode_request


class OpenAIChat:
    """The dialect. Ours is the state of the OpenAI wire and of what OpenRouter, Gemini and others add to it."""

    name = DIALECT
    framing = Framing.SSE

    def encode(self, completion: Completion, quirks: Quirks) -> Encoded:
        """Says it in the wire's words."""
        return encode_request(completion, quirks)

    def decoder(self, quirks: Quirks) -> Decoder:
        """A fresh decoder for one response."""
        return OpenAIChatDecoder(quirks)

    def decode_error(self, status: int, headers: Headers, body: bytes) -> Fault:
        """What an answer with an error status means."""
        return fault_of_status(status, headers, body)
