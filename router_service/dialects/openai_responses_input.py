"""A conversation in the words of OpenAI responses: a flat list of items, in which messages, reasoning, tool calls and
their results stand beside each other. A failed tool has no mark, so its result begins with "Error: ".
"""

import base64
from typing import assert_never

import msgspec

from router_service.core.content import Media, Message, Part, ProviderBlock, Reasoning, Role, Text, ToolCall, ToolResult
from router_service.core.request import Completion
from router_service.dialects.base import Quirks
from router_service.dialects.openai_responses_items import DIALECT
from router_service.dialects.openai_responses_state import State, image_item, read_state, reasoning_item
from router_service.dialects.urls import make_data_url
from router_service.dialects.writing import Body, Content, Notices, part_path, wrong

_TEXT_TYPES = frozenset({"application/json", "application/xml", "application/yaml", "application/x-yaml"})


class InputWriter:
    """Writes one conversation."""

    def __init__(self, completion: Completion, quirks: Quirks, notices: Notices) -> None:
        self._messages = completion.messages
        self._quirks = quirks
        self._notices = notices
        self._content = Content(DIALECT, completion.provider, notices)
        self._out: list[object] = []
        self._reasoning_ids: set[str] = set()
        self._open: Body = {}  # the assistant's message that takes the next text of its id

    def write(self) -> list[object]:
        """All items of the wire."""
        for index, message in enumerate(self._messages):
            self._open = {}
            match message.role:
                case Role.SYSTEM:
                    self._write_system(index, message)
                case Role.USER | Role.TOOL:
                    self._write_user(index, message)
                case Role.ASSISTANT:
                    for number, part in enumerate(message.parts):
                        self._write_assistant(part, part_path(index, number))
                case _:
                    assert_never(message.role)
        return self._out

    def _write_system(self, index: int, message: Message) -> None:
        pieces: list[object] = []
        for number, part in enumerate(message.parts):
            if not isinstance(part.kind, Text):
                raise wrong(part_path(index, number), "A system message holds only text.")
            pieces.append({"type": "input_text", "text": part.kind.text})
        self._out.append({"role": self._quirks.system_role, "content": _simplify(pieces)})

    def _write_user(self, index: int, message: Message) -> None:
        """Results come first: the provider wants them next to their calls."""
        pieces: list[object] = []
        for number, part in enumerate(message.parts):
            path = part_path(index, number)
            match part.kind:
                case ToolResult():
                    self._out.append(self._tool_result(part.kind, path))
                case Text():
                    pieces.append({"type": "input_text", "text": part.kind.text})
                case Media():
                    pieces.append(self._media(part.kind, path))
                case ProviderBlock():
                    self._write_block(part.kind, path, pieces)
                case Reasoning() | ToolCall():
                    raise wrong(path, "Only an assistant message holds reasoning and tool calls.")
                case _:
                    assert_never(part.kind)
        if pieces:
            self._out.append({"role": "user", "content": _simplify(pieces)})

    def _write_block(self, block: ProviderBlock, path: str, pieces: list[object]) -> None:
        """A provider's block is a piece of the message, such as a file by its id, or an item of its own."""
        found = self._content.block(block, path)
        if found is not None:
            is_piece = bytes(found.get("type", msgspec.Raw(b""))).startswith(b'"input_')
            (pieces if is_piece else self._out).append(msgspec.Raw(block.json.encode()))

    def _tool_result(self, result: ToolResult, path: str) -> Body:
        call_id = self._content.answered(result, path)
        pieces: list[object] = [{"type": "input_text", "text": "Error:"}] if result.is_error else []
        for piece in result.content:
            name = f"{path}.tool_result"
            match piece:
                case Text():
                    pieces.append({"type": "input_text", "text": piece.text})
                case Media():
                    pieces.append(self._media(piece, name))
                case ProviderBlock():
                    if self._content.block(piece, name) is not None:
                        pieces.append(msgspec.Raw(piece.json.encode()))
                case _:
                    assert_never(piece)
        output: object = pieces
        if all(isinstance(piece, Text) for piece in result.content):
            text = "\n".join(piece.text for piece in result.content if isinstance(piece, Text))
            output = f"Error: {text}" if result.is_error else text
        return {"type": "function_call_output", "call_id": call_id, "output": output}

    def _write_assistant(self, part: Part, path: str) -> None:
        match part.kind:
            case Text():
                self._write_text(part, part.kind, path)
                return
            case Reasoning():
                self._write_reasoning(part, path)
            case ToolCall():
                self._out.append(self._tool_call(part, part.kind, path))
            case Media():
                self._write_image(part, part.kind, path)
            case ProviderBlock():
                if self._content.block(part.kind, path) is not None:
                    self._out.append(msgspec.Raw(part.kind.json.encode()))
            case ToolResult():
                raise wrong(path, "A tool result belongs into a tool message.")
            case _:
                assert_never(part.kind)
        self._open = {}

    def _write_text(self, part: Part, kind: Text, path: str) -> None:
        state = read_state(self._content.state(part, path))
        message_id = self._id_of(state)
        piece: Body = {"type": "output_text", "text": kind.text, "annotations": state.annotations}
        if state.is_refusal:
            piece = {"type": "refusal", "refusal": kind.text}
        if message_id and self._open.get("id") == message_id:
            content = self._open["content"]
            assert isinstance(content, list)  # noqa: S101 - narrows the type; only this method writes it
            content.append(piece)
            return
        written: Body = {"type": "message", "role": "assistant", "content": kind.text}
        if message_id:
            written |= {"id": message_id, "status": "completed", "content": [piece]}
        elif not kind.text:
            return
        if state.phase:
            written["phase"] = state.phase
        self._open = written
        self._out.append(written)

    def _write_reasoning(self, part: Part, path: str) -> None:
        """Reasoning goes back as the provider wrote it or not at all: its text alone is not what was thought."""
        state = self._content.state(part, path)
        if state is None:
            return
        found = reasoning_item(state)
        if found is None:
            raise wrong(f"{path}.provider_state", "The state was changed. Send it back as it was received.")
        item_id, item = found
        self._reasoning_ids.add(item_id)
        self._out.append(item)

    def _tool_call(self, part: Part, call: ToolCall, path: str) -> Body:
        arguments = bytes(self._content.arguments(call, path)).decode()
        written: Body = {"type": "function_call", "call_id": call.id, "name": call.name, "arguments": arguments}
        state = read_state(self._content.state(part, path))
        if item_id := self._id_of(state):
            written["id"] = item_id
        if state.namespace:
            written["namespace"] = state.namespace
        return written

    def _id_of(self, state: State) -> str:
        """The id of an item, where the reasoning that it belongs to has gone back too."""
        return state.id if not state.reasoning or state.reasoning in self._reasoning_ids else ""

    def _write_image(self, part: Part, media: Media, path: str) -> None:
        item = image_item(self._content.state(part, path))
        if item is None or media.data is None:
            self._notices.drop(f"{path}.media", "This provider takes back only images that it made itself.")
            return
        self._out.append({**item, "result": base64.b64encode(media.data).decode("ascii")})

    def _media(self, media: Media, path: str) -> Body:
        media_type = media.media_type.lower()
        if media.enable_citations:
            self._notices.ignore(f"{path}.media.enable_citations", "This wire has no citations of documents.")
        if media_type.startswith("image/"):
            detail = media.detail.value if media.detail is not None else "auto"
            return {"type": "input_image", "image_url": _url(media), "detail": detail}
        if media_type.startswith(("audio/", "video/")):
            raise wrong(path, "This wire takes no sound and no video.")
        if media.data is None:
            return {"type": "input_file", "file_url": media.uri}
        if media_type.startswith("text/") or media_type in _TEXT_TYPES:
            return _text_file(media, path)
        name = media.filename or ("document.pdf" if media_type == "application/pdf" else "document")
        return {"type": "input_file", "filename": name, "file_data": _url(media)}


def _url(media: Media) -> str:
    return media.uri or make_data_url(media.media_type, media.data or b"")


def _text_file(media: Media, path: str) -> Body:
    """Not every server of this wire takes text files; their text, under their name, is what a model reads anyway."""
    try:
        text = (media.data or b"").decode("utf-8")
    except UnicodeDecodeError:
        raise wrong(path, "The text document is not UTF-8.") from None
    return {"type": "input_text", "text": f"{media.filename}\n\n{text}" if media.filename else text}


def _simplify(pieces: list[object]) -> object:
    """A single plain text is a string, which every server takes."""
    if len(pieces) == 1 and isinstance(pieces[0], dict) and pieces[0]["type"] == "input_text":
        return pieces[0]["text"]
    return pieces
