"""The request of Ollama's chat.

Tool results name their tool and not their call, so results go in the order of the calls. Images are base64 in the
message; the wire has no other media, and no URLs. Reasoning goes back as text: it is not opaque.
"""

import base64
from typing import assert_never

import msgspec

from router_service.core.content import Media, Message, Part, ProviderBlock, Reasoning, Role, Text, ToolCall, ToolResult
from router_service.core.request import (
    Completion,
    FunctionTool,
    JsonFormat,
    JsonSchemaFormat,
    ReasoningEffort,
    ReasoningSettings,
    TextFormat,
    ToolMode,
    WarningReason,
)
from router_service.dialects.base import Encoded, Quirks, ReasoningStyle
from router_service.dialects.efforts import BUDGET_PATH, EFFORT_PATH, choose_level, levels_of, refuse_off
from router_service.dialects.writing import (
    Body,
    Content,
    Notices,
    asked_reasoning,
    check_tool_choice,
    merge_options,
    parameters_of,
    part_path,
    provider_tool_of,
    schema_of,
    wrong,
)

DIALECT = "ollama_chat"

_LEVELS = (ReasoningEffort.LOW, ReasoningEffort.MEDIUM, ReasoningEffort.HIGH)


def encode_request(completion: Completion, quirks: Quirks) -> Encoded:
    """The HTTP request of a completion."""
    notices = Notices()
    body: Body = {"model": completion.model, "messages": _Messages(completion, notices).write()}
    _write_tools(body, completion, notices)
    _write_format(body, completion)
    _write_sampling(body, completion, quirks)
    _write_thinking(body, asked_reasoning(completion, notices), quirks, notices)
    merge_options(body, completion.options, in_camel_case=False)
    body["stream"] = completion.stream
    return Encoded(
        path="/api/chat",
        body=msgspec.json.encode(body),
        headers={"content-type": "application/json"},
        warnings=tuple(notices.items),
    )


class _Messages:
    """Writes one conversation."""

    def __init__(self, completion: Completion, notices: Notices) -> None:
        self._messages = completion.messages
        self._notices = notices
        self._content = Content(DIALECT, completion.provider, notices)
        self._tools: dict[str, str] = {}  # names by call id
        self._out: list[Body] = []

    def write(self) -> list[Body]:
        """All messages of the wire."""
        for index, message in enumerate(self._messages):
            match message.role:
                case Role.SYSTEM:
                    self._write_system(index, message)
                case Role.USER | Role.TOOL:
                    self._write_user(index, message)
                case Role.ASSISTANT:
                    self._out.append(self._assistant(index, message))
                case _:
                    assert_never(message.role)
        return self._out

    def _write_system(self, index: int, message: Message) -> None:
        texts = []
        for number, part in enumerate(message.parts):
            if not isinstance(part.kind, Text):
                raise wrong(part_path(index, number), "A system message holds only text.")
            texts.append(part.kind.text)
        self._out.append({"role": "system", "content": "\n\n".join(texts)})

    def _write_user(self, index: int, message: Message) -> None:
        texts: list[str] = []
        images: list[str] = []
        for number, part in enumerate(message.parts):
            path = part_path(index, number)
            match part.kind:
                case ToolResult():
                    self._out.append(self._tool_result(part.kind, path))
                case Text():
                    texts.append(part.kind.text)
                case Media():
                    images.append(_image(part.kind, path))
                case ProviderBlock():
                    self._content.block(part.kind, path)
                    raise wrong(path, "This wire has no blocks of its own.")
                case Reasoning() | ToolCall():
                    raise wrong(path, "Only an assistant message holds reasoning and tool calls.")
                case _:
                    assert_never(part.kind)
        if texts or images:
            written: Body = {"role": "user", "content": "\n\n".join(texts)}
            if images:
                written["images"] = images
            self._out.append(written)

    def _tool_result(self, result: ToolResult, path: str) -> Body:
        call_id = self._content.answered(result, path)
        texts: list[str] = []
        images: list[str] = []
        for piece in result.content:
            match piece:
                case Text():
                    texts.append(piece.text)
                case Media():
                    images.append(_image(piece, f"{path}.tool_result"))
                case ProviderBlock():
                    self._content.block(piece, f"{path}.tool_result")
                case _:
                    assert_never(piece)
        text = "\n".join(texts)
        written: Body = {
            "role": "tool",
            "tool_name": self._tools[call_id],
            "content": f"Error: {text}" if result.is_error else text,
        }
        if images:
            written["images"] = images
        return written

    def _assistant(self, index: int, message: Message) -> Body:
        texts: list[str] = []
        thoughts: list[str] = []
        calls: list[Body] = []
        images: list[str] = []
        for number, part in enumerate(message.parts):
            path = part_path(index, number)
            self._content.state(part, path)  # says that it is left out: this wire has none
            match part.kind:
                case Text():
                    texts.append(part.kind.text)
                case Reasoning():
                    thoughts.append(part.kind.text)
                case ToolCall():
                    calls.append(self._call(part, part.kind, path))
                case Media():
                    images.append(_image(part.kind, path))
                case ProviderBlock():
                    self._content.block(part.kind, path)
                case ToolResult():
                    raise wrong(path, "A tool result belongs into a tool message.")
                case _:
                    assert_never(part.kind)
        written: Body = {"role": "assistant", "content": "".join(texts)}
        optional = {"thinking": "".join(thoughts), "tool_calls": calls, "images": images}
        written.update({name: value for name, value in optional.items() if value})
        return written

    def _call(self, part: Part, call: ToolCall, path: str) -> Body:
        self._tools[call.id] = call.name
        return {"function": {"name": call.name, "arguments": self._content.arguments(call, path)}}


def _image(media: Media, path: str) -> str:
    if not media.media_type.startswith("image/"):
        raise wrong(path, f"This wire takes images only, and this is {media.media_type}.")
    if media.data is None:
        raise wrong(path, "This provider fetches no URLs. Send the image's bytes.")
    return base64.b64encode(media.data).decode("ascii")


def _write_tools(body: Body, completion: Completion, notices: Notices) -> None:
    check_tool_choice(completion)
    choice = completion.tool_choice
    if not completion.tools or (choice is not None and choice.mode is ToolMode.NONE and not choice.tool_name):
        return  # the wire has no choice: a model that must call nothing is told of nothing
    tools: list[object] = []
    for index, tool in enumerate(completion.tools):
        if not isinstance(tool, FunctionTool):
            tools.append(provider_tool_of(tool, index, DIALECT))
            continue
        function = {"name": tool.name, "description": tool.description, "parameters": parameters_of(tool, index)}
        tools.append({"type": "function", "function": function})
        if tool.strict:
            path = f"tools[{index}].function.strict"
            notices.add(path, WarningReason.NOT_GUARANTEED, "This provider cannot hold arguments to a schema.")
    body["tools"] = tools
    if choice is not None and (choice.tool_name or choice.mode is ToolMode.REQUIRED):
        notices.ignore("tool_choice", "This provider decides itself whether it calls a tool.")
    if completion.parallel_tool_calls is not None:
        notices.ignore("parallel_tool_calls", "This provider decides itself whether it calls tools in parallel.")


def _write_format(body: Body, completion: Completion) -> None:
    wanted = completion.response_format
    match wanted:
        case TextFormat():
            return
        case JsonFormat():
            body["format"] = "json"
        case JsonSchemaFormat():
            body["format"] = schema_of(wanted.schema_json, "response_format.json_schema.schema_json")
        case _:
            assert_never(wanted)


def _write_sampling(body: Body, completion: Completion, quirks: Quirks) -> None:
    sampling = completion.settings.sampling
    fields: dict[str, object] = {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "seed": sampling.seed,
        "stop": list(sampling.stop_sequences) or None,
        "num_predict": completion.settings.max_output_tokens or quirks.default_max_output_tokens,
    }
    options = {name: value for name, value in fields.items() if value is not None}
    if options:
        body["options"] = options


def _write_thinking(body: Body, asked: ReasoningSettings | None, quirks: Quirks, notices: Notices) -> None:
    if asked is None or (asked.effort is None and asked.budget_tokens is None):
        return
    is_off = asked.effort is ReasoningEffort.OFF or (asked.effort is None and asked.budget_tokens == 0)
    if is_off and quirks.is_reasoning_mandatory:
        raise refuse_off()
    match quirks.reasoning_style:
        case ReasoningStyle.NONE:
            if not is_off:
                notices.ignore("settings.reasoning", "This model's reasoning cannot be set.")
        case ReasoningStyle.EFFORT:
            level = choose_level(
                asked, levels_of(quirks.efforts, _LEVELS), notices, is_mandatory=quirks.is_reasoning_mandatory
            )
            body["think"] = False if level is ReasoningEffort.OFF or level is None else level.value
        case ReasoningStyle.BINARY | ReasoningStyle.OPENROUTER:
            if not is_off:
                path = EFFORT_PATH if asked.effort is not None else BUDGET_PATH
                notices.adjust(path, "This model's reasoning can only be switched on or off; it is switched on.")
            body["think"] = not is_off
        case _:
            assert_never(quirks.reasoning_style)
