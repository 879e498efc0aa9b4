"""The usage report of Converse made into ours.

Claude's `inputTokens` leave out what the cache gave and took, ours contain all. AWS's contract does not say so for
every model; its total tells, because it always contains everything.
"""

import msgspec

from router_service.core.events import Usage, UsageUpdated
from router_service.dialects.bedrock_wire import read_usage
from router_service.dialects.reading import count, read, text_of


def usage_of(raw: msgspec.Raw) -> UsageUpdated:
    """What was used."""
    wire = read(read_usage, raw)
    given, output, total = count(wire.input_tokens), count(wire.output_tokens), count(wire.total_tokens)
    cache_read, cache_write = count(wire.cache_read_input_tokens), count(wire.cache_write_input_tokens)
    cached = (cache_read or 0) + (cache_write or 0)
    contains_cached = None not in {given, output, total} and total == (given or 0) + (output or 0)
    written = {detail.ttl: count(detail.input_tokens) for detail in wire.cache_details or ()}
    usage = Usage(
        input_tokens=given if given is None or contains_cached else given + cached,
        cache_read_tokens=cache_read,
        cache_write_tokens=cache_write,
        output_tokens=output,
        cache_write_five_minute_tokens=written.get("5m"),
        cache_write_one_hour_tokens=written.get("1h"),
    )
    return UsageUpdated(usage, text_of(raw))
