"""Amazon Bedrock's Converse: one wire for the models of all vendors there."""

from router_service.core.faults import Fault
from router_service.core.request import Completion
from router_service.dialects.base import Decoder, Encoded, Framing, Headers, Quirks
from router_service.dialects.bedrock_decode import DIALECT, BedrockConverseDecoder
from router_service.dialects.bedrock_encode import encode_request
from router_service.dialects.bedrock_errors import fault_of_response


class BedrockConverse:
    """The dialect. Its base URL is the region's, without a path."""

    name = DIALECT
    framing = Framing.AWS_EVENT_STREAM

    def encode(self, completion: Completion, quirks: Quirks) -> Encoded:
        """Says it in the wire's words."""
        return encode_request(completion, quirks)

    def decoder(self, quirks: Quirks) -> Decoder:
        """A fresh decoder for one response. No quirk changes how this wire is read."""
        del quirks
        return BedrockConverseDecoder()

    def decode_error(self, status: int, headers: Headers, body: bytes) -> Fault:
        """What an answer with an error status means."""
        return fault_of_response(status, headers, body)
