"""Providers that fail, before the commit point and after: what is retried, what moves on, what the caller sees."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import grpc
import pytest
from keyswitch.router.v1 import completion_pb2, error_reason_pb2, receipt_pb2, resolution_pb2, route_policy_pb2

from router_service.core.receipt import ReceiptState
from router_service.transport.status import MOST_BYTES
from tests.fakes.scripted_upstream import Action, Cut, Pause, Reset, Send, Stall, chunk, head, respond, stream
from tests.service.router_answers import (
    Json,
    answer,
    answer_events,
    anthropic_events,
    cut_after,
    whole_answer,
)
from tests.service.router_harness import (
    DEMO,
    Answer,
    Stack,
    follow,
    make_call,
    make_policy,
    running_stack,
    state_name,
)


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[Stack]:
    async with running_stack(tmp_path) as running:
        for provider in ("first", "second", "claude"):
            await running.save_key(f"{DEMO}/credentials/{provider}", provider=provider)
        yield running


def failing(status: int, body: bytes = b'{"error":{"message":"no"}}', **headers: str) -> list[Action]:
    """A refusal with a status."""
    return respond(body, status=status, **headers)


def without_breakers(made: Json) -> None:
    """Failures in a row are no reason to rest."""
    for provider in made["providers"].values():
        provider["breaker_failures"] = 0


ERROR_EVENT = b'data: {"error":{"message":"overloaded","type":"server_error","code":503}}\n\n'
EVENTS = answer_events("Hello", " world")
BEFORE_CONTENT: dict[str, tuple[list[Action], str]] = {
    "500": (failing(500), "UPSTREAM_UNAVAILABLE"),
    "503": (failing(503), "UPSTREAM_UNAVAILABLE"),
    "429": (failing(429), "UPSTREAM_RATE_LIMITED"),
    "402": (failing(402), "UPSTREAM_BALANCE_EXHAUSTED"),
    "404": (failing(404, b'{"error":{"message":"x","code":"model_not_found"}}'), "UPSTREAM_MODEL_MISSING"),
    "reset before the head": ([Reset()], "UPSTREAM_UNAVAILABLE"),
    "closed before the head": ([Cut()], "UPSTREAM_UNAVAILABLE"),
    "half a head": ([Send(b"HTTP/1.1 200 OK\r\nconte"), Cut()], "UPSTREAM_UNAVAILABLE"),
    "cut after the head": ([Send(head()), Cut()], "UPSTREAM_PROTOCOL_VIOLATION"),
    "cut after an empty first event": (cut_after(EVENTS, 1), "UPSTREAM_PROTOCOL_VIOLATION"),
    "a clean end without an answer": (stream(), "UPSTREAM_PROTOCOL_VIOLATION"),
    "an error as the first event": (stream(ERROR_EVENT), "UPSTREAM_UNAVAILABLE"),
    "a redirect": (failing(302, location="http://127.0.0.1:1/"), "UPSTREAM_PROTOCOL_VIOLATION"),
    "204": ([Send(b"HTTP/1.1 204 No Content\r\n\r\n")], "UPSTREAM_PROTOCOL_VIOLATION"),
    "garbage": ([Send(b"\x00\x01\x02 garbage\r\n\r\n"), Cut()], "UPSTREAM_PROTOCOL_VIOLATION"),
}


@pytest.mark.parametrize("name", BEFORE_CONTENT)
async def test_a_failure_before_the_first_content_is_unseen(stack: Stack, name: str) -> None:
    script, reason = BEFORE_CONTENT[name]
    stack.first.script(script)
    stack.second.script(answer("Hello"))
    found = await stack.member.stream(make_call(model="test/both"))
    assert found.error is None
    assert found.kinds[:2] == ["attempt_failed", "response_started"]
    failed = found.events[0].attempt_failed
    assert (failed.attempt, failed.provider) == (1, "providers/first")
    assert error_reason_pb2.ErrorReason.Name(failed.reason) == f"ERROR_REASON_{reason}"
    assert failed.HasField("retry_delay")
    assert found.text == "Hello"
    assert found.events[1].response_started.resolution.attempt == 2
    receipt = found.receipt
    assert [attempt.provider for attempt in receipt.attempts] == ["providers/first", "providers/second"]
    assert receipt.attempts[0].failure_reason == failed.reason
    assert receipt.attempts[1].failure_reason == error_reason_pb2.ERROR_REASON_UNSPECIFIED


async def test_complete_fails_over_as_the_stream_does(stack: Stack) -> None:
    stack.first.script(failing(503))
    stack.second.script(respond(whole_answer("Hello")))
    found = await stack.member.complete(make_call(model="test/both"))
    assert found.message.parts[0].text.text == "Hello"
    assert len(found.receipt.attempts) == 2


def check_committed(found: Answer, reason: str) -> None:
    """A part was delivered: ABORTED, marked, with a receipt, and nothing of another model behind it."""
    error = found.refused
    assert (error.code, error.reason) == (grpc.StatusCode.ABORTED, reason)
    assert error.metadata["committed"] == "true"
    assert error.retry_seconds is None
    assert error.receipt is not None
    assert error.receipt.state == receipt_pb2.RECEIPT_STATE_FAILED
    assert "response_ended" not in found.kinds


@pytest.mark.parametrize("count", range(len(EVENTS) + 1))
async def test_a_cut_at_any_event_is_never_an_end(stack: Stack, count: int) -> None:
    stack.first.script(cut_after(EVENTS, count), cut_after(EVENTS, count))
    stack.second.script(answer("other"))
    found = await stack.member.stream(make_call(model="test/both"))
    text = "".join(["Hello", " world"][: max(0, count - 1)])
    if count < 2:
        assert found.text == "other"
    elif count < 6:  # the finish reason and the usage came, but not [DONE], and the chunked body broke off
        check_committed(found, "UPSTREAM_PROTOCOL_VIOLATION")
        assert found.text == text
        assert len(stack.second.received) == 0
    else:
        assert found.error is None


@pytest.mark.parametrize("dialect", ["openai_chat", "anthropic_messages"])
async def test_a_cut_at_any_byte_is_never_an_end(stack: Stack, dialect: str) -> None:
    """Streams are cut by FIN inside a chunk; what was delivered is a beginning of the answer and nothing else."""
    model, upstream = ("test/echo", stack.first) if dialect == "openai_chat" else ("test/claude", stack.second)
    events = answer_events("Hello") if dialect == "openai_chat" else anthropic_events("Hello")
    body = b"".join(chunk(event) for event in events)
    last = len(body) - len(chunk(events[-1])) + 2
    call = make_call(model=model, route_policy=make_policy(max_attempts=1))
    stack.reconfigure(without_breakers)
    for position in range(0, last, 7):
        upstream.script([Send(head() + body[:position]), Cut()])
        found = await stack.member.stream(call)
        assert found.refused.reason == "UPSTREAM_PROTOCOL_VIOLATION", position
        assert "Hello".startswith(found.text)
        assert (found.refused.code is grpc.StatusCode.ABORTED) == bool(found.events and found.text)


AFTER_CONTENT: dict[str, tuple[list[bytes], str]] = {
    "an error event": ([ERROR_EVENT], "UPSTREAM_UNAVAILABLE"),
    "no JSON": ([b"data: {broken\n\n"], "UPSTREAM_PROTOCOL_VIOLATION"),
    "throttled": (
        [b'data: {"error":{"message":"slow down","type":"rate_limit_error","code":429}}\n\n'],
        "UPSTREAM_RATE_LIMITED",
    ),
    "a rejected key": (
        [b'data: {"error":{"message":"bad key","type":"authentication_error","code":401}}\n\n'],
        "UPSTREAM_CREDENTIAL_REJECTED",
    ),
}


@pytest.mark.parametrize("name", AFTER_CONTENT)
async def test_a_failure_after_content_is_not_spliced(stack: Stack, name: str) -> None:
    events, reason = AFTER_CONTENT[name]
    stack.first.script(stream(*EVENTS[:3], *events))
    stack.second.script(answer("other"))
    found = await stack.member.stream(make_call(model="test/both"))
    check_committed(found, reason)
    assert found.text == "Hello world"
    assert stack.second.received == []
    assert len(stack.first.received) == 1


async def test_content_and_failure_in_one_read_are_told_apart(stack: Stack) -> None:
    stack.first.script([Send(head() + chunk(b"".join(EVENTS[:3]) + ERROR_EVENT))])
    stack.second.script(answer("other"))
    found = await stack.member.stream(make_call(model="test/both"))
    check_committed(found, "UPSTREAM_UNAVAILABLE")
    assert found.text == "Hello world"


async def test_a_rejected_key_after_content_is_not_tried_again_with_the_next_version(stack: Stack) -> None:
    go_on = asyncio.Event()
    rejected = AFTER_CONTENT["a rejected key"][0][0]
    stack.first.script(
        [Send(head()), *(Send(chunk(event)) for event in EVENTS[:3]), Pause(go_on), Send(chunk(rejected)), Cut()],
        answer("again"),
    )
    opened = stack.member.open()
    first = await opened.read()
    assert first.events[0].HasField("response_started")
    await stack.rotate_key(f"{DEMO}/credentials/first", "sk-new-0123456789")
    go_on.set()
    rest = await follow(opened)
    assert (rest.refused.code, rest.refused.reason) == (grpc.StatusCode.ABORTED, "UPSTREAM_CREDENTIAL_REJECTED")
    assert "again" not in rest.text
    assert len(stack.first.received) == 1


async def test_a_stalled_provider_is_left_for_the_next(stack: Stack) -> None:
    stack.first.script([Send(head() + chunk(EVENTS[0])), Stall()])
    stack.second.script(answer("Hello"))
    policy = make_policy(first_content_timeout=1.0)  # the next one has no more
    found = await stack.member.stream(make_call(model="test/both", route_policy=policy))
    assert found.text == "Hello"
    assert found.events[0].attempt_failed.reason == error_reason_pb2.ERROR_REASON_UPSTREAM_TIMEOUT
    await stack.first.wait_for_connections(0)


@pytest.mark.parametrize("script", [[Stall()], [Send(head()), Stall()], [Send(head() + chunk(EVENTS[0])), Stall()]])
async def test_a_late_first_content_is_a_time_out(stack: Stack, script: list[Action]) -> None:
    stack.first.script(script)
    policy = make_policy(first_content_timeout=0.05)
    found = await stack.member.stream(make_call(route_policy=policy))
    assert (found.refused.code, found.refused.reason) == (grpc.StatusCode.UNAVAILABLE, "UPSTREAM_TIMEOUT")
    await stack.first.wait_for_connections(0)


async def test_a_provider_that_drips_without_content_is_late_too(stack: Stack) -> None:
    empty = EVENTS[0]
    enough = asyncio.Event()
    drip: list[Action] = [Send(chunk(b": ping\n\n")), Send(chunk(empty))]
    stack.first.script([Send(head()), *(drip * 20), Pause(enough)])
    found = await stack.member.stream(make_call(route_policy=make_policy(first_content_timeout=0.1)))
    assert found.refused.metadata["timeout"] == "firstContent"


async def test_a_provider_that_falls_silent_is_cut(stack: Stack) -> None:
    stack.first.script([Send(head()), *(Send(chunk(event)) for event in EVENTS[:3]), Stall()])
    found = await stack.member.stream(make_call(route_policy=make_policy(idle_timeout=0.5)))
    check_committed(found, "UPSTREAM_TIMEOUT")
    assert found.refused.metadata["timeout"] == "idle"
    await stack.first.wait_for_connections(0)


async def test_a_whole_body_that_stalls_is_late(stack: Stack) -> None:
    body = whole_answer()
    stack.first.script([Send(head(200, "application/json", content_length=len(body)) + body[:20]), Stall()])
    found = await stack.member.stream(make_call(route_policy=make_policy(first_content_timeout=0.05)))
    assert (found.refused.reason, found.kinds) == ("UPSTREAM_TIMEOUT", ["attempt_failed"])


async def test_the_same_endpoint_is_tried_again_with_jitter(stack: Stack) -> None:
    stack.first.script(failing(503), answer("Hello"))
    stack.spread = 0.5
    found = await stack.member.stream()
    assert found.text == "Hello"
    assert stack.sleeps == [0.125]
    assert found.events[0].attempt_failed.retry_delay.ToMilliseconds() == 125


async def test_a_provider_that_names_a_time_is_given_it(stack: Stack) -> None:
    stack.first.script(failing(503, retry_after="3"), answer("Hello"))
    found = await stack.member.stream()
    assert found.text == "Hello"
    assert stack.sleeps == [3.0]


async def test_a_provider_that_names_a_long_time_is_not_asked_before_it(stack: Stack) -> None:
    stack.first.script(failing(503, retry_after="600"), answer("Hello"))
    found = await stack.member.stream()
    assert found.refused.reason == "UPSTREAM_UNAVAILABLE"
    assert found.refused.retry_seconds == 600
    assert len(stack.first.received) == 1


async def test_throttling_tells_the_caller_when_to_come_back(stack: Stack) -> None:
    stack.first.script(failing(429, retry_after="7"))
    found = await stack.member.stream()
    assert (found.refused.code, found.refused.reason) == (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "UPSTREAM_RATE_LIMITED",
    )
    assert found.refused.retry_seconds == 7


@pytest.mark.parametrize(("most", "expected"), [(1, 1), (2, 2), (0, 3)])
async def test_attempts_are_counted_over_all_candidates(stack: Stack, most: int, expected: int) -> None:
    stack.first.script(*[failing(503)] * 9)
    stack.second.script(*[failing(503)] * 9)
    policy = make_policy(max_attempts=most) if most else None
    found = await stack.member.stream(make_call(model="test/both", route_policy=policy))
    assert found.refused.reason == "UPSTREAM_UNAVAILABLE"
    assert found.refused.receipt is not None
    assert len(found.refused.receipt.attempts) == expected
    assert len(stack.first.received) + len(stack.second.received) == expected
    assert found.kinds == ["attempt_failed"] * expected
    assert not found.events[-1].attempt_failed.HasField("retry_delay")


async def test_a_fault_of_the_request_is_not_tried_elsewhere(stack: Stack) -> None:
    stack.first.script(failing(400, b'{"error":{"message":"x","code":"unsupported_parameter"}}'))
    stack.second.script(answer())
    found = await stack.member.stream(make_call(model="test/both"))
    assert (found.refused.code, found.refused.reason) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "UPSTREAM_REJECTED_REQUEST",
    )
    assert found.refused.metadata["upstreamCode"] == "unsupported_parameter"
    assert stack.second.received == []


def routes(*given: route_policy_pb2.ModelRoute) -> Callable[[], completion_pb2.CompletionCall]:
    """Calls with fallback routes."""
    return lambda: make_call(route_policy=make_policy(fallbacks=given))


async def test_a_prompt_that_is_too_long_goes_only_where_a_route_says_so(stack: Stack) -> None:
    too_long = failing(
        400, b'{"error":{"message":"maximum context length is 10 tokens","code":"context_length_exceeded"}}'
    )
    other = route_policy_pb2.ModelRoute(model="test/other")
    longer = route_policy_pb2.ModelRoute(model="test/other", on_context_too_long=True)
    stack.first.script(too_long, too_long)
    stack.second.script(answer("Hello"))
    found = await stack.member.stream(routes(other)())
    assert (found.refused.code, found.refused.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "CONTEXT_TOO_LONG")
    found = await stack.member.stream(routes(longer)())
    assert found.text == "Hello"
    resolution = found.events[1].response_started.resolution
    assert (resolution.model, resolution.model_source) == ("test/other", resolution_pb2.MODEL_SOURCE_FALLBACK_ROUTE)


async def test_a_fallback_route_answers_with_its_own_settings(stack: Stack) -> None:
    route = route_policy_pb2.ModelRoute(model="test/other")
    route.settings.sampling.temperature = 0.25
    stack.first.script(failing(503), failing(503))
    stack.second.script(answer("Hello"))
    call = make_call(route_policy=make_policy(fallbacks=[route]))
    call.spec.settings.sampling.temperature = 1.0
    found = await stack.member.stream(call)
    assert found.text == "Hello"
    body = stack.second.received[0].json
    assert isinstance(body, dict)
    assert body["temperature"] == 0.25


async def test_nobody_listens_at_the_provider(stack: Stack) -> None:
    def move(configuration: Json) -> None:
        configuration["providers"]["first"]["base_url"] = "http://127.0.0.1:1/v1"
        configuration["organizations"]["demo"]["applications"]["chat"]["payers"] = ["ORGANIZATION_KEY"]

    port = stack.first.port
    stack.reconfigure(move)
    assert port != 1
    found = await stack.member.stream()
    assert found.refused.reason == "NO_USABLE_CREDENTIAL"  # the key is not for that origin: it is never sent there
    assert found.refused.receipt is not None
    assert found.refused.receipt.skipped_candidates[0].reason == resolution_pb2.SKIP_REASON_ORIGIN_NOT_ALLOWED


async def test_the_receipt_of_many_attempts_fits_a_status(stack: Stack) -> None:
    stack.first.script(*[failing(503)] * 9)
    stack.second.script(*[failing(503)] * 9)
    fallbacks = [route_policy_pb2.ModelRoute(model=model) for model in ("test/other", "test/echo", "test/both")] * 2
    call = make_call(model="test/both", route_policy=make_policy(max_attempts=8, fallbacks=fallbacks))
    found = await stack.member.stream(call)
    error = found.refused
    assert error.size_bytes < MOST_BYTES
    assert error.receipt is not None
    whole = await stack.member.receipt(found.response_id)
    assert len(whole.attempts) == 8
    assert state_name(whole) == "FAILED"
    assert [attempt.number for attempt in whole.attempts] == list(range(1, 9))
    assert error.receipt.cost == whole.cost
    assert stack.receipts[-1].state is ReceiptState.FAILED
