"""Token counting of OpenAI's Responses."""

import msgspec

from router_service.core.request import Completion
from router_service.dialects.base import Decoder, Encoded, Quirks
from router_service.dialects.counting import count_decoder, pick_fields
from router_service.dialects.errors import fault_of, read_error
from router_service.dialects.openai_responses_encode import encode_request

_FIELDS = frozenset(
    {"model", "input", "instructions", "tools", "tool_choice", "parallel_tool_calls", "reasoning", "text", "truncation"}
)


class ResponsesTokenCounter:
    """The counter. What is no part of the prompt is not in the request."""

    def encode_count(self, completion: Completion, quirks: Quirks) -> Encoded:
        """The request."""
        encoded = encode_request(completion, quirks)
        body = msgspec.json.encode(pick_fields(encoded, _FIELDS))
        return Encoded(f"{encoded.path}/input_tokens", body, encoded.headers, encoded.warnings)

    def count_decoder(self, quirks: Quirks) -> Decoder:
        """A fresh decoder."""
        del quirks
        return count_decoder("input_tokens", lambda data: fault_of(None, {}, read_error(data)))
