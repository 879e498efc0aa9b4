"""The Python client against a scripted service: what is sent, what is folded, what is raised, what is cancelled."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import grpc
import pytest
from google.protobuf import duration_pb2
from google.rpc import code_pb2, error_details_pb2
from keyswitch.router.v1 import (
    completion_pb2,
    content_pb2,
    payer_pb2,
    route_policy_pb2,
    settings_pb2,
    stream_pb2,
)
from keyswitch_client import (
    AsyncClient,
    Client,
    Fold,
    KeyswitchError,
    assistant,
    image,
    system,
    text_of,
    tool,
    tool_calls_of,
    tool_result,
    user,
)
from keyswitch_client.options import build_call

from tests.unit.clients.scripted_router import (
    TOKEN,
    Endpoint,
    ScriptedRouter,
    ended,
    numbered,
    rich_status,
    started,
    text_events,
)

PROMPT = "Weather and time in Oslo, please"


def connect(endpoint: Endpoint) -> AsyncClient:
    return AsyncClient(endpoint.target, TOKEN, ca_path=endpoint.ca_path, new_id=lambda: "an-id")


async def test_fold_of_a_stream_is_the_unary_answer(endpoint: Endpoint, router: ScriptedRouter) -> None:
    async with connect(endpoint) as client:
        async with client.stream(PROMPT, model="practice/tools") as stream:
            events = [event async for event in stream]
            folded = await stream.fold()
        unary = await client.complete(PROMPT, model="practice/tools")
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert stream.response_id == folded.response_id == "response-0"
    assert router.authorizations == [f"Bearer {TOKEN}"] * 2
    assert router.calls[0] == router.calls[1]
    for part in unary.message.parts:
        part.tool_call.id = part.tool_call.id.replace("response-1", "response-0")
    unary.response_id = unary.receipt.response_id = "response-0"
    assert folded == unary


async def test_sync_client_gives_the_same_answer(endpoint: Endpoint) -> None:
    def ask() -> tuple[str, list[str]]:
        with Client(endpoint.target, TOKEN, ca_pem=endpoint.ca_pem) as client:
            with client.stream(PROMPT, model="practice/tools") as stream:
                answer = stream.fold()
            unary = client.complete(PROMPT, model="practice/tools")
        assert [call.arguments_json for call in tool_calls_of(unary.message)] == [
            call.arguments_json for call in tool_calls_of(answer.message)
        ]
        return stream.request_id, [call.name for call in tool_calls_of(answer.message)]

    request_id, names = await asyncio.to_thread(ask)
    assert len(request_id) == 36
    assert names == ["get_weather", "get_time"]


async def test_leaving_the_context_cancels_the_call(endpoint: Endpoint, router: ScriptedRouter) -> None:
    async with connect(endpoint) as client:
        async with client.stream(PROMPT, model="practice/stall") as stream:
            pieces = stream.text()
            assert await anext(pieces) == "Once "
        await router.cancelled.wait()
    assert router.states == {"response-0": "RECEIPT_STATE_CANCELLED"}


async def test_sync_leaving_the_context_cancels_the_call(endpoint: Endpoint, router: ScriptedRouter) -> None:
    def ask() -> str:
        with Client(endpoint.target, TOKEN, ca_path=endpoint.ca_path) as client:
            with client.stream(PROMPT, model="practice/stall") as stream:
                piece = next(stream.text())
            with client.stream(PROMPT, model="practice/stall") as stream:
                next(stream.text())
                stream.cancel()
                with pytest.raises(KeyswitchError) as caught:
                    stream.fold()
            assert caught.value.code is grpc.StatusCode.CANCELLED
            return piece

    assert await asyncio.to_thread(ask) == "Once "
    await router.cancelled.wait()


async def test_cancelled_stream_tells_its_reader(endpoint: Endpoint) -> None:
    async with connect(endpoint) as client, client.stream(PROMPT, model="practice/stall") as stream:
        await anext(stream)
        reader = asyncio.create_task(stream.fold())
        stream.cancel()
        with pytest.raises(KeyswitchError) as caught:
            await reader
        assert caught.value.code is grpc.StatusCode.CANCELLED
        assert caught.value.reason == ""


async def test_cancelled_task_stays_cancelled(endpoint: Endpoint, router: ScriptedRouter) -> None:
    reading = asyncio.Event()

    async def read(client: AsyncClient) -> None:
        async with client.stream(PROMPT, model="practice/stall") as stream:
            async for _ in stream:
                reading.set()

    async with connect(endpoint) as client:
        task = asyncio.create_task(read(client))
        await reading.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await router.cancelled.wait()


async def test_error_carries_reason_and_receipt(endpoint: Endpoint) -> None:
    async with connect(endpoint) as client:
        with pytest.raises(KeyswitchError) as caught:
            async with client.stream(PROMPT, model="practice/fail-404") as stream:
                await stream.fold()
    error = caught.value
    assert error.code is grpc.StatusCode.FAILED_PRECONDITION
    assert error.reason == "ERROR_REASON_UPSTREAM_MODEL_MISSING"
    assert error.domain == "router.keyswitch.dev"
    assert error.metadata == {"provider": "providers/practice"}
    assert error.response_id == "response-0"
    assert error.receipt is not None
    assert error.receipt.attempts[0].number == 1
    assert not error.is_committed
    assert "UPSTREAM_MODEL_MISSING: the provider" in str(error)


async def test_error_without_reason_says_what_grpc_means(endpoint: Endpoint) -> None:
    async with connect(endpoint) as client:
        with pytest.raises(KeyswitchError, match="cannot be reached") as caught:
            await client.complete(PROMPT, model="practice/plain")
        assert caught.value.reason == ""
        with pytest.raises(KeyswitchError) as late:
            async with client.stream(PROMPT, model="practice/stall", timeout_seconds=1.0) as stream:
                await stream.fold()
        assert late.value.code is grpc.StatusCode.DEADLINE_EXCEEDED
        assert late.value.response_id == "response-1"


async def test_stream_cut_without_an_end_is_an_error(endpoint: Endpoint) -> None:
    async with connect(endpoint) as client, client.stream(PROMPT, model="practice/cut") as stream:
        with pytest.raises(KeyswitchError, match="answer was cut") as caught:
            await stream.fold()
        assert caught.value.code is grpc.StatusCode.DATA_LOSS
        assert caught.value.response_id == "response-0"


async def test_stream_outside_its_context_is_refused(endpoint: Endpoint) -> None:
    async with connect(endpoint) as client:
        with pytest.raises(RuntimeError, match="async with"):
            await client.stream(PROMPT).fold()


def test_status_with_retry_and_fields_is_read() -> None:
    violation = error_details_pb2.BadRequest.FieldViolation(field="call.spec.messages", description="is empty")
    status = rich_status(
        code_pb2.INVALID_ARGUMENT,
        "a field is wrong",
        "ERROR_REASON_INVALID_REQUEST",
        error_details_pb2.BadRequest(field_violations=[violation]),
        error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=2)),
        committed="true",
    )
    error = KeyswitchError.from_status(status.code, status.details, status.trailing_metadata)
    assert [(v.field, v.description) for v in error.field_violations] == [("call.spec.messages", "is empty")]
    assert error.retry_delay == timedelta(seconds=2)
    assert error.is_committed


def test_garbled_details_are_a_status_without_reason() -> None:
    trailing = (("grpc-status-details-bin", b"\xff\xff\xff"),)
    error = KeyswitchError.from_status(grpc.StatusCode.INTERNAL, "x", trailing)
    assert error.reason == ""
    assert error.message == "gRPC failed between client and service (gRPC says: x)"


def test_fold_builds_every_kind_of_part() -> None:
    start, delta = stream_pb2.PartStarted, stream_pb2.PartDelta
    citation = content_pb2.Citation(uri="https://example.com", title="Example")
    media = stream_pb2.MediaStart(media_type="image/png", filename="a.png")
    linked = stream_pb2.MediaStart(media_type="image/png", uri="https://example.com/a.png")
    block = stream_pb2.ProviderStart(dialect="anthropic_messages", kind="web_search_tool_result")
    events = [
        started("r", "m"),
        stream_pb2.StreamEvent(part_started=start(index=0, reasoning=stream_pb2.ReasoningStart())),
        stream_pb2.StreamEvent(part_started=start(index=1, text=stream_pb2.TextStart())),
        stream_pb2.StreamEvent(part_delta=delta(index=0, reasoning=stream_pb2.ReasoningDelta(text="hm"))),
        stream_pb2.StreamEvent(part_delta=delta(index=1, text=stream_pb2.TextDelta(text="Hel"))),
        stream_pb2.StreamEvent(part_delta=delta(index=1, text=stream_pb2.TextDelta(text="lo"))),
        stream_pb2.StreamEvent(part_delta=delta(index=1, citation=stream_pb2.CitationDelta(citation=citation))),
        stream_pb2.StreamEvent(part_started=start(index=2, media=media)),
        stream_pb2.StreamEvent(part_delta=delta(index=2, media=stream_pb2.MediaDelta(data=b"\x01"))),
        stream_pb2.StreamEvent(part_delta=delta(index=2, media=stream_pb2.MediaDelta(data=b"\x02"))),
        stream_pb2.StreamEvent(part_started=start(index=3, media=linked)),
        stream_pb2.StreamEvent(part_started=start(index=4, provider=block)),
        stream_pb2.StreamEvent(part_delta=delta(index=4, provider=stream_pb2.ProviderDelta(json='{"a":'))),
        stream_pb2.StreamEvent(part_delta=delta(index=4, provider=stream_pb2.ProviderDelta(json="1}"))),
        stream_pb2.StreamEvent(part_started=start(index=5)),
        stream_pb2.StreamEvent(),
        stream_pb2.StreamEvent(part_ended=stream_pb2.PartEnded(index=0)),
        ended("r", stream_pb2.FINISH_REASON_STOP),
    ]
    fold = Fold()
    for event in numbered(events):
        fold.add(event)
    message = fold.answer().message
    assert message == content_pb2.Message(
        role=content_pb2.ROLE_ASSISTANT,
        parts=[
            content_pb2.Part(reasoning=content_pb2.ReasoningPart(text="hm")),
            content_pb2.Part(text=content_pb2.TextPart(text="Hello", citations=[citation])),
            content_pb2.Part(media=content_pb2.MediaPart(media_type="image/png", filename="a.png", data=b"\x01\x02")),
            content_pb2.Part(media=content_pb2.MediaPart(media_type="image/png", uri="https://example.com/a.png")),
            content_pb2.Part(
                provider=content_pb2.ProviderPart(
                    dialect="anthropic_messages", kind="web_search_tool_result", json='{"a":1}'
                )
            ),
            content_pb2.Part(),
        ],
    )
    assert text_of(message) == "Hello"


def test_fold_refuses_a_gap_and_a_delta_without_start() -> None:
    events = numbered(list(text_events("r", "m", ["a", "b"])))
    fold = Fold()
    fold.add(events[0])
    with pytest.raises(KeyswitchError, match="event 3 came after event 1"):
        fold.add(events[2])
    lost = stream_pb2.PartDelta(index=4, text=stream_pb2.TextDelta(text="x"))
    with pytest.raises(KeyswitchError, match="never started"):
        fold.add(stream_pb2.StreamEvent(sequence=2, part_delta=lost))
    with pytest.raises(KeyswitchError, match="has not ended"):
        Fold().answer()


def test_options_become_the_call() -> None:
    weather = tool("get_weather", "The weather", {"type": "object"}, strict=True)
    turns = [system("Be brief"), user("Hi", image(b"x", "image/png", detail="high")), assistant("Hello")]
    answer = tool_result("call-1", "sunny", is_error=True)
    call = build_call(
        [*turns, answer],
        {
            "model": "m",
            "tools": [weather],
            "effort": "high",
            "include_thoughts": False,
            "max_output_tokens": 5,
            "temperature": 0.5,
            "payers": ["USER_KEY", "credits"],
            "route_policy": route_policy_pb2.RoutePolicy(max_attempts=2),
            "caller_labels": {"team": "a"},
        },
        lambda: "new-id",
    )
    assert call.request_id == "new-id"
    assert call.spec.tools[0].function.parameters_json == '{"type": "object"}'
    assert call.spec.settings.reasoning.effort == settings_pb2.REASONING_EFFORT_HIGH
    assert call.spec.settings.reasoning.HasField("include_thoughts")
    assert call.spec.settings.sampling.temperature == 0.5
    assert list(call.route_policy.payers) == [payer_pb2.PAYER_USER_KEY, payer_pb2.PAYER_CREDITS]
    assert call.route_policy.max_attempts == 2
    assert call.spec.messages[1].parts[1].media.detail == content_pb2.MEDIA_DETAIL_HIGH
    assert call.spec.messages[3].parts[0].tool_result.content[0].text.text == "sunny"
    assert not call.spec.HasField("response_format")
    assert not call.spec.HasField("parallel_tool_calls")


def test_options_are_refused_in_words() -> None:
    with pytest.raises(ValueError, match="'loud' is none of OFF, MINIMAL, LOW"):
        build_call("Hi", {"effort": "loud"}, str)
    with pytest.raises(ValueError, match="at least one part"):
        user()
    with pytest.raises(ValueError, match="says everything"):
        build_call(completion_pb2.CompletionCall(), {"model": "m"}, str)
    assert build_call("Hi", {"request_id": ""}, lambda: "new").request_id == ""
