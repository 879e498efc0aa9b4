"""The third wire of the practice provider: OpenAI's Responses, with reasoning, tools and its many events."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from deploy.local.practice_answers import (
    Answer,
    Ending,
    Refusal,
    disturb,
    split_arguments,
    split_words,
)
from deploy.local.practice_wires import OpenAIWire, named_event

SEALED: Final = "cHJhY3RpY2U="  # stands for reasoning that only the provider can read


def as_chat(body: object) -> object:
    """The same question in the chat wire's form, which is the one that is read."""
    if not isinstance(body, dict):
        return body
    given = body.get("input")
    items = [{"role": "user", "content": given}] if isinstance(given, str) else given
    if not isinstance(items, list):
        raise Refusal(400, "input must be a string or a list.", "invalid_type")
    messages = [message for item in items if isinstance(item, dict) and (message := _message(item)) is not None]
    instructions = body.get("instructions")
    if isinstance(instructions, str):
        messages.insert(0, {"role": "system", "content": instructions})
    text = body.get("text")
    wanted = text.get("format") if isinstance(text, dict) else None
    chat = {name: body[name] for name in ("model", "stream", "tools") if name in body}
    return chat | {"messages": messages, "max_tokens": body.get("max_output_tokens"), "response_format": wanted or {}}


def _message(item: Mapping[str, Any]) -> dict[str, Any] | None:
    match item.get("type", "message"):
        case "message":
            return {"role": item.get("role"), "content": item.get("content")}
        case "function_call_output":
            return {"role": "tool", "content": item.get("output")}
        case _:
            return None  # what the model said before decides nothing here


class ResponsesWire(OpenAIWire):
    """Forms of OpenAI's Responses. Errors and models are those of its chat wire."""

    def read(self, body: object) -> object:
        """The body in the form that questions are read in."""
        return as_chat(body)

    def whole(self, answer: Answer) -> dict[str, Any]:
        return self._response(answer, list(self._items(answer)))

    def _response(self, answer: Answer, items: list[dict[str, Any]], status: str = "") -> dict[str, Any]:
        is_open = status == "in_progress"
        response: dict[str, Any] = {
            "id": f"resp_{answer.answer_id}",
            "object": "response",
            "created_at": answer.created,
            "status": status or ("incomplete" if answer.shortened else "completed"),
            "model": answer.model,
            "output": items,
            "error": None,
            "incomplete_details": {"reason": "max_output_tokens"} if answer.shortened and not is_open else None,
            "instructions": None,
            "metadata": {},
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
            "temperature": None,
            "top_p": None,
        }
        return response if is_open else response | {"usage": self._usage(answer)}

    def _usage(self, answer: Answer) -> dict[str, Any]:
        return {
            "input_tokens": answer.input_words,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": answer.output_words,
            "output_tokens_details": {"reasoning_tokens": answer.thought_words},
            "total_tokens": answer.input_words + answer.output_words,
        }

    def _items(self, answer: Answer) -> Iterator[dict[str, Any]]:
        if answer.thought:
            summary = [{"type": "summary_text", "text": answer.thought}]
            sealed = {"encrypted_content": SEALED}
            yield {"type": "reasoning", "id": f"rs_{answer.answer_id}", "summary": summary} | sealed
        if answer.text:
            content = [_text(answer.text)]
            message = {"type": "message", "id": f"msg_{answer.answer_id}", "role": "assistant"}
            yield message | {"status": "completed", "content": content}
        for number, call in enumerate(answer.calls):
            named = {"id": f"fc_{answer.answer_id}_{number}", "call_id": call.call_id, "name": call.name}
            yield {"type": "function_call", "status": "completed", "arguments": call.arguments} | named

    def events(self, answer: Answer, include_usage: bool) -> Iterator[bytes]:
        del include_usage  # this wire always reports it
        for number, event in enumerate(self._events(answer)):
            yield named_event({**event, "sequence_number": number})

    def _events(self, answer: Answer) -> Iterator[dict[str, Any]]:
        begun = self._response(answer, [], "in_progress")
        yield {"type": "response.created", "response": begun}
        yield {"type": "response.in_progress", "response": begun}
        if answer.ending is Ending.OVERLOADED:
            error = {"code": "server_error", "message": self.overloaded().message}
            yield {"type": "response.failed", "response": {**begun, "status": "failed", "error": error}}
            return
        items = list(self._items(answer))
        for index, item in enumerate(items):
            here = {"output_index": index, "item_id": item["id"]}
            yield {"type": "response.output_item.added", "output_index": index, "item": _empty(item)}
            yield from ({**event, **here} for event in _inside(item, answer))
            yield {"type": "response.output_item.done", "output_index": index, "item": item}
        ended = self._response(answer, items)
        yield {"type": f"response.{ended['status']}", "response": ended}


def _text(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _empty(item: Mapping[str, Any]) -> dict[str, Any]:
    """An item at its beginning."""
    match item["type"]:
        case "reasoning":
            return {**item, "summary": []}
        case "message":
            return {**item, "status": "in_progress", "content": []}
        case _:
            return {**item, "status": "in_progress", "arguments": ""}


def _inside(item: Mapping[str, Any], answer: Answer) -> Iterator[dict[str, Any]]:
    """The events between an item's beginning and its end; cut where the answer is to break off."""
    match item["type"]:
        case "reasoning":
            part = {"summary_index": 0}
            kind = "response.reasoning_summary"
            yield {"type": f"{kind}_part.added", "part": {"type": "summary_text", "text": ""}, **part}
            for word in split_words(answer.thought):
                yield {"type": f"{kind}_text.delta", "delta": word, **part}
            yield {"type": f"{kind}_text.done", "text": answer.thought, **part}
            yield {"type": f"{kind}_part.done", "part": item["summary"][0], **part}
        case "message":
            part = {"content_index": 0}
            yield {"type": "response.content_part.added", "part": _text(""), **part}
            for word in disturb(answer):
                yield {"type": "response.output_text.delta", "delta": word, "logprobs": [], **part}
            yield {"type": "response.output_text.done", "text": answer.text, "logprobs": [], **part}
            yield {"type": "response.content_part.done", "part": item["content"][0], **part}
        case _:
            kind = "response.function_call_arguments"
            for piece in split_arguments(item["arguments"]):
                yield {"type": f"{kind}.delta", "delta": piece}
            yield {"type": f"{kind}.done", "arguments": item["arguments"], "name": item["name"]}
