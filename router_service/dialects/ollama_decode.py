"""The decoder of Ollama's chat: lines of a stream, or a whole body, into events.

An answer is complete when a line says `done`; a clean close before that is a cut answer. What that last line counts is
the usage: a prompt that was cached whole is not counted by older servers, and then nothing is known of it.
"""

import re
from collections.abc import Mapping, Sequence

import msgspec

from router_service.core.events import Event, Finished, FinishReason, Identified, Usage, UsageUpdated
from router_service.core.faults import violation
from router_service.dialects.base import BodyFrame, Frame
from router_service.dialects.errors import fault_of, read_error
from router_service.dialects.ollama_wire import CallWire, ChunkWire, read_chunk
from router_service.dialects.parts import Parts
from router_service.dialects.reading import NO_RAW, count, read, read_any, read_object, says_something, text_of

_FINISH_REASONS: Mapping[str, FinishReason] = {"stop": FinishReason.STOP, "length": FinishReason.LENGTH}
_COUNTS = ("prompt_eval_count", "eval_count")
_UNSAFE = re.compile(r"[^0-9]")


class OllamaDecoder:
    """Decodes one response."""

    def __init__(self) -> None:
        self._parts = Parts(lambda _: None, self._name_call)
        self._calls = 0
        self._created_at = ""
        self._model = ""
        self._is_done = False

    def feed(self, frame: Frame) -> Sequence[Event]:
        """Takes a line or a whole body."""
        if self._is_done:
            return ()
        chunk = read(read_chunk, frame.data)
        if says_something(chunk.error):
            raise fault_of(None, {}, read_error(frame.data))
        if isinstance(frame, BodyFrame) and chunk.message is None:
            raise violation("no_answer", "The provider sent a whole answer without a message in it.")
        out: list[Event] = []
        self._identify(chunk, out)
        if chunk.message is not None:
            if chunk.message.thinking:
                self._parts.add_reasoning(out, chunk.message.thinking)
            if chunk.message.content:
                self._parts.add_text(out, chunk.message.content)
            for call in chunk.message.tool_calls or ():
                self._add_call(call, out)
        if chunk.done or isinstance(frame, BodyFrame):
            self._finish(chunk, frame.data, out)
        return out

    def close(self) -> Sequence[Event]:
        """The upstream closed cleanly."""
        if not self._is_done:
            raise violation("truncated", "The provider's answer ended before it was complete.")
        return ()

    def _identify(self, chunk: ChunkWire, out: list[Event]) -> None:
        self._created_at = self._created_at or chunk.created_at or ""
        if chunk.model and chunk.model != self._model:
            self._model = chunk.model
            out.append(Identified(model=chunk.model))

    def _add_call(self, call: CallWire, out: list[Event]) -> None:
        arguments = call.function.arguments
        value = read_any(arguments)
        text = value if isinstance(value, str) else text_of(arguments) if says_something(arguments) else ""
        self._parts.add_call(out, self._calls, call.id or "", call.function.name, text)
        self._calls += 1

    def _finish(self, chunk: ChunkWire, data: bytes, out: list[Event]) -> None:
        self._is_done = True
        self._parts.end(out)
        inputs, outputs = (count(read_any(one)) for one in (chunk.prompt_eval_count, chunk.eval_count))
        if inputs is not None or outputs is not None:
            found = read_object(data) or {}
            report = {name: found[name] for name in _COUNTS if found.get(name, NO_RAW) is not NO_RAW}
            raw = msgspec.json.encode(report).decode()
            out.append(UsageUpdated(Usage(input_tokens=inputs, output_tokens=outputs), raw))
        word = chunk.done_reason or ""
        reason = _FINISH_REASONS.get(word, FinishReason.UNKNOWN if word else FinishReason.STOP)
        if self._parts.has_calls and reason is FinishReason.STOP:
            reason = FinishReason.TOOL_CALLS
        out.append(Finished(reason, word))

    def _name_call(self, number: int) -> str:
        """The time of the answer tells the calls of two turns apart: this wire has no ids of its own."""
        return f"call_{_UNSAFE.sub('', self._created_at)[-24:] or 'ollama'}_{number}"
