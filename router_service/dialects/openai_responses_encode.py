"""The request of OpenAI responses.

The provider keeps nothing (`store` is false) unless provider options say otherwise: the conversation is the caller's.
So reasoning must travel with it, sealed, and is asked for (`include`).
"""

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
from router_service.dialects.efforts import openai_word, refuse_off
from router_service.dialects.openai_responses_input import InputWriter
from router_service.dialects.openai_responses_items import DIALECT
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

_SEALED_REASONING = "reasoning.encrypted_content"

# Names of OpenAI's chat wire, and of the AI SDK, for what this wire keeps elsewhere.
_MOVED = {
    "reasoning_effort": ("reasoning", "effort"),
    "reasoning_summary": ("reasoning", "summary"),
    "text_verbosity": ("text", "verbosity"),
    "verbosity": ("text", "verbosity"),
}


def encode_request(completion: Completion, quirks: Quirks) -> Encoded:
    """The HTTP request of a completion."""
    notices = Notices()
    body: Body = {"model": completion.model, "input": InputWriter(completion, quirks, notices).write(), "store": False}
    _write_tools(body, completion, quirks, notices)
    _write_format(body, completion, quirks, notices)
    _write_reasoning(body, asked_reasoning(completion, notices), quirks, notices)
    _write_sampling(body, completion, quirks, notices)
    write_routing(body, completion, quirks, notices)
    if quirks.takes_gateway_options or quirks.is_router_like:
        check_gateway_options(completion.options)
    merge_options(body, completion.options, in_camel_case=bool(quirks.options_family))
    _move_options(body)
    if quirks.reasoning_style is not ReasoningStyle.NONE:
        known = body.get("include")
        # Written after the options: without it the next turn would lose what was thought.
        included = list(known) if isinstance(known, list) else []
        body["include"] = included if _SEALED_REASONING in included else [*included, _SEALED_REASONING]
    if completion.stream:
        body["stream"] = True
    return Encoded(
        path="/responses",
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
        written: Body = {"type": "function", "name": tool.name}
        if tool.description:
            written["description"] = tool.description
        written["parameters"] = parameters_of(tool, index)
        written["strict"] = tool.strict and quirks.supports_strict_schema  # left out, it would be true
        if tool.strict and not quirks.supports_strict_schema:
            path = f"tools[{index}].function.strict"
            notices.add(path, WarningReason.NOT_GUARANTEED, "This provider cannot hold arguments to a schema.")
        tools.append(written)
    body["tools"] = tools
    choice = completion.tool_choice
    if choice is not None:
        named = {"type": "function", "name": choice.tool_name}
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
            body["text"] = {"format": {"type": "json_object"}}
        case JsonSchemaFormat():
            is_strict = wanted.strict and quirks.supports_strict_schema
            schema = schema_of(wanted.schema_json, "response_format.json_schema.schema_json")
            written: Body = {"type": "json_schema", "name": wanted.name, "schema": schema, "strict": is_strict}
            if wanted.description:
                written["description"] = wanted.description
            if not is_strict:
                notices.add(
                    "response_format.json_schema",
                    WarningReason.NOT_GUARANTEED,
                    "The schema is asked for but nothing holds the answer to it.",
                )
            body["text"] = {"format": written}
        case _:
            assert_never(wanted)


def _write_sampling(body: Body, completion: Completion, quirks: Quirks, notices: Notices) -> None:
    sampling = completion.settings.sampling
    reasoning = body.get("reasoning")
    effort = reasoning.get("effort", "none") if isinstance(reasoning, dict) else "none"
    refusal = refuse_sampling(quirks, is_thinking=effort != "none")
    fields: tuple[tuple[str, object, bool], ...] = (
        ("temperature", sampling.temperature, True),
        ("top_p", sampling.top_p, True),
        ("top_k", sampling.top_k, quirks.supports_top_k),
        ("presence_penalty", sampling.presence_penalty, False),
        ("frequency_penalty", sampling.frequency_penalty, False),
        ("seed", sampling.seed, False),
        ("stop_sequences", sampling.stop_sequences or None, False),
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
    limit = completion.settings.max_output_tokens or quirks.default_max_output_tokens
    if limit is not None:
        body["max_output_tokens"] = limit


def _write_reasoning(body: Body, asked: ReasoningSettings | None, quirks: Quirks, notices: Notices) -> None:
    if asked is None:
        return
    if quirks.reasoning_style is ReasoningStyle.NONE:
        if asked.effort is ReasoningEffort.OFF and quirks.is_reasoning_mandatory:
            raise refuse_off()
        if asked.effort not in {None, ReasoningEffort.OFF} or asked.budget_tokens:
            notices.ignore("settings.reasoning", "This model's reasoning cannot be set.")
        return
    reasoning: Body = {}
    if effort := openai_word(asked, quirks, notices):
        reasoning["effort"] = effort
    if asked.include_thoughts:
        reasoning["summary"] = "auto"
    if reasoning:
        body["reasoning"] = reasoning


def _move_options(body: Body) -> None:
    for name, (group, key) in _MOVED.items():
        if name in body:
            known = body.get(group)
            body[group] = {**(known if isinstance(known, dict) else {}), key: body.pop(name)}
    if "max_completion_tokens" in body:
        body["max_output_tokens"] = body.pop("max_completion_tokens")
