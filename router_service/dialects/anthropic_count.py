"""Token counting of the Anthropic wire."""

import msgspec

from router_service.core.request import Completion
from router_service.dialects.anthropic_encode import encode_request
from router_service.dialects.base import Decoder, Encoded, Quirks
from router_service.dialects.counting import count_decoder, pick_fields
from router_service.dialects.errors import fault_of, read_error

_FIELDS = frozenset({"model", "messages", "system", "tools", "tool_choice", "thinking", "output_config"})


class AnthropicTokenCounter:
    """The counter: what is not part of the prompt may not be in the request."""

    def encode_count(self, completion: Completion, quirks: Quirks) -> Encoded:
        """The request."""
        encoded = encode_request(completion, quirks)
        body = msgspec.json.encode(pick_fields(encoded, _FIELDS))
        return Encoded(f"{encoded.path}/count_tokens", body, encoded.headers, encoded.warnings)

    def count_decoder(self, quirks: Quirks) -> Decoder:
        """A fresh decoder."""
        del quirks
        return count_decoder("input_tokens", lambda data: fault_of(None, {}, read_error(data)))
