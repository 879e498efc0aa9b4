"""Messages in the words of OpenAI chat completions.

Two things do not fit the wire and are carried beside it. A tool message takes only text, so media in a tool's answer
travel in a user message after all results of that turn, and a warning says so. A tool message has no mark of failure,
so a failed tool's answer begins with "Error: ".
"""

from dataclasses import dataclass, field
from typing import assert_never

import msgspec

from router_service.core.content import (
    CacheTtl,
    Media,
    Message,
    Part,
    ProviderBlock,
    Reasoning,
    Role,
    Text,
    ToolCall,
    ToolResult,
)
from router_service.core.request import Completion
from router_service.dialects.base import Quirks
from router_service.dialects.openai_chat_media import assistant_image, media_part
from router_service.dialects.openai_chat_state import read_state
from router_service.dialects.reading import NO_RAW, read_any
from router_service.dialects.writing import Body, Content, Notices, part_path, wrong


@dataclass(slots=True)
class _Turn:
    """An assistant message in the making."""

    parts: list[Body] = field(default_factory=list)
    calls: list[Body] = field(default_factory=list)
    images: list[Body] = field(default_factory=list)
    details: list[object] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    extra: msgspec.Raw = field(default_factory=lambda: NO_RAW)


class MessagesWriter:
    """Writes one conversation."""

    def __init__(self, dialect: str, completion: Completion, quirks: Quirks, notices: Notices) -> None:
        self._messages = completion.messages
        self._quirks = quirks
        self._notices = notices
        self._content = Content(dialect, completion.provider, notices)
        self._out: list[Body] = []
        self._held_media: list[Body] = []

    def write(self) -> list[Body]:
        """All messages of the wire."""
        for index, message in enumerate(self._messages):
            match message.role:
                case Role.SYSTEM:
                    self._write_system(index, message)
                case Role.USER | Role.TOOL:
                    self._write_user(index, message)
                case Role.ASSISTANT:
                    self._flush_media()
                    self._out.append(self._assistant(index, message))
                case _:
                    assert_never(message.role)
        self._flush_media()
        return self._out

    def _write_system(self, index: int, message: Message) -> None:
        self._flush_media()
        parts: list[Body] = []
        for number, part in enumerate(message.parts):
            if not isinstance(part.kind, Text):
                raise wrong(part_path(index, number), "A system message holds only text.")
            parts.append(self._text(part, part.kind))
        self._out.append({"role": self._quirks.system_role, "content": _simplify(parts)})

    def _write_user(self, index: int, message: Message) -> None:
        parts: list[Body] = []
        for number, part in enumerate(message.parts):
            path = part_path(index, number)
            match part.kind:
                case ToolResult():
                    self._out.append(self._tool_result(part.kind, path))  # before any text: the wire wants them next
                case Text():
                    parts.append(self._text(part, part.kind))
                case Media():
                    parts.append(self._cached(part, media_part(part.kind, path, self._quirks, self._notices)))
                case ProviderBlock():
                    block = self._content.block(part.kind, path)
                    if block is not None:
                        parts.append(dict(block))
                case Reasoning() | ToolCall():
                    raise wrong(path, "Only an assistant message holds reasoning and tool calls.")
                case _:
                    assert_never(part.kind)
        if parts:
            parts = self._held_media + parts
            self._held_media = []
            self._out.append({"role": "user", "content": _simplify(parts)})

    def _tool_result(self, result: ToolResult, path: str) -> Body:
        call_id = self._content.answered(result, path)
        texts: list[str] = []
        for piece in result.content:
            match piece:
                case Text():
                    texts.append(piece.text)
                case Media():
                    name = f"{path}.tool_result"
                    self._held_media.append(media_part(piece, name, self._quirks, self._notices))
                    self._notices.adjust(name, "This wire's tool results hold only text; media follow as user content.")
                case ProviderBlock():
                    if self._content.block(piece, f"{path}.tool_result") is not None:
                        texts.append(piece.json)
                case _:
                    assert_never(piece)
        text = "\n".join(texts)
        return {"role": "tool", "tool_call_id": call_id, "content": f"Error: {text}" if result.is_error else text}

    def _assistant(self, index: int, message: Message) -> Body:
        turn = _Turn()
        for number, part in enumerate(message.parts):
            self._add_to_turn(turn, part, part_path(index, number))
        written: Body = {"role": "assistant", "content": None}
        if turn.parts or not turn.calls:
            written["content"] = _simplify(turn.parts) if turn.parts else ""
        optional = {"tool_calls": turn.calls, "images": turn.images, "reasoning_details": turn.details}
        written.update({name: value for name, value in optional.items() if value})
        if turn.reasoning:
            written[self._quirks.replay_reasoning_field] = "".join(turn.reasoning)
        if turn.extra is not NO_RAW:
            written["extra_content"] = turn.extra
        return written

    def _add_to_turn(self, turn: "_Turn", part: Part, path: str) -> None:
        match part.kind:
            case Text():
                turn.parts.append(self._text(part, part.kind))
                turn.extra = read_state(self._content.state(part, path) or b"").get("extra_content", turn.extra)
            case Reasoning():
                self._reasoning(part, part.kind, path, turn)
            case ToolCall():
                turn.calls.append(self._tool_call(part, part.kind, path))
            case Media():
                if image := assistant_image(part.kind, path, self._quirks, self._notices):
                    turn.images.append(image)
            case ProviderBlock():
                if block := self._content.block(part.kind, path):
                    turn.parts.append(dict(block))
            case ToolResult():
                raise wrong(path, "A tool result belongs into a tool message.")
            case _:
                assert_never(part.kind)

    def _reasoning(self, part: Part, kind: Reasoning, path: str, turn: "_Turn") -> None:
        """What goes back: the details as they came, and the text where the server wants it.

        The text is not opaque, so any provider's will do; the state has it where the caller hid it.
        """
        state = read_state(self._content.state(part, path) or b"")
        turn.extra = state.get("extra_content", turn.extra)
        found = read_any(state.get("reasoning_details", NO_RAW))
        if isinstance(found, list):
            turn.details.extend(found)
        name = self._quirks.replay_reasoning_field
        if name:
            text = read_any(state.get(name, NO_RAW))
            turn.reasoning.append(text if isinstance(text, str) else kind.text)

    def _tool_call(self, part: Part, call: ToolCall, path: str) -> Body:
        arguments = bytes(self._content.arguments(call, path)).decode()
        written: Body = {
            "id": call.id,
            "type": "function",
            "function": {"name": call.name, "arguments": arguments},
        }
        extra = read_state(self._content.state(part, path) or b"").get("extra_content", NO_RAW)
        if extra is not NO_RAW:
            written["extra_content"] = extra
        return written

    def _text(self, part: Part, kind: Text) -> Body:
        return self._cached(part, {"type": "text", "text": kind.text})

    def _cached(self, part: Part, written: Body) -> Body:
        """A router-like provider hands cache hints on; others on this wire cache by themselves."""
        if part.cache_breakpoint is not None and self._quirks.is_router_like:
            hint = {"type": "ephemeral"}
            if part.cache_breakpoint is CacheTtl.ONE_HOUR:
                hint["ttl"] = "1h"
            written["cache_control"] = hint
        return written

    def _flush_media(self) -> None:
        if self._held_media:
            self._out.append({"role": "user", "content": list(self._held_media)})
            self._held_media = []


def _simplify(parts: list[Body]) -> object:
    """A single plain text is a string: every server takes that, and not every server takes a list."""
    if len(parts) == 1 and parts[0].keys() == {"type", "text"} and not isinstance(parts[0]["text"], msgspec.Raw):
        return parts[0]["text"]
    return parts
