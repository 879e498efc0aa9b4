"""Usage reports of Gemini made into ours.

Their promptTokenCount contains cached tokens but not what the provider's own tools put into the prompt, which is
billed as input: ours is the sum. Their candidatesTokenCount leaves thoughts out: ours is the sum. Reports are running
totals, but one may leave out what an earlier one had, and some hold no number at all; so each field keeps its last
value. Where the candidates are never counted (a blocked answer, or one that ended while it thought), the total tells.
"""

import msgspec

from router_service.core.events import ToolRequests, Usage, UsageUpdated
from router_service.dialects.gemini_wire import ModalityWire, read_usage
from router_service.dialects.reading import count, read, text_of


class RunningUsage:
    """The totals of one answer so far."""

    __slots__ = ("_counts", "_last", "_searches")

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._last: Usage | None = None
        self._searches = 0

    def count_searches(self, count: int) -> None:
        """How many searches the answer took so far; the next report says it."""
        self._searches = count

    def update(self, raw: msgspec.Raw) -> UsageUpdated | None:
        """Takes a report; None when it says nothing new."""
        wire = read(read_usage, raw)
        self._take("prompt", wire.prompt_token_count)
        self._take("cached", wire.cached_content_token_count)
        self._take("candidates", wire.candidates_token_count)
        self._take("thoughts", wire.thoughts_token_count)
        self._take("tools", wire.tool_use_prompt_token_count)
        self._take("total", wire.total_token_count)
        if wire.prompt_tokens_details or wire.tool_use_prompt_tokens_details:
            self._take_details("input", wire.prompt_tokens_details, wire.tool_use_prompt_tokens_details)
        if wire.candidates_tokens_details:
            self._take_details("output", wire.candidates_tokens_details, None)
        return self.settle(text_of(raw))

    def settle(self, report: str = "") -> UsageUpdated | None:
        """What is known and was not said yet."""
        if not self._counts and not self._searches:
            return None
        usage = self._total()
        if usage == self._last:
            return None
        self._last = usage
        return UsageUpdated(usage, report)

    def _take(self, name: str, value: object) -> None:
        if value is not None and (number := count(value)) is not None:
            self._counts[name] = number

    def _take_details(self, side: str, first: list[ModalityWire] | None, second: list[ModalityWire] | None) -> None:
        found: dict[str, int] = {}
        for detail in (*(first or ()), *(second or ())):
            number = count(detail.token_count)
            if number is not None and detail.modality in {"AUDIO", "IMAGE"}:
                name = f"{side}_{detail.modality}"
                found[name] = found.get(name, 0) + number
        self._counts.update(found)

    def _total(self) -> Usage:
        get = self._counts.get
        prompt, thoughts = get("prompt"), get("thoughts")
        input_tokens = None if prompt is None else prompt + get("tools", 0)
        output_tokens = self._output(input_tokens)
        return Usage(
            input_tokens=input_tokens,
            cache_read_tokens=_part(get("cached"), input_tokens),
            output_tokens=output_tokens,
            reasoning_tokens=_part(thoughts, output_tokens),
            input_audio_tokens=_part(get("input_AUDIO"), input_tokens),
            input_image_tokens=_part(get("input_IMAGE"), input_tokens),
            output_audio_tokens=_part(get("output_AUDIO"), output_tokens),
            output_image_tokens=_part(get("output_IMAGE"), output_tokens),
            tool_requests=(ToolRequests("web_search", self._searches),) if self._searches else (),
        )

    def _output(self, input_tokens: int | None) -> int | None:
        candidates, thoughts, total = (self._counts.get(name) for name in ("candidates", "thoughts", "total"))
        if candidates is not None:
            return candidates + (thoughts or 0)
        if total is not None and input_tokens is not None and total >= input_tokens + (thoughts or 0):
            return total - input_tokens
        return thoughts


def _part(part: int | None, whole: int | None) -> int | None:
    return part if part is None or whole is None else min(part, whole)
