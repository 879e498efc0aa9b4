"""The request of Anthropic messages."""

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
    ToolMode,
    UpstreamRouting,
    WarningReason,
)
from router_service.dialects.anthropic_content import ContentWriter
from router_service.dialects.anthropic_decode import DIALECT
from router_service.dialects.base import AnthropicThinking, Carrier, Encoded, Quirks
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
)

VERSION = "2023-06-01"
_CARRIED_VERSIONS = {Carrier.BEDROCK: "bedrock-2023-05-31", Carrier.VERTEX: "vertex-2023-10-16"}
DEFAULT_MAX_TOKENS = 4096  # the wire demands a number; the catalog should know a better one
MIN_BUDGET_TOKENS = 1024

_LEVELS = (
    ReasoningEffort.LOW,
    ReasoningEffort.MEDIUM,
    ReasoningEffort.HIGH,
    ReasoningEffort.XHIGH,
    ReasoningEffort.MAX,
)


def encode_request(completion: Completion, quirks: Quirks) -> Encoded:
    """The HTTP request of a completion."""
    notices = Notices()
    content = ContentWriter(completion, notices)
    messages = content.write()
    body: Body = {
        "model": completion.model,
        "max_tokens": completion.settings.max_output_tokens or quirks.default_max_output_tokens or DEFAULT_MAX_TOKENS,
    }
    if content.system:
        body["system"] = content.system
    body["messages"] = messages
    _write_tools(body, completion, quirks, notices)
    _write_format(body, completion, notices)
    _write_reasoning(body, completion, quirks, notices)
    _write_sampling(body, completion, quirks, notices)
    routing = completion.settings.upstream_routing
    if routing is not None and routing != UpstreamRouting():
        notices.ignore("settings.upstream_routing", "This provider has no upstreams of its own to choose from.")
    merge_options(body, completion.options, in_camel_case=bool(quirks.options_family))
    if completion.stream:
        body["stream"] = True
    headers = {"content-type": "application/json"}
    if quirks.carrier is Carrier.OWN:
        headers["anthropic-version"] = VERSION
    path = _carry(body, completion, quirks.carrier)
    return Encoded(path=path, body=msgspec.json.encode(body), headers=headers, warnings=tuple(notices.items))


def _carry(body: Body, completion: Completion, carrier: Carrier) -> str:
    """The path. On another's API it names the model, and the version is in the body."""
    match carrier:
        case Carrier.OWN:
            return "/v1/messages"
        case Carrier.BEDROCK:
            body.pop("stream", None)
            method = "invoke-with-response-stream" if completion.stream else "invoke"
            path = f"/model/{model_segment(completion.model)}/{method}"
        case Carrier.VERTEX:
            method = "streamRawPredict" if completion.stream else "rawPredict"
            path = f"/{model_segment(completion.model, safe='@')}:{method}"
        case _:
            assert_never(carrier)
    del body["model"]
    body["anthropic_version"] = _CARRIED_VERSIONS[carrier]
    return path


def _write_tools(body: Body, completion: Completion, quirks: Quirks, notices: Notices) -> None:
    check_tool_choice(completion)
    if not completion.tools:
        return
    tools: list[object] = []
    for index, tool in enumerate(completion.tools):
        if not isinstance(tool, FunctionTool):
            tools.append(provider_tool_of(tool, index, DIALECT))
            continue
        written: Body = {"name": tool.name}
        if tool.description:
            written["description"] = tool.description
        written["input_schema"] = parameters_of(tool, index)
        if tool.strict:
            written["strict"] = True
        tools.append(written)
    body["tools"] = tools
    choice = _tool_choice(completion, notices)
    if choice and choice["type"] in {"any", "tool"} and not quirks.supports_forced_tools:
        notices.add("tool_choice", WarningReason.NOT_GUARANTEED, NO_FORCED_TOOLS)
        choice = {**{name: value for name, value in choice.items() if name != "name"}, "type": "auto"}
    if choice:
        body["tool_choice"] = choice


def _tool_choice(completion: Completion, notices: Notices) -> Body | None:
    asked, parallel = completion.tool_choice, completion.parallel_tool_calls
    if asked is None:
        choice: Body | None = None if parallel is None else {"type": "auto"}
    elif asked.tool_name:
        choice = {"type": "tool", "name": asked.tool_name}
    else:
        choice = {"type": {ToolMode.AUTO: "auto", ToolMode.NONE: "none", ToolMode.REQUIRED: "any"}[asked.mode]}
    if choice is not None and parallel is not None:
        if choice["type"] == "none":
            notices.ignore("parallel_tool_calls", "No tool may be called, so it says nothing.")
        else:
            choice["disable_parallel_tool_use"] = not parallel
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
            schema = schema_of(wanted.schema_json, "response_format.json_schema.schema_json")
            _output_config(body)["format"] = {"type": "json_schema", "schema": schema}
        case _:
            assert_never(wanted)


def _output_config(body: Body) -> Body:
    config = body.setdefault("output_config", {})
    assert isinstance(config, dict)  # noqa: S101 - narrows the type; only this module writes it before the options
    return config


def _write_reasoning(body: Body, completion: Completion, quirks: Quirks, notices: Notices) -> None:
    asked = asked_reasoning(completion, notices)
    if asked is None:
        return
    match quirks.anthropic_thinking:
        case AnthropicThinking.ADAPTIVE:
            _write_adaptive(body, asked, quirks, notices)
        case AnthropicThinking.BUDGET:
            _write_budget(body, asked, completion, quirks, notices)
        case AnthropicThinking.NONE:
            if asked.effort is ReasoningEffort.OFF and quirks.is_reasoning_mandatory:
                raise refuse_off()
            if asked.effort not in {None, ReasoningEffort.OFF} or asked.budget_tokens:
                notices.ignore("settings.reasoning", "This model's reasoning cannot be set.")
        case _:
            assert_never(quirks.anthropic_thinking)
    _show_thoughts(body, asked)
    _settle_tool_choice(body, notices)


def _write_adaptive(body: Body, asked: ReasoningSettings, quirks: Quirks, notices: Notices) -> None:
    level = choose_level(asked, levels_of(quirks.efforts, _LEVELS), notices, is_mandatory=quirks.is_reasoning_mandatory)
    if level is None:
        if asked.include_thoughts is not None:
            body["thinking"] = {"type": "adaptive"}
    elif level is ReasoningEffort.OFF:
        body["thinking"] = {"type": quirks.claude_off}
    else:
        body["thinking"] = {"type": "adaptive"}
        _output_config(body)["effort"] = level.value


def _write_budget(
    body: Body, asked: ReasoningSettings, completion: Completion, quirks: Quirks, notices: Notices
) -> None:
    effort, budget = asked.effort, asked.budget_tokens
    if effort is None and budget is None:
        return
    if effort is ReasoningEffort.OFF or (budget == 0 and not quirks.is_reasoning_mandatory):
        if quirks.is_reasoning_mandatory:
            raise refuse_off()
        body["thinking"] = {"type": quirks.claude_off}
        return
    path = EFFORT_PATH if budget is None else BUDGET_PATH
    wanted = BUDGETS[effort] if budget is None and effort is not None else budget or 0
    limit = body["max_tokens"]
    assert isinstance(limit, int)  # noqa: S101 - narrows the type; this module wrote it
    fitting = max(wanted, MIN_BUDGET_TOKENS)
    if completion.settings.max_output_tokens is None:
        body["max_tokens"] = limit + fitting  # the limit is ours, so it must not cost the answer its room
    elif limit <= MIN_BUDGET_TOKENS:
        notices.ignore("settings.reasoning", f"Thinking needs max_output_tokens above {MIN_BUDGET_TOKENS}.")
        return
    elif fitting >= limit:
        fitting = max(MIN_BUDGET_TOKENS, limit * 4 // 5)
    if fitting != wanted or budget is None:
        notices.adjust(path, f"This provider takes a budget of thinking; {fitting} tokens are sent.")
    body["thinking"] = {"type": "enabled", "budget_tokens": fitting}


def _show_thoughts(body: Body, asked: ReasoningSettings) -> None:
    thinking = body.get("thinking")
    if asked.include_thoughts is not None and is_claude_thinking(thinking):
        thinking["display"] = "summarized" if asked.include_thoughts else "omitted"


def _settle_tool_choice(body: Body, notices: Notices) -> None:
    """A forced tool call and thinking exclude each other on this wire; what forces an answer's shape wins."""
    choice, thinking = body.get("tool_choice"), body.get("thinking")
    is_forced = isinstance(choice, dict) and choice["type"] in {"any", "tool"}
    if is_forced and is_claude_thinking(thinking):
        del body["thinking"]
        notices.ignore("settings.reasoning", "This provider does not think where a tool call is forced.")


def _write_sampling(body: Body, completion: Completion, quirks: Quirks, notices: Notices) -> None:
    sampling = completion.settings.sampling
    thinking = body.get("thinking")
    is_thinking = is_claude_thinking(thinking)
    refusal = refuse_sampling(quirks, is_thinking=is_thinking)
    for name, value in (("temperature", sampling.temperature), ("top_p", sampling.top_p), ("top_k", sampling.top_k)):
        if value is None:
            continue
        if refusal:
            notices.ignore(f"settings.sampling.{name}", refusal)
        elif is_thinking:
            notices.ignore(f"settings.sampling.{name}", f"This provider does not take {name} while it thinks.")
        elif name == "temperature" and value > 1:
            notices.adjust("settings.sampling.temperature", "This provider's temperature ends at 1; 1 is sent.")
            body[name] = 1.0
        else:
            body[name] = value
    for name, unsupported in (
        ("presence_penalty", sampling.presence_penalty),
        ("frequency_penalty", sampling.frequency_penalty),
        ("seed", sampling.seed),
    ):
        if unsupported is not None:
            notices.ignore(f"settings.sampling.{name}", f"This provider does not take {name}.")
    if sampling.stop_sequences:
        body["stop_sequences"] = list(sampling.stop_sequences)
