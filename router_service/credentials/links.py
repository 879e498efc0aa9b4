"""Connections to the instances of the credential service, and the time in which one of them is the one in use."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from keyswitch.vault.v1 import lease_service_pb2_grpc, token_service_pb2_grpc

from router_service.credentials.errors import has_reason
from router_service.credentials.lease_queue import LeaseQueue
from router_service.credentials.recipient import Recipient

BREAK_SECONDS = 0.5
"""How long after a call its watch may break off for the same cause."""
DOUBT_SECONDS = 1.0
"""After so long without an answer the service is asked whether it hears anything at all, and is given as long again."""

T = TypeVar("T")
Open = Callable[[], grpc.aio.Channel]


@dataclass(frozen=True, slots=True)
class Link:
    """A connection with one certificate, and the key that this certificate vouches for."""

    open: Open
    channel: grpc.aio.Channel
    recipient: Recipient
    stub: "lease_service_pb2_grpc.LeaseServiceAsyncStub"  # a name of the types only
    leases: LeaseQueue
    tokens: "token_service_pb2_grpc.TokenServiceAsyncStub"

    @classmethod
    def over(cls, open_channel: Open, recipient: Recipient) -> "Link":
        """A new connection, with its stubs."""
        channel = open_channel()
        stub = lease_service_pb2_grpc.LeaseServiceStub(channel)
        tokens = token_service_pb2_grpc.TokenServiceStub(channel)
        return cls(open_channel, channel, recipient, stub, LeaseQueue(stub, recipient), tokens)

    def renewed(self) -> "Link":
        """Another connection to the same instance: a silent one may be dead although its peer is well."""
        return Link.over(self.open, self.recipient)


class TermOver(Exception):
    """The instance that was asked is no longer the one in use, and has not answered."""


@dataclass(eq=False, slots=True)
class Term:
    """The time of one watch. What is asked in it is given up with it, to be asked in the next one.

    `patience` is the watch's own limit for the next word of the service.
    """

    link: Link
    is_over: asyncio.Event = field(default_factory=asyncio.Event)
    patience: asyncio.Timeout | None = None
    _doubt: "asyncio.Future[bool] | None" = None

    async def run(self, answer: Awaitable[T]) -> T:
        """The answer, or what the call raises. Raises TermOver when the watch ends before it."""
        asked = asyncio.ensure_future(answer)
        over = asyncio.ensure_future(self.is_over.wait())
        either = (asked, over)
        try:
            done, _ = await asyncio.wait(either, timeout=DOUBT_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            if not done:
                await self._doubt_once()
                await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not asked.done() or asked.cancelled():
                raise TermOver
            return asked.result()
        except grpc.aio.UsageError:
            if self.is_over.is_set():
                raise TermOver from None  # its connection was closed before the call began
            raise
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNAVAILABLE and not has_reason(error) and await self._breaks():
                raise TermOver from None
            raise
        finally:
            asked.cancel()
            over.cancel()

    async def _breaks(self) -> bool:
        """Whether the watch broke off too: then it was the connection, and somebody else may answer."""
        with suppress(TimeoutError):
            async with asyncio.timeout(BREAK_SECONDS):
                await self.is_over.wait()
        return self.is_over.is_set()

    async def _doubt_once(self) -> None:
        """Ends the watch where the service speaks and hears nothing; one that only takes long is waited for."""
        if self._doubt is None or self._doubt.done():
            self._doubt = asyncio.ensure_future(_hears(self.link.channel))
        await asyncio.wait((self._doubt,))  # cancelled where the connection is closed: then the watch is over already
        hears = self._doubt.cancelled() or self._doubt.result()
        if not hears and self.patience is not None and not self.is_over.is_set():
            self.patience.reschedule(0)


async def _hears(channel: grpc.aio.Channel) -> bool:
    """Whether anything sent arrives: health is answered without the store."""
    stub: Any = health_pb2_grpc.HealthStub(channel)
    try:
        await stub.Check(health_pb2.HealthCheckRequest(), timeout=DOUBT_SECONDS)
    except grpc.aio.AioRpcError as error:
        return error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED
    return True
