"""What a call can have wrong: each a typed error that names the field, and nothing of it reaches provider or books."""

import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import grpc
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from keyswitch.router.v1 import (
    completion_pb2,
    completion_service_pb2,
    content_pb2,
    payer_pb2,
    route_policy_pb2,
    settings_pb2,
)

from router_service.core.faults import Fault, Reason
from tests.service.router_answers import answer
from tests.service.router_harness import (
    ADA,
    CHAT,
    DEMO,
    Refused,
    Stack,
    make_call,
    make_policy,
    running_stack,
)

Call = completion_pb2.CompletionCall
Part = content_pb2.Part


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[Stack]:
    async with running_stack(tmp_path) as running:
        await running.save_key(f"{DEMO}/credentials/first")
        await running.save_key("deployment/credentials/first")
        yield running


def message(role: str, *parts: Part) -> content_pb2.Message:
    """A message."""
    return content_pb2.Message(role=content_pb2.Role.Value(f"ROLE_{role}"), parts=parts)


def media(**fields: object) -> Part:
    """A part of media."""
    return Part(media=content_pb2.MediaPart(**fields))  # type: ignore[arg-type] # wrong on purpose here and there


def saying(*messages: content_pb2.Message) -> Call:
    """A call with these messages."""
    return Call(spec=completion_pb2.CompletionSpec(messages=messages))


def having(**fields: object) -> Call:
    """A call whose spec has these fields too."""
    call = make_call()
    call.spec.MergeFrom(completion_pb2.CompletionSpec(**fields))  # type: ignore[arg-type] # one field each
    return call


def function(name: str, parameters: str = "") -> completion_pb2.Tool:
    """A tool."""
    return completion_pb2.Tool(function=completion_pb2.FunctionTool(name=name, parameters_json=parameters))


def options(text: str, namespace: str = "") -> Call:
    """A call with provider options."""
    entry = settings_pb2.ProviderOptions(namespace=namespace, json=text)
    return having(settings=settings_pb2.GenerationSettings(provider_options=[entry]))


def sampling(**fields: float) -> Call:
    """A call with sampling."""
    return having(settings=settings_pb2.GenerationSettings(sampling=settings_pb2.Sampling(**fields)))  # type: ignore[arg-type] # floats


TEXT = Part(text=content_pb2.TextPart(text="hi"))
RESULT = Part(tool_result=content_pb2.ToolResultPart(tool_call_id="a"))
SCHEMA = completion_pb2.JsonSchemaFormat(name="x", schema_json="{broken")

INVALID: dict[str, tuple[Call, str]] = {
    "no spec": (Call(), "call.spec"),
    "no messages": (saying(), "call.spec.messages"),
    "a message without parts": (saying(message("USER")), "call.spec.messages[0].parts"),
    "a part without a kind": (saying(message("USER", Part())), "call.spec.messages[0].parts[0]"),
    "no role": (saying(content_pb2.Message(parts=[TEXT])), "call.spec.messages[0].role"),
    "a result without a call": (
        saying(message("USER", TEXT), message("TOOL", RESULT)),
        "call.spec.messages[1].parts[0].tool_result.tool_call_id",
    ),
    "a media type that is none": (
        saying(message("USER", media(media_type="PNG", data=b"x"))),
        "call.spec.messages[0].parts[0].media.media_type",
    ),
    "media without bytes": (
        saying(message("USER", media(media_type="image/png"))),
        "call.spec.messages[0].parts[0].media",
    ),
    "a uri that is not https": (
        saying(message("USER", media(media_type="image/png", uri="http://169.254.169.254/"))),
        "call.spec.messages[0].parts[0].media.uri",
    ),
    "a schema of the answer that is no JSON": (
        having(response_format=completion_pb2.ResponseFormat(json_schema=SCHEMA)),
        "call.spec.response_format.json_schema.schema_json",
    ),
    "parameters that are no JSON": (
        having(tools=[function("x", "{broken")]),
        "call.spec.tools[0].function.parameters_json",
    ),
    "parameters that nest without end": (
        having(tools=[function("x", '{"a":' * 100_000)]),
        "call.spec.tools[0].function.parameters_json",
    ),
    "a tool's name with a space": (having(tools=[function("x y")]), "call.spec.tools[0].function.name"),
    "two tools of one name": (having(tools=[function("x"), function("x")]), "call.spec.tools[1].function.name"),
    "129 tools": (having(tools=[function(f"t{n}") for n in range(129)]), "call.spec.tools"),
    "a choice of no tool": (
        having(tool_choice=completion_pb2.ToolChoice(tool_name="x")),
        "call.spec.tool_choice.tool_name",
    ),
    "options that are no JSON": (options("{"), "call.spec.settings.provider_options[0].json"),
    "options that are a list": (options("[]"), "call.spec.settings.provider_options[0].json"),
    "options that nest without end": (options('{"a":' * 10_000), "call.spec.settings.provider_options[0].json"),
    "options beyond 64 KiB": (
        options(json.dumps({"a": "x" * 65_536})),
        "call.spec.settings.provider_options[0].json",
    ),
    "a temperature of 3": (sampling(temperature=3.0), "call.spec.settings.sampling.temperature"),
    "a temperature that is no number": (sampling(temperature=float("nan")), "call.spec.settings.sampling.temperature"),
    "a negative limit": (
        having(settings=settings_pb2.GenerationSettings(max_output_tokens=-1)),
        "call.spec.settings.max_output_tokens",
    ),
    "17 labels": (make_call(caller_labels={f"l{n}": "x" for n in range(17)}), "call.caller_labels"),
    "a label's key with a space": (make_call(caller_labels={"a b": "x"}), "call.caller_labels"),
    "a context with a space": (make_call(context="a b"), "call.context"),
    "a request id that is no UUID4": (make_call(request_id="1"), "call.request_id"),
    "129 characters of model": (make_call(model="x" * 129), "call.spec.model"),
    "9 attempts": (make_call(route_policy=make_policy(max_attempts=9)), "call.route_policy.max_attempts"),
    "a time-out of 0": (
        make_call(route_policy=make_policy(idle_timeout=0.0)),
        "call.route_policy.idle_timeout",
    ),
    "a payer that the application has not": (
        make_call(route_policy=make_policy(payers=["PAYER_FREE"])),
        "call.route_policy.payers",
    ),
    "a cause that the application has not": (
        make_call(
            route_policy=route_policy_pb2.RoutePolicy(
                payer_failover_on=route_policy_pb2.PayerFailover(causes=[payer_pb2.PAYER_FAILOVER_CAUSE_RATE_LIMITED])
            )
        ),
        "call.route_policy.payer_failover_on",
    ),
    "a provider that is not there": (
        make_call(route_policy=make_policy(provider_order=["providers/nope"])),
        "call.route_policy.provider_order[0]",
    ),
}


@pytest.mark.parametrize("is_unary", [False, True], ids=["stream", "unary"])
async def test_a_wrong_field_is_named_and_costs_nothing(stack: Stack, is_unary: bool) -> None:
    ledger = stack.router.ledger
    before = await ledger.verify()
    for name, (call, field) in INVALID.items():
        if is_unary:
            with pytest.raises(Refused) as raised:
                await stack.member.complete(call)
            error = raised.value
        else:
            error = (await stack.member.stream(call)).refused
        assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST"), name
        assert error.fields == (field,), name
        assert error.metadata["field"] == field, name
    assert stack.first.received == []
    assert await ledger.verify() == before


async def test_a_bad_flush_interval_is_named(stack: Stack) -> None:
    found = await stack.member.stream(min_flush_seconds=2.0)
    assert found.refused.fields == ("stream_options.min_flush_interval",)


async def test_an_unknown_model_is_told_its_neighbours(stack: Stack) -> None:
    found = await stack.member.stream(make_call(model="test/ecko"))
    assert (found.refused.code, found.refused.reason) == (grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND")
    assert "test/echo" in found.refused.metadata["nearest"].split(",")


async def test_a_model_of_others_is_refused(stack: Stack) -> None:
    found = await stack.member.stream(make_call(model="else/hidden"))
    assert (found.refused.code, found.refused.reason) == (grpc.StatusCode.PERMISSION_DENIED, "MODEL_NOT_ALLOWED")
    assert found.refused.metadata == {"model": "else/hidden", "application": CHAT}


async def test_a_model_without_a_price_is_not_sold(stack: Stack) -> None:
    call = make_call(model="test/unpriced", route_policy=make_policy(payers=["PAYER_CREDITS"]))
    found = await stack.member.stream(call)
    assert (found.refused.code, found.refused.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "PRICE_UNKNOWN")
    stack.first.script(answer())
    assert (await stack.member.stream(make_call(model="test/unpriced"))).error is None


async def test_credits_that_are_used_up_say_whose(stack: Stack) -> None:
    call = make_call(route_policy=make_policy(payers=["PAYER_CREDITS"]))
    found = await stack.member.stream(call)
    assert (found.refused.code, found.refused.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "CREDIT_EXHAUSTED")
    assert found.refused.has_quota_failure
    assert found.refused.metadata["organization"] == DEMO
    assert stack.first.received == []


async def test_a_ledger_that_is_away_is_said_so(stack: Stack) -> None:
    async def away(*_: object) -> None:
        raise Fault(Reason.LEDGER_UNAVAILABLE, "The ledger cannot be written.", metadata={"payer": "PAYER_CREDITS"})

    stack.router.ledger.reserve = away  # type: ignore[method-assign,assignment] # only the failure matters
    call = make_call(route_policy=make_policy(payers=["PAYER_CREDITS"]))
    found = await stack.member.stream(call)
    assert (found.refused.code, found.refused.reason) == (grpc.StatusCode.UNAVAILABLE, "LEDGER_UNAVAILABLE")
    assert found.refused.retry_seconds is not None
    assert stack.first.received == []


async def test_resources_of_others_do_not_exist(stack: Stack) -> None:
    for name in ("organizations/other/applications/chat", f"{DEMO}/applications/nope"):
        found = await (await stack.issue("MEMBER", user=ADA)).stream(make_call(application=name))
        assert (found.refused.code, found.refused.reason) == (grpc.StatusCode.NOT_FOUND, "RESOURCE_NOT_FOUND")
    with pytest.raises(Refused, match="RESOURCE_NOT_FOUND"):
        await stack.member.receipt("no-such-response")


async def test_what_a_token_leaves_out_is_refused(stack: Stack) -> None:
    auditor = await stack.issue("AUDITOR")
    elsewhere = make_call(application=f"{DEMO}/applications/other")
    for caller, call, missing in (
        (auditor, make_call(), "missingRole"),
        (stack.member, make_call(on_behalf_of_user=f"{DEMO}/users/bob"), "missingScope"),
        (stack.member, elsewhere, "application"),
    ):
        found = await caller.stream(call)
        assert (found.refused.code, found.refused.reason) == (
            grpc.StatusCode.PERMISSION_DENIED,
            "CALLER_NOT_ALLOWED",
        )
        assert missing in found.refused.metadata


def forged(stack: Stack, change: Callable[[dict[str, object]], None]) -> str:
    """A token with the right claims but for the change, and the right key's id, signed with another key."""
    claims = jwt.decode(stack.member.token, options={"verify_signature": False})
    change(claims)
    headers = {"kid": jwt.get_unverified_header(stack.member.token)["kid"]}
    return jwt.encode(claims, Ed25519PrivateKey.generate(), algorithm="EdDSA", headers=headers)


async def test_a_wrong_token_is_unknown(stack: Stack) -> None:
    claims = jwt.decode(stack.member.token, options={"verify_signature": False})
    header = jwt.get_unverified_header(stack.member.token) | {"alg": "none"}
    none = jwt.encode(claims, "", algorithm="none", headers=header)
    head, body, signature = stack.member.token.split(".")
    tokens = {
        "": "token_missing",
        "garbage": "token_malformed",
        "x" * 7000: "token_malformed",
        f"{head}.{body}.{signature[:-8]}AAAAAAAA": "token_invalid",
        forged(stack, lambda _: None): "token_invalid",
        forged(stack, lambda claims: claims.update(iss="other")): "token_invalid",
        none: "token_invalid",
    }
    for token, cause in tokens.items():
        found = await stack.caller(token).stream()
        assert (found.refused.code, found.refused.reason) == (grpc.StatusCode.UNAUTHENTICATED, "CALLER_UNKNOWN"), cause
        assert found.refused.metadata["cause"] == cause
    assert stack.first.received == []


async def test_a_message_beyond_32_mib_is_refused_by_us_and_far_beyond_by_grpc(stack: Stack) -> None:
    limit = 32 * 1024 * 1024
    call = make_call("x" * (limit + 1))
    error = (await stack.member.stream(call)).refused
    assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
    request = completion_service_pb2.CompleteRequest(call=make_call("x" * (limit * 2)))
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await stack.member.completions.Complete(request, metadata=stack.member.metadata, timeout=20)
    assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_headers_cannot_be_set_from_options(stack: Stack) -> None:
    injected = {"headers": {"x-evil": "1\r\ny-evil: 2"}, "extra_headers": {"authorization": "Bearer other"}}
    stack.first.script(answer())
    found = await stack.member.stream(options(json.dumps(injected), namespace="providers/first"))
    assert found.error is None or found.refused.reason == "INVALID_REQUEST"
    for request in stack.first.received:
        assert "x-evil" not in request.headers
        assert "y-evil" not in request.headers
        assert request.headers["authorization"] == "Bearer sk-first-0123456789"
