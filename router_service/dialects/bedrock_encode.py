"""The request of Bedrock's Converse.

The wire has one shape for all vendors' models; what only one vendor's models take goes into
`additionalModelRequestFields`, in that vendor's words.
"""

import re
from collections.abc import Mapping
from typing import assert_never

import msgspec

from router_service.core.request import (
    Completion,
    FunctionTool,
    JsonFormat,
    JsonSchemaFormat,
    ReasoningEffort,
    ReasoningSettings,
    TextFormat,
    ToolChoice,
    ToolMode,
    UpstreamRouting,
    WarningReason,
)
from router_service.dialects.base import BedrockReasoning, Encoded, Quirks
from router_service.dialects.bedrock_contents import ContentsWriter
from router_service.dialects.bedrock_decode import DIALECT
from router_service.dialects.efforts import (
    BUDGET_PATH,
    BUDGETS,
    EFFORT_PATH,
    choose_level,
    is_claude_thinking,
    levels_of,
    refuse_off,
)
from router_service.dialects.paths import model_segment
from router_service.dialects.writing import (
    EMPTY_SCHEMA,
    NO_FORCED_TOOLS,
    Body,
    Notices,
    asked_reasoning,
    check_tool_choice,
    merge_options,
    parameters_of,
    provider_tool_of,
    refuse_sampling,
    schema_of,
    wrong,
)

MIN_BUDGET_TOKENS = 1024
_ROOM_TOKENS = 4096  # for an answer whose thinking was bounded and whose length was not

_CLAUDE_LEVELS = (
    *(ReasoningEffort.LOW, ReasoningEffort.MEDIUM, ReasoningEffort.HIGH, ReasoningEffort.XHIGH, ReasoningEffort.MAX),
)
_THREE_LEVELS = (ReasoningEffort.LOW, ReasoningEffort.MEDIUM, ReasoningEffort.HIGH)

# Fields of the request itself; whatever else an option names is a field of the model.
_REQUEST_FIELDS = frozenset(
    {
        *("inferenceConfig", "toolConfig", "guardrailConfig", "additionalModelRequestFields", "outputConfig"),
        *("additionalModelResponseFieldPaths", "requestMetadata", "performanceConfig", "serviceTier"),
        *("promptVariables", "projectIdentifier"),
    }
)
_SNAKE = re.compile(r"_([a-z0-9])")


def encode_request(completion: Completion, quirks: Quirks) -> Encoded:
    """The HTTP request of a completion."""
    notices = Notices()
    writer = ContentsWriter(completion, notices)
    body: Body = {"messages": writer.write()}
    if writer.system:
        body["system"] = writer.system
    model_fields: Body = {}
    inference: Body = {}
    _write_tools(body, completion, list(writer.called), quirks, notices)
    _write_format(body, completion, notices)
    limit = completion.settings.max_output_tokens or quirks.default_max_output_tokens
    if limit is not None:
        inference["maxTokens"] = limit
    asked = asked_reasoning(completion, notices)
    if asked is not None:
        _write_reasoning(body, model_fields, inference, asked, quirks, notices)
    _write_sampling(inference, model_fields, completion, quirks, notices)
    routing = completion.settings.upstream_routing
    if routing is not None and routing != UpstreamRouting():
        notices.ignore("settings.upstream_routing", "This provider has no upstreams of its own to choose from.")
    if inference:
        body["inferenceConfig"] = inference
    if model_fields:
        body["additionalModelRequestFields"] = model_fields
    merge_options(body, [_placed(entry) for entry in completion.options], in_camel_case=False)
    return Encoded(
        path=f"/model/{model_segment(completion.model)}/{'converse-stream' if completion.stream else 'converse'}",
        body=msgspec.json.encode(body),
        headers={"content-type": "application/json"},
        warnings=tuple(notices.items),
    )


def _write_tools(body: Body, completion: Completion, called: list[str], quirks: Quirks, notices: Notices) -> None:
    check_tool_choice(completion)
    tools: list[object] = []
    for index, tool in enumerate(completion.tools):
        if not isinstance(tool, FunctionTool):
            tools.append(provider_tool_of(tool, index, DIALECT))
            continue
        written: Body = {"name": tool.name}
        if tool.description.strip():
            written["description"] = tool.description
        written["inputSchema"] = {"json": parameters_of(tool, index)}
        if tool.strict:
            written["strict"] = True
        tools.append({"toolSpec": written})
    choice = _allowed_choice(completion, quirks, notices)
    if choice is not None and choice.mode is ToolMode.NONE and not choice.tool_name and tools:
        if not called:
            return  # what is not declared is not called
        notices.add("tool_choice", WarningReason.NOT_GUARANTEED, "This wire cannot forbid the tools that it declares.")
        choice = None
    if not tools and called:
        notices.adjust("tools", "This wire wants tools declared that were called before; they are, without schemas.")
        tools = [{"toolSpec": {"name": name, "inputSchema": {"json": EMPTY_SCHEMA}}} for name in called]
    if not tools:
        return
    config: Body = {"tools": tools}
    if choice is not None and choice.tool_name:
        config["toolChoice"] = {"tool": {"name": choice.tool_name}}
    elif choice is not None and completion.tools:
        config["toolChoice"] = {"any": {}} if choice.mode is ToolMode.REQUIRED else {"auto": {}}
    body["toolConfig"] = config
    if completion.parallel_tool_calls is False:
        notices.ignore("parallel_tool_calls", "This wire cannot hold a model to one tool call at a time.")


def _allowed_choice(completion: Completion, quirks: Quirks, notices: Notices) -> ToolChoice | None:
    choice = completion.tool_choice
    is_forced = choice is not None and (bool(choice.tool_name) or choice.mode is ToolMode.REQUIRED)
    if is_forced and not quirks.supports_forced_tools:
        notices.add("tool_choice", WarningReason.NOT_GUARANTEED, NO_FORCED_TOOLS)
        return None
    return choice


def _write_format(body: Body, completion: Completion, notices: Notices) -> None:
    wanted = completion.response_format
    match wanted:
        case TextFormat():
            return
        case JsonFormat():
            notices.add(
                "response_format.json",
                WarningReason.NOT_GUARANTEED,
                "This wire cannot ask for JSON without a schema. Ask for it in the prompt, or give a schema.",
            )
        case JsonSchemaFormat():
            schema = bytes(schema_of(wanted.schema_json, "response_format.json_schema.schema_json"))
            written: Body = {"schema": schema.decode()}
            if wanted.name:
                written["name"] = wanted.name
            if wanted.description:
                written["description"] = wanted.description
            _output_config(body)["textFormat"] = {"type": "json_schema", "structure": {"jsonSchema": written}}
        case _:
            assert_never(wanted)


def _output_config(body: Body) -> Body:
    config = body.setdefault("outputConfig", {})
    assert isinstance(config, dict)  # noqa: S101 - narrows the type; only this module writes it before the options
    return config


# -- reasoning -------------------------------------------------------------------------------------------------------


def _write_reasoning(
    body: Body, fields: Body, inference: Body, asked: ReasoningSettings, quirks: Quirks, notices: Notices
) -> None:
    match quirks.bedrock_reasoning:
        case BedrockReasoning.CLAUDE_ADAPTIVE:
            level = _level(asked, _CLAUDE_LEVELS, quirks, notices)
            if level is ReasoningEffort.OFF:
                fields["thinking"] = {"type": quirks.claude_off}
            elif level is not None:
                fields["thinking"] = {"type": "adaptive"}
                _output_config(body)["effort"] = level.value
            elif asked.include_thoughts is not None:
                fields["thinking"] = {"type": "adaptive"}
        case BedrockReasoning.CLAUDE_BUDGET:
            _write_budget(fields, inference, asked, quirks, notices)
        case BedrockReasoning.NOVA | BedrockReasoning.EFFORT:
            _write_level(fields, asked, quirks, notices)
        case BedrockReasoning.NONE:
            _refuse_reasoning(asked, quirks, notices)
        case _:
            assert_never(quirks.bedrock_reasoning)
    _show_thoughts(fields, asked)
    _settle_tool_choice(body, fields, notices)


def _write_level(fields: Body, asked: ReasoningSettings, quirks: Quirks, notices: Notices) -> None:
    level = _level(asked, _THREE_LEVELS, quirks, notices)
    if level is None:
        return
    if quirks.bedrock_reasoning is BedrockReasoning.NOVA:
        is_off = level is ReasoningEffort.OFF
        fields["reasoningConfig"] = (
            {"type": "disabled"} if is_off else {"type": "enabled", "maxReasoningEffort": level.value}
        )
    elif level is ReasoningEffort.OFF:
        raise refuse_off()  # no such word is known, and OFF is never made into something else
    else:
        fields["reasoning_effort"] = level.value


def _level(
    asked: ReasoningSettings, levels: tuple[ReasoningEffort, ...], quirks: Quirks, notices: Notices
) -> ReasoningEffort | None:
    return choose_level(asked, levels_of(quirks.efforts, levels), notices, is_mandatory=quirks.is_reasoning_mandatory)


def _refuse_reasoning(asked: ReasoningSettings, quirks: Quirks, notices: Notices) -> None:
    if asked.effort is ReasoningEffort.OFF and quirks.is_reasoning_mandatory:
        raise refuse_off()
    if asked.effort not in {None, ReasoningEffort.OFF} or asked.budget_tokens:
        notices.ignore("settings.reasoning", "This model's reasoning cannot be set.")


def _write_budget(fields: Body, inference: Body, asked: ReasoningSettings, quirks: Quirks, notices: Notices) -> None:
    effort, budget = asked.effort, asked.budget_tokens
    if effort is None and budget is None:
        return
    if effort is ReasoningEffort.OFF or budget == 0:
        if quirks.is_reasoning_mandatory:
            raise refuse_off()
        fields["thinking"] = {"type": quirks.claude_off}
        return
    wanted = BUDGETS[effort] if budget is None and effort is not None else budget or 0
    fitting = max(wanted, MIN_BUDGET_TOKENS)
    limit = inference.get("maxTokens")
    if not isinstance(limit, int):
        inference["maxTokens"] = fitting + _ROOM_TOKENS
    elif limit <= MIN_BUDGET_TOKENS:
        notices.ignore("settings.reasoning", f"Thinking needs max_output_tokens above {MIN_BUDGET_TOKENS}.")
        return
    elif fitting >= limit:
        fitting = max(MIN_BUDGET_TOKENS, limit * 4 // 5)
    if fitting != wanted or budget is None:
        path = EFFORT_PATH if budget is None else BUDGET_PATH
        notices.adjust(path, f"This model takes a budget of thinking; {fitting} tokens are sent.")
    fields["thinking"] = {"type": "enabled", "budget_tokens": fitting}


def _show_thoughts(fields: Body, asked: ReasoningSettings) -> None:
    thinking = fields.get("thinking")
    if asked.include_thoughts is not None and is_claude_thinking(thinking):
        thinking["display"] = "summarized" if asked.include_thoughts else "omitted"


def _settle_tool_choice(body: Body, fields: Body, notices: Notices) -> None:
    """A forced tool call and Claude's thinking exclude each other; what forces an answer's shape wins."""
    config, thinking = body.get("toolConfig"), fields.get("thinking")
    choice = config.get("toolChoice", {}) if isinstance(config, dict) else {}
    if is_claude_thinking(thinking) and choice.keys() & {"any", "tool"}:
        del fields["thinking"]
        notices.ignore("settings.reasoning", "This model does not think where a tool call is forced.")


def _write_sampling(inference: Body, fields: Body, completion: Completion, quirks: Quirks, notices: Notices) -> None:
    sampling = completion.settings.sampling
    thinking = fields.get("thinking")
    is_thinking = is_claude_thinking(thinking)
    refusal = refuse_sampling(quirks, is_thinking=is_thinking)
    for name, wire_name, value in (
        ("temperature", "temperature", sampling.temperature),
        ("top_p", "topP", sampling.top_p),
    ):
        if value is None:
            continue
        if refusal:
            notices.ignore(f"settings.sampling.{name}", refusal)
        elif is_thinking:
            notices.ignore(f"settings.sampling.{name}", f"This model does not take {name} while it thinks.")
        elif value > 1:
            notices.adjust(f"settings.sampling.{name}", f"This wire's {name} ends at 1; 1 is sent.")
            inference[wire_name] = 1.0
        else:
            inference[wire_name] = value
    if sampling.top_k is not None and quirks.supports_top_k and not is_thinking and not refusal:
        fields["top_k"] = sampling.top_k
    elif sampling.top_k is not None:
        notices.ignore("settings.sampling.top_k", "This model does not take top_k, or not now.")
    for name, unsupported in (
        ("presence_penalty", sampling.presence_penalty),
        ("frequency_penalty", sampling.frequency_penalty),
        ("seed", sampling.seed),
    ):
        if unsupported is not None:
            notices.ignore(f"settings.sampling.{name}", f"This wire does not take {name}.")
    if sampling.stop_sequences:
        inference["stopSequences"] = list(sampling.stop_sequences)


# -- provider options ------------------------------------------------------------------------------------------------


def _placed(entry: Mapping[str, object]) -> Body:
    """Options with each field where the wire has it: a name that is none of the wire's is a field of the model."""
    placed: Body = {}
    fields: Body = {}
    for key, value in entry.items():
        name = _SNAKE.sub(lambda match: match.group(1).upper(), key)
        if name in _REQUEST_FIELDS:
            placed[name] = value
        elif name == "modelId":
            raise wrong("settings.provider_options", f'Provider options cannot set "{key}".')
        elif name in {"model", "messages", "system", "prompt", "stream"}:
            placed[key] = value  # refused where all dialects refuse it
        else:
            fields[key] = value
    if fields:
        known = placed.get("additionalModelRequestFields")
        placed["additionalModelRequestFields"] = {**(known if isinstance(known, Mapping) else {}), **fields}
    return placed
