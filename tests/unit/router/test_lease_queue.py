"""Leases that are asked for at about the same time go together, and each asker hears of its own only."""
# ruff: noqa: N802 - gRPC names the methods

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import grpc
import pytest
from google.rpc import code_pb2, status_pb2
from keyswitch.vault.v1 import lease_service_pb2 as pb

from router_service.core.faults import Fault, Reason
from router_service.credentials.errors import LeaseRefused
from router_service.credentials.lease_queue import MAX_BATCH, LeaseQueue

SECONDS = 5.0


class Recipient:
    """What a queue adds to what it asks."""

    public_key = b"k" * 32
    signature = b"s"
    certificate_chain = (b"leaf", b"middle")


class Stream:
    """An answer that is given message by message."""

    def __init__(self, messages: Sequence[Any]) -> None:
        self._messages = list(messages)
        self.is_cancelled = False

    def __aiter__(self) -> "Stream":
        return self

    async def __anext__(self) -> pb.BatchLeaseCredentialsResponse:
        if not self._messages:
            raise StopAsyncIteration
        message = self._messages.pop(0)
        if isinstance(message, asyncio.Event):
            await message.wait()
            return await self.__anext__()
        if isinstance(message, Exception):
            raise message
        return pb.BatchLeaseCredentialsResponse(results=message)

    def cancel(self) -> None:
        self.is_cancelled = True


class Stub:
    """A service that answers as it is told, and remembers what it was asked."""

    def __init__(self, answer: Callable[[int], Sequence[Any]] = lambda count: [leases(count)]) -> None:
        self.answer = answer
        self.alone: list[pb.LeaseCredentialRequest] = []
        self.together: list[pb.BatchLeaseCredentialsRequest] = []
        self.streams: list[Stream] = []
        self.timeouts: list[float] = []
        self.error: Exception | None = None
        self.gate: asyncio.Event | None = None

    async def LeaseCredential(self, request: pb.LeaseCredentialRequest, timeout: float) -> pb.LeaseCredentialResponse:
        self.alone.append(request)
        self.timeouts.append(timeout)
        if self.gate is not None:
            await self.gate.wait()
        if self.error is not None:
            raise self.error
        return pb.LeaseCredentialResponse(lease_id=f"lease-of-{request.name}")

    def BatchLeaseCredentials(self, request: pb.BatchLeaseCredentialsRequest, timeout: float) -> Stream:
        self.together.append(request)
        self.timeouts.append(timeout)
        self.streams.append(Stream(self.answer(len(request.requests))))
        return self.streams[-1]


def lease(index: int) -> pb.LeaseResult:
    return pb.LeaseResult(index=index, lease=pb.LeaseCredentialResponse(lease_id=f"lease-{index}"))


def leases(count: int) -> list[pb.LeaseResult]:
    return [lease(index) for index in range(count)]


def queue_over(stub: Any, patience_seconds: float = 60.0) -> LeaseQueue:
    recipient: Any = Recipient()
    return LeaseQueue(stub, recipient, spacing_seconds=0.0, patience_seconds=patience_seconds)


async def turn() -> None:
    """Lets everything run that can."""
    for _ in range(20):
        await asyncio.sleep(0)


def rpc_error(code: grpc.StatusCode) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata())


def ask(queue: LeaseQueue, count: int, seconds: float = SECONDS) -> list["asyncio.Task[pb.LeaseCredentialResponse]"]:
    return [
        asyncio.ensure_future(queue.ask(pb.LeaseCredentialRequest(name=str(number)), seconds))
        for number in range(count)
    ]


async def test_who_comes_alone_asks_alone() -> None:
    stub = Stub()
    answer = await queue_over(stub).ask(pb.LeaseCredentialRequest(name="one"), SECONDS)
    assert answer.lease_id == "lease-of-one"
    (request,) = stub.alone
    assert request.recipient_public_key == Recipient.public_key
    assert request.recipient_key_signature == Recipient.signature
    assert list(request.recipient_certificate_chain) == list(Recipient.certificate_chain)
    assert not stub.together
    assert 0 < stub.timeouts[0] <= SECONDS


async def test_who_come_at_once_ask_together_and_name_the_recipient_once() -> None:
    stub = Stub(lambda count: [leases(count)[::-1]])
    answers = await asyncio.gather(*ask(queue_over(stub), 3))
    assert [one.lease_id for one in answers] == ["lease-0", "lease-1", "lease-2"]
    (request,) = stub.together
    assert [one.name for one in request.requests] == ["0", "1", "2"]
    assert not any(one.recipient_public_key or one.recipient_certificate_chain for one in request.requests)
    assert request.recipient_public_key == Recipient.public_key
    assert list(request.recipient_certificate_chain) == list(Recipient.certificate_chain)
    assert not stub.alone


async def test_a_call_holds_so_many_and_no_more() -> None:
    stub = Stub()
    answers = await asyncio.gather(*ask(queue_over(stub), MAX_BATCH + 2))
    assert [len(one.requests) for one in stub.together] == [MAX_BATCH, 2]
    assert [one.lease_id for one in answers[-2:]] == ["lease-0", "lease-1"]


async def test_those_who_come_while_a_call_is_on_its_way_do_not_wait_for_its_answer() -> None:
    stub = Stub()
    stub.gate = asyncio.Event()
    queue = queue_over(stub)
    (first,) = ask(queue, 1)
    while not stub.alone:
        await asyncio.sleep(0)
    later = await asyncio.gather(*ask(queue, 2))
    assert [one.lease_id for one in later] == ["lease-0", "lease-1"]
    assert not first.done()
    stub.gate.set()
    assert (await first).lease_id == "lease-of-0"


async def begin_two(queue: LeaseQueue, stub: Stub) -> list["asyncio.Task[pb.LeaseCredentialResponse]"]:
    """Two calls that have no answer yet."""
    stub.gate = asyncio.Event()
    begun: list[asyncio.Task[pb.LeaseCredentialResponse]] = []
    for number in (1, 2):
        begun += ask(queue, 1)
        while len(stub.alone) < number:
            await asyncio.sleep(0)
    return begun


async def test_what_comes_while_two_calls_have_no_answer_goes_together_once_one_has() -> None:
    stub = Stub()
    queue = queue_over(stub)
    begun = await begin_two(queue, stub)
    later = ask(queue, 2)
    await turn()
    later += ask(queue, 1)
    await turn()
    assert (len(stub.alone), len(stub.together)) == (2, 0)
    assert stub.gate is not None
    stub.gate.set()
    await asyncio.gather(*begun)
    assert [one.lease_id for one in await asyncio.gather(*later)] == ["lease-0", "lease-1", "lease-2"]
    assert len(stub.together) == 1


async def test_calls_whose_answers_take_their_time_are_not_waited_for() -> None:
    stub = Stub()
    queue = queue_over(stub, patience_seconds=0.0)
    begun = await begin_two(queue, stub)
    assert len(await asyncio.gather(*ask(queue, 2))) == 2
    assert not any(task.done() for task in begun)
    for task in begun:
        task.cancel()
    await asyncio.gather(*begun, return_exceptions=True)


async def test_calls_that_nobody_waits_for_any_longer_hold_up_nobody() -> None:
    stub = Stub()
    queue = queue_over(stub)
    for task in await begin_two(queue, stub):
        task.cancel()
    stub.gate = None
    assert (await queue.ask(pb.LeaseCredentialRequest(name="next"), SECONDS)).lease_id == "lease-of-next"


async def test_each_gets_its_own_refusal() -> None:
    status = status_pb2.Status(code=code_pb2.PERMISSION_DENIED, message="no")
    refusal = pb.LeaseResult(index=1, status=status.SerializeToString())
    first, second = ask(queue_over(Stub(lambda _: [[refusal], [lease(0)]])), 2)
    with pytest.raises(LeaseRefused) as refused:
        await second
    assert refused.value.status == status
    assert (await first).lease_id == "lease-0"


@pytest.mark.parametrize(
    "said",
    [
        pb.LeaseResult(index=1),
        pb.LeaseResult(index=2, lease=pb.LeaseCredentialResponse()),
        pb.LeaseResult(index=-1, lease=pb.LeaseCredentialResponse()),
        lease(0),
    ],
    ids=["says nothing", "beyond", "before", "twice another"],
)
async def test_what_is_no_answer_leaves_the_asker_unanswered(said: pb.LeaseResult) -> None:
    first, second = ask(queue_over(Stub(lambda _: [[lease(0), said]])), 2)
    assert (await first).lease_id == "lease-0"
    with pytest.raises(Fault) as fault:
        await second
    assert (fault.value.reason, fault.value.metadata["cause"]) == (Reason.CREDENTIALS_UNAVAILABLE, "unanswered")


async def test_a_status_that_is_none_is_a_refusal_without_a_reason() -> None:
    wrong = pb.LeaseResult(index=0, status=b"\xff\xff")
    first, second = ask(queue_over(Stub(lambda _: [[wrong, lease(1)]])), 2)
    with pytest.raises(LeaseRefused) as refused:
        await first
    assert refused.value.status == status_pb2.Status()
    assert (await second).lease_id == "lease-1"


async def test_a_call_that_breaks_off_fails_those_who_are_left() -> None:
    error = rpc_error(grpc.StatusCode.UNAVAILABLE)
    first, second, third = ask(queue_over(Stub(lambda _: [[lease(1)], error])), 3)
    assert (await second).lease_id == "lease-1"
    for task in (first, third):
        with pytest.raises(grpc.aio.AioRpcError) as broken:
            await task
        assert broken.value is error


async def test_an_older_service_is_asked_one_by_one_from_then_on() -> None:
    stub = Stub(lambda _: [rpc_error(grpc.StatusCode.UNIMPLEMENTED)])
    queue = queue_over(stub)
    for _ in range(2):
        answers = await asyncio.gather(*ask(queue, 2))
        assert [one.lease_id for one in answers] == ["lease-of-0", "lease-of-1"]
    assert len(stub.together) == 1
    assert len(stub.alone) == 4
    assert all(len(one.recipient_certificate_chain) == 2 for one in stub.alone)


async def test_one_by_one_each_hears_of_its_own_failure() -> None:
    stub = Stub(lambda _: [rpc_error(grpc.StatusCode.UNIMPLEMENTED)])
    stub.error = rpc_error(grpc.StatusCode.RESOURCE_EXHAUSTED)
    for task in ask(queue_over(stub), 2):
        with pytest.raises(grpc.aio.AioRpcError):
            await task


async def test_who_leaves_is_not_waited_for_and_the_last_one_ends_the_call() -> None:
    never = asyncio.Event()
    stub = Stub(lambda _: [never])
    first, second = ask(queue_over(stub), 2)
    while not stub.streams:
        await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert not stub.streams[0].is_cancelled
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    async with asyncio.timeout(SECONDS):
        while not stub.streams[0].is_cancelled:
            await asyncio.sleep(0)


async def test_who_leaves_before_the_call_is_not_asked_for() -> None:
    stub = Stub()
    first, second = ask(queue_over(stub), 2)
    await asyncio.sleep(0)
    first.cancel()
    assert (await second).lease_id == "lease-of-1"
    assert [one.name for one in stub.alone] == ["1"]


async def test_each_waits_for_as_long_as_it_said() -> None:
    never = asyncio.Event()
    stub = Stub(lambda _: [never])
    queue = queue_over(stub)
    (patient,) = ask(queue, 1, SECONDS)
    (hasty,) = ask(queue, 1, 0.001)
    with pytest.raises(TimeoutError):
        await hasty
    assert not patient.done()
    assert stub.timeouts[0] > 1
    patient.cancel()
    with pytest.raises(asyncio.CancelledError):
        await patient


async def test_a_connection_that_is_closed_under_a_call_ends_it_for_all() -> None:
    class Closing(Stream):
        async def __anext__(self) -> pb.BatchLeaseCredentialsResponse:
            raise asyncio.CancelledError

    stub = Stub()
    stub.BatchLeaseCredentials = lambda request, timeout: Closing([])  # type: ignore[method-assign] # closes
    for task in ask(queue_over(stub), 2):
        with pytest.raises(asyncio.CancelledError):
            await task
