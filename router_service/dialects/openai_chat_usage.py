"""Usage reports of OpenAI-style servers made into ours.

Four differences decide what is billed. (1) Cached tokens stand in one of three places. (2) OpenAI's completion_tokens
contain reasoning and its prompt_tokens contain cached ones; xAI's and Vercel's leave the one out, Azure's Grok the
other. Where the numbers give it away they decide and not the server's name: a total that is the sum of all three, or
a part that is larger than its whole. Where they do not, a quirk says it (Vercel's total leaves reasoning out too).
(3) What is still larger than its whole is cut to it, or a price per bucket would be taken of a negative number.
(4) What the server charges is in USD (OpenRouter, Vercel), in USD in an object (Perplexity) or in ticks of 1e-10 USD
(xAI).
"""

from decimal import Decimal

import msgspec

from router_service.core.events import ToolRequests, Usage, UsageUpdated
from router_service.dialects.base import Quirks
from router_service.dialects.openai_chat_wire import DetailsWire, UsageWire, read_usage
from router_service.dialects.reading import NO_RAW, count, read, read_any, read_object, text_of, usd_nanos

_NANOS_PER_TICK = Decimal("0.1")
_REQUESTS_SUFFIX = "_requests"
_NO_DETAILS = DetailsWire()


def usage_event(raw: msgspec.Raw, quirks: Quirks) -> UsageUpdated:
    """The event of one report."""
    wire = read(read_usage, raw)
    inputs = wire.prompt_tokens_details or _NO_DETAILS
    outputs = wire.completion_tokens_details or _NO_DETAILS
    cached_tokens = _first(inputs.cached_tokens, wire.cached_tokens, wire.prompt_cache_hit_tokens)
    input_tokens = _whole(count(wire.prompt_tokens), cached_tokens, is_apart=quirks.counts_cache_apart)
    reasoning_tokens = _first(outputs.reasoning_tokens, wire.reasoning_tokens)
    output_tokens = _output_tokens(wire, reasoning_tokens, quirks)
    usage = Usage(
        input_tokens=input_tokens,
        cache_read_tokens=_part(cached_tokens, input_tokens),
        cache_write_tokens=_part(_first(inputs.cache_write_tokens, wire.cache_creation_input_tokens), input_tokens),
        output_tokens=output_tokens,
        reasoning_tokens=_part(reasoning_tokens, output_tokens),
        input_audio_tokens=_part(count(inputs.audio_tokens), input_tokens),
        input_image_tokens=_part(count(inputs.image_tokens), input_tokens),
        output_audio_tokens=_part(count(outputs.audio_tokens), output_tokens),
        output_image_tokens=_part(count(outputs.image_tokens), output_tokens),
        tool_requests=_tool_requests(wire),
    )
    return UsageUpdated(usage, text_of(raw), _charge(wire))


def _output_tokens(wire: UsageWire, reasoning_tokens: int | None, quirks: Quirks) -> int | None:
    completion, prompt, total = count(wire.completion_tokens), count(wire.prompt_tokens), count(wire.total_tokens)
    is_apart = quirks.counts_reasoning_apart
    if completion is not None and prompt is not None and reasoning_tokens:
        is_apart = is_apart or total == prompt + completion + reasoning_tokens
    return _whole(completion, reasoning_tokens, is_apart=is_apart)


def _whole(reported: int | None, part: int | None, *, is_apart: bool) -> int | None:
    """What contains the part: as reported, or the sum where the report left the part out."""
    if reported is None or part is None:
        return reported
    return reported + part if is_apart or part > reported else reported


def _first(*values: object) -> int | None:
    for value in values:
        number = count(value)
        if number is not None:
            return number
    return None


def _part(part: int | None, whole: int | None) -> int | None:
    return part if part is None or whole is None else min(part, whole)


def _tool_requests(wire: UsageWire) -> tuple[ToolRequests, ...]:
    found: dict[str, int] = {}
    for report in (wire.server_tool_use, wire.server_tool_use_details):
        for name, raw in (report or {}).items():
            number = count(read_any(raw))
            if number and name.endswith(_REQUESTS_SUFFIX):
                found[name.removesuffix(_REQUESTS_SUFFIX)] = number
    return tuple(ToolRequests(tool, number) for tool, number in sorted(found.items()))


def _charge(wire: UsageWire) -> int | None:
    if wire.cost is not NO_RAW:
        parts = read_object(wire.cost)
        amount = wire.cost if parts is None else parts.get("total_cost", NO_RAW)
        return usd_nanos(text_of(amount))
    if wire.cost_in_usd_ticks is not NO_RAW:
        return usd_nanos(text_of(wire.cost_in_usd_ticks), _NANOS_PER_TICK)
    return None
