"""Protobuf to values. Everything a request can have wrong is found here and named by its path."""

import re
from collections.abc import Mapping, Sequence
from typing import TypeVar

from keyswitch.router.v1 import (
    completion_pb2,
    content_pb2,
    embedding_service_pb2,
    settings_pb2,
)

from router_service.core.content import (
    CacheTtl,
    Media,
    MediaDetail,
    Message,
    Part,
    PartKind,
    ProviderBlock,
    ProviderState,
    Reasoning,
    Role,
    Text,
    ToolCall,
    ToolResult,
)
from router_service.core.faults import invalid
from router_service.core.request import (
    Completion,
    FunctionTool,
    JsonFormat,
    JsonSchemaFormat,
    ProviderOptions,
    ProviderTool,
    ReasoningEffort,
    ReasoningSettings,
    ResponseFormat,
    Sampling,
    Settings,
    TextFormat,
    ToolChoice,
    ToolMode,
    UpstreamMaxPrice,
    UpstreamRouting,
)
from router_service.policy.call import Needs
from router_service.policy.settings import parse_options
from router_service.transport.wire_citations import parse_citation

MAX_TOOLS = 128
MAX_OPTIONS = 16
MAX_LABELS = 16
MAX_STOP_SEQUENCES = 8
MAX_CACHE_BREAKPOINTS = 4
MAX_MODEL_CHARACTERS = 128

_TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_LABEL_KEY = re.compile(r"[a-z][a-z0-9_.-]{0,62}")
_CONTEXT = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_UUID4 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", re.IGNORECASE)
_MEDIA_TYPE = re.compile(r"[a-z0-9!#$&^_.+-]{1,127}/[a-z0-9!#$&^_.+-]{1,127}")

T = TypeVar("T")

ROLES: Mapping[int, Role] = {
    content_pb2.ROLE_SYSTEM: Role.SYSTEM,
    content_pb2.ROLE_USER: Role.USER,
    content_pb2.ROLE_ASSISTANT: Role.ASSISTANT,
    content_pb2.ROLE_TOOL: Role.TOOL,
}
TTLS: Mapping[int, CacheTtl | None] = {
    content_pb2.CACHE_TTL_UNSPECIFIED: None,
    content_pb2.CACHE_TTL_FIVE_MINUTES: CacheTtl.FIVE_MINUTES,
    content_pb2.CACHE_TTL_ONE_HOUR: CacheTtl.ONE_HOUR,
}
DETAILS: Mapping[int, MediaDetail | None] = {
    content_pb2.MEDIA_DETAIL_UNSPECIFIED: None,
    content_pb2.MEDIA_DETAIL_LOW: MediaDetail.LOW,
    content_pb2.MEDIA_DETAIL_HIGH: MediaDetail.HIGH,
}
MODES: Mapping[int, ToolMode] = {
    completion_pb2.TOOL_MODE_UNSPECIFIED: ToolMode.AUTO,
    completion_pb2.TOOL_MODE_AUTO: ToolMode.AUTO,
    completion_pb2.TOOL_MODE_NONE: ToolMode.NONE,
    completion_pb2.TOOL_MODE_REQUIRED: ToolMode.REQUIRED,
}
EFFORTS: Mapping[int, ReasoningEffort | None] = {
    settings_pb2.REASONING_EFFORT_UNSPECIFIED: None,
    settings_pb2.REASONING_EFFORT_OFF: ReasoningEffort.OFF,
    settings_pb2.REASONING_EFFORT_MINIMAL: ReasoningEffort.MINIMAL,
    settings_pb2.REASONING_EFFORT_LOW: ReasoningEffort.LOW,
    settings_pb2.REASONING_EFFORT_MEDIUM: ReasoningEffort.MEDIUM,
    settings_pb2.REASONING_EFFORT_HIGH: ReasoningEffort.HIGH,
    settings_pb2.REASONING_EFFORT_XHIGH: ReasoningEffort.XHIGH,
    settings_pb2.REASONING_EFFORT_MAX: ReasoningEffort.MAX,
}
DATA_COLLECTION: Mapping[int, str] = {
    settings_pb2.DATA_COLLECTION_UNSPECIFIED: "",
    settings_pb2.DATA_COLLECTION_ALLOW: "allow",
    settings_pb2.DATA_COLLECTION_DENY: "deny",
}
SORTS: Mapping[int, str] = {
    settings_pb2.UPSTREAM_SORT_UNSPECIFIED: "",
    settings_pb2.UPSTREAM_SORT_PRICE: "price",
    settings_pb2.UPSTREAM_SORT_THROUGHPUT: "throughput",
    settings_pb2.UPSTREAM_SORT_LATENCY: "latency",
}


def known(table: Mapping[int, T], value: int, field: str) -> T:
    """The meaning of an enum's number. A number newer than this router is refused by name, not guessed."""
    if value not in table:
        raise invalid(field, "This value is required, and must be one that this version knows.")
    return table[value]


def check_uuid4(text: str, field: str) -> str:
    """A UUID4 in lower case, or empty."""
    if text and not _UUID4.fullmatch(text):
        raise invalid(field, "A request id is a UUID4.")
    return text.lower()


def check_call(call: completion_pb2.CompletionCall | embedding_service_pb2.EmbedRequest) -> None:
    """What is beside the spec: context, labels, the lengths of references."""
    if call.context and not _CONTEXT.fullmatch(call.context):
        raise invalid("call.context", "A context matches [a-z][a-z0-9_-]{0,62}.")
    if len(call.caller_labels) > MAX_LABELS:
        raise invalid("call.caller_labels", f"A call has at most {MAX_LABELS} labels.")
    for key, value in call.caller_labels.items():
        if not _LABEL_KEY.fullmatch(key) or len(value) > 128 or not value.isprintable():
            message = "Keys match [a-z][a-z0-9_.-]{0,62}, values have at most 128 characters of one line."
            raise invalid("call.caller_labels", message)
    if len(call.spec.model) > MAX_MODEL_CHARACTERS:
        raise invalid("call.spec.model", f"A model reference has at most {MAX_MODEL_CHARACTERS} characters.")


def parse_completion(spec: completion_pb2.CompletionSpec, *, stream: bool, may_be_empty: bool = False) -> Completion:
    """What is to be completed; model and provider are filled in for each attempt."""
    if not spec.messages and not may_be_empty:
        raise invalid("call.spec.messages", "A completion needs at least one message.")
    messages = tuple(_message(message, f"call.spec.messages[{i}]") for i, message in enumerate(spec.messages))
    marks = sum(part.cache_breakpoint is not None for message in messages for part in message.parts)
    if marks > MAX_CACHE_BREAKPOINTS:
        raise invalid("call.spec.messages", f"A request has at most {MAX_CACHE_BREAKPOINTS} cache breakpoints.")
    _check_tool_results(messages)
    return Completion(
        model="",
        provider="",
        messages=messages,
        stream=stream,
        tools=_tools(spec.tools),
        tool_choice=_tool_choice(spec) if spec.HasField("tool_choice") else None,
        parallel_tool_calls=spec.parallel_tool_calls if spec.HasField("parallel_tool_calls") else None,
        response_format=_format(spec.response_format),
        settings=parse_settings(spec.settings, "call.spec.settings"),
    )


def parse_needs(completion: Completion) -> Needs:
    """What the content needs from an endpoint."""
    asked = completion.response_format
    return Needs(
        frozenset(tool.dialect for tool in completion.tools if isinstance(tool, ProviderTool)),
        isinstance(asked, JsonSchemaFormat) and asked.strict,
    )


def parse_entries(settings: Settings) -> Sequence[tuple[ProviderOptions, Mapping[str, object]]]:
    """The provider options with their objects."""
    return [
        (entry, parse_options(entry, f"call.spec.settings.provider_options[{number}]"))
        for number, entry in enumerate(settings.provider_options)
    ]


def _message(message: content_pb2.Message, field: str) -> Message:
    role = known(ROLES, message.role, f"{field}.role")
    if not message.parts:
        raise invalid(f"{field}.parts", "A message has at least one part.")
    return Message(role, tuple(_part(part, f"{field}.parts[{i}]", role) for i, part in enumerate(message.parts)))


def _part(part: content_pb2.Part, field: str, role: Role) -> Part:
    state = None
    if part.HasField("provider_state"):
        given = part.provider_state
        state = ProviderState(given.dialect, given.provider, given.data)
    kind = _kind(part, field)
    _check_role(kind, role, field)
    return Part(kind, known(TTLS, part.cache_breakpoint, f"{field}.cache_breakpoint"), state)


def _kind(part: content_pb2.Part, field: str) -> PartKind:
    match part.WhichOneof("kind"):
        case "text":
            citations = tuple(parse_citation(citation) for citation in part.text.citations)
            return Text(part.text.text, citations)
        case "reasoning":
            return Reasoning(part.reasoning.text)
        case "tool_call":
            call = part.tool_call
            if not call.id or not call.name:
                raise invalid(f"{field}.tool_call", "A tool call has an id and a name.")
            return ToolCall(call.id, call.name, call.arguments_json)
        case "tool_result":
            return _tool_result(part.tool_result, f"{field}.tool_result")
        case "media":
            return _media(part.media, f"{field}.media")
        case "provider":
            return _provider_block(part.provider, f"{field}.provider")
        case _:
            raise invalid(field, "A part is text, reasoning, tool_call, tool_result, media or provider.")


def _check_role(kind: PartKind, role: Role, field: str) -> None:
    if isinstance(kind, ToolResult) and role not in (Role.TOOL, Role.USER):
        raise invalid(field, "A tool result belongs in a message of ROLE_TOOL.")
    if isinstance(kind, ToolCall | Reasoning) and role is not Role.ASSISTANT:
        raise invalid(field, "Tool calls and reasoning belong in messages of ROLE_ASSISTANT.")
    if role is Role.SYSTEM and not isinstance(kind, Text):
        raise invalid(field, "A message of ROLE_SYSTEM holds text only.")


def _tool_result(result: content_pb2.ToolResultPart, field: str) -> ToolResult:
    if not result.tool_call_id:
        raise invalid(f"{field}.tool_call_id", "A tool result names the call that it answers.")
    content: list[Text | Media | ProviderBlock] = []
    for number, item in enumerate(result.content):
        place = f"{field}.content[{number}]"
        match item.WhichOneof("kind"):
            case "text":
                content.append(Text(item.text.text))
            case "media":
                content.append(_media(item.media, f"{place}.media"))
            case "provider":
                content.append(_provider_block(item.provider, f"{place}.provider"))
            case _:
                raise invalid(place, "A tool's answer holds text, media or provider blocks.")
    return ToolResult(result.tool_call_id, tuple(content), result.is_error)


def _media(media: content_pb2.MediaPart, field: str) -> Media:
    if not _MEDIA_TYPE.fullmatch(media.media_type):
        raise invalid(f"{field}.media_type", "An IANA media type in lower case is required, such as image/png.")
    source = media.WhichOneof("source")
    if source is None or (source == "data" and not media.data):
        raise invalid(field, "Media needs its bytes or a uri.")
    if source == "uri" and not media.uri.startswith("https://"):
        raise invalid(
            f"{field}.uri", "A media uri begins with https://; the provider fetches it, the router never does."
        )
    return Media(
        media.media_type,
        media.data if source == "data" else None,
        media.uri,
        media.filename,
        known(DETAILS, media.detail, f"{field}.detail"),
        media.enable_citations,
    )


def _provider_block(block: content_pb2.ProviderPart, field: str) -> ProviderBlock:
    if not block.dialect or not block.json:
        raise invalid(field, "A provider block has a dialect and its JSON.")
    return ProviderBlock(block.dialect, block.kind, block.json)


def _check_tool_results(messages: Sequence[Message]) -> None:
    """Every result answers a call that came before it, once."""
    open_calls: set[str] = set()
    for i, message in enumerate(messages):
        for j, part in enumerate(message.parts):
            match part.kind:
                case ToolCall(id=call_id):
                    open_calls.add(call_id)
                case ToolResult(tool_call_id=call_id):
                    if call_id not in open_calls:
                        field = f"call.spec.messages[{i}].parts[{j}].tool_result.tool_call_id"
                        raise invalid(field, "No earlier message of the assistant holds this call, or it was answered.")
                    open_calls.discard(call_id)
                case _:
                    pass


def _tools(tools: Sequence[completion_pb2.Tool]) -> tuple[FunctionTool | ProviderTool, ...]:
    if len(tools) > MAX_TOOLS:
        raise invalid("call.spec.tools", f"A call has at most {MAX_TOOLS} tools.")
    parsed: list[FunctionTool | ProviderTool] = []
    names: set[str] = set()
    for number, tool in enumerate(tools):
        field = f"call.spec.tools[{number}]"
        match tool.WhichOneof("kind"):
            case "function":
                function = tool.function
                if not _TOOL_NAME.fullmatch(function.name) or function.name in names:
                    raise invalid(f"{field}.function.name", "A tool's name is unique and matches [a-zA-Z0-9_-]{1,64}.")
                names.add(function.name)
                parsed.append(
                    FunctionTool(function.name, function.description, function.parameters_json, function.strict)
                )
            case "provider_tool":
                given = tool.provider_tool
                if not given.dialect or not given.json:
                    raise invalid(f"{field}.provider_tool", "A provider tool has a dialect and its JSON.")
                parsed.append(ProviderTool(given.dialect, given.json))
            case _:
                raise invalid(field, "A tool is a function or a provider_tool.")
    return tuple(parsed)


def _tool_choice(spec: completion_pb2.CompletionSpec) -> ToolChoice | None:
    choice = spec.tool_choice
    match choice.WhichOneof("choice"):
        case "mode":
            mode = known(MODES, choice.mode, "call.spec.tool_choice.mode")
            if mode is ToolMode.REQUIRED and not spec.tools:
                raise invalid("call.spec.tool_choice.mode", "A required tool needs tools to choose from.")
            return ToolChoice(mode)
        case "tool_name":
            if not any(tool.function.name == choice.tool_name for tool in spec.tools if tool.HasField("function")):
                raise invalid("call.spec.tool_choice.tool_name", "No function tool of the call has this name.")
            return ToolChoice(ToolMode.REQUIRED, choice.tool_name)
        case _:
            return None


def _format(given: completion_pb2.ResponseFormat) -> ResponseFormat:
    match given.WhichOneof("format"):
        case "json":
            return JsonFormat()
        case "json_schema":
            schema = given.json_schema
            field = "call.spec.response_format.json_schema"
            if not _TOOL_NAME.fullmatch(schema.name):
                raise invalid(f"{field}.name", "A schema's name matches [a-zA-Z0-9_-]{1,64}.")
            if not schema.schema_json:
                raise invalid(f"{field}.schema_json", "The schema is required.")
            return JsonSchemaFormat(schema.name, schema.schema_json, schema.strict, schema.description)
        case _:
            return TextFormat()


def parse_settings(given: settings_pb2.GenerationSettings, field: str) -> Settings:
    """How to generate."""
    most = given.max_output_tokens if given.HasField("max_output_tokens") else None
    if most is not None and most < 1:
        raise invalid(f"{field}.max_output_tokens", "At least 1.")
    if len(given.provider_options) > MAX_OPTIONS:
        raise invalid(f"{field}.provider_options", f"At most {MAX_OPTIONS} entries.")
    return Settings(
        sampling=_sampling(given.sampling, f"{field}.sampling"),
        max_output_tokens=most,
        reasoning=_reasoning(given.reasoning, f"{field}.reasoning") if given.HasField("reasoning") else None,
        provider_options=tuple(ProviderOptions(entry.namespace, entry.json) for entry in given.provider_options),
        upstream_routing=parse_routing(given.upstream_routing, f"{field}.upstream_routing")
        if given.HasField("upstream_routing")
        else None,
    )


def _sampling(given: settings_pb2.Sampling, field: str) -> Sampling:
    def number(name: str, low: float, high: float, *, open_low: bool = False) -> float | None:
        if not given.HasField(name):  # type: ignore[arg-type] # the names are those of the message's fields
            return None
        value: float = getattr(given, name)
        if not low <= value <= high or (open_low and value == low):
            raise invalid(f"{field}.{name}", f"From {low:g} to {high:g}{', above the first' if open_low else ''}.")
        return value

    stops = tuple(given.stop_sequences)
    if len(stops) > MAX_STOP_SEQUENCES or "" in stops:
        raise invalid(f"{field}.stop_sequences", f"At most {MAX_STOP_SEQUENCES}, none empty.")
    top_k = number("top_k", 1, 2**31 - 1)
    return Sampling(
        temperature=number("temperature", 0, 2),
        top_p=number("top_p", 0, 1, open_low=True),
        top_k=None if top_k is None else int(top_k),
        presence_penalty=number("presence_penalty", -2, 2),
        frequency_penalty=number("frequency_penalty", -2, 2),
        seed=given.seed if given.HasField("seed") else None,
        stop_sequences=stops,
    )


def _reasoning(given: settings_pb2.ReasoningConfig, field: str) -> ReasoningSettings:
    budget = given.budget_tokens if given.HasField("budget_tokens") else None
    if budget is not None and budget < 0:
        raise invalid(f"{field}.budget_tokens", "At least 0.")
    return ReasoningSettings(
        known(EFFORTS, given.effort, f"{field}.effort"),
        budget,
        given.include_thoughts if given.HasField("include_thoughts") else None,
    )


def _optional(message: object, name: str) -> object:
    return getattr(message, name) if message.HasField(name) else None  # type: ignore[attr-defined] # a message


def parse_routing(given: settings_pb2.UpstreamRouting, field: str) -> UpstreamRouting:
    most = None
    if given.HasField("max_price"):
        price = given.max_price
        values = {name.name: _optional(price, name.name) for name in price.DESCRIPTOR.fields}
        if any(isinstance(value, int) and value < 0 for value in values.values()):
            raise invalid(f"{field}.max_price", "Prices are from 0.")
        most = UpstreamMaxPrice(**values)  # type: ignore[arg-type] # the same names, each int or None
    return UpstreamRouting(
        order=tuple(given.order),
        only=tuple(given.only),
        ignore=tuple(given.ignore),
        allow_fallbacks=given.allow_fallbacks if given.HasField("allow_fallbacks") else None,
        require_parameters=given.require_parameters if given.HasField("require_parameters") else None,
        data_collection=known(DATA_COLLECTION, given.data_collection, f"{field}.data_collection"),
        zero_data_retention=given.zero_data_retention if given.HasField("zero_data_retention") else None,
        quantizations=tuple(given.quantizations),
        sort=known(SORTS, given.sort, f"{field}.sort"),
        max_price=most,
    )
