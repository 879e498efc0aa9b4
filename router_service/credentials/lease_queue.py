"""Leases that are asked of one instance at about the same time go in one call; who comes alone asks at once.

While many come, a few thousandths of a second lie between two calls, and what comes while two calls have no answer yet
goes together in the next one, or calls would be many and small. Nothing waits long for another one: a call whose
answers take their time is not waited for, and within a call the service gives each lease when it has it.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import grpc
from google.protobuf.message import DecodeError
from google.rpc import status_pb2
from keyswitch.vault.v1 import lease_service_pb2 as pb
from keyswitch.vault.v1 import lease_service_pb2_grpc

from router_service.credentials.errors import LeaseRefused, unavailable
from router_service.credentials.recipient import Recipient

MAX_BATCH = 64
MAX_UNANSWERED = 2
SPACING_SECONDS = 0.005
PATIENCE_SECONDS = 0.05
"""How long after the last call the next one goes in any case."""

Request = TypeVar("Request", pb.LeaseCredentialRequest, pb.BatchLeaseCredentialsRequest)


@dataclass(slots=True, eq=False)
class _Asker:
    request: pb.LeaseCredentialRequest
    end_time: float
    answer: "asyncio.Future[pb.LeaseCredentialResponse]"
    call: "_Call | None" = None


@dataclass(slots=True, eq=False)
class _Call:
    askers: Sequence[_Asker]
    task: "asyncio.Task[None] | None" = None
    is_answered: bool = False

    def fail(self, error: Exception) -> None:
        """Whoever still waits hears of it, and raises it."""
        for asker in self.askers:
            if not asker.answer.done():
                asker.answer.set_exception(error)

    def leave(self) -> None:
        """Ends it once nobody waits for it any longer."""
        if self.task is not None and all(asker.answer.done() for asker in self.askers):
            self.task.cancel()


class LeaseQueue:
    """What is asked of one instance, over one connection, for one recipient's key."""

    def __init__(
        self,
        stub: "lease_service_pb2_grpc.LeaseServiceAsyncStub",
        recipient: Recipient,
        *,
        spacing_seconds: float = SPACING_SECONDS,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        self._stub = stub
        self._recipient = recipient
        self._spacing_seconds = spacing_seconds
        self._patience_seconds = patience_seconds
        self._waiting: list[_Asker] = []
        self._send_time = float("-inf")
        self._next_send: asyncio.TimerHandle | None = None
        self._unanswered = 0
        self._takes_batches = True

    async def ask(self, request: pb.LeaseCredentialRequest, seconds: float) -> pb.LeaseCredentialResponse:
        """Gives the lease, in so many seconds. `request` names no recipient.

        Raises AioRpcError, LeaseRefused, TimeoutError and, where the answer is none, Fault.
        """
        loop = asyncio.get_running_loop()
        asker = _Asker(request, loop.time() + seconds, loop.create_future())
        self._waiting.append(asker)
        if self._next_send is None:
            self._plan()
        try:
            async with asyncio.timeout_at(asker.end_time):
                return await asker.answer
        finally:
            if asker.call is not None:
                asker.call.leave()

    def _plan(self) -> None:
        """Sets when what waits goes. The round of the loop that is under way may bring more: they go along."""
        loop = asyncio.get_running_loop()
        is_busy = self._unanswered >= MAX_UNANSWERED
        pause = self._patience_seconds if is_busy else self._spacing_seconds
        if self._next_send is not None:
            self._next_send.cancel()
        self._next_send = loop.call_at(max(loop.time(), self._send_time + pause), self._send)

    def _send(self) -> None:
        self._next_send = None
        waiting = [asker for asker in self._waiting if not asker.answer.done()]
        askers, self._waiting = waiting[:MAX_BATCH], waiting[MAX_BATCH:]
        if askers:
            self._send_time = asyncio.get_running_loop().time()
            self._unanswered += 1
            call = _Call(askers)
            for asker in askers:
                asker.call = call
            call.task = asyncio.create_task(self._run(call))
            call.task.add_done_callback(lambda _: self._note_answer(call))  # also where it is cancelled before it runs
        if self._waiting:
            self._plan()

    def _note_answer(self, call: _Call) -> None:
        """The first answer of a call, or its end: what waits need not wait for it any longer."""
        if call.is_answered:
            return
        call.is_answered = True
        self._unanswered -= 1
        if self._next_send is not None:
            self._plan()

    async def _run(self, call: _Call) -> None:
        try:
            if len(call.askers) > 1 and self._takes_batches:
                await self._ask_together(call)
            else:
                await asyncio.gather(*(self._ask_alone(asker) for asker in call.askers))
        except asyncio.CancelledError:
            for asker in call.askers:  # the connection was closed, or nobody waits
                asker.answer.cancel()
            raise
        except Exception as error:  # noqa: BLE001 - it is raised where the lease is awaited
            call.fail(error)

    async def _ask_alone(self, asker: _Asker) -> None:
        left = asker.end_time - asyncio.get_running_loop().time()
        try:
            lease = await self._stub.LeaseCredential(self._sealed_to(asker.request), timeout=left)
        except Exception as error:  # noqa: BLE001 - it is raised where the lease is awaited
            if not asker.answer.done():
                asker.answer.set_exception(error)
        else:
            if not asker.answer.done():
                asker.answer.set_result(lease)

    async def _ask_together(self, call: _Call) -> None:
        left = max(asker.end_time for asker in call.askers) - asyncio.get_running_loop().time()
        request = pb.BatchLeaseCredentialsRequest(requests=[asker.request for asker in call.askers])
        stream = self._stub.BatchLeaseCredentials(self._sealed_to(request), timeout=left)
        try:
            async for message in stream:
                self._note_answer(call)
                for result in message.results:
                    if 0 <= result.index < len(call.askers):
                        _settle(call.askers[result.index].answer, result)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNIMPLEMENTED:
                raise
            self._takes_batches = False  # an older service
            await asyncio.gather(*(self._ask_alone(asker) for asker in call.askers))
        finally:
            stream.cancel()
        call.fail(unavailable("The credential service left a lease unanswered; try again.", {"cause": "unanswered"}))

    def _sealed_to(self, request: Request) -> Request:
        request.recipient_public_key = self._recipient.public_key
        request.recipient_key_signature = self._recipient.signature
        request.recipient_certificate_chain.extend(self._recipient.certificate_chain)
        return request


def _settle(answer: "asyncio.Future[pb.LeaseCredentialResponse]", result: pb.LeaseResult) -> None:
    if answer.done():
        return
    match result.WhichOneof("result"):
        case "lease":
            answer.set_result(result.lease)
        case "status":
            try:
                status = status_pb2.Status.FromString(result.status)
            except DecodeError:
                status = status_pb2.Status()
            answer.set_exception(LeaseRefused(status))
        case _:
            pass  # a newer service says something that this router does not know: unanswered
