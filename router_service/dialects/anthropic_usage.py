"""Usage reports of Anthropic messages made into ours.

Their `input_tokens` leave out what the cache gave and took, ours contain all: the sum of three. Reports are running
totals, so a later one takes the place of an earlier one, field by field. The output count of `message_start` is a
placeholder and is not taken.
"""

import msgspec

from router_service.core.events import ToolRequests, Usage, UsageUpdated
from router_service.dialects.anthropic_wire import UsageWire, read_usage
from router_service.dialects.reading import count, read, read_any, text_of

_REQUESTS_SUFFIX = "_requests"


class RunningUsage:
    """The totals of one answer so far."""

    __slots__ = ("_counts", "_tools")

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._tools: dict[str, int] = {}

    def update(self, raw: msgspec.Raw, *, is_start: bool) -> UsageUpdated:
        """Takes a report. `is_start`: it came before anything was generated."""
        wire = read(read_usage, raw)
        self._take("input", wire.input_tokens)
        self._take("write", wire.cache_creation_input_tokens)
        self._take("read", wire.cache_read_input_tokens)
        if wire.cache_creation is not None:
            self._take("write_5m", wire.cache_creation.ephemeral_5m_input_tokens)
            self._take("write_1h", wire.cache_creation.ephemeral_1h_input_tokens)
        if not is_start:
            self._take("output", wire.output_tokens)
            if wire.output_tokens_details is not None:
                self._take("thinking", wire.output_tokens_details.thinking_tokens)
        self._take_tools(wire)
        return UsageUpdated(self._total(), text_of(raw))

    def _take(self, name: str, value: object) -> None:
        number = count(value)
        if number is not None:
            self._counts[name] = number

    def _take_tools(self, wire: UsageWire) -> None:
        for name, raw in (wire.server_tool_use or {}).items():
            number = count(read_any(raw))
            if number is not None and name.endswith(_REQUESTS_SUFFIX):
                self._tools[name.removesuffix(_REQUESTS_SUFFIX)] = number

    def _total(self) -> Usage:
        counts = self._counts
        inputs = [counts[name] for name in ("input", "write", "read") if name in counts]
        output, thinking = counts.get("output"), counts.get("thinking")
        if thinking is not None and output is not None:
            thinking = min(thinking, output)
        return Usage(
            input_tokens=sum(inputs) if "input" in counts else None,
            cache_read_tokens=counts.get("read"),
            cache_write_tokens=counts.get("write"),
            output_tokens=output,
            reasoning_tokens=thinking,
            cache_write_five_minute_tokens=counts.get("write_5m"),
            cache_write_one_hour_tokens=counts.get("write_1h"),
            tool_requests=tuple(ToolRequests(tool, number) for tool, number in sorted(self._tools.items()) if number),
        )
