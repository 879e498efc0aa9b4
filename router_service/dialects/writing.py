"""What all encoders need: notices, the caller's JSON checked, provider options merged, tool results matched."""

import re
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import assert_never

import msgspec

from router_service.core.content import Part, ProviderBlock, ToolCall, ToolResult
from router_service.core.faults import Fault, invalid
from router_service.core.request import Completion, FunctionTool, Notice, ProviderTool, ReasoningSettings, WarningReason
from router_service.dialects.base import Quirks, SamplingRule
from router_service.dialects.reading import read_any, read_object

Body = dict[str, object]

NO_FORCED_TOOLS = "This model cannot be made to call a tool; it decides itself."

EMPTY_SCHEMA = msgspec.Raw(b'{"type":"object","properties":{}}')


def part_path(message: int, part: int, suffix: str = "") -> str:
    """Where a part is, from CompletionSpec."""
    return f"messages[{message}].parts[{part}]{suffix}"


def wrong(path: str, message: str) -> Fault:
    """A field of CompletionSpec is wrong."""
    return invalid(f"call.spec.{path}", message)


@dataclass(slots=True)
class Notices:
    """The warnings of one request, each said once."""

    items: list[Notice] = field(default_factory=list)

    def add(self, path: str, reason: WarningReason, message: str) -> None:
        """Says what became of a field."""
        notice = Notice(path, reason, message)
        if notice not in self.items:
            self.items.append(notice)

    def ignore(self, path: str, message: str) -> None:
        """Something asked for is not sent."""
        self.add(path, WarningReason.IGNORED, message)

    def adjust(self, path: str, message: str) -> None:
        """Something else is sent than asked for."""
        self.add(path, WarningReason.ADJUSTED, message)

    def drop(self, path: str, message: str) -> None:
        """A piece of content is not sent."""
        self.add(path, WarningReason.CONTENT_DROPPED, message)


class Content:
    """Checks of a conversation that every wire needs. `dialect` and `provider` say whose state may go out."""

    def __init__(self, dialect: str, provider: str, notices: Notices) -> None:
        self._dialect = dialect
        self._provider = provider
        self._notices = notices
        self._call_ids: set[str] = set()

    def state(self, part: Part, path: str) -> bytes | None:
        """The part's opaque state if it is this provider's; else None, with a warning if there is any."""
        state = part.provider_state
        if state is None:
            return None
        if state.dialect == self._dialect and state.provider == self._provider:
            return state.data
        self._notices.drop(f"{path}.provider_state", "Another provider wrote this state; only that one can read it.")
        return None

    def block(self, block: ProviderBlock, path: str) -> dict[str, msgspec.Raw] | None:
        """A provider's block if it is of this dialect; else None, with a warning."""
        if block.dialect != self._dialect:
            self._notices.drop(f"{path}.provider", f"A block of {block.dialect} cannot be sent to this provider.")
            return None
        value = read_object(block.json)
        if value is None:
            raise wrong(f"{path}.provider.json", "The block is not a JSON object. Send it back as it was received.")
        return value

    def arguments(self, call: ToolCall, path: str) -> msgspec.Raw:
        """A tool call's arguments, byte for byte, known to be one JSON object."""
        self._call_ids.add(call.id)
        text = call.arguments_json
        if not text.strip():
            return msgspec.Raw(b"{}")
        if read_object(text) is None:
            raise wrong(f"{path}.tool_call.arguments_json", "The arguments are not a JSON object.")
        return msgspec.Raw(text.encode())

    def answered(self, result: ToolResult, path: str) -> str:
        """The id of the call that a result answers."""
        if result.tool_call_id not in self._call_ids:
            raise wrong(f"{path}.tool_result", "No earlier message has the tool call that this result answers.")
        return result.tool_call_id


def schema_of(text: str, path: str) -> msgspec.Raw:
    """A JSON Schema of the caller, byte for byte."""
    if read_object(text) is None:
        raise wrong(path, "The schema is not a JSON object.")
    return msgspec.Raw(text.encode())


def parameters_of(tool: FunctionTool, index: int) -> msgspec.Raw:
    """The schema of a tool's arguments."""
    if not tool.parameters_json.strip():
        return EMPTY_SCHEMA
    return schema_of(tool.parameters_json, f"tools[{index}].function.parameters_json")


def provider_tool_of(tool: ProviderTool, index: int, dialect: str) -> msgspec.Raw:
    """A provider's own tool, unchanged."""
    if tool.dialect != dialect:
        raise wrong(f"tools[{index}].provider_tool.dialect", f"A tool of {tool.dialect} cannot be sent on {dialect}.")
    if read_object(tool.json) is None:
        raise wrong(f"tools[{index}].provider_tool.json", "The declaration is not a JSON object.")
    return msgspec.Raw(tool.json.encode())


def check_tool_choice(completion: Completion) -> None:
    """A named tool must be one of the request."""
    choice = completion.tool_choice
    if choice is None or not choice.tool_name:
        return
    names = {tool.name for tool in completion.tools if isinstance(tool, FunctionTool)}
    if choice.tool_name not in names:
        raise wrong("tool_choice.tool_name", "The request declares no tool of this name.")


def refuse_sampling(quirks: Quirks, *, is_thinking: bool) -> str:
    """Why temperature, top_p and the like cannot be sent; empty where they can."""
    match quirks.sampling:
        case SamplingRule.ALWAYS:
            return ""
        case SamplingRule.WITHOUT_THINKING:
            return "This model takes it only while it does not think: effort off." if is_thinking else ""
        case SamplingRule.NEVER:
            return "This model does not take it."
        case _:
            assert_never(quirks.sampling)


def asked_reasoning(completion: Completion, notices: Notices) -> ReasoningSettings | None:
    """What settings.reasoning asks for; None where nothing does, or where provider options take its place."""
    asked = completion.settings.reasoning
    if asked is None or asked == ReasoningSettings():
        return None
    if completion.options:
        notices.add(
            "settings.reasoning", WarningReason.REPLACED, "Provider options apply, so nothing of reasoning is sent."
        )
        return None
    return asked


# -- provider options ------------------------------------------------------------------------------------------------

# What the router decides. "models" and "route" are OpenRouter's other models, "n" would pay for answers nobody reads.
_RESERVED = frozenset({"model", "models", "route", "messages", "prompt", "system", "input", "stream", "n"})

# Below these the keys are the caller's own and not wire names.
_CALLERS_KEYS = frozenset(
    {"metadata", "logit_bias", "schema", "json_schema", "parameters", "input_schema", "headers", "tools", "user"}
)

# A field that its own provider writes in camel case, whatever its family does, and everything below it.
_VERBATIM = frozenset({"providerOptions"})

_CAMEL = re.compile(r"(?<=[a-z0-9])([A-Z])")


def merge_options(body: Body, options: Sequence[Mapping[str, object]], *, in_camel_case: bool) -> None:
    """Merges provider options into the body: objects at every depth, any other value takes the place.

    `in_camel_case`: the family writes its names in camel case, and they mean the wire's snake case.
    """
    for entry in options:
        wire_entry = _snake_case(entry) if in_camel_case else entry
        for key in wire_entry:
            if key in _RESERVED:
                raise wrong("settings.provider_options", f'Provider options cannot set "{key}".')
        _merge(body, wire_entry)


def _snake_case(entry: Mapping[str, object]) -> dict[str, object]:
    named: dict[str, object] = {}
    for key, value in entry.items():
        if key in _VERBATIM:
            named[key] = value
            continue
        name = _CAMEL.sub(lambda match: "_" + match.group(1).lower(), key)
        is_nested = isinstance(value, Mapping) and name not in _CALLERS_KEYS
        named[name] = _snake_case(value) if is_nested and isinstance(value, Mapping) else value
    return named


def _merge(target: MutableMapping[str, object], source: Mapping[str, object]) -> None:
    for key, value in source.items():
        known = target.get(key)
        if isinstance(known, msgspec.Raw):
            known = read_any(known)
        if isinstance(value, Mapping) and isinstance(known, Mapping):
            merged = dict(known)
            _merge(merged, value)
            target[key] = merged
        else:
            target[key] = value
