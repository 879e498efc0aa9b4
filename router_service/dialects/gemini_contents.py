"""Messages in the words of Gemini.

Four things do not fit the wire. A call has no id of ours, unless the wire gave it one: results find their calls by
name and order, so all results of a turn go out together and in the order of the calls. A result is an object, so its
text stands under "output", or under "error" if the tool failed. Media go inside a result only where the model takes
them there, and follow as user content elsewhere. And a model that signs its calls refuses those of another model,
which have no signature, unless they carry the placeholder that Google documents.
"""

import base64
from typing import assert_never

import msgspec

from router_service.core.content import (
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
from router_service.dialects.gemini_decode import DIALECT, METADATA_KINDS
from router_service.dialects.gemini_state import State, read_state, split_text
from router_service.dialects.writing import Body, Content, Notices, part_path, wrong

_FOREIGN_CALL_SIGNATURE = "skip_thought_signature_validator"
_RESULTS = "results"
_NO_STATE = State()


class ContentsWriter:
    """Writes one conversation."""

    def __init__(self, completion: Completion, quirks: Quirks, notices: Notices) -> None:
        self._messages = completion.messages
        self._quirks = quirks
        self._notices = notices
        self._content = Content(DIALECT, completion.provider, notices)
        self._calls: dict[str, tuple[int, str, str]] = {}  # by our id: its number, its name, its id on the wire
        self._call_count = 0
        self._turns: list[tuple[str, list[object]]] = []
        self._results: list[tuple[int, Body]] = []
        self._held_media: list[object] = []
        self.system: list[Body] = []

    def write(self) -> list[Body]:
        """All messages but those of the system, which are in `system` afterwards."""
        for index, message in enumerate(self._messages):
            match message.role:
                case Role.SYSTEM:
                    self._write_system(index, message)
                case Role.USER | Role.TOOL:
                    self._write_user(index, message)
                case Role.ASSISTANT:
                    self._flush_results()
                    self._write_assistant(index, message)
                case _:
                    assert_never(message.role)
        self._flush_results()
        roles = {_RESULTS: "user"}
        return [{"role": roles.get(role, role), "parts": parts} for role, parts in self._turns if parts]

    def _turn(self, role: str) -> list[object]:
        if not self._turns or self._turns[-1][0] != role:
            self._turns.append((role, []))
        return self._turns[-1][1]

    def _write_system(self, index: int, message: Message) -> None:
        if self._turns or self._results:
            self._notices.adjust(f"messages[{index}]", "This wire has system messages only at the start; it is there.")
        for number, part in enumerate(message.parts):
            if not isinstance(part.kind, Text):
                raise wrong(part_path(index, number), "A system message holds only text.")
            if part.kind.text:
                self.system.append({"text": part.kind.text})

    def _write_user(self, index: int, message: Message) -> None:
        parts: list[object] = []
        for number, part in enumerate(message.parts):
            path = part_path(index, number)
            match part.kind:
                case ToolResult():
                    self._write_result(part.kind, path)
                case Text():
                    if part.kind.text:
                        parts.append({"text": part.kind.text})
                case Media():
                    parts.append(self._media(part.kind, path))
                case ProviderBlock():
                    self._write_block(part.kind, path, parts)
                case Reasoning() | ToolCall():
                    raise wrong(path, "Only an assistant message holds reasoning and tool calls.")
                case _:
                    assert_never(part.kind)
        if parts:
            self._flush_results()
            self._turn("user").extend(parts)

    def _write_result(self, result: ToolResult, path: str) -> None:
        number, name, wire_id = self._calls[self._content.answered(result, path)]
        texts: list[str] = []
        media: list[object] = []
        for piece in result.content:
            match piece:
                case Text():
                    texts.append(piece.text)
                case Media():
                    media.append(self._media(piece, f"{path}.tool_result"))
                case ProviderBlock():
                    self._write_block(piece, f"{path}.tool_result", media)
                case _:
                    assert_never(piece)
        written: Body = {"name": name, "response": {"error" if result.is_error else "output": "\n".join(texts)}}
        if wire_id:
            written["id"] = wire_id
        if media and self._quirks.supports_tool_result_media:
            written["parts"] = media
        elif media:
            self._held_media.extend(media)
            self._notices.adjust(
                f"{path}.tool_result", "This model's tool results hold only text; media follow as user content."
            )
        self._results.append((number, {"functionResponse": written}))

    def _flush_results(self) -> None:
        if self._results:
            self._results.sort(key=lambda item: item[0])
            self._turn(_RESULTS).extend(written for _, written in self._results)
            self._results = []
        if self._held_media:
            self._turn("user").extend(self._held_media)
            self._held_media = []

    def _write_assistant(self, index: int, message: Message) -> None:
        parts = self._turn("model")
        has_call = False
        for number, part in enumerate(message.parts):
            path = part_path(index, number)
            match part.kind:
                case Text() | Reasoning():
                    self._write_prose(part, part.kind, path, parts)
                case ToolCall():
                    parts.append(self._call(part, part.kind, path, is_first=not has_call))
                    has_call = True
                case Media():
                    state = self._state(part, path)
                    parts.append(_signed(self._media(part.kind, path), state.thought_signature))
                case ProviderBlock():
                    self._write_block(part.kind, path, parts)
                case ToolResult():
                    raise wrong(path, "A tool result belongs into a tool message.")
                case _:
                    assert_never(part.kind)

    def _write_prose(self, part: Part, kind: Text | Reasoning, path: str, parts: list[object]) -> None:
        """Text, and thoughts if they were signed: the provider reads its own signatures, not its own summaries."""
        state = self._state(part, path)
        is_thought = isinstance(kind, Reasoning)
        if is_thought and state == _NO_STATE:
            return
        for text, signature in split_text(kind.text, state):
            if text or signature:
                written: Body = {"text": text}
                if is_thought:
                    written["thought"] = True
                parts.append(_signed(written, signature))

    def _call(self, part: Part, call: ToolCall, path: str, *, is_first: bool) -> Body:
        state = self._state(part, path)
        arguments = self._content.arguments(call, path)
        self._calls[call.id] = (self._call_count, call.name, state.id)
        self._call_count += 1
        function: Body = {"name": call.name, "args": arguments}
        if state.id:
            function["id"] = state.id
        signature = state.thought_signature
        if not signature and is_first and self._quirks.needs_call_signatures:
            signature = _FOREIGN_CALL_SIGNATURE
        return _signed({"functionCall": function}, signature)

    def _state(self, part: Part, path: str) -> State:
        data = self._content.state(part, path)
        if data is None:
            return _NO_STATE
        state = read_state(data)
        if state is None:
            raise wrong(f"{path}.provider_state", "The state was changed. Send it back as it was received.")
        return state

    def _write_block(self, block: ProviderBlock, path: str, parts: list[object]) -> None:
        if self._content.block(block, path) is not None and block.kind not in METADATA_KINDS:
            parts.append(msgspec.Raw(block.json.encode()))

    def _media(self, media: Media, path: str) -> Body:
        if media.enable_citations:
            self._notices.ignore(f"{path}.media.enable_citations", "This wire has no citations of documents.")
        if media.detail is not None:
            self._notices.ignore(f"{path}.media.detail", "This wire sets the detail for a whole request, not for one.")
        if media.data is not None:
            data = base64.b64encode(media.data).decode("ascii")
            return {"inlineData": {"mimeType": media.media_type, "data": data}}
        if media.media_type.endswith("/*"):
            return {"fileData": {"fileUri": media.uri}}
        return {"fileData": {"mimeType": media.media_type, "fileUri": media.uri}}


def _signed(part: Body, signature: str) -> Body:
    if signature:
        part["thoughtSignature"] = signature
    return part
