"""The fold: a stream gives the parts that a unary answer has, its state tagged with its origin."""

from router_service.core.content import Citation, Media, Part, ProviderBlock, ProviderState, Reasoning, Text, ToolCall
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
    TextDelta,
    TextStart,
    ToolCallStart,
    Usage,
    UsageUpdated,
)
from router_service.core.fold import Answer, Fold, fold

EVENTS: list[Event] = [
    Identified("req", "model"),
    PartStarted(0, ReasoningStart()),
    ReasoningDelta(0, "Hm"),
    ReasoningDelta(0, "."),
    PartEnded(0, b"{}"),
    PartStarted(1, TextStart()),
    PartStarted(2, ToolCallStart("id", "name")),
    TextDelta(1, "a"),
    ArgumentsDelta(2, '{"a"'),
    TextDelta(1, "b"),
    CitationDelta(1, Citation("https://example.org")),
    ArgumentsDelta(2, ":1}"),
    PartEnded(1),
    PartEnded(2),
    PartStarted(3, MediaStart("image/png")),
    MediaDelta(3, b"12"),
    MediaDelta(3, b"3"),
    PartEnded(3),
    PartStarted(4, MediaStart("image/png", uri="https://example.org/a.png", filename="a.png")),
    PartEnded(4),
    PartStarted(5, ProviderStart("dialect", "kind")),
    ProviderDelta(5, "{"),
    ProviderDelta(5, "}"),
    PartEnded(5),
    UsageUpdated(Usage(input_tokens=1), '{"in":1}', 5),
    Identified(backend="other"),
    UsageUpdated(Usage(input_tokens=1, output_tokens=2)),
    Finished(FinishReason.STOP, "stop"),
]


def test_all_kinds_of_parts_are_put_together() -> None:
    assert fold(EVENTS, dialect="d", provider="providers/p") == Answer(
        parts=(
            Part(Reasoning("Hm."), provider_state=ProviderState("d", "providers/p", b"{}")),
            Part(Text("ab", (Citation("https://example.org"),))),
            Part(ToolCall("id", "name", '{"a":1}')),
            Part(Media("image/png", b"123")),
            Part(Media("image/png", uri="https://example.org/a.png", filename="a.png")),
            Part(ProviderBlock("dialect", "kind", "{}")),
        ),
        usage=Usage(input_tokens=1, output_tokens=2),
        usage_json='{"in":1}',
        charged_usd_nanos=5,
        identity=Identified("req", "model", "other"),
        finish=Finished(FinishReason.STOP, "stop"),
    )


def test_a_half_answer_holds_what_came() -> None:
    folding = Fold("d", "p")
    for event in EVENTS[:8]:
        folding.add(event)
    answer = folding.answer()
    assert answer.finish is None
    assert [part.kind for part in answer.parts] == [Reasoning("Hm."), Text("a"), ToolCall("id", "name", "")]


def test_no_events_are_an_empty_answer() -> None:
    assert fold([], dialect="d", provider="p") == Answer()
