"""The grammar of a decoder's events, as a table. It is enforced in production, on every event of every answer.

    answer = { identified | usage_updated | part_event } finished
    part   = part_started { delta } part_ended

Parts may interleave, each under its own index; the indices are 0, 1, 2, ... in the order of the starts. A delta fits
the kind of its part. A part ends once. All parts have ended when the answer finishes, and nothing comes after that.

Two tables say this. `PHASES` holds what may come in which phase of an answer and where it leads: an answer is open
until it has finished. `ADMITTED` holds which deltas a kind of part takes. What neither table allows is a fault of the
provider, or of our decoder, and either way nothing that a caller should see: whoever folds a stream may rely on the
grammar and check nothing.

The border is here and not in the decoders because a decoder that trusts its provider is short, and one border that
trusts nobody is easy to read. A decoder may still refuse earlier and with a better word.
"""

from collections.abc import Mapping
from enum import Enum

from router_service.core.events import (
    ArgumentsDelta,
    CitationDelta,
    Event,
    Finished,
    Identified,
    MediaDelta,
    MediaStart,
    PartEnded,
    PartStarted,
    ProviderDelta,
    ProviderStart,
    ReasoningDelta,
    ReasoningStart,
    Start,
    TextDelta,
    TextStart,
    ToolCallStart,
    UsageUpdated,
    Vectors,
)
from router_service.core.faults import violation


class Phase(Enum):
    """How far an answer is."""

    OPEN = "open"
    FINISHED = "finished"


PHASES: Mapping[Phase, Mapping[type[Event], Phase]] = {
    Phase.OPEN: {
        PartStarted: Phase.OPEN,
        TextDelta: Phase.OPEN,
        ReasoningDelta: Phase.OPEN,
        ArgumentsDelta: Phase.OPEN,
        MediaDelta: Phase.OPEN,
        CitationDelta: Phase.OPEN,
        ProviderDelta: Phase.OPEN,
        PartEnded: Phase.OPEN,
        UsageUpdated: Phase.OPEN,
        Identified: Phase.OPEN,
        Vectors: Phase.OPEN,
        Finished: Phase.FINISHED,
    },
    Phase.FINISHED: {},
}

ADMITTED: Mapping[type[Start], frozenset[type[Event]]] = {
    TextStart: frozenset({TextDelta, CitationDelta}),
    ReasoningStart: frozenset({ReasoningDelta}),
    ToolCallStart: frozenset({ArgumentsDelta}),
    MediaStart: frozenset({MediaDelta}),
    ProviderStart: frozenset({ProviderDelta}),
}

_NOTHING: frozenset[type[Event]] = frozenset()


class Grammar:
    """Follows one answer. `check` raises Fault UPSTREAM_PROTOCOL_VIOLATION at the first event that does not fit."""

    __slots__ = ("_allowed", "_open", "_phase", "_started")

    def __init__(self) -> None:
        self._phase = Phase.OPEN
        self._allowed = PHASES[Phase.OPEN]
        self._open: dict[int, frozenset[type[Event]]] = {}
        self._started = 0

    @property
    def is_finished(self) -> bool:
        """Whether the answer is complete."""
        return self._phase is Phase.FINISHED

    def check(self, event: Event) -> None:
        """Takes the next event."""
        kind = type(event)
        if kind not in self._allowed:
            raise violation("order", f"The provider's answer went on with {kind.__name__} after its end.")
        if isinstance(event, PartStarted):
            self._start(event)
        elif isinstance(event, PartEnded):
            if self._open.pop(event.index, None) is None:
                raise violation("order", f"The provider ended part {event.index}, which is not open.")
        elif isinstance(event, Finished):
            if self._open:
                raise violation("order", f"The provider finished its answer with {len(self._open)} parts still open.")
            self._phase = self._allowed[kind]
            self._allowed = PHASES[self._phase]
        elif isinstance(event, UsageUpdated | Identified | Vectors):
            return
        elif kind not in self._open.get(event.index, _NOTHING):
            raise violation(
                "order", f"The provider sent {kind.__name__} for part {event.index}, which does not take it."
            )

    def _start(self, event: PartStarted) -> None:
        if event.index != self._started:
            raise violation("order", f"The provider started part {event.index} where part {self._started} was due.")
        self._started += 1
        start = event.start
        by_reference = isinstance(start, MediaStart) and bool(start.uri)
        self._open[event.index] = _NOTHING if by_reference else ADMITTED[type(start)]
