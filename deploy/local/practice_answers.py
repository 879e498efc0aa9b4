"""What the practice provider answers: the question that a body asks and the answer that a model's name stands for."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, Final

SLOW_START_SECONDS: Final = 3.0
FAILURES: Final[Mapping[str, int]] = {
    "fail-401": 401,
    "fail-402": 402,
    "fail-404": 404,
    "fail-429": 429,
    "fail-500": 500,
    "fail-503": 503,
}
MODELS: Final = (
    *("echo", "tools", "thinker", "json"),
    *FAILURES,
    *("overloaded-in-stream", "cut", "stall", "slow"),
)


class Ending(Enum):
    """How an answer ends; only COMPLETE is one that a caller wants."""

    COMPLETE = "complete"
    OVERLOADED = "overloaded"
    CUT = "cut"
    STALL = "stall"


@dataclass(frozen=True)
class ToolCall:
    """A call of a declared tool, with arguments that fit its schema."""

    call_id: str
    name: str
    arguments: str


@dataclass(frozen=True)
class Answer:
    """What is to be said, before either wire gives it a form."""

    model: str
    answer_id: str
    created: int
    input_words: int
    text: str = ""
    thought: str = ""
    calls: tuple[ToolCall, ...] = ()
    ending: Ending = Ending.COMPLETE
    shortened: bool = False
    start_after_seconds: float = 0.0

    @property
    def thought_words(self) -> int:
        return len(self.thought.split())

    @property
    def output_words(self) -> int:
        return len(self.text.split()) + self.thought_words + sum(len(c.arguments.split()) for c in self.calls)


class Refusal(Exception):
    """A request that gets an error status instead of an answer."""

    def __init__(self, status: int, message: str, code: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code


class Disturbed(Exception):
    """A stream that is to break off here, in the way that the ending names."""

    def __init__(self, ending: Ending) -> None:
        super().__init__(ending.value)
        self.ending = ending


@dataclass(frozen=True)
class Question:
    """The fields of a request that decide the answer, the same for all wires."""

    model: str
    stream: bool
    include_usage: bool
    last_user_text: str
    tool_result_text: str | None
    input_words: int
    tools: tuple[tuple[str, Mapping[str, Any]], ...]
    answer_schema: Mapping[str, Any] | None
    max_words: int | None


# --- reading a request --------------------------------------------------------------


def _texts(content: object) -> Iterator[str]:
    if isinstance(content, str):
        yield content
    elif isinstance(content, list):
        for block in content:
            if not isinstance(block, dict):
                continue
            if isinstance(block.get("text"), str):
                yield block["text"]
            if block.get("type") == "tool_result":
                yield from _texts(block.get("content"))


def _is_tool_result(message: Mapping[str, Any]) -> bool:
    content = message.get("content")
    blocks = content if isinstance(content, list) else []
    return message.get("role") == "tool" or any(isinstance(b, dict) and b.get("type") == "tool_result" for b in blocks)


def _tools(body: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for tool in body.get("tools") or ():
        function = tool.get("function", tool)
        schema = function.get("parameters") or function.get("input_schema") or {}
        if isinstance(function.get("name"), str):
            yield function["name"], schema


def _answer_schema(body: Mapping[str, Any]) -> Mapping[str, Any] | None:
    response_format = body.get("response_format") or (body.get("output_config") or {}).get("format") or {}
    schema = response_format.get("schema") or (response_format.get("json_schema") or {}).get("schema")
    return schema if isinstance(schema, dict) else None


def read_question(body: object) -> Question:
    """The question in a body of either wire; their shapes differ too little to need two readers."""
    if not isinstance(body, dict) or not isinstance(body.get("model"), str):
        raise Refusal(400, "The body must be a JSON object with a model.", "invalid_body")
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages or not all(isinstance(m, dict) for m in messages):
        raise Refusal(400, "messages must be a list with at least one message.", "invalid_messages")
    said = [" ".join(_texts(m.get("content"))) for m in messages]
    asked = [text for m, text in zip(messages, said, strict=True) if m.get("role") == "user" and text]
    max_words = body.get("max_completion_tokens") or body.get("max_tokens")
    return Question(
        model=body["model"],
        stream=body.get("stream") is True,
        include_usage=(body.get("stream_options") or {}).get("include_usage") is True,
        last_user_text=asked[-1] if asked else "",
        tool_result_text=said[-1] if _is_tool_result(messages[-1]) else None,
        input_words=sum(len(text.split()) for text in (*said, *_texts(body.get("system")))),
        tools=tuple(_tools(body)),
        answer_schema=_answer_schema(body),
        max_words=max_words if isinstance(max_words, int) else None,
    )


# --- finding an answer --------------------------------------------------------------


def example_of(schema: Mapping[str, Any], text: str) -> object:
    """A value that fits a JSON schema of the usual kind; strings quote the text."""
    if schema.get("enum"):
        return schema["enum"][0]
    if "const" in schema:
        return schema["const"]
    match schema.get("type"):
        case "object":
            properties: Mapping[str, Any] = schema.get("properties") or {}
            return {name: example_of(sub, text) for name, sub in properties.items()}
        case "array":
            return [example_of(schema.get("items") or {}, text)]
        case "integer" | "number":
            return schema.get("minimum", 1)
        case "boolean":
            return True
        case "null":
            return None
        case _:
            return text


def _quote(question: Question) -> str:
    if question.tool_result_text is not None:
        return f'Practice provider here; no model ran. The tools answered: "{question.tool_result_text}"'
    return f'Hello from the practice provider; no model ran. You said: "{question.last_user_text}"'


def _shorten(answer: Answer, max_words: int | None) -> Answer:
    words = split_words(answer.text)
    if max_words is None or len(words) <= max_words:
        return answer
    return replace(answer, text="".join(words[:max_words]).rstrip(), shortened=True)


def find_answer(question: Question, answer_id: str, created: int) -> Answer:
    """The answer that the model's name asks for."""
    model = question.model
    if model not in MODELS:
        raise Refusal(404, f"The model `{model}` does not exist here. Try {', '.join(MODELS)}.", "model_not_found")
    if model in FAILURES:
        raise Refusal(FAILURES[model], f"The practice model {model} always answers this.", model)
    answer = Answer(model, answer_id, created, question.input_words, text=_quote(question))
    match model:
        case "tools" if question.tools and question.tool_result_text is None:
            calls = tuple(
                ToolCall(f"call_{answer_id}_{n}", name, json.dumps(example_of(schema, question.last_user_text)))
                for n, (name, schema) in enumerate(question.tools[:2])
            )
            return replace(answer, text="", calls=calls)
        case "thinker":
            thought = f"They wrote {len(question.last_user_text.split())} words. I shall quote them."
            return _shorten(replace(answer, thought=thought), question.max_words)
        case "json":
            plain = {"practice": True, "you_said": question.last_user_text}
            fitting = question.answer_schema and example_of(question.answer_schema, question.last_user_text)
            return replace(answer, text=json.dumps(fitting or plain))
        case "overloaded-in-stream":
            return replace(answer, ending=Ending.OVERLOADED)
        case "cut":
            return replace(answer, ending=Ending.CUT)
        case "stall":
            return replace(answer, ending=Ending.STALL)
        case "slow":
            return replace(answer, start_after_seconds=SLOW_START_SECONDS)
        case _:
            return _shorten(answer, question.max_words)


def split_words(text: str) -> list[str]:
    """The words with the white space that follows each: joined they are the text again."""
    return re.findall(r"^\s+|\S+\s*", text)


def split_arguments(arguments: str) -> list[str]:
    """Pieces of JSON text as a provider cuts them: anywhere."""
    return [arguments[start : start + 8] for start in range(0, len(arguments), 8)]


def disturb(answer: Answer) -> Iterator[str]:
    """The answer's words, breaking off after the third where the ending says so."""
    words = split_words(answer.text)
    if answer.ending is Ending.COMPLETE:
        yield from words
        return
    yield from words[:3]
    raise Disturbed(answer.ending)
