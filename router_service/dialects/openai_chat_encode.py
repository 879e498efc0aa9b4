"""The request of OpenAI chat completions."""

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
    WarningReason,
)
from router_service.dialects.base import Encoded, Quirks, ReasoningStyle
from router_service.dialects.efforts import BUDGET_PATH, EFFORT_PATH, choose_level, levels_of, openai_word, refuse_off
from router_service.dialects.openai_chat_messages import MessagesWriter
from router_service.dialects.upstream_routing import check_gateway_options, write_routing
from router_service.dialects.writing import (
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

DIALECT = "openai_chat"


def encode_request(completion: Completion, quirks: Quirks) -> Encoded:
    """The HTTP request of a completion."""
    notices = Notices()
    body: Body = {"model": completion.model}
    body["messages"] = MessagesWriter(DIALECT, completion, quirks, notices).write()
    _write_tools(body, completion, quirks, notices)
    _write_format(body, completion, quirks, notices)
    _write_reasoning(body, asked_reasoning(completion, notices), quirks, notices)
    _write_sampling(body, completion, quirks, notices)
    write_routing(body, completion, quirks, notices)
    if quirks.takes_gateway_options or quirks.is_router_like:
        check_gateway_options(completion.options)
    merge_options(body, completion.options, in_camel_case=bool(quirks.options_family))
    if completion.stream:
        body["stream"] = True
        if quirks.supports_stream_options:
            known = body.get("stream_options")
            # Written after the options: without the report an answer cannot be billed.
            body["stream_options"] = {**(known if isinstance(known, dict) else {}), "include_usage": True}
    return Encoded(
        path="/chat/completions",
        body=msgspec.json.encode(body),
        headers={"content-type": "application/json"},
        warnings=tuple(notices.items),
    )


def _write_tools(body: Body, completion: Completion, quirks: Quirks, notices: Notices) -> None:
    check_tool_choice(completion)
    if not completion.tools:
        return
    tools: list[object] = []
    for index, tool in enumerate(completion.tools):
        if not isinstance(tool, FunctionTool):
            tools.append(provider_tool_of(tool, index, DIALECT))
            continue
        function: Body = {"name": tool.name}
        if tool.description:
            function["description"] = tool.description
        function["parameters"] = parameters_of(tool, index)
        if tool.strict and quirks.supports_strict_schema:
            function["strict"] = True
        elif tool.strict:
            path = f"tools[{index}].function.strict"
            notices.add(path, WarningReason.NOT_GUARANTEED, "This provider cannot hold arguments to a schema.")
        tools.append({"type": "function", "function": function})
    body["tools"] = tools
    choice = completion.tool_choice
    if choice is not None:
        named = {"type": "function", "function": {"name": choice.tool_name}}
        body["tool_choice"] = named if choice.tool_name else choice.mode.value
    if completion.parallel_tool_calls is not None:
        if quirks.supports_parallel_tool_calls:
            body["parallel_tool_calls"] = completion.parallel_tool_calls
        else:
            notices.ignore("parallel_tool_calls", "This provider decides itself whether it calls tools in parallel.")


def _write_format(body: Body, completion: Completion, quirks: Quirks, notices: Notices) -> None:
    wanted = completion.response_format
    match wanted:
        case TextFormat():
            return
        case JsonFormat():
            body["response_format"] = {"type": "json_object"}
        case JsonSchemaFormat():
            schema: Body = {"name": wanted.name}
            if wanted.description:
                schema["description"] = wanted.description
            schema["schema"] = schema_of(wanted.schema_json, "response_format.json_schema.schema_json")
            if quirks.supports_strict_schema:
                schema["strict"] = wanted.strict
            if not wanted.strict or not quirks.supports_strict_schema:
                notices.add(
                    "response_format.json_schema",
                    WarningReason.NOT_GUARANTEED,
                    "The schema is asked for but nothing holds the answer to it.",
                )
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        case _:
            assert_never(wanted)


def _write_sampling(body: Body, completion: Completion, quirks: Quirks, notices: Notices) -> None:
    sampling = completion.settings.sampling
    refusal = refuse_sampling(quirks, is_thinking=body.get("reasoning_effort", "none") != "none")
    fields: tuple[tuple[str, object, bool], ...] = (
        ("temperature", sampling.temperature, True),
        ("top_p", sampling.top_p, True),
        ("top_k", sampling.top_k, quirks.supports_top_k),
        ("presence_penalty", sampling.presence_penalty, quirks.supports_penalties),
        ("frequency_penalty", sampling.frequency_penalty, quirks.supports_penalties),
        ("seed", sampling.seed, quirks.supports_seed),
    )
    for name, value, is_supported in fields:
        if value is None:
            continue
        if not is_supported:
            notices.ignore(f"settings.sampling.{name}", f"This provider does not take {name}.")
        elif refusal and name != "seed":
            notices.ignore(f"settings.sampling.{name}", refusal)
        else:
            body[name] = value
    if sampling.stop_sequences and quirks.supports_stop:
        body["stop"] = list(sampling.stop_sequences)
    elif sampling.stop_sequences:
        notices.ignore("settings.sampling.stop_sequences", "This model does not take stop sequences.")
    limit = completion.settings.max_output_tokens or quirks.default_max_output_tokens
    if limit is not None:
        body[quirks.max_tokens_field] = limit


def _write_reasoning(body: Body, asked: ReasoningSettings | None, quirks: Quirks, notices: Notices) -> None:
    if asked is None:
        return
    match quirks.reasoning_style:
        case ReasoningStyle.EFFORT:
            if effort := openai_word(asked, quirks, notices):
                body["reasoning_effort"] = effort
        case ReasoningStyle.OPENROUTER:
            _write_openrouter(body, asked, quirks, notices)
        case ReasoningStyle.BINARY:
            _write_switch(body, asked, quirks, notices)
        case ReasoningStyle.NONE:
            if asked.effort is ReasoningEffort.OFF and quirks.is_reasoning_mandatory:
                raise refuse_off()
            if asked.effort not in {None, ReasoningEffort.OFF} or asked.budget_tokens:
                notices.ignore("settings.reasoning", "This model's reasoning cannot be set.")
        case _:
            assert_never(quirks.reasoning_style)
    if asked.include_thoughts and quirks.reasoning_style is not ReasoningStyle.OPENROUTER:
        notices.add(
            "settings.reasoning.include_thoughts",
            WarningReason.NOT_GUARANTEED,
            "This wire cannot ask for the text of the reasoning; it comes where the provider gives it.",
        )


def _write_openrouter(body: Body, asked: ReasoningSettings, quirks: Quirks, notices: Notices) -> None:
    reasoning: Body = {}
    if asked.budget_tokens and asked.effort is not ReasoningEffort.OFF:
        reasoning["max_tokens"] = asked.budget_tokens
    else:
        level = choose_level(asked, levels_of(quirks.efforts), notices, is_mandatory=quirks.is_reasoning_mandatory)
        if level is not None:
            reasoning["effort"] = "none" if level is ReasoningEffort.OFF else level.value
    if asked.include_thoughts is not None:
        reasoning["exclude"] = not asked.include_thoughts
    if reasoning:
        body["reasoning"] = reasoning


def _write_switch(body: Body, asked: ReasoningSettings, quirks: Quirks, notices: Notices) -> None:
    effort, budget = asked.effort, asked.budget_tokens
    if effort is None and budget is None:
        return
    is_off = effort is ReasoningEffort.OFF or (effort is None and budget == 0)
    if is_off and quirks.is_reasoning_mandatory:
        raise refuse_off()
    if not is_off:
        path = EFFORT_PATH if effort is not None else BUDGET_PATH
        notices.adjust(path, "This model's reasoning can only be switched on or off; it is switched on.")
    body["thinking"] = {"type": "disabled" if is_off else "enabled"}
