"""Two wires of the practice provider: an answer in the form of each."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from deploy.local.practice_answers import (
    MODELS,
    Answer,
    Disturbed,
    Ending,
    Refusal,
    disturb,
    split_arguments,
    split_words,
)


class OpenAIWire:
    """Forms of the OpenAI chat wire."""

    def overloaded(self) -> Refusal:
        return Refusal(503, "Overloaded, as this practice model always is.", "overloaded")

    error_types: Final = {401: "authentication_error", 402: "insufficient_quota", 429: "rate_limit_error"}

    def read(self, body: object) -> object:
        """The body in the form that questions are read in: as it is."""
        return body

    def check(self, headers: Mapping[str, str], body: Mapping[str, Any]) -> None:
        """This wire demands nothing that the question does not."""

    def error(self, refusal: Refusal) -> dict[str, Any]:
        kind = self.error_types.get(refusal.status) or (
            "server_error" if refusal.status >= 500 else "invalid_request_error"
        )
        code = "rate_limit_exceeded" if refusal.status == 429 else refusal.code
        return {"error": {"message": refusal.message, "type": kind, "param": None, "code": code}}

    def models(self) -> dict[str, Any]:
        return {
            "object": "list",
            "data": [{"id": m, "object": "model", "created": 0, "owned_by": "practice"} for m in MODELS],
        }

    def _usage(self, answer: Answer) -> dict[str, Any]:
        return {
            "prompt_tokens": answer.input_words,
            "completion_tokens": answer.output_words,
            "total_tokens": answer.input_words + answer.output_words,
            "completion_tokens_details": {"reasoning_tokens": answer.thought_words},
        }

    def _finish(self, answer: Answer) -> str:
        return "tool_calls" if answer.calls else "length" if answer.shortened else "stop"

    def whole(self, answer: Answer) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": answer.text or None}
        if answer.thought:
            message["reasoning_content"] = answer.thought
        if answer.calls:
            message["tool_calls"] = [
                {"id": c.call_id, "type": "function", "function": {"name": c.name, "arguments": c.arguments}}
                for c in answer.calls
            ]
        return {
            "id": f"chatcmpl-{answer.answer_id}",
            "object": "chat.completion",
            "created": answer.created,
            "model": answer.model,
            "choices": [{"index": 0, "message": message, "finish_reason": self._finish(answer)}],
            "usage": self._usage(answer),
        }

    def _deltas(self, answer: Answer) -> Iterator[dict[str, Any]]:
        yield {"role": "assistant", "content": ""}
        if answer.ending is Ending.OVERLOADED:
            raise Disturbed(answer.ending)
        yield from ({"reasoning_content": word} for word in split_words(answer.thought))
        yield from ({"content": word} for word in disturb(answer))
        for index, call in enumerate(answer.calls):
            head = {"index": index, "id": call.call_id, "type": "function"}
            yield {"tool_calls": [{**head, "function": {"name": call.name, "arguments": ""}}]}
            for piece in split_arguments(call.arguments):
                yield {"tool_calls": [{"index": index, "function": {"arguments": piece}}]}

    def events(self, answer: Answer, include_usage: bool) -> Iterator[bytes]:
        head = {
            "id": f"chatcmpl-{answer.answer_id}",
            "object": "chat.completion.chunk",
            "created": answer.created,
            "model": answer.model,
        }
        try:
            for delta in self._deltas(answer):
                yield _sse({**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
        except Disturbed as disturbed:
            if disturbed.ending is not Ending.OVERLOADED:
                raise
            yield _sse(self.error(self.overloaded()))
            return
        yield _sse({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": self._finish(answer)}]})
        if include_usage:
            yield _sse({**head, "choices": [], "usage": self._usage(answer)})
        yield b"data: [DONE]\n\n"


class AnthropicWire:
    """Forms of the Anthropic messages wire."""

    def overloaded(self) -> Refusal:
        return Refusal(529, "Overloaded, as this practice model always is.")

    error_types: Final = {
        400: "invalid_request_error",
        401: "authentication_error",
        402: "billing_error",
        404: "not_found_error",
        429: "rate_limit_error",
        529: "overloaded_error",
    }

    def read(self, body: object) -> object:
        """The body in the form that questions are read in: as it is."""
        return body

    def check(self, headers: Mapping[str, str], body: Mapping[str, Any]) -> None:
        """Refuses what the real API refuses: no version, or no bound for the answer."""
        if "anthropic-version" not in headers:
            raise Refusal(400, "anthropic-version: header is required")
        if not isinstance(body.get("max_tokens"), int):
            raise Refusal(400, "max_tokens: Field required")

    def error(self, refusal: Refusal) -> dict[str, Any]:
        kind = self.error_types.get(refusal.status, "api_error")
        return {"type": "error", "error": {"type": kind, "message": refusal.message}, "request_id": "req_practice"}

    def models(self) -> dict[str, Any]:
        created = "2026-01-01T00:00:00Z"
        data = [{"type": "model", "id": m, "display_name": f"Practice {m}", "created_at": created} for m in MODELS]
        return {"data": data, "has_more": False, "first_id": MODELS[0], "last_id": MODELS[-1]}

    def _stop_reason(self, answer: Answer) -> str:
        return "tool_use" if answer.calls else "max_tokens" if answer.shortened else "end_turn"

    def _head(self, answer: Answer) -> dict[str, Any]:
        return {"id": f"msg_{answer.answer_id}", "type": "message", "role": "assistant", "model": answer.model}

    def whole(self, answer: Answer) -> dict[str, Any]:
        content: list[dict[str, Any]] = []
        if answer.thought:
            content.append({"type": "thinking", "thinking": answer.thought, "signature": "cHJhY3RpY2U="})
        if answer.text:
            content.append({"type": "text", "text": answer.text})
        content.extend(
            {"type": "tool_use", "id": c.call_id, "name": c.name, "input": json.loads(c.arguments)}
            for c in answer.calls
        )
        usage = {"input_tokens": answer.input_words, "output_tokens": answer.output_words}
        end = {"stop_reason": self._stop_reason(answer), "stop_sequence": None}
        return {**self._head(answer), "content": content, **end, "usage": usage}

    def _blocks(self, answer: Answer) -> Iterator[tuple[dict[str, Any], Iterable[dict[str, Any]]]]:
        if answer.thought:
            deltas: list[dict[str, Any]] = [
                {"type": "thinking_delta", "thinking": word} for word in split_words(answer.thought)
            ]
            signature = {"type": "signature_delta", "signature": "cHJhY3RpY2U="}
            yield {"type": "thinking", "thinking": "", "signature": ""}, [*deltas, signature]
        if answer.text:
            yield {"type": "text", "text": ""}, ({"type": "text_delta", "text": word} for word in disturb(answer))
        for call in answer.calls:
            block = {"type": "tool_use", "id": call.call_id, "name": call.name, "input": {}}
            pieces = split_arguments(call.arguments)
            yield block, ({"type": "input_json_delta", "partial_json": piece} for piece in pieces)

    def events(self, answer: Answer, include_usage: bool) -> Iterator[bytes]:
        del include_usage  # this wire always reports it
        usage = {"input_tokens": answer.input_words, "output_tokens": 1}
        message = {**self._head(answer), "content": [], "stop_reason": None, "stop_sequence": None, "usage": usage}
        yield named_event({"type": "message_start", "message": message})
        yield named_event({"type": "ping"})
        if answer.ending is Ending.OVERLOADED:
            yield named_event(self.error(self.overloaded()))
            return
        for index, (block, deltas) in enumerate(self._blocks(answer)):
            yield named_event({"type": "content_block_start", "index": index, "content_block": block})
            for delta in deltas:
                yield named_event({"type": "content_block_delta", "index": index, "delta": delta})
            yield named_event({"type": "content_block_stop", "index": index})
        end = {"stop_reason": self._stop_reason(answer), "stop_sequence": None}
        yield named_event({"type": "message_delta", "delta": end, "usage": {"output_tokens": answer.output_words}})
        yield named_event({"type": "message_stop"})


Wire = OpenAIWire | AnthropicWire


def _sse(value: object) -> bytes:
    return b"data: " + json.dumps(value, separators=(",", ":")).encode() + b"\n\n"


def named_event(value: Mapping[str, Any]) -> bytes:
    """A server-sent event that is called as its type is."""
    return f"event: {value['type']}\n".encode() + _sse(value)
