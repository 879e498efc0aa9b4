"""The client for asyncio."""

from __future__ import annotations

import asyncio
import uuid
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack

import grpc
from keyswitch.router.v1 import (
    application_service_pb2_grpc,
    budget_service_pb2_grpc,
    completion_service_pb2,
    completion_service_pb2_grpc,
    configuration_service_pb2_grpc,
    credential_test_service_pb2_grpc,
    embedding_service_pb2,
    embedding_service_pb2_grpc,
    model_service_pb2_grpc,
    organization_service_pb2_grpc,
    override_service_pb2_grpc,
    provider_service_pb2_grpc,
    routing_service_pb2_grpc,
    stream_pb2,
    usage_service_pb2_grpc,
)
from keyswitch.vault.v1 import audit_service_pb2_grpc, credential_service_pb2_grpc, token_service_pb2_grpc

from keyswitch_client.certificate import ClientCertificate
from keyswitch_client.connection import (
    PROBES,
    channel_credentials,
    channel_options,
    identity_metadata,
    is_let_in,
    read_authority,
)
from keyswitch_client.errors import KeyswitchError, response_id_in
from keyswitch_client.fold import Fold
from keyswitch_client.options import CallOptions, EmbedOptions, Prompt, build_call, build_embed

if TYPE_CHECKING:
    _StreamCall = grpc.aio.UnaryStreamCall[
        completion_service_pb2.StreamCompleteRequest, completion_service_pb2.StreamCompleteResponse
    ]

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")


class AsyncStream:
    """A completion as it comes: a context manager, because a gRPC call that is merely dropped is never ended.

    Iterate over its events, or over `text()`, and take the whole answer from `fold()`. Leaving the context before the
    end cancels the call, and with it what the provider does.
    """

    def __init__(self, start: Callable[[], _StreamCall], request_id: str) -> None:
        self._start = start
        self._call: _StreamCall | None = None
        self._waiting: deque[stream_pb2.StreamEvent] = deque()
        self._fold = Fold()
        self._is_cancelled = False
        self.request_id = request_id

    async def __aenter__(self) -> Self:
        """Starts the call."""
        self._call = self._start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Ends the call, whatever happened."""
        self.cancel()

    def __aiter__(self) -> AsyncIterator[stream_pb2.StreamEvent]:
        """Its events from here on."""
        return self

    async def __anext__(self) -> stream_pb2.StreamEvent:
        """The next event."""
        while not self._waiting:
            message = await self._read()
            if message is None:
                self._fold.require_end()
                raise StopAsyncIteration
            self._waiting.extend(message.events)
        event = self._waiting.popleft()
        self._fold.add(event)
        return event

    @property
    def response_id(self) -> str:
        """The router's id of the call; empty until response_started."""
        return self._fold.response_id

    async def text(self) -> AsyncIterator[str]:
        """The pieces of text, without reasoning and tool calls."""
        async for event in self:
            if event.part_delta.HasField("text"):
                yield event.part_delta.text.text

    async def fold(self) -> completion_service_pb2.CompleteResponse:
        """Reads what is left and gives the whole answer: exactly what `complete` would have given."""
        async for _ in self:
            pass
        return self._fold.answer()

    def cancel(self) -> None:
        """Ends the call; a reader that still waits gets a KeyswitchError with the code CANCELLED."""
        if self._call is not None and not self._call.done():
            self._is_cancelled = True
            self._call.cancel()

    async def _read(self) -> completion_service_pb2.StreamCompleteResponse | None:
        if self._call is None:
            raise RuntimeError("a stream is a context manager: async with client.stream(...) as stream")
        try:
            message = await self._call.read()
        except grpc.RpcError as error:
            failure = KeyswitchError.from_rpc_error(error)
            failure.response_id = failure.response_id or response_id_in(await self._call.initial_metadata() or ())
            raise failure from error
        except asyncio.CancelledError:
            # grpc.aio raises the same for a cancelled call as asyncio does for a cancelled task.
            task = asyncio.current_task()
            if self._is_cancelled and (task is None or not task.cancelling()):
                raise KeyswitchError.from_status(grpc.StatusCode.CANCELLED, "", ()) from None
            raise
        return message if isinstance(message, completion_service_pb2.StreamCompleteResponse) else None


class AsyncClient:
    """A connection to the router, and to the credential service where `vault_target` is given.

    The stubs are attributes; `call` runs any of their methods with the token and with KeyswitchError for failures.
    """

    def __init__(
        self,
        target: str,
        token: str | None = None,
        *,
        ca_pem: bytes | None = None,
        ca_path: Path | str | None = None,
        certificate: ClientCertificate | None = None,
        vault_target: str | None = None,
        timeout_seconds: float = 600.0,
        new_id: Callable[[], str] = lambda: str(uuid.uuid4()),
    ) -> None:
        self._targets = (target,) if vault_target is None else (target, vault_target)
        self._ca_pem = read_authority(ca_pem, ca_path)
        self._token = token
        self._certificate = certificate
        self._timeout_seconds = timeout_seconds
        self._new_id = new_id
        self._retired: list[grpc.aio.Channel] = []
        self._use(self._open(certificate))

    def _open(self, certificate: ClientCertificate | None) -> list[grpc.aio.Channel]:
        credentials = channel_credentials(self._ca_pem, certificate)
        return [grpc.aio.secure_channel(one, credentials, options=channel_options(one)) for one in self._targets]

    def _use(self, channels: list[grpc.aio.Channel]) -> None:
        self._channels = channels
        router = channels[0]
        self.completions = completion_service_pb2_grpc.CompletionServiceStub(router)
        self.embeddings = embedding_service_pb2_grpc.EmbeddingServiceStub(router)
        self.models = model_service_pb2_grpc.ModelServiceStub(router)
        self.providers = provider_service_pb2_grpc.ProviderServiceStub(router)
        self.credential_tests = credential_test_service_pb2_grpc.CredentialTestServiceStub(router)
        self.routing = routing_service_pb2_grpc.RoutingServiceStub(router)
        self.applications = application_service_pb2_grpc.ApplicationServiceStub(router)
        self.overrides = override_service_pb2_grpc.OverrideServiceStub(router)
        self.organizations = organization_service_pb2_grpc.OrganizationServiceStub(router)
        self.configuration = configuration_service_pb2_grpc.ConfigurationServiceStub(router)
        self.usage = usage_service_pb2_grpc.UsageServiceStub(router)
        self.budgets = budget_service_pb2_grpc.BudgetServiceStub(router)
        if len(channels) > 1:
            vault = channels[1]
            self.credentials = credential_service_pb2_grpc.CredentialServiceStub(vault)
            self.tokens = token_service_pb2_grpc.TokenServiceStub(vault)
            self.audit = audit_service_pb2_grpc.AuditServiceStub(vault)

    async def __aenter__(self) -> Self:
        """The client itself."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Closes the connections."""
        await self.close()

    async def close(self) -> None:
        """Closes the connections; calls under way are cancelled."""
        for channel in (*self._channels, *self._retired):
            await channel.close()

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        return identity_metadata(self._token, self._certificate)

    async def renew(self, certificate: ClientCertificate, *, timeout_seconds: float = 10.0) -> None:
        """Goes over to another certificate once it has been let in; else raises KeyswitchError and changes nothing.

        Calls under way end on the connections on which they began; those are closed by the next `renew` or `close`.
        """
        channels = self._open(certificate)
        metadata = identity_metadata(self._token, certificate)
        for channel, method in zip(channels, PROBES, strict=False):
            probe: Any = channel.unary_unary(method)  # bytes as they are
            try:
                await probe(b"", metadata=metadata, timeout=timeout_seconds)
            except grpc.aio.AioRpcError as error:
                if not is_let_in(error):
                    for one in channels:
                        await one.close()
                    raise KeyswitchError.from_rpc_error(error) from error
        for old in self._retired:
            await old.close()
        self._retired = self._channels
        self._certificate = certificate
        self._use(channels)

    async def complete(
        self, prompt: Prompt, *, timeout_seconds: float | None = None, **options: Unpack[CallOptions]
    ) -> completion_service_pb2.CompleteResponse:
        """The whole answer at once. The time bounds everything: waiting, retries and all attempts."""
        call = build_call(prompt, options, self._new_id)
        request = completion_service_pb2.CompleteRequest(call=call)
        return await self.call(self.completions.Complete, request, timeout_seconds=timeout_seconds)

    def stream(
        self, prompt: Prompt, *, timeout_seconds: float | None = None, **options: Unpack[CallOptions]
    ) -> AsyncStream:
        """The answer as it comes: `async with client.stream(...) as stream`. Nothing is sent before that."""
        call = build_call(prompt, options, self._new_id)
        request = completion_service_pb2.StreamCompleteRequest(call=call)
        return AsyncStream(
            lambda: self.completions.StreamComplete(
                request, metadata=self._metadata(), timeout=timeout_seconds or self._timeout_seconds
            ),
            call.request_id,
        )

    async def count_tokens(
        self, prompt: Prompt, *, timeout_seconds: float | None = None, **options: Unpack[CallOptions]
    ) -> completion_service_pb2.CountTokensResponse:
        """How many tokens the prompt has for the model that would answer; nothing is generated or billed."""
        request = completion_service_pb2.CountTokensRequest(call=build_call(prompt, options, self._new_id))
        return await self.call(self.completions.CountTokens, request, timeout_seconds=timeout_seconds)

    async def embed(
        self, texts: str | Sequence[str], *, timeout_seconds: float | None = None, **options: Unpack[EmbedOptions]
    ) -> embedding_service_pb2.EmbedResponse:
        """One vector per text, in their order: all of them or an error."""
        request = build_embed(texts, options, self._new_id)
        return await self.call(self.embeddings.Embed, request, timeout_seconds=timeout_seconds)

    async def call(
        self,
        method: grpc.aio.UnaryUnaryMultiCallable[_Request, _Response],
        request: _Request,
        *,
        timeout_seconds: float | None = None,
    ) -> _Response:
        """Runs a unary method of any of the stubs: `await client.call(client.models.ListModels, request)`."""
        try:
            return await method(request, metadata=self._metadata(), timeout=timeout_seconds or self._timeout_seconds)
        except grpc.RpcError as error:
            raise KeyswitchError.from_rpc_error(error) from error
