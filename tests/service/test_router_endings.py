"""How a call ends before its answer does: cancelled, out of time, repeated; and a reader that is slow."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from keyswitch.router.v1 import receipt_pb2

from router_service.core.receipt import ReceiptState
from tests.fakes.scripted_upstream import LAST_CHUNK, Action, Reached, Send, Stall, chunk, head, respond
from tests.service.router_answers import answer, answer_events, whole_answer
from tests.service.router_harness import (
    ADA,
    CHAT,
    DEMO,
    Stack,
    make_call,
    make_policy,
    read_response_id,
    running_stack,
    state_name,
)

EVENTS = answer_events("Hello", " world")
REQUEST_ID = "4f7c1a52-1d0e-4b8e-9a77-0c2f8f0f7d11"


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[Stack]:
    async with running_stack(tmp_path) as running:
        await running.save_key(f"{DEMO}/credentials/first")
        yield running


def endless() -> list[Action]:
    """An answer that begins and never goes on."""
    return [Send(head()), *(Send(chunk(event)) for event in EVENTS[:3]), Stall()]


async def test_a_cancel_closes_the_upstream_and_leaves_a_receipt(stack: Stack) -> None:
    stack.first.script(endless())
    opened = stack.member.open()
    await opened.read()
    opened.cancel()
    await stack.first.wait_for_connections(0)
    receipt = await stack.wait_for_end(ReceiptState.CANCELLED)
    read = await stack.member.receipt(receipt.response_id)
    assert state_name(read) == "CANCELLED"
    assert read.cost.is_estimate
    assert read.usage.output_tokens > 0
    assert read.usage.input_tokens > 0


async def test_a_cancel_before_the_head_closes_the_upstream(stack: Stack) -> None:
    reached = asyncio.Event()
    stack.first.script([Reached(reached), Stall()])
    opened = stack.member.open()
    await reached.wait()
    opened.cancel()
    await stack.first.wait_for_connections(0)
    receipt = await stack.wait_for_end(ReceiptState.CANCELLED)
    assert len(receipt.attempts) == 1


async def test_a_cancel_of_a_unary_call_closes_the_upstream(stack: Stack) -> None:
    body = whole_answer()
    reached = asyncio.Event()
    stack.first.script(
        [Send(head(200, "application/json", content_length=len(body)) + body[:9]), Reached(reached), Stall()]
    )
    calling = asyncio.ensure_future(stack.member.complete())
    await reached.wait()
    calling.cancel()
    await stack.first.wait_for_connections(0)
    await stack.wait_for_end(ReceiptState.CANCELLED)


async def test_a_deadline_reaches_the_upstream(stack: Stack) -> None:
    stack.first.script(endless())
    opened = stack.member.open(timeout=2.0)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        async for _ in opened:
            pass
    assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await stack.first.wait_for_connections(0)
    await stack.wait_for_end(ReceiptState.CANCELLED)


async def test_a_cancel_gives_back_what_was_reserved_and_charges_what_came(stack: Stack) -> None:
    await stack.save_key("deployment/credentials/first")
    await stack.add_credits(10**9)
    stack.first.script(endless())
    opened = stack.member.open(make_call(route_policy=make_policy(payers=["PAYER_CREDITS"])))
    await opened.read()
    assert (await stack.router.ledger.balance("demo")).reserved_nanos > 0
    opened.cancel()
    receipt = await stack.wait_for_end(ReceiptState.CANCELLED)
    await stack.rest()
    balance = await stack.router.ledger.balance("demo")
    read = await stack.member.receipt(receipt.response_id)
    assert balance.reserved_nanos == 0
    assert 10**9 - balance.balance_nanos == read.cost.charged_usd_nanos > 0
    assert read.cost.is_estimate


async def test_a_request_id_of_a_call_in_flight_is_refused_with_its_receipt(stack: Stack) -> None:
    stack.first.script(endless(), answer())
    opened = stack.member.open(make_call(request_id=REQUEST_ID))
    await opened.read()
    found = await stack.member.stream(make_call(request_id=REQUEST_ID))
    assert (found.refused.code, found.refused.reason) == (grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED")
    assert found.refused.receipt is not None
    assert found.refused.receipt.state == receipt_pb2.RECEIPT_STATE_IN_FLIGHT
    assert found.refused.receipt.response_id == await read_response_id(opened)
    assert len(stack.first.received) == 1
    opened.cancel()
    await stack.wait_for_end(ReceiptState.CANCELLED)
    found = await stack.member.stream(make_call(request_id=REQUEST_ID))
    assert found.refused.receipt is not None
    assert state_name(found.refused.receipt) == "CANCELLED"
    assert (await stack.member.receipt(request_id=REQUEST_ID)).response_id == found.refused.receipt.response_id


async def test_a_request_id_of_an_answered_call_is_refused_with_its_receipt(stack: Stack) -> None:
    stack.first.script(answer(), answer())
    answered = await stack.member.stream(make_call(request_id=REQUEST_ID))
    found = await stack.member.stream(make_call(request_id=REQUEST_ID.upper()))
    assert found.refused.reason == "REQUEST_ID_REUSED"
    assert found.refused.metadata["requestId"] == REQUEST_ID
    assert found.refused.receipt is not None
    assert found.refused.receipt.response_id == answered.response_id
    assert state_name(found.refused.receipt) == "SUCCEEDED"
    assert await stack.member.receipt(request_id=REQUEST_ID) == answered.receipt
    assert len(stack.first.received) == 1


async def test_a_request_id_of_a_call_that_failed_upstream_is_refused(stack: Stack) -> None:
    stack.first.script(respond(b"{}", status=400), answer())
    failed = await stack.member.stream(make_call(request_id=REQUEST_ID))
    assert failed.refused.reason == "UPSTREAM_REJECTED_REQUEST"
    found = await stack.member.stream(make_call(request_id=REQUEST_ID))
    assert found.refused.reason == "REQUEST_ID_REUSED"
    assert found.refused.receipt is not None
    assert state_name(found.refused.receipt) == "FAILED"


async def test_a_request_id_is_free_again_when_nothing_was_sent(stack: Stack) -> None:
    for call in (
        make_call(model="test/nope", request_id=REQUEST_ID),
        make_call(model="test/other", request_id=REQUEST_ID),
    ):
        found = await stack.member.stream(call)
        assert found.refused.reason in ("MODEL_NOT_FOUND", "NO_USABLE_CREDENTIAL")
        await stack.rest()
    stack.first.script(answer())
    assert (await stack.member.stream(make_call(request_id=REQUEST_ID))).error is None


async def test_a_request_id_is_free_again_when_the_provider_was_not_reached(stack: Stack) -> None:
    server_port = stack.first.port
    stack.reconfigure(lambda file: file["providers"]["second"].update(base_url="http://127.0.0.1:9/v1"))
    await stack.save_key(f"{DEMO}/credentials/second", provider="second")
    policy = make_policy(max_attempts=1)
    found = await stack.member.stream(make_call(model="test/other", request_id=REQUEST_ID, route_policy=policy))
    assert found.refused.reason == "UPSTREAM_UNAVAILABLE"
    assert found.refused.metadata["cause"] == "refused"
    await stack.rest()
    assert server_port != 9
    whole = await stack.member.receipt(found.response_id)
    assert len(whole.attempts) == 1
    assert not whole.attempts[0].HasField("cost")
    stack.first.script(answer())
    assert (await stack.member.stream(make_call(request_id=REQUEST_ID))).error is None


async def test_a_request_id_belongs_to_its_organization(stack: Stack) -> None:
    stack.first.script(answer())
    await stack.member.stream(make_call(request_id=REQUEST_ID))
    eve = await stack.issue("MEMBER", parent="organizations/other", user="organizations/other/users/eve")
    found = await eve.stream(make_call(model="test/echo", request_id=REQUEST_ID))
    assert found.refused.reason == "NO_USABLE_CREDENTIAL"


async def test_a_cancel_while_the_id_is_claimed_gives_it_back(stack: Stack) -> None:
    ledger = stack.router.ledger
    claim = ledger.claim
    claimed, go_on = asyncio.Event(), asyncio.Event()

    async def slow(organization: str, request_id: str, response_id: str, now: float) -> str | None:
        found = await claim(organization, request_id, response_id, now)
        claimed.set()
        await go_on.wait()
        return found

    ledger.claim = slow  # type: ignore[method-assign] # the durable part is done when the caller leaves
    opened = stack.member.open(make_call(request_id=REQUEST_ID))
    await claimed.wait()
    opened.cancel()
    await stack.wait_for_end(ReceiptState.CANCELLED)
    await stack.rest()
    ledger.claim = claim  # type: ignore[method-assign]
    stack.first.script(answer())
    assert (await stack.member.stream(make_call(request_id=REQUEST_ID))).error is None


async def test_a_cancel_while_credits_are_reserved_gives_them_back(stack: Stack) -> None:
    await stack.save_key("deployment/credentials/first")
    await stack.add_credits(10**9)
    ledger = stack.router.ledger
    reserve = ledger.reserve
    reserved, never = asyncio.Event(), asyncio.Event()

    async def slow(*arguments: object) -> None:
        await reserve(*arguments)  # type: ignore[arg-type] # passed on as they came
        reserved.set()
        await never.wait()

    ledger.reserve = slow  # type: ignore[method-assign,assignment] # the durable part is done when the caller leaves
    opened = stack.member.open(make_call(route_policy=make_policy(payers=["PAYER_CREDITS"])))
    await reserved.wait()
    opened.cancel()
    await stack.wait_for_end(ReceiptState.CANCELLED)
    await stack.rest()
    balance = await ledger.balance("demo")
    assert (balance.reserved_nanos, balance.balance_nanos) == (0, 10**9)


async def test_a_fault_of_our_own_is_a_failure_with_an_incident(stack: Stack) -> None:
    secret = "sk-must-not-leave"

    async def broken(*_: object) -> None:
        raise RuntimeError(secret)

    stack.router.credentials.holdings = broken  # type: ignore[method-assign,assignment] # any bug of ours
    found = await stack.member.stream()
    assert (found.refused.code, found.refused.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL")
    assert found.refused.metadata["incidentId"]
    assert secret not in found.refused.message
    assert (await stack.member.receipt(found.response_id)).state == receipt_pb2.RECEIPT_STATE_FAILED


async def test_a_slow_reader_stops_the_upstream(stack: Stack) -> None:
    piece, count = "x" * 65_536, 1500
    written = 0
    actions: list[Action] = [Send(head())]
    sent: list[asyncio.Event] = []
    for event in answer_events(*([piece] * count)):
        mark = asyncio.Event()
        sent.append(mark)
        actions += [Send(chunk(event)), Reached(mark)]
    stack.first.script([*actions, Send(LAST_CHUNK)])
    opened = stack.member.open()
    await opened.read()
    # The provider could write 94 MiB. It stands still when every buffer between it and the reader is full: when a
    # whole round trip of other calls brings it no further.
    before = -1
    while written != before:
        before = written
        for _ in range(20):
            await stack.member.receipt(await read_response_id(opened))
        written = sum(mark.is_set() for mark in sent)
    assert written * len(piece) < 32 * 1024 * 1024
    opened.cancel()
    await stack.first.wait_for_connections(0)
    receipt = await stack.wait_for_end(ReceiptState.CANCELLED)
    assert receipt.failure_reason is None


async def test_stopping_ends_what_runs_and_keeps_its_receipt(tmp_path: Path) -> None:
    async with running_stack(tmp_path) as stack:
        await stack.save_key(f"{DEMO}/credentials/first")
        stack.first.script(endless())
        opened = stack.member.open()
        await opened.read()
        response_id = await read_response_id(opened)
        await stack.router.stop()
        receipt = next(receipt for receipt in stack.receipts if receipt.response_id == response_id)
        assert receipt.state is ReceiptState.CANCELLED
        assert stack.first.open_connections == 0


async def test_a_service_acts_for_a_user_whose_receipt_it_is(stack: Stack) -> None:
    stack.first.script(answer())
    service = await stack.issue("MEMBER", application=CHAT, scopes=["COMPLETE", "ACT_ON_BEHALF", "READ_USAGE"])
    found = await service.stream(make_call(on_behalf_of_user=ADA))
    assert found.error is None
    assert (await stack.member.receipt(found.response_id)).response_id == found.response_id
    bob = await stack.issue("MEMBER", user=f"{DEMO}/users/bob")
    with pytest.raises(Exception, match="RESOURCE_NOT_FOUND"):
        await bob.receipt(found.response_id)
