"""Where a call's events go: a stream of messages, or one folded answer."""

from collections.abc import Sequence
from typing import Any, assert_never

import grpc
from keyswitch.router.v1 import completion_service_pb2, content_pb2, resolution_pb2, stream_pb2

from router_service.core.content import (
    Media,
    Part,
    ProviderBlock,
    ProviderState,
    Reasoning,
    Text,
    ToolCall,
    ToolResult,
)
from router_service.core.events import (
    ArgumentsDelta,
    CitationDelta,
    FinishReason,
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
    UsageUpdated,
    Vectors,
)
from router_service.core.fold import Fold
from router_service.core.outcome import AttemptFailed, Output, ResponseEnded, ResponseStarted
from router_service.exchange import CallerGone
from router_service.transport import wire_build
from router_service.transport.wire_citations import build_citation

_FINISH = {
    reason: stream_pb2.FinishReason.Value(
        f"FINISH_REASON_{'UNSPECIFIED' if reason is FinishReason.UNKNOWN else reason.name}"
    )
    for reason in FinishReason
}

_Mergeable = TextDelta | ReasoningDelta | ArgumentsDelta | ProviderDelta


class StreamSink:
    """Sends events as they come; what is ready together travels together, adjacent deltas of one part merged."""

    def __init__(self, context: Any) -> None:
        self._context = context
        self._sequence = 0
        self._origin = ("", "")  # dialect and provider of the answer, for opaque state

    async def send(self, outputs: Sequence[Output]) -> None:
        """Writes one message. Waits while the reader is slow."""
        response = completion_service_pb2.StreamCompleteResponse()
        add = response.events.add
        pending: _Mergeable | None = None
        texts: list[str] = []
        for output in outputs:
            kind = type(output)
            if kind is TextDelta or kind is ReasoningDelta:
                text: str = output.text  # type: ignore[union-attr]
            elif kind is ArgumentsDelta or kind is ProviderDelta:
                text = output.json  # type: ignore[union-attr]
            else:
                if pending is not None:
                    self._write_text(add(), pending, texts)
                    pending = None
                self._write(add(), output)
                continue
            if pending is not None:
                if type(pending) is kind and pending.index == output.index:  # type: ignore[union-attr]
                    texts.append(text)
                    continue
                self._write_text(add(), pending, texts)
            pending, texts = output, [text]  # type: ignore[assignment]
        if pending is not None:
            self._write_text(add(), pending, texts)
        try:
            await self._context.write(response)
        except grpc.aio.InternalError as error:
            # A waiting write whose caller leaves fails before the cancel arrives and before `cancelled()` is true.
            raise CallerGone from error
        except grpc.aio.UsageError as error:
            if self._context.cancelled() or self._context.done():
                raise CallerGone from error
            raise

    def _write_text(self, event: stream_pb2.StreamEvent, delta: _Mergeable, texts: list[str]) -> None:
        self._sequence += 1
        event.sequence = self._sequence
        built = event.part_delta
        built.index = delta.index
        text = texts[0] if len(texts) == 1 else "".join(texts)
        match delta:
            case TextDelta():
                built.text.text = text
            case ReasoningDelta():
                built.reasoning.text = text
            case ArgumentsDelta():
                built.arguments.json = text
            case ProviderDelta():
                built.provider.json = text
            case _:
                assert_never(delta)

    def _write(self, event: stream_pb2.StreamEvent, output: Output) -> None:
        self._sequence += 1
        event.sequence = self._sequence
        match output:
            case PartStarted():
                _start(event.part_started, output)
            case PartEnded(index=index, state=state):
                event.part_ended.index = index
                if state is not None:
                    dialect, provider = self._origin
                    event.part_ended.provider_state.CopyFrom(
                        content_pb2.ProviderState(dialect=dialect, data=state, provider=provider)
                    )
            case UsageUpdated(usage=usage):
                event.usage_updated.usage.CopyFrom(wire_build.usage(usage))
            case ResponseStarted():
                self._origin = (output.dialect, output.resolution.provider)
                _started(event.response_started, output)
            case ResponseEnded():
                event.response_ended.finish_reason = _FINISH[output.reason]
                event.response_ended.provider_finish_reason = output.provider_reason
                event.response_ended.receipt.CopyFrom(wire_build.receipt(output.receipt))
            case AttemptFailed():
                _failed(event.attempt_failed, output)
            case Vectors():
                raise AssertionError("no completion has vectors")
            case _:
                _delta(event.part_delta, output)


class UnarySink:
    """Folds the events into one answer."""

    def __init__(self) -> None:
        self._fold: Fold | None = None
        self._started: ResponseStarted | None = None
        self._ended: ResponseEnded | None = None

    async def send(self, outputs: Sequence[Output]) -> None:
        """Takes events."""
        for output in outputs:
            match output:
                case ResponseStarted():
                    self._started = output
                    self._fold = Fold(output.dialect, output.resolution.provider)
                case ResponseEnded():
                    self._ended = output
                case AttemptFailed():
                    pass  # the receipt tells of it
                case _:
                    if self._fold is not None:
                        self._fold.add(output)

    def response(self) -> completion_service_pb2.CompleteResponse:
        """The whole answer."""
        if self._started is None or self._ended is None or self._fold is None:
            raise AssertionError("a call that returns has started and ended")
        started = stream_pb2.ResponseStarted()
        _started(started, self._started)
        return completion_service_pb2.CompleteResponse(
            response_id=started.response_id,
            resolution=started.resolution,
            warnings=started.warnings,
            message=content_pb2.Message(
                role=content_pb2.ROLE_ASSISTANT, parts=[build_part(part) for part in self._fold.answer().parts]
            ),
            finish_reason=_FINISH[self._ended.reason],
            provider_finish_reason=self._ended.provider_reason,
            receipt=wire_build.receipt(self._ended.receipt),
        )


class CountSink:
    """Keeps a count of tokens."""

    def __init__(self) -> None:
        self._response = completion_service_pb2.CountTokensResponse()

    async def send(self, outputs: Sequence[Output]) -> None:
        """Takes events."""
        built = self._response
        for output in outputs:
            if isinstance(output, ResponseStarted):
                built.resolution.CopyFrom(wire_build.resolution(output.resolution))
                built.warnings.extend(wire_build.warning(notice) for notice in output.warnings)
                built.is_estimate = output.resolution.attempt == 0
            elif isinstance(output, UsageUpdated):
                built.input_tokens = output.usage.input_tokens or 0

    def response(self) -> completion_service_pb2.CountTokensResponse:
        """The count."""
        return self._response


def build_part(part: Part) -> content_pb2.Part:
    """A complete piece of an answer."""
    built = content_pb2.Part()
    match part.kind:
        case Text(text=text, citations=citations):
            built.text.text = text
            built.text.citations.extend(build_citation(citation) for citation in citations)
        case Reasoning(text=text):
            built.reasoning.text = text
            built.reasoning.SetInParent()
        case ToolCall(id=call_id, name=name, arguments_json=arguments):
            built.tool_call.CopyFrom(content_pb2.ToolCallPart(id=call_id, name=name, arguments_json=arguments))
        case Media(media_type=media_type, data=data, uri=uri, filename=filename):
            built.media.CopyFrom(content_pb2.MediaPart(media_type=media_type, filename=filename))
            if data is not None:
                built.media.data = data
            else:
                built.media.uri = uri
        case ProviderBlock(dialect=dialect, kind=kind, json=json):
            built.provider.CopyFrom(content_pb2.ProviderPart(dialect=dialect, kind=kind, json=json))
        case ToolResult():
            raise AssertionError("an answer holds no tool result")
        case _:
            assert_never(part.kind)
    if isinstance(part.kind, Text):
        built.text.SetInParent()
    if part.provider_state is not None:
        built.provider_state.CopyFrom(_state(part.provider_state))
    return built


def _state(state: ProviderState) -> content_pb2.ProviderState:
    return content_pb2.ProviderState(dialect=state.dialect, data=state.data, provider=state.provider)


def _started(built: stream_pb2.ResponseStarted, output: ResponseStarted) -> None:
    built.response_id = output.response_id
    built.resolution.CopyFrom(wire_build.resolution(output.resolution))
    warnings: list[resolution_pb2.Warning] = [wire_build.warning(warning) for warning in output.warnings]
    built.warnings.extend(warnings)


def _failed(built: stream_pb2.AttemptFailed, output: AttemptFailed) -> None:
    built.attempt = output.attempt
    built.model = output.model
    built.provider = output.provider
    built.payer = wire_build.payer(output.payer)
    built.reason = wire_build.reason(output.reason)
    if output.retry_delay_seconds is not None:
        built.retry_delay.CopyFrom(wire_build.duration(output.retry_delay_seconds))
    if output.usage is not None:
        built.usage.CopyFrom(wire_build.usage(output.usage))


def _start(built: stream_pb2.PartStarted, output: PartStarted) -> None:
    built.index = output.index
    match output.start:
        case TextStart():
            built.text.SetInParent()
        case ReasoningStart():
            built.reasoning.SetInParent()
        case ToolCallStart(id=call_id, name=name):
            built.tool_call.id = call_id
            built.tool_call.name = name
        case MediaStart(media_type=media_type, uri=uri, filename=filename):
            built.media.CopyFrom(stream_pb2.MediaStart(media_type=media_type, uri=uri, filename=filename))
        case ProviderStart(dialect=dialect, kind=kind):
            built.provider.dialect = dialect
            built.provider.kind = kind
        case _:
            assert_never(output.start)


def _delta(
    built: stream_pb2.PartDelta,
    output: ArgumentsDelta | MediaDelta | CitationDelta | ProviderDelta | TextDelta | ReasoningDelta,
) -> None:
    built.index = output.index
    match output:
        case ArgumentsDelta(json=json):
            built.arguments.json = json
        case MediaDelta(data=data):
            built.media.data = data
        case CitationDelta(citation=citation):
            built.citation.citation.CopyFrom(build_citation(citation))
        case ProviderDelta(json=json):
            built.provider.json = json
        case TextDelta(text=text):
            built.text.text = text
        case ReasoningDelta(text=text):
            built.reasoning.text = text
        case _:
            assert_never(output)
