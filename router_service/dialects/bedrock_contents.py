"""Messages in the words of Bedrock's Converse.

The wire has two roles and wants them in turn: system messages stand apart, tool results are user content and come
first in it. A cache hint is a block of its own after the part. Blank text is refused, so it is not sent.
"""

import base64
import re
from collections.abc import Mapping
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
from router_service.dialects.bedrock_decode import DIALECT, TRACE
from router_service.dialects.bedrock_state import citations_of, reasoning_block
from router_service.dialects.writing import Body, Content, Notices, part_path, wrong

_IMAGES = {"image/png": "png", "image/jpeg": "jpeg", "image/jpg": "jpeg", "image/gif": "gif", "image/webp": "webp"}
_DOCUMENTS = {
    "application/pdf": "pdf",
    "text/csv": "csv",
    "application/msword": "doc",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": "docx",
    "application/vnd.ms-excel": "xls",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": "xlsx",
    "text/html": "html",
    "text/markdown": "md",
    "application/json": "txt",
    "application/xml": "txt",
    "application/yaml": "txt",
}
_VIDEOS = {
    "video/x-matroska": "mkv",
    "video/quicktime": "mov",
    "video/mp4": "mp4",
    "video/webm": "webm",
    "video/x-flv": "flv",
    "video/mpeg": "mpeg",
    "video/x-ms-wmv": "wmv",
    "video/3gpp": "three_gp",
}
_SOUNDS = {
    "audio/mpeg": "mp3",
    "audio/mp3": "mp3",
    "audio/opus": "opus",
    "audio/wav": "wav",
    "audio/x-wav": "wav",
    "audio/aac": "aac",
    "audio/flac": "flac",
    "audio/mp4": "m4a",
    "audio/ogg": "ogg",
    "audio/webm": "webm",
    "audio/l16": "pcm",
}
_UNSAFE_ID = re.compile(r"[^a-zA-Z0-9_.:-]")
_UNSAFE_NAME = re.compile(r"[^a-zA-Z0-9 ()\[\]-]+")  # what a document's name may not hold
_SPACES = re.compile(r" {2,}")
_MOST_ID_CHARS = 64
_MOST_NAME_CHARS = 180


class ContentsWriter:
    """Writes one conversation. `called` are the names of the tools that it calls."""

    def __init__(self, completion: Completion, notices: Notices) -> None:
        self._messages = completion.messages
        self._notices = notices
        self._content = Content(DIALECT, completion.provider, notices)
        self._ids: dict[str, str] = {}
        self._names: set[str] = set()
        self._turns: list[tuple[str, list[object]]] = []
        self.system: list[object] = []
        self.called: dict[str, None] = {}

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
            if part.kind.text.strip():
                self.system.append({"text": part.kind.text})
                self.system.extend(_cache_point(part))

    def _write_user(self, index: int, message: Message) -> None:
        results: list[object] = []
        others: list[object] = []
        for number, part in enumerate(message.parts):
            path = part_path(index, number)
            match part.kind:
                case ToolResult():
                    results += [self._tool_result(part.kind, path), *_cache_point(part)]
                case Text():
                    if part.kind.text.strip():
                        others += [{"text": part.kind.text}, *_cache_point(part)]
                case Media():
                    others += [self._media(part.kind, path), *_cache_point(part)]
                case ProviderBlock():
                    others.extend(self._own_block(part.kind, path))
                case Reasoning() | ToolCall():
                    raise wrong(path, "Only an assistant message holds reasoning and tool calls.")
                case _:
                    assert_never(part.kind)
        self._turn("user").extend(results + others)

    def _write_assistant(self, index: int, message: Message) -> None:
        blocks = self._turn("assistant")
        for number, part in enumerate(message.parts):
            path = part_path(index, number)
            match part.kind:
                case Text():
                    blocks.extend(self._said(part, part.kind.text, path))
                case Reasoning():
                    blocks.extend(self._reasoning(part, path))
                case ToolCall():
                    blocks += [self._tool_call(part.kind, path), *_cache_point(part)]
                case Media():
                    self._notices.drop(f"{path}.media", "This provider does not take back media that a model made.")
                case ProviderBlock():
                    blocks.extend(self._own_block(part.kind, path))
                case ToolResult():
                    raise wrong(path, "A tool result belongs into a tool message.")
                case _:
                    assert_never(part.kind)

    def _said(self, part: Part, text: str, path: str) -> list[object]:
        """Text of the model, with the sources that came with it."""
        state = self._content.state(part, path)
        citations = citations_of(state) if state else []
        if citations:
            pieces = [{"text": text}] if text else []
            return [{"citationsContent": {"content": pieces, "citations": citations}}, *_cache_point(part)]
        return [{"text": text}, *_cache_point(part)] if text.strip() else []

    def _reasoning(self, part: Part, path: str) -> list[object]:
        """Reasoning goes back signed or not at all: unsigned it would be refused."""
        state = self._content.state(part, path)
        if state is None:
            return []
        block = reasoning_block(state)
        if block is None:
            raise wrong(f"{path}.provider_state", "The state was changed. Send it back as it was received.")
        return [{"reasoningContent": block}]

    def _own_block(self, block: ProviderBlock, path: str) -> list[object]:
        if self._content.block(block, path) is None or block.kind == TRACE:
            return []
        return [msgspec.Raw(block.json.encode())]

    def _tool_call(self, call: ToolCall, path: str) -> Body:
        self.called[call.name] = None
        arguments = self._content.arguments(call, path)
        return {"toolUse": {"toolUseId": self._call_id(call.id), "name": call.name, "input": arguments}}

    def _tool_result(self, result: ToolResult, path: str) -> Body:
        call_id = self._call_id(self._content.answered(result, path))
        pieces: list[object] = []
        for piece in result.content:
            match piece:
                case Text():
                    if piece.text:
                        pieces.append({"text": piece.text})
                case Media():
                    pieces.append(self._media(piece, f"{path}.tool_result"))
                case ProviderBlock():
                    pieces.extend(self._own_block(piece, f"{path}.tool_result"))
                case _:
                    assert_never(piece)
        written: Body = {"toolUseId": call_id, "content": pieces}
        if result.is_error:
            written["status"] = "error"
        return {"toolResult": written}

    def _call_id(self, call_id: str) -> str:
        """An id in the letters and the length that this wire takes: another provider's may have others."""
        safe = self._ids.get(call_id)
        if safe is None:
            safe = _UNSAFE_ID.sub("_", call_id)[:_MOST_ID_CHARS]
            if safe in self._ids.values():
                suffix = f"_{len(self._ids)}"
                safe = safe[: _MOST_ID_CHARS - len(suffix)] + suffix
            self._ids[call_id] = safe
        return safe

    # -- media -------------------------------------------------------------------------------------------------------

    def _media(self, media: Media, path: str) -> Body:
        media_type = media.media_type.lower().partition(";")[0].strip()
        if media_type.startswith("image/"):
            return {"image": _plain(media, media_type, _IMAGES, path)}
        if media_type.startswith("video/"):
            return {"video": _plain(media, media_type, _VIDEOS, path)}
        if media_type.startswith("audio/"):
            return {"audio": _plain(media, media_type, _SOUNDS, path)}
        default = "txt" if media_type.startswith("text/") else None
        document_format = _DOCUMENTS.get(media_type, default)
        if document_format is None:
            raise _unknown(media, path)
        document: Body = {"format": document_format, "name": self._document_name(media.filename)}
        document["source"] = _source(media, path)
        if media.enable_citations:
            document["citations"] = {"enabled": True}
            if document_format == "txt" and media.data is not None:
                document["source"] = {"text": _text_of(media.data, path)}  # only so can a source be quoted by place
        return {"document": document}

    def _document_name(self, filename: str) -> str:
        """A name that the wire takes: few kinds of letters, and none twice in a request."""
        safe = _SPACES.sub(" ", _UNSAFE_NAME.sub(" ", filename.rpartition(".")[0] or filename)).strip()
        safe = safe[:_MOST_NAME_CHARS] or "Document"
        name, number = safe, 1
        while name in self._names:
            number += 1
            name = f"{safe} {number}"
        self._names.add(name)
        return name


def _plain(media: Media, media_type: str, formats: Mapping[str, str], path: str) -> Body:
    if media_type not in formats:
        raise _unknown(media, path)
    return {"format": formats[media_type], "source": _source(media, path)}


def _source(media: Media, path: str) -> Body:
    if media.data is not None:
        return {"bytes": base64.b64encode(media.data).decode("ascii")}
    if media.uri.startswith("s3://"):
        return {"s3Location": {"uri": media.uri}}
    raise wrong(path, "This wire fetches nothing from the web. Send the bytes, or an s3:// address.")


def _text_of(data: bytes, path: str) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise wrong(path, "The text document is not UTF-8.") from None


def _unknown(media: Media, path: str) -> Exception:
    return wrong(path, f"This wire takes no media of type {media.media_type[:64]}.")


def _cache_point(part: Part) -> list[object]:
    if part.cache_breakpoint is None:
        return []
    point = {"type": "default"}
    if part.cache_breakpoint is CacheTtl.ONE_HOUR:
        point["ttl"] = "1h"
    return [{"cachePoint": point}]
