"""Ollama's own chat wire, over JSON lines. Its OpenAI-compatible one is `openai_chat`."""

from router_service.core.faults import Fault
from router_service.core.request import Completion
from router_service.dialects.base import Decoder, Encoded, Framing, Headers, Quirks
from router_service.dialects.errors import fault_of_status
from router_service.dialects.ollama_decode import OllamaDecoder
from router_service.dialects.ollama_encode import DIALECT, encode_request


class OllamaChat:
    """The dialect."""

    name = DIALECT
    framing = Framing.JSON_LINES

    def encode(self, completion: Completion, quirks: Quirks) -> Encoded:
        """Says it in the wire's words."""
        return encode_request(completion, quirks)

    def decoder(self, quirks: Quirks) -> Decoder:
        """A fresh decoder for one response."""
        return OllamaDecoder()

    def decode_error(self, status: int, headers: Headers, body: bytes) -> Fault:
        """What an answer with an error status means."""
        return fault_of_status(status, headers, body)
