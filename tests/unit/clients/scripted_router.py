"""A CompletionService in the test's own process that answers what the practice provider's models are known for.

It shares no code with the router on purpose. TLS is real, because the clients accept nothing else.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import ipaddress
import itertools
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from google.protobuf import any_pb2
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status
from keyswitch.router.v1 import (
    completion_pb2,
    completion_service_pb2,
    completion_service_pb2_grpc,
    content_pb2,
    error_reason_pb2,
    receipt_pb2,
    resolution_pb2,
    stream_pb2,
)

TOKEN = "token-of-ada"  # not a secret: no service would accept it

Event = stream_pb2.StreamEvent


def rich_status(code: int, message: str, reason: str, *more: Message, **metadata: str) -> grpc.Status:
    """A status as the services make them: ErrorInfo first, then further details."""
    info = error_details_pb2.ErrorInfo(reason=reason, domain="router.keyswitch.dev", metadata=metadata)
    details = []
    for detail in (info, *more):
        packed = any_pb2.Any()
        packed.Pack(detail)
        details.append(packed)
    return rpc_status.to_status(status_pb2.Status(code=code, message=message, details=details))


def numbered(events: Sequence[Event]) -> Sequence[Event]:
    """The events with their sequence."""
    for sequence, event in enumerate(events, start=1):
        event.sequence = sequence
    return events


def started(response_id: str, model: str) -> Event:
    """The first event of an answer."""
    return Event(
        response_started=stream_pb2.ResponseStarted(
            response_id=response_id,
            resolution=resolution_pb2.Resolution(requested_model=model, model=model, provider="providers/practice"),
        )
    )


def ended(response_id: str, reason: stream_pb2.FinishReason.ValueType) -> Event:
    """The last event of an answer."""
    receipt = receipt_pb2.Receipt(
        response_id=response_id,
        state=receipt_pb2.RECEIPT_STATE_SUCCEEDED,
        attempts=[receipt_pb2.Attempt(number=1, provider="providers/practice")],
    )
    return Event(
        response_ended=stream_pb2.ResponseEnded(
            finish_reason=reason, provider_finish_reason="as scripted", receipt=receipt
        )
    )


def tool_events(response_id: str, call: completion_pb2.CompletionCall) -> Iterator[Event]:
    """Two calls whose arguments are interleaved and cut anywhere."""
    text = call.spec.messages[0].parts[0].text.text
    yield started(response_id, call.spec.model)
    arguments = (f'{{"city": "{text}"}}', f'{{"zone": "{text}"}}')
    for index, name in enumerate(("get_weather", "get_time")):
        start = stream_pb2.ToolCallStart(id=f"call_{response_id}_{index}", name=name)
        yield Event(part_started=stream_pb2.PartStarted(index=index, tool_call=start))
    for pieces in itertools.zip_longest(*(_cut(value) for value in arguments), fillvalue=""):
        for index, piece in enumerate(pieces):
            delta = stream_pb2.ArgumentsDelta(json=piece)
            yield Event(part_delta=stream_pb2.PartDelta(index=index, arguments=delta))
    yield Event(part_ended=stream_pb2.PartEnded(index=1))
    state = content_pb2.ProviderState(dialect="openai_chat", data=b"\x00\xff", provider="providers/practice")
    yield Event(part_ended=stream_pb2.PartEnded(index=0, provider_state=state))
    yield ended(response_id, stream_pb2.FINISH_REASON_TOOL_CALLS)


def text_events(response_id: str, model: str, words: Sequence[str]) -> Iterator[Event]:
    """A text without its end."""
    yield started(response_id, model)
    yield Event(part_started=stream_pb2.PartStarted(index=0, text=stream_pb2.TextStart()))
    for word in words:
        yield Event(part_delta=stream_pb2.PartDelta(index=0, text=stream_pb2.TextDelta(text=word)))


def _cut(text: str) -> Sequence[str]:
    return [text[start : start + 7] for start in range(0, len(text), 7)]


@dataclass
class ScriptedRouter(completion_service_pb2_grpc.CompletionServiceServicer):
    """The service. `cancelled` is set when a caller has left a stream."""

    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    calls: list[completion_pb2.CompletionCall] = field(default_factory=list)
    authorizations: list[object] = field(default_factory=list)
    states: dict[str, str] = field(default_factory=dict)
    _ids: Iterator[int] = field(default_factory=itertools.count)

    async def CountTokens(  # noqa: N802 # the contract's name
        self, request: completion_service_pb2.CountTokensRequest, context: grpc.aio.ServicerContext[object, object]
    ) -> completion_service_pb2.CountTokensResponse:
        """Counts characters, which no client may mistake for its own count."""
        text = "".join(part.text.text for message in request.call.spec.messages for part in message.parts)
        return completion_service_pb2.CountTokensResponse(input_tokens=len(text), is_estimate=True)

    async def Complete(  # noqa: N802 # the contract's name
        self, request: completion_service_pb2.CompleteRequest, context: grpc.aio.ServicerContext[object, object]
    ) -> completion_service_pb2.CompleteResponse:
        """Answers the tools model by hand, not by a fold that the clients are to be checked against."""
        response_id = await self._admit(request.call, context)
        text = request.call.spec.messages[0].parts[0].text.text
        weather = content_pb2.ToolCallPart(
            id=f"call_{response_id}_0", name="get_weather", arguments_json=f'{{"city": "{text}"}}'
        )
        zone = content_pb2.ToolCallPart(
            id=f"call_{response_id}_1", name="get_time", arguments_json=f'{{"zone": "{text}"}}'
        )
        state = content_pb2.ProviderState(dialect="openai_chat", data=b"\x00\xff", provider="providers/practice")
        start = started(response_id, request.call.spec.model).response_started
        end = ended(response_id, stream_pb2.FINISH_REASON_TOOL_CALLS).response_ended
        return completion_service_pb2.CompleteResponse(
            response_id=response_id,
            resolution=start.resolution,
            message=content_pb2.Message(
                role=content_pb2.ROLE_ASSISTANT,
                parts=[content_pb2.Part(tool_call=weather, provider_state=state), content_pb2.Part(tool_call=zone)],
            ),
            finish_reason=end.finish_reason,
            provider_finish_reason=end.provider_finish_reason,
            receipt=end.receipt,
        )

    async def StreamComplete(  # noqa: N802 # the contract's name
        self, request: completion_service_pb2.StreamCompleteRequest, context: grpc.aio.ServicerContext[object, object]
    ) -> AsyncIterator[completion_service_pb2.StreamCompleteResponse]:
        """Answers what the model's name stands for."""
        response_id = await self._admit(request.call, context)
        model = request.call.spec.model
        match model:
            case "practice/tools":
                events = numbered(list(tool_events(response_id, request.call)))
                yield completion_service_pb2.StreamCompleteResponse(events=events[:3])
                for event in events[3:]:
                    yield completion_service_pb2.StreamCompleteResponse(events=[event])
            case "practice/cut":
                events = numbered(list(text_events(response_id, model, ["It ", "was "])))
                yield completion_service_pb2.StreamCompleteResponse(events=events)
            case "practice/stall":
                events = numbered(list(text_events(response_id, model, ["Once ", "upon ", "a "])))
                # A caller that is quick leaves while the message is still being sent.
                try:
                    yield completion_service_pb2.StreamCompleteResponse(events=events)
                    await asyncio.Event().wait()
                finally:
                    self.states[response_id] = "RECEIPT_STATE_CANCELLED"
                    self.cancelled.set()
            case _:
                raise AssertionError(f"no script for {model}")

    async def _admit(
        self, call: completion_pb2.CompletionCall, context: grpc.aio.ServicerContext[object, object]
    ) -> str:
        self.calls.append(call)
        self.authorizations.append(dict(context.invocation_metadata() or ()).get("authorization"))
        response_id = f"response-{next(self._ids)}"
        await context.send_initial_metadata((("keyswitch-response-id", response_id),))
        if call.spec.model == "practice/fail-404":
            missing = error_reason_pb2.ERROR_REASON_UPSTREAM_MODEL_MISSING
            attempt = receipt_pb2.Attempt(number=1, provider="providers/practice", failure_reason=missing)
            receipt = receipt_pb2.Receipt(
                response_id=response_id, state=receipt_pb2.RECEIPT_STATE_FAILED, attempts=[attempt]
            )
            status = rich_status(
                code_pb2.FAILED_PRECONDITION,
                "the provider does not know the model",
                "ERROR_REASON_UPSTREAM_MODEL_MISSING",
                receipt,
                provider="providers/practice",
            )
            await context.abort_with_status(status)
        if call.spec.model == "practice/plain":
            await context.abort(grpc.StatusCode.UNAVAILABLE, "connection refused")
        return response_id


@dataclass(frozen=True)
class Endpoint:
    """A service that listens."""

    target: str
    ca_pem: bytes
    ca_path: Path


def self_signed(folder: Path) -> tuple[bytes, bytes]:
    """A key and a certificate for 127.0.0.1, which is its own authority and is written to ca.pem."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "scripted router")])
    now = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + dt.timedelta(days=36500))
        .add_extension(address, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    (folder / "ca.pem").write_bytes(pem)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private, pem


@asynccontextmanager
async def listening(router: ScriptedRouter, folder: Path) -> AsyncIterator[Endpoint]:
    """The service behind TLS on a free port."""
    private, pem = self_signed(folder)
    server = grpc.aio.server()
    completion_service_pb2_grpc.add_CompletionServiceServicer_to_server(router, server)
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(private, pem)]))
    await server.start()
    try:
        yield Endpoint(f"127.0.0.1:{port}", pem, folder / "ca.pem")
    finally:
        await server.stop(None)
