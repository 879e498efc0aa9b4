"""Gemini's generateContent, spoken by Google AI Studio and by Vertex AI."""

from router_service.core.faults import Fault
from router_service.core.request import Completion
from router_service.dialects.base import Decoder, Encoded, Framing, Headers, Quirks
from router_service.dialects.gemini_decode import DIALECT, GeminiDecoder
from router_service.dialects.gemini_encode import encode_request
from router_service.dialects.gemini_errors import fault_of_response


class Gemini:
    """The dialect. Its base URL ends before "/models": after "/v1beta", on Vertex after "/publishers/google"."""

    name = DIALECT
    framing = Framing.SSE

    def encode(self, completion: Completion, quirks: Quirks) -> Encoded:
        """Says it in the wire's words."""
        return encode_request(completion, quirks)

    def decoder(self, quirks: Quirks) -> Decoder:
        """A fresh decoder for one response."""
        return GeminiDecoder(quirks)

    def decode_error(self, status: int, headers: Headers, body: bytes) -> Fault:
        """What an answer with an error status means."""
        return fault_of_response(status, headers, body)
