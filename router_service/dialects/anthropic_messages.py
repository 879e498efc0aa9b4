"""Anthropic messages, spoken by Anthropic and by the Anthropic-style endpoints of others."""

from router_service.core.faults import Fault
from router_service.core.request import Completion
from router_service.dialects.anthropic_decode import DIALECT, AnthropicMessagesDecoder
from router_service.dialects.anthropic_encode import encode_request
from router_service.dialects.base import Decoder, Encoded, Framing, Headers, Quirks
from router_service.dialects.bedrock_errors import fault_of_response
from router_service.dialects.errors import fault_of_status


class AnthropicMessages:
    """The dialect. Its base URL ends before "/v1"."""

    name = DIALECT
    framing = Framing.SSE

    def encode(self, completion: Completion, quirks: Quirks) -> Encoded:
        """Says it in the wire's words."""
        return encode_request(completion, quirks)

    def decoder(self, quirks: Quirks) -> Decoder:
        """A fresh decoder for one response. No quirk changes how this wire is read."""
        del quirks
        return AnthropicMessagesDecoder()

    def decode_error(self, status: int, headers: Headers, body: bytes) -> Fault:
        """What an answer with an error status means."""
        if any(name.startswith("x-amzn-") for name in headers):
            return fault_of_response(status, headers, body)
        return fault_of_status(status, headers, body)
