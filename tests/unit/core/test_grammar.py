"""The grammar: what it lets through, and every way to break it."""

import pytest

from router_service.core.content import Citation
from router_service.core.events import (
    ArgumentsDelta,
    CitationDelta,
    Event,
    Finished,
    FinishReason,
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
    Usage,
    UsageUpdated,
)
from router_service.core.faults import Fault, Reason
from router_service.core.grammar import ADMITTED, PHASES, Grammar, Phase

END = Finished(FinishReason.STOP, "stop")
STARTS: dict[type[Start], Start] = {
    TextStart: TextStart(),
    ReasoningStart: ReasoningStart(),
    ToolCallStart: ToolCallStart("id", "name"),
    MediaStart: MediaStart("image/png"),
    ProviderStart: ProviderStart("dialect", "kind"),
}
DELTAS: list[Event] = [
    TextDelta(0, "a"),
    ReasoningDelta(0, "a"),
    ArgumentsDelta(0, "{"),
    MediaDelta(0, b"a"),
    CitationDelta(0, Citation()),
    ProviderDelta(0, "{"),
]


def check(*events: Event) -> Grammar:
    grammar = Grammar()
    for event in events:
        grammar.check(event)
    return grammar


def test_an_answer_with_interleaved_parts_passes() -> None:
    grammar = check(
        Identified("id"),
        PartStarted(0, TextStart()),
        TextDelta(0, "a"),
        PartStarted(1, ToolCallStart("x", "f")),
        TextDelta(0, "b"),
        ArgumentsDelta(1, "{}"),
        UsageUpdated(Usage()),
        PartEnded(1),
        CitationDelta(0, Citation("https://example.org")),
        PartEnded(0, b"state"),
        END,
    )
    assert grammar.is_finished


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("delta", DELTAS, ids=lambda delta: type(delta).__name__)
def test_a_part_takes_only_its_own_deltas(start: type[Start], delta: Event) -> None:
    events = (PartStarted(0, STARTS[start]), delta)
    if type(delta) in ADMITTED[start]:
        check(*events)
    else:
        with pytest.raises(Fault):
            check(*events)


@pytest.mark.parametrize(
    "events",
    [
        [PartStarted(1, TextStart())],
        [PartStarted(0, TextStart()), PartStarted(0, TextStart())],
        [PartStarted(0, TextStart()), PartStarted(2, TextStart())],
        [TextDelta(0, "a")],
        [PartEnded(0)],
        [PartStarted(0, TextStart()), PartEnded(0), PartEnded(0)],
        [PartStarted(0, TextStart()), PartEnded(0), TextDelta(0, "a")],
        [PartStarted(0, TextStart()), END],
        [END, END],
        [END, PartStarted(0, TextStart())],
        [END, UsageUpdated(Usage())],
        [END, Identified("x")],
        [PartStarted(0, MediaStart("image/png", uri="https://example.org/a")), MediaDelta(0, b"a")],
    ],
)
def test_a_broken_order_is_the_providers_fault(events: list[Event]) -> None:
    with pytest.raises(Fault) as caught:
        check(*events)
    assert caught.value.reason is Reason.UPSTREAM_PROTOCOL_VIOLATION
    assert caught.value.metadata["violation"] == "order"


def test_the_tables_know_every_event() -> None:
    known = set(PHASES[Phase.OPEN])
    assert {type(delta) for delta in DELTAS} <= known
    assert set().union(*ADMITTED.values()) <= known
    assert PHASES[Phase.FINISHED] == {}
