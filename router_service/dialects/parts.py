"""Part boundaries for wires that have none: opens and closes parts by their kind and by the vendor's own ids.

Text and reasoning are *prose*: one is open at a time, and it ends where the other kind or media begins. Tool calls
stay open to the end of the answer, because parallel calls may interleave.
"""

from collections.abc import Callable, Hashable

from router_service.core.content import Citation
from router_service.core.events import (
    ArgumentsDelta,
    CitationDelta,
    Event,
    MediaDelta,
    MediaStart,
    PartEnded,
    PartStarted,
    ProviderDelta,
    ProviderStart,
    ReasoningDelta,
    ReasoningStart,
    TextDelta,
    TextStart,
    ToolCallStart,
)
from router_service.core.faults import violation

_NONE = -1


class _Call:
    """A tool call in the making. `index` is _NONE until its name is known; what came before that is `held`."""

    __slots__ = ("held", "id", "index", "is_empty", "name", "state")

    def __init__(self) -> None:
        self.id = ""
        self.name = ""
        self.index = _NONE
        self.held = ""
        self.is_empty = True
        self.state: bytes | None = None


class Parts:
    """The parts of one answer. Each method appends the events that it makes to `out`.

    `state_of` gives the opaque state of the prose that ends (its argument: whether it is reasoning); `name_call` makes
    an id for the n-th call of a server that gives none.
    """

    __slots__ = ("_calls", "_is_reasoning", "_name_call", "_prose", "_started", "_state_of")

    def __init__(self, state_of: Callable[[bool], bytes | None], name_call: Callable[[int], str]) -> None:
        self._state_of = state_of
        self._name_call = name_call
        self._started = 0
        self._prose = _NONE
        self._is_reasoning = False
        self._calls: dict[Hashable, _Call] = {}

    @property
    def has_calls(self) -> bool:
        """Whether the model called a tool."""
        return bool(self._calls)

    @property
    def is_prose_open(self) -> bool:
        """Whether text or reasoning is open."""
        return self._prose != _NONE

    @property
    def is_text_open(self) -> bool:
        """Whether a text part is open."""
        return self._prose != _NONE and not self._is_reasoning

    def add_text(self, out: list[Event], text: str) -> None:
        """More text; without any it only opens the part, so that its state has a place."""
        if self._is_reasoning or self._prose == _NONE:
            self._begin_prose(out, is_reasoning=False)
        if text:
            out.append(TextDelta(self._prose, text))

    def add_reasoning(self, out: list[Event], text: str) -> None:
        """More reasoning; without text it only opens the part, so that its state has a place."""
        if not self._is_reasoning or self._prose == _NONE:
            self._begin_prose(out, is_reasoning=True)
        if text:
            out.append(ReasoningDelta(self._prose, text))

    def add_citation(self, out: list[Event], citation: Citation) -> None:
        """A source of the text."""
        if self._is_reasoning or self._prose == _NONE:
            self._begin_prose(out, is_reasoning=False)
        out.append(CitationDelta(self._prose, citation))

    def add_media(self, out: list[Event], media_type: str, data: bytes, uri: str, state: bytes | None = None) -> None:
        """A whole image, sound or document."""
        self.end_prose(out)
        index = self._start()
        out.append(PartStarted(index, MediaStart(media_type, uri)))
        if not uri:
            out.append(MediaDelta(index, data))
        out.append(PartEnded(index, state))

    def add_block(self, out: list[Event], dialect: str, kind: str, json: str) -> None:
        """A whole block that has no neutral form."""
        self.end_prose(out)
        index = self._start()
        out += [PartStarted(index, ProviderStart(dialect, kind)), ProviderDelta(index, json), PartEnded(index)]

    def add_call(
        self, out: list[Event], key: Hashable, call_id: str, name: str, arguments: str, state: bytes | None = None
    ) -> None:
        """More of the tool call that the vendor knows by `key`."""
        call = self._calls.get(key)
        if call is None:
            call = self._calls[key] = _Call()
        call.state = state or call.state
        if call.index != _NONE:
            if arguments:
                call.is_empty = False
                out.append(ArgumentsDelta(call.index, arguments))
            return
        call.id = call.id or call_id
        call.name = call.name or name
        call.held += arguments
        if call.name:
            self._begin_call(out, call)

    def call_id_at(self, key: Hashable) -> str:
        """The id of the call that is known by `key`; empty when there is none, or none yet."""
        call = self._calls.get(key)
        return call.id if call else ""

    def end_prose(self, out: list[Event]) -> None:
        """Ends the text or the reasoning that is open."""
        if self._prose != _NONE:
            out.append(PartEnded(self._prose, self._state_of(self._is_reasoning)))
            self._prose = _NONE

    def end(self, out: list[Event]) -> None:
        """Ends all that is open."""
        self.end_prose(out)
        for call in self._calls.values():
            if call.index == _NONE:
                raise violation("tool_call_without_name", "The provider sent a tool call without a name.")
            if call.is_empty:
                out.append(ArgumentsDelta(call.index, "{}"))
            out.append(PartEnded(call.index, call.state))

    def _start(self) -> int:
        index = self._started
        self._started += 1
        return index

    def _begin_prose(self, out: list[Event], *, is_reasoning: bool) -> None:
        self.end_prose(out)
        self._is_reasoning = is_reasoning
        self._prose = self._start()
        out.append(PartStarted(self._prose, ReasoningStart() if is_reasoning else TextStart()))

    def _begin_call(self, out: list[Event], call: _Call) -> None:
        self.end_prose(out)
        call.index = self._start()
        call.id = call.id or self._name_call(len(self._calls) - 1)
        out.append(PartStarted(call.index, ToolCallStart(call.id, call.name)))
        if call.held:
            call.is_empty = False
            out.append(ArgumentsDelta(call.index, call.held))
            call.held = ""
