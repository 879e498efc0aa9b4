"""Token counting of the Anthropic wire, at Anthropic's own API and at those that carry it."""

from typing import assert_never

import msgspec

from router_service.core.request import Completion
from router_service.dialects.anthropic_encode import encode_request
from router_service.dialects.base import Carrier, Decoder, Encoded, Quirks
from router_service.dialects.bedrock_count import bedrock_count_decoder, wrap_invocation
from router_service.dialects.counting import count_decoder, pick_fields
from router_service.dialects.errors import fault_of, read_error

_FIELDS = frozenset({"messages", "system", "tools", "tool_choice", "thinking", "output_config", "anthropic_version"})


class AnthropicTokenCounter:
    """The counter: what is not part of the prompt may not be in the request."""

    def encode_count(self, completion: Completion, quirks: Quirks) -> Encoded:
        """The request."""
        encoded = encode_request(completion, quirks)
        match quirks.carrier:
            case Carrier.OWN:
                path = f"{encoded.path}/count_tokens"
            case Carrier.VERTEX:
                path = "/count-tokens:rawPredict"
            case Carrier.BEDROCK:
                return wrap_invocation(completion, quirks, encoded)
            case _:
                assert_never(quirks.carrier)
        model = msgspec.Raw(msgspec.json.encode(quirks.count_model or completion.model))
        body = msgspec.json.encode({"model": model} | pick_fields(encoded, _FIELDS))
        return Encoded(path, body, encoded.headers, encoded.warnings)

    def count_decoder(self, quirks: Quirks) -> Decoder:
        """A fresh decoder."""
        if quirks.carrier is Carrier.BEDROCK:
            return bedrock_count_decoder()
        return count_decoder("input_tokens", lambda data: fault_of(None, {}, read_error(data)))
