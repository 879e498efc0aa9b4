"""Token counting of Bedrock: a call beside Converse and InvokeModel that takes the request of either."""

import base64

import msgspec

from router_service.core.request import Completion
from router_service.dialects.base import Decoder, Encoded, Quirks
from router_service.dialects.bedrock_encode import encode_request
from router_service.dialects.counting import count_decoder, pick_fields
from router_service.dialects.errors import fault_of, read_error
from router_service.dialects.paths import model_segment

_FIELDS = frozenset({"messages", "system", "toolConfig", "additionalModelRequestFields"})


class BedrockTokenCounter:
    """The counter. It knows models by their own ids and not by those of inference profiles."""

    def encode_count(self, completion: Completion, quirks: Quirks) -> Encoded:
        """The request."""
        encoded = encode_request(completion, quirks)
        return wrap_count(completion, quirks, encoded, {"converse": pick_fields(encoded, _FIELDS)})

    def count_decoder(self, quirks: Quirks) -> Decoder:
        """A fresh decoder."""
        del quirks
        return bedrock_count_decoder()


def wrap_invocation(completion: Completion, quirks: Quirks, encoded: Encoded) -> Encoded:
    """The request that counts what InvokeModel would be sent."""
    return wrap_count(completion, quirks, encoded, {"invokeModel": {"body": base64.b64encode(encoded.body).decode()}})


def wrap_count(completion: Completion, quirks: Quirks, encoded: Encoded, what: object) -> Encoded:
    """The request that counts `what`."""
    path = f"/model/{model_segment(quirks.count_model or completion.model)}/count-tokens"
    return Encoded(path, msgspec.json.encode({"input": what}), encoded.headers, encoded.warnings)


def bedrock_count_decoder() -> Decoder:
    """Reads the answer."""
    return count_decoder("inputTokens", lambda data: fault_of(None, {}, read_error(data)))
