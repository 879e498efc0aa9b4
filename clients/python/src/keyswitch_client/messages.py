"""Builders of messages, parts and tools: functions that return the contract's own types."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Literal

from keyswitch.router.v1 import completion_pb2, content_pb2

Content = str | content_pb2.Part

_DETAILS: Mapping[str, content_pb2.MediaDetail.ValueType] = {
    "low": content_pb2.MEDIA_DETAIL_LOW,
    "high": content_pb2.MEDIA_DETAIL_HIGH,
}


def user(*content: Content) -> content_pb2.Message:
    """A turn of the end user."""
    return _message(content_pb2.ROLE_USER, content)


def system(*content: Content) -> content_pb2.Message:
    """Standing instructions."""
    return _message(content_pb2.ROLE_SYSTEM, content)


def assistant(*content: Content) -> content_pb2.Message:
    """A turn of the model, written by hand. An answer's own `message` goes back as it is, and should."""
    return _message(content_pb2.ROLE_ASSISTANT, content)


def tool_result(
    tool_call: content_pb2.ToolCallPart | str, *content: str | content_pb2.MediaPart, is_error: bool = False
) -> content_pb2.Message:
    """What a tool answered to a call, or to a call's id. No content means that it had nothing to say."""
    call_id = tool_call if isinstance(tool_call, str) else tool_call.id
    result = content_pb2.ToolResultPart(tool_call_id=call_id, is_error=is_error)
    for piece in content:
        if isinstance(piece, str):
            result.content.add(text=content_pb2.TextPart(text=piece))
        else:
            result.content.add(media=piece)
    return content_pb2.Message(role=content_pb2.ROLE_TOOL, parts=[content_pb2.Part(tool_result=result)])


def text(value: str, *, cache: Literal["five_minutes", "one_hour"] | None = None) -> content_pb2.Part:
    """Text as a part, where the cached prompt may end."""
    part = content_pb2.Part(text=content_pb2.TextPart(text=value))
    if cache is not None:
        part.cache_breakpoint = (
            content_pb2.CACHE_TTL_FIVE_MINUTES if cache == "five_minutes" else content_pb2.CACHE_TTL_ONE_HOUR
        )
    return part


def image(source: bytes | str, media_type: str, *, detail: Literal["low", "high"] | None = None) -> content_pb2.Part:
    """An image: its bytes, or an https URL that the provider fetches."""
    media = _media(source, media_type)
    if detail is not None:
        media.detail = _DETAILS[detail]
    return content_pb2.Part(media=media)


def document(
    source: bytes | str, media_type: str, *, filename: str = "", enable_citations: bool = False
) -> content_pb2.Part:
    """A document: its bytes, or an https URL that the provider fetches."""
    media = _media(source, media_type)
    media.filename = filename
    media.enable_citations = enable_citations
    return content_pb2.Part(media=media)


def tool(
    name: str, description: str = "", parameters: Mapping[str, object] | str = "", *, strict: bool = False
) -> completion_pb2.Tool:
    """A tool that the caller runs. `parameters` is the JSON Schema, as a mapping or as JSON text."""
    schema = parameters if isinstance(parameters, str) else json.dumps(parameters)
    return completion_pb2.Tool(
        function=completion_pb2.FunctionTool(name=name, description=description, parameters_json=schema, strict=strict)
    )


def text_of(message: content_pb2.Message) -> str:
    """All text of a message, without its reasoning."""
    return "".join(part.text.text for part in message.parts if part.HasField("text"))


def tool_calls_of(message: content_pb2.Message) -> Sequence[content_pb2.ToolCallPart]:
    """The tool calls of a message, in their order."""
    return [part.tool_call for part in message.parts if part.HasField("tool_call")]


def _message(role: content_pb2.Role.ValueType, content: Sequence[Content]) -> content_pb2.Message:
    if not content:
        raise ValueError("a message needs at least one part: give a text, or a part made by text(), image(), ...")
    return content_pb2.Message(role=role, parts=[text(piece) if isinstance(piece, str) else piece for piece in content])


def _media(source: bytes | str, media_type: str) -> content_pb2.MediaPart:
    if isinstance(source, bytes):
        return content_pb2.MediaPart(media_type=media_type, data=source)
    return content_pb2.MediaPart(media_type=media_type, uri=source)
