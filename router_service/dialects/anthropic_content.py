"""Messages in the words of Anthropic messages.

The wire has two roles and wants them in turn: system messages stand apart, tool results are user content and come
first in it, and neighbours of one role become one message.
"""

import base64
import re
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
from router_service.dialects.anthropic_decode import DIALECT
from router_service.dialects.anthropic_state import citations_of, reasoning_block
from router_service.dialects.writing import Body, Content, Notices, part_path, wrong

_UNSAFE = re.compile(r"[^a-zA-Z0-9_-]")
_IMAGE_TYPES = frozenset({"image/jpeg", "image/png", "image/gif", "image/webp"})
_TEXT_TYPES = frozenset({"application/json", "application/xml", "application/yaml", "application/x-yaml"})


class ContentWriter:
    """Writes one conversation."""

    def __init__(self, completion: Completion, notices: Notices) -> None:
        self._messages = completion.messages
        self._notices = notices
        self._content = Content(DIALECT, completion.provider, notices)
        self.system: list[object] = []
        self._safe_ids: dict[str, str] = {}
        self._turns: list[tuple[str, list[object]]] = []

    def write(self) -> list[Body]:
        """All messages but those of the system, which are in `system` afterwards."""
        for index, message in enumerate(self._messages):
            match message.role:
                case Role.SYSTEM:
                    self._write_system(index, message)
                case Role.USER | Role.TOOL:
                    self._write_user(index, message)
                case Role.ASSISTANT:
                    self._write_assistant(index, message)
                case _:
                    assert_never(message.role)
        return [{"role": role, "content": blocks} for role, blocks in self._turns if blocks]

    def _turn(self, role: str) -> list[object]:
        if not self._turns or self._turns[-1][0] != role:
            self._turns.append((role, []))
        return self._turns[-1][1]

    def _write_system(self, index: int, message: Message) -> None:
        if self._turns:
            self._notices.adjust(f"messages[{index}]", "This wire has system messages only at the start; it is there.")
        for number, part in enumerate(message.parts):
            if not isinstance(part.kind, Text):
                raise wrong(part_path(index, number), "A system message holds only text.")
            if part.kind.text:
                self.system.append(_cached(part, {"type": "text", "text": part.kind.text}))

    def _write_user(self, index: int, message: Message) -> None:
        results: list[object] = []
        others: list[object] = []
        for number, part in enumerate(message.parts):
            path = part_path(index, number)
            match part.kind:
                case ToolResult():
                    results.append(_cached(part, self._tool_result(part.kind, path)))
                case Text():
                    if part.kind.text:
                        others.append(_cached(part, {"type": "text", "text": part.kind.text}))
                case Media():
                    others.append(_cached(part, media_block(part.kind, path)))
                case ProviderBlock():
                    if self._content.block(part.kind, path) is not None:
                        others.append(msgspec.Raw(part.kind.json.encode()))
                case Reasoning() | ToolCall():
                    raise wrong(path, "Only an assistant message holds reasoning and tool calls.")
                case _:
                    assert_never(part.kind)
        self._turn("user").extend(results + others)

    def _tool_result(self, result: ToolResult, path: str) -> Body:
        call_id = self._call_id(self._content.answered(result, path))
        written: Body = {"type": "tool_result", "tool_use_id": call_id}
        blocks: list[object] = []
        for piece in result.content:
            match piece:
                case Text():
                    if piece.text:
                        blocks.append({"type": "text", "text": piece.text})
                case Media():
                    blocks.append(media_block(piece, f"{path}.tool_result"))
                case ProviderBlock():
                    if self._content.block(piece, f"{path}.tool_result") is not None:
                        blocks.append(msgspec.Raw(piece.json.encode()))
                case _:
                    assert_never(piece)
        if blocks:
            written["content"] = blocks
        if result.is_error:
            written["is_error"] = True
        return written

    def _write_assistant(self, index: int, message: Message) -> None:
        blocks = self._turn("assistant")
        for number, part in enumerate(message.parts):
            path = part_path(index, number)
            match part.kind:
                case Text():
                    state = self._content.state(part, path)
                    if part.kind.text:
                        block: Body = {"type": "text", "text": part.kind.text}
                        if state and (citations := citations_of(state)):
                            block["citations"] = citations
                        blocks.append(_cached(part, block))
                case Reasoning():
                    if replayed := self._reasoning(part, path):
                        blocks.append(replayed)
                case ToolCall():
                    blocks.append(_cached(part, self._tool_call(part.kind, path)))
                case Media():
                    self._notices.drop(f"{path}.media", "This provider does not take back media that a model made.")
                case ProviderBlock():
                    if self._content.block(part.kind, path) is not None:
                        blocks.append(msgspec.Raw(part.kind.json.encode()))
                case ToolResult():
                    raise wrong(path, "A tool result belongs into a tool message.")
                case _:
                    assert_never(part.kind)

    def _reasoning(self, part: Part, path: str) -> msgspec.Raw | None:
        """Thinking goes back signed or not at all: unsigned text would be refused."""
        state = self._content.state(part, path)
        if state is None:
            return None
        block = reasoning_block(state)
        if block is None:
            raise wrong(f"{path}.provider_state", "The state was changed. Send it back as it was received.")
        return block

    def _call_id(self, call_id: str) -> str:
        """An id in the letters that this wire takes: another provider's (Kimi's "functions.add:0") may have others."""
        safe = self._safe_ids.get(call_id)
        if safe is None:
            safe = _UNSAFE.sub("_", call_id)
            if safe in self._safe_ids.values():
                safe = f"{safe}_{len(self._safe_ids)}"
            self._safe_ids[call_id] = safe
        return safe

    def _tool_call(self, call: ToolCall, path: str) -> Body:
        arguments = self._content.arguments(call, path)
        return {"type": "tool_use", "id": self._call_id(call.id), "name": call.name, "input": arguments}


def _cached(part: Part, block: Body) -> Body:
    if part.cache_breakpoint is not None:
        block["cache_control"] = {"type": "ephemeral"}
        if part.cache_breakpoint is CacheTtl.ONE_HOUR:
            block["cache_control"] = {"type": "ephemeral", "ttl": "1h"}
    return block


def media_block(media: Media, path: str) -> Body:
    """An image or a document."""
    media_type = media.media_type.lower()
    if media_type.startswith("image/"):
        if media.data is not None and media_type not in _IMAGE_TYPES:
            raise wrong(path, "This wire takes images as JPEG, PNG, GIF or WebP.")
        return {"type": "image", "source": _source(media, media_type)}
    if media_type.startswith(("audio/", "video/")):
        raise wrong(path, "This wire takes no sound and no video.")
    document: Body = {"type": "document"}
    if media_type == "application/pdf":
        document["source"] = _source(media, media_type)
    elif media_type.startswith("text/") or media_type in _TEXT_TYPES:
        document["source"] = _text_source(media, path)
    else:
        raise wrong(path, f"This wire takes no documents of type {media.media_type[:64]}.")
    if media.filename:
        document["title"] = media.filename
    if media.enable_citations:
        document["citations"] = {"enabled": True}
    return document


def _source(media: Media, media_type: str) -> Body:
    if media.data is None:
        return {"type": "url", "url": media.uri}
    return {"type": "base64", "media_type": media_type, "data": base64.b64encode(media.data).decode("ascii")}


def _text_source(media: Media, path: str) -> Body:
    if media.data is None:
        return {"type": "url", "url": media.uri}
    try:
        text = media.data.decode("utf-8")
    except UnicodeDecodeError:
        raise wrong(path, "The text document is not UTF-8.") from None
    return {"type": "text", "media_type": "text/plain", "data": text}
