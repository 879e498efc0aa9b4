"""What may be said about a call, and the CompletionCall that it becomes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TypedDict, TypeVar

from keyswitch.router.v1 import (
    completion_pb2,
    content_pb2,
    embedding_service_pb2,
    payer_pb2,
    route_policy_pb2,
    settings_pb2,
)

from keyswitch_client.messages import user

if TYPE_CHECKING:
    from google.protobuf.internal.enum_type_wrapper import _EnumTypeWrapper

_Value = TypeVar("_Value", bound=int)

Prompt = str | Sequence[content_pb2.Message] | completion_pb2.CompletionCall


class CallOptions(TypedDict, total=False):
    """Everything besides the messages. The contract says what each means; what is absent is the service's default.

    `effort`, `max_output_tokens`, `temperature` and `include_thoughts` are short for fields of `settings`, and `payers`
    for one of `route_policy`: they win over those. `request_id=""` sends none.
    """

    model: str
    tools: Sequence[completion_pb2.Tool]
    tool_choice: completion_pb2.ToolChoice
    parallel_tool_calls: bool
    response_format: completion_pb2.ResponseFormat
    settings: settings_pb2.GenerationSettings
    effort: str
    max_output_tokens: int
    temperature: float
    include_thoughts: bool
    route_policy: route_policy_pb2.RoutePolicy
    payers: Sequence[str]
    application: str
    context: str
    on_behalf_of_user: str
    caller_labels: Mapping[str, str]
    request_id: str


class EmbedOptions(TypedDict, total=False):
    """Everything besides the texts. `task` is "query" or "document"; `payers` wins over that of `route_policy`."""

    model: str
    dimensions: int
    task: str
    provider_options: Sequence[settings_pb2.ProviderOptions]
    route_policy: route_policy_pb2.RoutePolicy
    payers: Sequence[str]
    application: str
    context: str
    on_behalf_of_user: str
    caller_labels: Mapping[str, str]
    request_id: str


def build_embed(
    texts: str | Sequence[str], options: EmbedOptions, new_id: Callable[[], str]
) -> embedding_service_pb2.EmbedRequest:
    """The request to send."""
    task, unspecified = options.get("task", ""), embedding_service_pb2.EMBEDDING_TASK_UNSPECIFIED
    spec = embedding_service_pb2.EmbeddingSpec(
        model=options.get("model", ""),
        inputs=[embedding_service_pb2.EmbeddingInput(text=t) for t in ([texts] if isinstance(texts, str) else texts)],
        dimensions=options.get("dimensions"),
        task=enum_value(embedding_service_pb2.EmbeddingTask, "EMBEDDING_TASK_", task) if task else unspecified,
        provider_options=options.get("provider_options", ()),
    )
    request = embedding_service_pb2.EmbedRequest(
        spec=spec,
        request_id=options["request_id"] if "request_id" in options else new_id(),
        application=options.get("application", ""),
        context=options.get("context", ""),
        on_behalf_of_user=options.get("on_behalf_of_user", ""),
        caller_labels=options.get("caller_labels", {}),
    )
    if "route_policy" in options:
        request.route_policy.CopyFrom(options["route_policy"])
    if "payers" in options:
        request.route_policy.payers[:] = [enum_value(payer_pb2.Payer, "PAYER_", name) for name in options["payers"]]
    return request


def build_call(prompt: Prompt, options: CallOptions, new_id: Callable[[], str]) -> completion_pb2.CompletionCall:
    """The call to send. A prompt that is a whole CompletionCall is taken as it is and copied."""
    if isinstance(prompt, completion_pb2.CompletionCall):
        if options:
            raise ValueError("a whole CompletionCall says everything: set its fields instead of giving options")
        call = completion_pb2.CompletionCall()
        call.CopyFrom(prompt)
        return call
    messages = [user(prompt)] if isinstance(prompt, str) else prompt
    spec = completion_pb2.CompletionSpec(
        model=options.get("model", ""),
        messages=messages,
        tools=options.get("tools", ()),
        tool_choice=options.get("tool_choice"),
        parallel_tool_calls=options.get("parallel_tool_calls"),
        response_format=options.get("response_format"),
    )
    _add_settings(spec, options)
    call = completion_pb2.CompletionCall(
        spec=spec,
        request_id=options["request_id"] if "request_id" in options else new_id(),
        application=options.get("application", ""),
        context=options.get("context", ""),
        on_behalf_of_user=options.get("on_behalf_of_user", ""),
        caller_labels=options.get("caller_labels", {}),
    )
    _add_policy(call, options)
    return call


def enum_value(enum: _EnumTypeWrapper[_Value], prefix: str, name: str) -> _Value:
    """The number of a value by its short name in either case: "high", "USER_KEY"."""
    values = {key.removeprefix(prefix): number for key, number in enum.items() if number}
    wanted = name.upper().removeprefix(prefix)
    if wanted not in values:
        raise ValueError(f"{name!r} is none of {', '.join(values)}")
    return values[wanted]


def _add_settings(spec: completion_pb2.CompletionSpec, options: CallOptions) -> None:
    if "settings" in options:
        spec.settings.CopyFrom(options["settings"])
    if "effort" in options:
        effort = enum_value(settings_pb2.ReasoningEffort, "REASONING_EFFORT_", options["effort"])
        spec.settings.reasoning.effort = effort
    if "include_thoughts" in options:
        spec.settings.reasoning.include_thoughts = options["include_thoughts"]
    if "max_output_tokens" in options:
        spec.settings.max_output_tokens = options["max_output_tokens"]
    if "temperature" in options:
        spec.settings.sampling.temperature = options["temperature"]


def _add_policy(call: completion_pb2.CompletionCall, options: CallOptions) -> None:
    if "route_policy" in options:
        call.route_policy.CopyFrom(options["route_policy"])
    if "payers" in options:
        call.route_policy.payers[:] = [enum_value(payer_pb2.Payer, "PAYER_", name) for name in options["payers"]]
