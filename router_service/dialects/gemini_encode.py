"""The request of Gemini's generateContent."""

import re
from collections.abc import Mapping
from typing import assert_never
from urllib.parse import quote

import msgspec

from router_service.core.request import (
    Completion,
    FunctionTool,
    JsonFormat,
    JsonSchemaFormat,
    ReasoningEffort,
    ReasoningSettings,
    TextFormat,
    ToolMode,
    UpstreamRouting,
    WarningReason,
)
from router_service.dialects.base import Encoded, GeminiThinking, Quirks
from router_service.dialects.efforts import BUDGETS, EFFORT_PATH, choose_level, levels_of, refuse_off
from router_service.dialects.gemini_contents import ContentsWriter
from router_service.dialects.gemini_decode import DIALECT
from router_service.dialects.writing import (
    Body,
    Notices,
    asked_reasoning,
    check_tool_choice,
    merge_options,
    parameters_of,
    provider_tool_of,
    schema_of,
    wrong,
)

_LEVELS = (ReasoningEffort.MINIMAL, ReasoningEffort.LOW, ReasoningEffort.MEDIUM, ReasoningEffort.HIGH)

_MODES: Mapping[ToolMode, str] = {ToolMode.AUTO: "AUTO", ToolMode.NONE: "NONE", ToolMode.REQUIRED: "ANY"}

# Fields of the request itself; whatever else an option names is a field of generationConfig.
_REQUEST_FIELDS = frozenset(
    {
        *("safetySettings", "cachedContent", "labels", "serviceTier", "store", "tools", "toolConfig"),
        *("generationConfig", "modelArmorConfig"),
    }
)
# What the router writes itself, and a number of answers of which all but one would be paid for and not read.
_RESERVED = frozenset({"contents", "systemInstruction", "candidateCount", "model", "messages", "stream"})

# Below these the keys are names of this wire too, and may be written in snake case like all of its names.
_NESTED = frozenset({"generationConfig", "thinkingConfig", "toolConfig", "functionCallingConfig", "imageConfig"})

_SNAKE = re.compile(r"_([a-z0-9])")
_MODEL_FOLDERS = ("models/", "tunedModels/")


def encode_request(completion: Completion, quirks: Quirks) -> Encoded:
    """The HTTP request of a completion."""
    notices = Notices()
    writer = ContentsWriter(completion, quirks, notices)
    body: Body = {"contents": writer.write()}
    if writer.system:
        body["systemInstruction"] = {"parts": writer.system}
    _write_tools(body, completion, notices)
    config: Body = {}
    _write_sampling(config, completion, quirks, notices)
    _write_format(config, completion)
    asked = asked_reasoning(completion, notices)
    if asked is not None and (thinking := _thinking(asked, quirks, notices)):
        config["thinkingConfig"] = thinking
    routing = completion.settings.upstream_routing
    if routing is not None and routing != UpstreamRouting():
        notices.ignore("settings.upstream_routing", "This provider has no upstreams of its own to choose from.")
    body["generationConfig"] = config
    merge_options(body, [_placed(entry) for entry in completion.options], in_camel_case=False)
    if not body["generationConfig"]:
        del body["generationConfig"]
    method = "streamGenerateContent?alt=sse" if completion.stream else "generateContent"
    return Encoded(
        path=f"{model_path(completion.model)}:{method}",
        body=msgspec.json.encode(body),
        headers={"content-type": "application/json"},
        warnings=tuple(notices.items),
    )


def model_path(model: str) -> str:
    """The model's resource. A tuned model is in a folder of its own; no name may leave its folder."""
    name = model if model.startswith(_MODEL_FOLDERS) else f"models/{model}"
    folder, _, model_id = name.partition("/")
    if not model_id.strip("."):
        raise wrong("model", "This is no name of a model.")
    return f"/{folder}/{quote(model_id, safe='@')}"


def _write_tools(body: Body, completion: Completion, notices: Notices) -> None:
    check_tool_choice(completion)
    if not completion.tools:
        return
    functions: list[Body] = []
    own: list[object] = []
    for index, tool in enumerate(completion.tools):
        if not isinstance(tool, FunctionTool):
            own.append(provider_tool_of(tool, index, DIALECT))
            continue
        function: Body = {"name": tool.name}
        if tool.description:
            function["description"] = tool.description
        function["parametersJsonSchema"] = parameters_of(tool, index)
        if tool.strict:
            path = f"tools[{index}].function.strict"
            notices.add(path, WarningReason.NOT_GUARANTEED, "This wire cannot hold one tool's arguments to its schema.")
        functions.append(function)
    body["tools"] = [{"functionDeclarations": functions}, *own] if functions else own
    choice = completion.tool_choice
    if choice is not None:
        calling: Body = {"mode": "ANY" if choice.tool_name else _MODES[choice.mode]}
        if choice.tool_name:
            calling["allowedFunctionNames"] = [choice.tool_name]
        body["toolConfig"] = {"functionCallingConfig": calling}
    if completion.parallel_tool_calls is False:
        notices.ignore("parallel_tool_calls", "This provider decides itself whether it calls tools in parallel.")


def _write_sampling(config: Body, completion: Completion, quirks: Quirks, notices: Notices) -> None:
    sampling = completion.settings.sampling
    fields: tuple[tuple[str, str, object, bool], ...] = (
        ("temperature", "temperature", sampling.temperature, True),
        ("top_p", "topP", sampling.top_p, True),
        ("top_k", "topK", sampling.top_k, True),
        ("presence_penalty", "presencePenalty", sampling.presence_penalty, quirks.supports_penalties),
        ("frequency_penalty", "frequencyPenalty", sampling.frequency_penalty, quirks.supports_penalties),
        ("seed", "seed", sampling.seed, quirks.supports_seed),
    )
    for name, wire_name, value, is_supported in fields:
        if value is None:
            continue
        if is_supported:
            config[wire_name] = value
        else:
            notices.ignore(f"settings.sampling.{name}", f"This provider does not take {name}.")
    if sampling.stop_sequences:
        config["stopSequences"] = list(sampling.stop_sequences)
    limit = completion.settings.max_output_tokens or quirks.default_max_output_tokens
    if limit is not None:
        config["maxOutputTokens"] = limit


def _write_format(config: Body, completion: Completion) -> None:
    wanted = completion.response_format
    match wanted:
        case TextFormat():
            return
        case JsonFormat():
            config["responseMimeType"] = "application/json"
        case JsonSchemaFormat():
            config["responseMimeType"] = "application/json"
            config["responseJsonSchema"] = schema_of(wanted.schema_json, "response_format.json_schema.schema_json")
        case _:
            assert_never(wanted)


def _thinking(asked: ReasoningSettings, quirks: Quirks, notices: Notices) -> Body:
    thinking: Body = {}
    match quirks.gemini_thinking:
        case GeminiThinking.LEVEL:
            level = choose_level(
                asked, levels_of(quirks.efforts, _LEVELS), notices, is_mandatory=quirks.is_reasoning_mandatory
            )
            if level is ReasoningEffort.OFF:
                thinking["thinkingBudget"] = 0  # there is no such level
            elif level is not None:
                thinking["thinkingLevel"] = level.value.upper()
        case GeminiThinking.BUDGET:
            budget = _budget(asked, quirks, notices)
            if budget is not None:
                thinking["thinkingBudget"] = budget
        case GeminiThinking.NONE:
            if asked.effort is ReasoningEffort.OFF and quirks.is_reasoning_mandatory:
                raise refuse_off()
            if asked.effort not in {None, ReasoningEffort.OFF} or asked.budget_tokens:
                notices.ignore("settings.reasoning", "This model's reasoning cannot be set.")
            return thinking
        case _:
            assert_never(quirks.gemini_thinking)
    if asked.include_thoughts is not None:
        thinking["includeThoughts"] = asked.include_thoughts
    return thinking


def _budget(asked: ReasoningSettings, quirks: Quirks, notices: Notices) -> int | None:
    """Tokens to think: the caller's own number as it is, or that of the level."""
    is_off = asked.effort is ReasoningEffort.OFF
    if asked.budget_tokens is not None and not is_off:
        if asked.budget_tokens == 0 and quirks.is_reasoning_mandatory:
            raise refuse_off()
        return asked.budget_tokens
    level = choose_level(asked, levels_of(quirks.efforts), notices, is_mandatory=quirks.is_reasoning_mandatory)
    if level is None:
        return None
    if level is ReasoningEffort.OFF:
        return 0
    notices.adjust(EFFORT_PATH, f"This provider takes a budget of thinking; {BUDGETS[level]} tokens are sent.")
    return BUDGETS[level]


# -- provider options ------------------------------------------------------------------------------------------------


def _placed(entry: Mapping[str, object]) -> Body:
    """Options with each field where the wire has it: people write "thinkingConfig" without what it is inside of."""
    placed: Body = {}
    config: Body = {}
    for key, value in _camel_case(entry).items():
        if key == "generationConfig" and isinstance(value, Mapping):
            config.update(value)
        elif key in _REQUEST_FIELDS:
            placed[key] = value
        else:
            config[key] = value
    for key in config:
        if key in _RESERVED:
            raise wrong("settings.provider_options", f'Provider options cannot set "{key}".')
    if config:
        placed["generationConfig"] = config
    return placed


def _camel_case(entry: Mapping[str, object]) -> Body:
    named: Body = {}
    for key, value in entry.items():
        name = _SNAKE.sub(lambda match: match.group(1).upper(), key)
        named[name] = _camel_case(value) if name in _NESTED and isinstance(value, Mapping) else value
    return named
