"""Token counting of the Gemini wire, as Google AI Studio has it."""

import msgspec

from router_service.core.request import Completion
from router_service.dialects.base import Decoder, Encoded, Quirks
from router_service.dialects.counting import count_decoder
from router_service.dialects.gemini_encode import encode_request, model_path
from router_service.dialects.gemini_errors import fault_in_stream


class GeminiTokenCounter:
    """The counter. It takes a whole request, so tools and instructions are counted too."""

    def encode_count(self, completion: Completion, quirks: Quirks) -> Encoded:
        """The request."""
        encoded = encode_request(completion, quirks)
        path = model_path(completion.model)
        request = {"model": msgspec.Raw(msgspec.json.encode(path.removeprefix("/")))}
        request |= msgspec.json.decode(encoded.body, type=dict[str, msgspec.Raw])
        body = msgspec.json.encode({"generateContentRequest": request})
        return Encoded(f"{path}:countTokens", body, encoded.headers, encoded.warnings)

    def count_decoder(self, quirks: Quirks) -> Decoder:
        """A fresh decoder."""
        del quirks
        return count_decoder("totalTokens", fault_in_stream)
