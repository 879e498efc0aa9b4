"""Token counting of the Gemini wire, as Google AI Studio and Vertex have it."""

import msgspec

from router_service.core.request import Completion
from router_service.dialects.base import Carrier, Decoder, Encoded, Quirks
from router_service.dialects.counting import count_decoder, pick_fields
from router_service.dialects.gemini_encode import encode_request, model_path
from router_service.dialects.gemini_errors import fault_in_stream

_VERTEX_FIELDS = frozenset({"contents", "systemInstruction", "tools", "generationConfig"})


class GeminiTokenCounter:
    """The counter. It takes all of a request, so tools and instructions are counted too."""

    def encode_count(self, completion: Completion, quirks: Quirks) -> Encoded:
        """The request: on Vertex its fields, on AI Studio the whole of it inside another."""
        encoded = encode_request(completion, quirks)
        path = model_path(completion.model)
        if quirks.carrier is Carrier.VERTEX:
            body: object = pick_fields(encoded, _VERTEX_FIELDS)
        else:
            request = {"model": msgspec.Raw(msgspec.json.encode(path.removeprefix("/")))}
            request |= msgspec.json.decode(encoded.body, type=dict[str, msgspec.Raw])
            body = {"generateContentRequest": request}
        return Encoded(f"{path}:countTokens", msgspec.json.encode(body), encoded.headers, encoded.warnings)

    def count_decoder(self, quirks: Quirks) -> Decoder:
        """A fresh decoder."""
        del quirks
        return count_decoder("totalTokens", fault_in_stream)
