"""Events of a completion, folded to the answer that the unary call would have given."""

from __future__ import annotations

from dataclasses import dataclass, field

import grpc
from keyswitch.router.v1 import completion_service_pb2, content_pb2, stream_pb2

from keyswitch_client.errors import KeyswitchError


@dataclass(slots=True)
class _OpenPart:
    """A part under way. Pieces are joined once: adding to a protobuf string copies it each time."""

    part: content_pb2.Part
    texts: list[str] = field(default_factory=list)
    chunks: list[bytes] = field(default_factory=list)


class Fold:
    """A completion as far as its events have told it.

    Events and parts of a kind that this version does not know keep their place and are skipped. A gap in the sequence,
    or an end without response_ended, is an error and never a short answer.
    """

    def __init__(self) -> None:
        self._sequence = 0
        self._parts: dict[int, _OpenPart] = {}
        self._started: stream_pb2.ResponseStarted | None = None
        self._ended: stream_pb2.ResponseEnded | None = None
        self.attempts_failed: list[stream_pb2.AttemptFailed] = []

    @property
    def response_id(self) -> str:
        """Empty until response_started."""
        return self._started.response_id if self._started else ""

    @property
    def is_ended(self) -> bool:
        """Whether response_ended came."""
        return self._ended is not None

    def add(self, event: stream_pb2.StreamEvent) -> None:
        """Takes the next event."""
        if event.sequence != self._sequence + 1:
            raise _broken(f"event {event.sequence} came after event {self._sequence}", self.response_id)
        self._sequence = event.sequence
        kind = event.WhichOneof("event")
        if kind == "part_delta":
            self._append(event.part_delta)
        elif kind == "part_started":
            self._open(event.part_started)
        elif kind == "part_ended":
            self._close(event.part_ended)
        elif kind == "response_started":
            self._started = event.response_started
        elif kind == "response_ended":
            self._ended = event.response_ended
        elif kind == "attempt_failed":
            self.attempts_failed.append(event.attempt_failed)

    def answer(self) -> completion_service_pb2.CompleteResponse:
        """The whole answer; an error when the stream has not ended."""
        if self._started is None or self._ended is None:
            raise _broken("the stream has not ended: there is no whole answer", self.response_id)
        return completion_service_pb2.CompleteResponse(
            response_id=self._started.response_id,
            resolution=self._started.resolution,
            warnings=self._started.warnings,
            message=self.message(),
            finish_reason=self._ended.finish_reason,
            provider_finish_reason=self._ended.provider_finish_reason,
            receipt=self._ended.receipt if self._ended.HasField("receipt") else None,
        )

    def message(self) -> content_pb2.Message:
        """What the model has said so far."""
        parts = [_built(self._parts[index]) for index in sorted(self._parts)]
        return content_pb2.Message(role=content_pb2.ROLE_ASSISTANT, parts=parts)

    def require_end(self) -> None:
        """Fails when the stream closed without its last event."""
        if self._ended is None:
            raise _broken("the stream closed without response_ended: the answer was cut", self.response_id)

    def _open(self, started: stream_pb2.PartStarted) -> None:
        part = content_pb2.Part()
        kind = started.WhichOneof("kind")
        if kind == "text":
            part.text.SetInParent()
        elif kind == "reasoning":
            part.reasoning.SetInParent()
        elif kind == "tool_call":
            part.tool_call.id = started.tool_call.id
            part.tool_call.name = started.tool_call.name
            part.tool_call.SetInParent()
        elif kind == "media":
            part.media.media_type = started.media.media_type
            part.media.filename = started.media.filename
            if started.media.uri:
                part.media.uri = started.media.uri
            else:
                part.media.data = b""
        elif kind == "provider":
            part.provider.dialect = started.provider.dialect
            part.provider.kind = started.provider.kind
        self._parts[started.index] = _OpenPart(part)

    def _append(self, delta: stream_pb2.PartDelta) -> None:
        open_part = self._part(delta.index)
        kind = delta.WhichOneof("delta")
        if kind == "text":
            open_part.texts.append(delta.text.text)
        elif kind == "reasoning":
            open_part.texts.append(delta.reasoning.text)
        elif kind == "arguments":
            open_part.texts.append(delta.arguments.json)
        elif kind == "provider":
            open_part.texts.append(delta.provider.json)
        elif kind == "media":
            open_part.chunks.append(delta.media.data)
        elif kind == "citation":
            open_part.part.text.citations.append(delta.citation.citation)

    def _close(self, ended: stream_pb2.PartEnded) -> None:
        open_part = self._part(ended.index)
        if ended.HasField("provider_state"):
            open_part.part.provider_state.CopyFrom(ended.provider_state)

    def _part(self, index: int) -> _OpenPart:
        if index not in self._parts:
            raise _broken(f"part {index} was never started", self.response_id)
        return self._parts[index]


def _built(open_part: _OpenPart) -> content_pb2.Part:
    part = content_pb2.Part()
    part.CopyFrom(open_part.part)
    text = "".join(open_part.texts)
    kind = part.WhichOneof("kind")
    if kind == "text":
        part.text.text = text
    elif kind == "reasoning":
        part.reasoning.text = text
    elif kind == "tool_call":
        part.tool_call.arguments_json = text
    elif kind == "provider":
        part.provider.json = text
    elif kind == "media" and open_part.chunks:
        part.media.data = b"".join(open_part.chunks)
    return part


def _broken(what: str, response_id: str) -> KeyswitchError:
    return KeyswitchError(code=grpc.StatusCode.DATA_LOSS, message=what, response_id=response_id)
