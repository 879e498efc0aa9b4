"""CompletionService: a thin shell around the engine."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from keyswitch.router.v1 import completion_service_pb2, completion_service_pb2_grpc

from router_service.catalog.catalog import Snapshot
from router_service.core.faults import invalid
from router_service.engine import Engine
from router_service.transport.interceptors.identity import caller
from router_service.transport.request import deadline_of, parse_request
from router_service.transport.sinks import CountSink, StreamSink, UnarySink

LONG_ANSWER_TOKENS = 16_384
"""Providers want longer answers streamed (Anthropic refuses unary calls that may take over ten minutes)."""

RESPONSE_ID_METADATA = "keyswitch-response-id"


class CompletionServicer(completion_service_pb2_grpc.CompletionServiceServicer):
    """Completes conversations."""

    def __init__(self, engine: Engine, snapshot: Callable[[], Snapshot], new_id: Callable[[], str]) -> None:
        self._engine = engine
        self._snapshot = snapshot
        self._new_id = new_id

    async def Complete(  # noqa: N802 # gRPC's name
        self, request: completion_service_pb2.CompleteRequest, context: Any
    ) -> completion_service_pb2.CompleteResponse:
        """Answers once."""
        snapshot = self._snapshot()
        _demand_call(request)
        stream = request.call.spec.settings.max_output_tokens > LONG_ANSWER_TOKENS
        parsed = parse_request(
            request.call, caller(), snapshot, stream=stream, min_flush_seconds=0.0, deadline=deadline_of(context)
        )
        response_id = self._new_id()
        await context.send_initial_metadata(((RESPONSE_ID_METADATA, response_id),))
        sink = UnarySink()
        await self._engine.run(parsed, snapshot.view_of(parsed.organization.id), response_id, sink)
        return sink.response()

    async def StreamComplete(  # type: ignore[override] # noqa: N802 # gRPC's name; grpc.aio also takes a coroutine that writes
        self, request: completion_service_pb2.StreamCompleteRequest, context: Any
    ) -> None:
        """Answers as events."""
        snapshot = self._snapshot()
        _demand_call(request)
        interval = request.stream_options.min_flush_interval
        flush_seconds = interval.seconds + interval.nanos / 1e9
        if not 0 <= flush_seconds <= 1:
            raise invalid("stream_options.min_flush_interval", "From 0 to 1 s.")
        parsed = parse_request(
            request.call,
            caller(),
            snapshot,
            stream=True,
            min_flush_seconds=flush_seconds,
            deadline=deadline_of(context),
        )
        response_id = self._new_id()
        await context.send_initial_metadata(((RESPONSE_ID_METADATA, response_id),))
        view = snapshot.view_of(parsed.organization.id)
        await self._engine.run(parsed, view, response_id, StreamSink(context))

    async def CountTokens(  # noqa: N802 # gRPC's name
        self, request: completion_service_pb2.CountTokensRequest, context: Any
    ) -> completion_service_pb2.CountTokensResponse:
        """Counts a prompt for the model that would answer."""
        snapshot = self._snapshot()
        _demand_call(request)
        parsed = parse_request(request.call, caller(), snapshot, stream=False, deadline=deadline_of(context))
        sink = CountSink()
        await self._engine.run(
            replace(parsed, request_id="", is_count=True),
            snapshot.view_of(parsed.organization.id),
            self._new_id(),
            sink,
        )
        return sink.response()


def _demand_call(request: Any) -> None:
    if not request.HasField("call") or not request.call.HasField("spec"):
        raise invalid("call.spec", "This field is required.")
