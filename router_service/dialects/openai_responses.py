"""OpenAI responses: the wire of OpenAI's newer models, spoken by xAI, DeepSeek, OpenRouter and local servers too."""

from router_service.core.faults import Fault
from router_service.core.request import Completion
from router_service.dialects.base import Decoder, Encoded, Framing, Headers, Quirks
from router_service.dialects.errors import fault_of_status
from router_service.dialects.openai_responses_decode import OpenAIResponsesDecoder
from router_service.dialects.openai_responses_encode import encode_request
from router_service.dialects.openai_responses_items import DIALECT


class OpenAIResponses:
    """The dialect. Nothing is kept at the provider: each request holds the whole conversation, reasoning sealed."""

    name = DIALECT
    framing = Framing.SSE

    def encode(self, completion: Completion, quirks: Quirks) -> Encoded:
        """Says it in the wire's words."""
        return encode_request(completion, quirks)

    def decoder(self, quirks: Quirks) -> Decoder:
        """A fresh decoder for one response. No quirk changes how this wire is read."""
        del quirks
        return OpenAIResponsesDecoder()

    def decode_error(self, status: int, headers: Headers, body: bytes) -> Fault:
        """What an answer with an error status means."""
        return fault_of_status(status, headers, body)
