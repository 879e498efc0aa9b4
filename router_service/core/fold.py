"""Events folded into a whole answer. Folding a stream gives exactly what a unary answer has."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import assert_never

from router_service.core.content import (
    Citation,
    Media,
    Part,
    PartKind,
    ProviderBlock,
    ProviderState,
    Reasoning,
    Text,
    ToolCall,
)
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
    Usage,
    UsageUpdated,
    Vectors,
)


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer, whole or as far as it came. `finish` is None while it has not finished.

    `usage_json` is the provider's last own report; `charged_usd_nanos` what the provider said that it charges.
    """

    parts: tuple[Part, ...] = ()
    usage: Usage | None = None
    usage_json: str = ""
    charged_usd_nanos: int | None = None
    identity: Identified = field(default=Identified())
    finish: Finished | None = None


class _OpenPart:
    """A part that is being put together: pieces are joined once, at the end."""

    __slots__ = ("citations", "data", "start", "state", "text")

    def __init__(self, start: Start) -> None:
        self.start = start
        self.text: list[str] = []
        self.data: list[bytes] = []
        self.citations: list[Citation] = []
        self.state: bytes | None = None

    def kind(self) -> PartKind:
        """The part as a value."""
        match self.start:
            case TextStart():
                return Text("".join(self.text), tuple(self.citations))
            case ReasoningStart():
                return Reasoning("".join(self.text))
            case ToolCallStart(id=call_id, name=name):
                return ToolCall(call_id, name, "".join(self.text))
            case MediaStart(media_type=media_type, uri=uri, filename=filename):
                return Media(media_type, None if uri else b"".join(self.data), uri, filename)
            case ProviderStart(dialect=dialect, kind=kind):
                return ProviderBlock(dialect, kind, "".join(self.text))
            case _:
                assert_never(self.start)


class Fold:
    """Puts an answer together, event by event. Takes only events that the grammar has let through.

    `dialect` and `provider` tag the opaque state: without its origin it could be sent to a stranger.
    """

    def __init__(self, dialect: str, provider: str) -> None:
        self._dialect = dialect
        self._provider = provider
        self._parts: list[_OpenPart] = []
        self._usage: Usage | None = None
        self._usage_json = ""
        self._charged_usd_nanos: int | None = None
        self._identity = Identified()
        self._finish: Finished | None = None

    def add(self, event: Event) -> None:
        """Takes the next event."""
        match event:
            case TextDelta() | ReasoningDelta():
                self._parts[event.index].text.append(event.text)
            case ArgumentsDelta() | ProviderDelta():
                self._parts[event.index].text.append(event.json)
            case MediaDelta():
                self._parts[event.index].data.append(event.data)
            case CitationDelta():
                self._parts[event.index].citations.append(event.citation)
            case PartStarted():
                self._parts.append(_OpenPart(event.start))
            case PartEnded():
                self._parts[event.index].state = event.state
            case UsageUpdated():
                self._usage = event.usage
                self._usage_json = event.json or self._usage_json
                if event.charged_usd_nanos is not None:
                    self._charged_usd_nanos = event.charged_usd_nanos
            case Vectors():
                pass  # the answer to an embedding is no message
            case Identified():
                known = self._identity
                self._identity = Identified(
                    event.request_id or known.request_id, event.model or known.model, event.backend or known.backend
                )
            case Finished():
                self._finish = event
            case _:
                assert_never(event)

    def answer(self) -> Answer:
        """What there is so far; parts that are still open are in it as far as they came."""
        return Answer(
            parts=tuple(Part(part.kind(), provider_state=self._tag(part.state)) for part in self._parts),
            usage=self._usage,
            usage_json=self._usage_json,
            charged_usd_nanos=self._charged_usd_nanos,
            identity=self._identity,
            finish=self._finish,
        )

    def _tag(self, state: bytes | None) -> ProviderState | None:
        return None if state is None else ProviderState(self._dialect, self._provider, state)


def fold(events: Iterable[Event], *, dialect: str, provider: str) -> Answer:
    """Folds all events of an answer."""
    folding = Fold(dialect, provider)
    for event in events:
        folding.add(event)
    return folding.answer()
