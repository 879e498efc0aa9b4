"""Usage reports of the Responses wire made into ours: its totals contain their parts, as ours do.

The report does not count the provider's own tools, so their calls are counted as they come by. What the server
charges is in USD (OpenRouter) or in ticks of 1e-10 USD (xAI).
"""

from collections.abc import Mapping
from decimal import Decimal

import msgspec

from router_service.core.events import ToolRequests, Usage, UsageUpdated
from router_service.dialects.openai_responses_wire import DetailsWire, UsageWire, read_usage
from router_service.dialects.reading import NO_RAW, count, read, text_of, usd_nanos

_NANOS_PER_TICK = Decimal("0.1")
_NO_DETAILS = DetailsWire()


def usage_event(raw: msgspec.Raw, tool_requests: Mapping[str, int]) -> UsageUpdated:
    """The event of one report."""
    wire = read(read_usage, raw)
    inputs = wire.input_tokens_details or _NO_DETAILS
    outputs = wire.output_tokens_details or _NO_DETAILS
    input_tokens, output_tokens = count(wire.input_tokens), count(wire.output_tokens)
    usage = Usage(
        input_tokens=input_tokens,
        cache_read_tokens=_part(inputs.cached_tokens, input_tokens),
        cache_write_tokens=_part(inputs.cache_write_tokens, input_tokens),
        output_tokens=output_tokens,
        reasoning_tokens=_part(outputs.reasoning_tokens, output_tokens),
        input_audio_tokens=_part(inputs.audio_tokens, input_tokens),
        input_image_tokens=_part(inputs.image_tokens, input_tokens),
        output_audio_tokens=_part(outputs.audio_tokens, output_tokens),
        output_image_tokens=_part(outputs.image_tokens, output_tokens),
        tool_requests=tuple(ToolRequests(tool, number) for tool, number in sorted(tool_requests.items())),
    )
    return UsageUpdated(usage, text_of(raw), _charge(wire))


def _part(reported: object, whole: int | None) -> int | None:
    """A part larger than its whole is cut to it, or a price per bucket would be taken of a negative number."""
    part = count(reported)
    return part if part is None or whole is None else min(part, whole)


def _charge(wire: UsageWire) -> int | None:
    if wire.cost is not NO_RAW:
        return usd_nanos(text_of(wire.cost))
    if wire.cost_in_usd_ticks is not NO_RAW:
        return usd_nanos(text_of(wire.cost_in_usd_ticks), _NANOS_PER_TICK)
    return None
