"""Limits end to end: rates, slots that queue and spill, what rests and comes back, over one router and over two."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock

import grpc
import pytest
from keyswitch.router.v1 import (
    error_reason_pb2,
    payer_pb2,
    provider_service_pb2,
    provider_service_pb2_grpc,
    resolution_pb2,
    route_policy_pb2,
    routing_service_pb2,
    routing_service_pb2_grpc,
)
from keyswitch.vault.v1 import credential_pb2, credential_service_pb2

from router_service.app import RunningRouter
from router_service.core.receipt import ReceiptState
from router_service.policy.cooldown import RestCause
from router_service.state.memory import MemoryLimits
from tests.fakes.redis_server import RedisServer
from tests.fakes.scripted_upstream import Pause, Reset, Send, chunk, head, respond
from tests.service.router_answers import Json, answer, answer_events
from tests.service.router_harness import DEMO, Caller, Refused, Stack, make_call, make_policy, running_stack
from tests.service.two_routers import second_router

FIRST = f"{DEMO}/credentials/first"
Pair = tuple[Stack, Caller, RunningRouter]


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[Stack]:
    async with running_stack(tmp_path) as running:
        for provider in ("first", "second"):
            await running.save_key(f"{DEMO}/credentials/{provider}", provider=provider)
        yield running


async def limit_slots(stack: Stack, limit: int, name: str = FIRST) -> None:
    """Sets how many calls may use a credential at once."""
    credential = credential_pb2.Credential(name=name, max_concurrent_requests=limit)
    current = await stack.admin.call(
        stack.admin.credentials.GetCredential, credential_service_pb2.GetCredentialRequest(name=name)
    )
    credential.etag = current.credential.etag
    request = credential_service_pb2.UpdateCredentialRequest(credential=credential)
    request.update_mask.paths.append("max_concurrent_requests")
    await stack.admin.call(stack.admin.credentials.UpdateCredential, request)
    await stack.settle()


async def wait_for_slots(stack: Stack, taken: int, waiting: int) -> None:
    """Returns when so many calls have a slot of the first credential and so many wait for one."""
    async with asyncio.timeout(60):
        while await stack.router.limits.count_slots(FIRST) != (taken, waiting):
            await asyncio.sleep(0)


def set_limits(made: Json, where: str, **limits: int) -> None:
    """Limits of the organization, or of the application chat."""
    demo = made["organizations"]["demo"]
    (demo["applications"]["chat"] if where == "application" else demo).update(
        {"limits" if where in {"application", "organization"} else f"{where}_limits": limits}
    )


def held_answer(until: asyncio.Event, text: str = "Hello") -> list[Send | Pause]:
    """An answer whose first part comes at once and whose rest waits."""
    events = answer_events(text)
    return [
        Send(head()),
        *(Send(chunk(event)) for event in events[:2]),
        Pause(until),
        *(Send(chunk(event)) for event in events[2:]),
        Send(b"0\r\n\r\n"),
    ]


# --- rates ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tier", ["organization", "application", "user", "token"])
async def test_a_rate_of_requests_refuses_and_says_when(stack: Stack, tier: str) -> None:
    stack.reconfigure(lambda made: set_limits(made, tier, requests_per_minute=2))
    stack.first.script(answer(), answer())
    for _ in range(2):
        assert (await stack.member.stream(make_call(model="test/echo"))).error is None
    refused = (await stack.member.stream(make_call(model="test/echo"))).refused
    assert (refused.code, refused.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED")
    assert refused.metadata == {"tier": tier, "limit": "requests_per_minute"}
    assert refused.retry_seconds is not None
    assert 0 < refused.retry_seconds <= 62
    assert len(stack.first.received) == 2


async def test_tokens_are_guessed_before_and_corrected_after(stack: Stack) -> None:
    stack.reconfigure(lambda made: set_limits(made, "user", tokens_per_minute=2000))
    stack.first.script(*(answer() for _ in range(20)))  # each says that it used 150 tokens
    answered = 0
    while True:
        found = await stack.member.stream(make_call(model="test/echo"))
        await stack.rest()
        if found.error is not None:
            break
        answered += 1
    assert found.refused.metadata == {"tier": "user", "limit": "tokens_per_minute"}
    # 1030 are taken at first: the guess fits for as long as no more than 970 are used.
    assert answered == 7


async def test_a_call_that_sends_nothing_uses_no_tokens(stack: Stack) -> None:
    stack.reconfigure(lambda made: set_limits(made, "user", tokens_per_minute=1500))
    for _ in range(5):
        found = await stack.member.stream(make_call(model="test/nowhere"))
        await stack.rest()
        assert found.refused.reason == "MODEL_NOT_FOUND"


# --- slots ---------------------------------------------------------------------------------------------------------


async def test_a_full_credential_queues_and_then_serves(stack: Stack) -> None:
    await limit_slots(stack, 1)
    free = asyncio.Event()
    stack.first.script(held_answer(free, "one"), answer("two"))
    first = asyncio.ensure_future(stack.member.stream(make_call(model="test/echo")))
    await stack.first.wait_for_requests(1)
    second = asyncio.ensure_future(stack.member.stream(make_call(model="test/echo")))
    limits = stack.router.limits
    await wait_for_slots(stack, 1, 1)
    assert len(stack.first.received) == 1
    free.set()
    assert [(await first).text, (await second).text] == ["one", "two"]
    await stack.rest()
    await stack.router.engine.edges.admission.slots.close()
    assert await limits.count_slots(FIRST) == (0, 0)


async def test_a_full_credential_spills_to_the_next_candidate(stack: Stack) -> None:
    await limit_slots(stack, 1)
    free = asyncio.Event()
    stack.first.script(held_answer(free))
    stack.second.script(answer("spilled"))
    first = asyncio.ensure_future(stack.member.stream(make_call(model="test/both")))
    await stack.first.wait_for_requests(1)
    call = make_call(model="test/both", route_policy=make_policy(max_queue_wait=0.05, max_attempts=1))
    found = await stack.member.stream(call)
    assert found.text == "spilled"
    receipt = found.receipt
    assert [attempt.provider for attempt in receipt.attempts] == ["providers/second"]
    skipped = [one for one in receipt.skipped_candidates if one.reason == resolution_pb2.SKIP_REASON_SLOTS_TAKEN]
    assert [one.provider for one in skipped] == ["providers/first"]
    free.set()
    assert (await first).error is None


async def test_without_another_candidate_it_waits_until_the_deadline(stack: Stack) -> None:
    await limit_slots(stack, 1)
    free = asyncio.Event()
    stack.first.script(held_answer(free))
    first = asyncio.ensure_future(stack.member.stream(make_call(model="test/echo")))
    await stack.first.wait_for_requests(1)
    found = await stack.member.stream(make_call(model="test/echo"), timeout=3.0)
    refused = found.refused
    assert (refused.code, refused.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "CONCURRENCY_LIMITED")
    assert refused.metadata == {"credential": FIRST, "limit": "1"}
    assert refused.retry_seconds is not None
    free.set()
    assert (await first).error is None


async def test_a_caller_that_leaves_the_queue_leaves_no_slot_behind(stack: Stack) -> None:
    await limit_slots(stack, 1)
    free = asyncio.Event()
    stack.first.script(held_answer(free), answer("last"))
    first = asyncio.ensure_future(stack.member.stream(make_call(model="test/echo")))
    await stack.first.wait_for_requests(1)
    waiting = [stack.member.open(make_call(model="test/echo")) for _ in range(3)]
    readers = [asyncio.ensure_future(call.read()) for call in waiting]
    limits = stack.router.limits
    await wait_for_slots(stack, 1, 3)
    for call in waiting:
        call.cancel()
    await stack.wait_for_end(ReceiptState.CANCELLED, 3)
    await asyncio.gather(*readers, return_exceptions=True)
    free.set()
    assert (await first).error is None
    assert (await stack.member.stream(make_call(model="test/echo"))).text == "last"
    await stack.rest()
    await stack.router.engine.edges.admission.slots.close()
    assert await limits.count_slots(FIRST) == (0, 0)


# --- what rests ----------------------------------------------------------------------------------------------------


def set_clock(stack: Stack) -> list[float]:
    """A clock for what rests; the test moves it."""
    now = [1000.0]
    limits = stack.router.limits
    assert isinstance(limits, MemoryLimits)
    limits._clock = lambda: now[0]
    admission = stack.router.engine.edges.admission
    admission._clock = admission.board._clock = lambda: now[0]
    return now


async def test_a_throttled_key_rests_and_comes_back_by_itself(stack: Stack) -> None:
    now = set_clock(stack)
    stack.first.script(respond(b'{"error":{"message":"slow"}}', status=429, retry_after="40"), answer("back"))
    stack.second.script(answer("second"), answer("second"))
    assert (await stack.member.stream(make_call(model="test/both"))).text == "second"
    found = await stack.member.stream(make_call(model="test/both"))
    assert len(stack.first.received) == 1
    skipped = found.receipt.skipped_candidates
    assert [(one.provider, one.reason) for one in skipped if one.reason == resolution_pb2.SKIP_REASON_COOLING_DOWN] == [
        ("providers/first", resolution_pb2.SKIP_REASON_COOLING_DOWN)
    ]
    now[0] += 41
    assert (await stack.member.stream(make_call(model="test/both"))).text == "back"
    await stack.rest()
    assert stack.router.engine.edges.admission.board.current == {}


async def test_a_key_that_rests_alone_says_until_when(stack: Stack) -> None:
    set_clock(stack)
    stack.first.script(respond(b"{}", status=429, retry_after="40"))
    assert (await stack.member.stream(make_call(model="test/echo"))).refused.reason == "UPSTREAM_RATE_LIMITED"
    refused = (await stack.member.stream(make_call(model="test/echo"))).refused
    assert refused.reason == "UPSTREAM_RATE_LIMITED"
    assert refused.metadata["coolingDown"] == "true"
    assert refused.retry_seconds is not None
    assert 30 < refused.retry_seconds <= 40
    assert len(stack.first.received) == 1


async def test_what_rests_moves_the_bill_only_for_a_stated_cause(stack: Stack) -> None:
    now = set_clock(stack)
    await stack.save_key("deployment/credentials/first")
    await stack.add_credits(10**9)
    stack.first.script(respond(b"{}", status=429, retry_after="40"), answer("paid"), answer("back"))
    assert (await stack.member.stream(make_call(model="test/echo"))).refused.reason == "UPSTREAM_RATE_LIMITED"
    assert (await stack.member.stream(make_call(model="test/echo"))).refused.reason == "UPSTREAM_RATE_LIMITED"
    stack.reconfigure(
        lambda made: made["organizations"]["demo"]["applications"]["chat"].update(payer_failover_on=["RATE_LIMITED"])
    )
    found = await stack.member.stream(make_call(model="test/echo"))
    assert found.text == "paid"
    assert found.receipt.attempts[0].payer not in {payer_pb2.PAYER_ORGANIZATION_KEY, payer_pb2.PAYER_USER_KEY}
    causes = route_policy_pb2.PayerFailover()
    narrowed = make_call(model="test/echo", route_policy=make_policy(payer_failover_on=causes))
    assert (await stack.member.stream(narrowed)).refused.reason == "UPSTREAM_RATE_LIMITED"
    now[0] += 41
    back = await stack.member.stream(make_call(model="test/echo"))
    assert back.receipt.attempts[0].payer == payer_pb2.PAYER_ORGANIZATION_KEY


async def test_a_breaker_opens_after_failures_in_a_row_and_one_call_tries(stack: Stack) -> None:
    now = set_clock(stack)
    call = make_call(model="test/echo", route_policy=make_policy(max_attempts=1))
    for _ in range(5):
        stack.first.script([Reset()])
        assert (await stack.member.stream(call)).refused.metadata.get("coolingDown") is None
    assert (await stack.member.stream(call)).refused.metadata["limit"] == RestCause.BREAKER.value
    assert len(stack.first.received) == 5
    now[0] += 16
    stack.first.script([Reset()])
    assert (await stack.member.stream(call)).refused.metadata.get("coolingDown") is None
    refused = (await stack.member.stream(call)).refused
    assert refused.metadata["coolingDown"] == "true"
    assert refused.retry_seconds is not None
    assert 25 < refused.retry_seconds <= 30  # twice as long
    now[0] += 31
    stack.first.script(answer("back"))
    assert (await stack.member.stream(call)).text == "back"
    await stack.rest()
    assert stack.router.engine.edges.admission.board.current == {}


async def test_a_time_out_that_the_caller_made_short_opens_no_breaker(stack: Stack) -> None:
    hold = asyncio.Event()
    call = make_call(model="test/echo", route_policy=make_policy(max_attempts=1, first_content_timeout=0.02))
    for _ in range(7):
        stack.first.script([Pause(hold)])
        assert (await stack.member.stream(call)).refused.reason == "UPSTREAM_TIMEOUT"
    stack.first.script(answer("fine"))
    assert (await stack.member.stream(make_call(model="test/echo"))).text == "fine"


async def test_an_unreachable_provider_is_probed_without_a_key_and_comes_back(stack: Stack) -> None:
    call = make_call(model="test/echo", route_policy=make_policy(max_attempts=1))
    port = stack.first.port
    stack.reconfigure(lambda made: made["providers"]["first"].update(base_url="http://127.0.0.1:9/v1"))
    await stack.save_key(f"{DEMO}/users/ada/credentials/first", provider="first")
    for _ in range(5):
        assert (await stack.member.stream(call)).refused.reason == "UPSTREAM_UNAVAILABLE"
    board, prober = stack.router.engine.edges.admission.board, stack.router.prober
    assert [rest.cause for rest in board.current.values()] == [RestCause.UNREACHABLE]
    await prober.probe_all()
    assert len(board.current) == 1
    stack.reconfigure(lambda made: made["providers"]["first"].update(base_url=f"http://127.0.0.1:{port}/v1"))
    stack.first.script(respond(b'{"error":{"message":"no key"}}', status=401))
    await prober.probe_all()
    assert board.current == {}
    probe = stack.first.received[-1]
    assert (probe.method, probe.path) == ("GET", "/v1/models")
    assert "authorization" not in probe.headers


async def open_breaker(stack: Stack) -> Callable[[], Awaitable[None]]:
    """Gives a round of probes, which now happens only when the test says so."""
    prober = stack.router.prober
    probe_all = prober.probe_all
    prober.probe_all = AsyncMock()  # type: ignore[method-assign] # the router's own rounds would come in between
    call = make_call(model="test/echo", route_policy=make_policy(max_attempts=1))
    for _ in range(5):
        stack.first.script([Reset()])
        assert (await stack.member.stream(call)).refused.reason == "UPSTREAM_UNAVAILABLE"
    return probe_all


async def test_a_provider_that_answers_a_probe_again_is_tried_by_one_call(stack: Stack) -> None:
    now = set_clock(stack)
    call = make_call(model="test/echo", route_policy=make_policy(max_attempts=1))
    probe_all = await open_breaker(stack)
    board = stack.router.engine.edges.admission.board
    stack.first.script(respond(b"{}", status=503))
    await probe_all()
    assert (await stack.member.stream(call)).refused.metadata["coolingDown"] == "true"
    stack.first.script(respond(b"{}", status=401))
    await probe_all()
    assert "authorization" not in stack.first.received[-1].headers
    now[0] += 0.001
    hold = asyncio.Event()
    stack.first.script(held_answer(hold))
    first = asyncio.create_task(stack.member.stream(call))
    while len(stack.first.received) < 8:
        await asyncio.sleep(0)
    assert board.current[next(iter(board.current))].is_probed(now[0])
    hold.set()
    assert (await first).text == "Hello"
    await stack.rest()
    assert board.current == {}


async def test_a_probe_lets_a_call_try_what_goes_on_failing_once_a_minute(stack: Stack) -> None:
    now = set_clock(stack)
    call = make_call(model="test/echo", route_policy=make_policy(max_attempts=1))
    probe_all = await open_breaker(stack)
    stack.first.script(respond(b"{}", status=401), [Reset()], respond(b"{}", status=401))
    await probe_all()
    now[0] += 0.001
    assert (await stack.member.stream(call)).refused.metadata.get("coolingDown") is None
    await probe_all()
    refused = (await stack.member.stream(call)).refused
    assert refused.metadata["coolingDown"] == "true"
    assert refused.retry_seconds is not None
    assert 25 < refused.retry_seconds <= 30


async def test_what_rests_is_listed_for_those_whose_keys_they_are(stack: Stack) -> None:
    routing: Any = routing_service_pb2_grpc.RoutingServiceStub(stack.channel)
    admin, operator = stack.caller(stack.admin.token), stack.caller(stack.vault.operator.token)
    stack.first.script(respond(b"{}", status=429, retry_after="40"))
    await stack.member.stream(make_call(model="test/echo", route_policy=make_policy(max_attempts=1)))

    async def rests(who: Caller, parent: str) -> list[routing_service_pb2.Rest]:
        request = routing_service_pb2.ListRestsRequest(parent=parent)
        return list((await who.call(routing.ListRests, request)).rests)

    (rest,) = await rests(admin, DEMO)
    assert (rest.credential, rest.model, rest.provider) == (f"{FIRST}/versions/1", "test/echo", "")
    assert rest.cause == routing_service_pb2.REST_CAUSE_RATE
    assert rest.failure_reason == error_reason_pb2.ERROR_REASON_UPSTREAM_RATE_LIMITED
    assert 0 < rest.end_time.ToSeconds() - time.time() <= 41
    assert await rests(operator, "deployment") == [rest]
    for who, parent, reason in (
        (stack.member, DEMO, "CALLER_NOT_ALLOWED"),
        (admin, "deployment", "CALLER_NOT_ALLOWED"),
        (admin, "organizations/rival", "RESOURCE_NOT_FOUND"),
        (admin, "everything", "INVALID_REQUEST"),
    ):
        with pytest.raises(Refused) as refused:
            await rests(who, parent)
        assert refused.value.reason == reason


async def test_an_operator_probes_a_provider_by_hand(stack: Stack) -> None:
    providers: Any = provider_service_pb2_grpc.ProviderServiceStub(stack.channel)
    operator = stack.caller(stack.vault.operator.token)
    await open_breaker(stack)

    async def probe(who: Caller) -> provider_service_pb2.ProbeProviderResponse:
        request = provider_service_pb2.ProbeProviderRequest(name="providers/first")
        answer: provider_service_pb2.ProbeProviderResponse = await who.call(providers.ProbeProvider, request)
        return answer

    # Of a connection that is reset under a GET the client tries once more.
    stack.first.script([Reset()], [Reset()], respond(b"{}", status=401))
    silent, found = await probe(operator), await probe(operator)
    assert (silent.is_reachable, silent.http_status, silent.HasField("duration")) == (False, 0, False)
    assert (found.is_reachable, found.http_status, found.ended_rest_count) == (True, 401, 1)
    assert found.HasField("duration")
    with pytest.raises(Refused) as refused:
        await probe(stack.caller(stack.admin.token))
    assert refused.value.reason == "CALLER_NOT_ALLOWED"
    for _ in range(10):
        stack.first.script(respond(b"{}", status=401))
        await probe(operator)
    with pytest.raises(Refused) as refused:
        await probe(operator)
    assert (refused.value.reason, refused.value.metadata["limit"]) == ("RATE_LIMITED", "probes_per_minute")
    assert refused.value.retry_seconds


async def test_an_attempt_has_an_end(stack: Stack) -> None:
    stack.reconfigure(lambda made: made["providers"]["first"].update(attempt_timeout_seconds=2.0))
    stack.first.script(held_answer(asyncio.Event()))
    refused = (await stack.member.stream(make_call(model="test/echo"))).refused
    assert (refused.code, refused.reason) == (grpc.StatusCode.ABORTED, "UPSTREAM_TIMEOUT")
    assert refused.metadata["timeout"] == "whole"


# --- two routers ---------------------------------------------------------------------------------------------------


@pytest.fixture
async def pair(tmp_path: Path, redis_server: RedisServer) -> AsyncIterator[Pair]:
    with redis_server.connect() as client:
        client.flushall()
    async with running_stack(tmp_path, limits=redis_server.url(), routers=2) as running:
        for provider in ("first", "second"):
            await running.save_key(f"{DEMO}/credentials/{provider}", provider=provider)
        async with second_router(running, tmp_path) as (caller, router):
            yield running, caller, router


async def test_two_routers_share_a_slot(pair: Pair) -> None:
    stack, other, _ = pair
    await limit_slots(stack, 1)
    free = asyncio.Event()
    stack.first.script(held_answer(free, "one"), answer("two"))
    first = asyncio.ensure_future(stack.member.stream(make_call(model="test/echo")))
    await stack.first.wait_for_requests(1)
    while True:  # until the other router knows of the limit too
        found = await other.stream(make_call(model="test/echo"), timeout=2.0)
        if found.refused.reason == "CONCURRENCY_LIMITED":
            break
    assert len(stack.first.received) == 1
    second = asyncio.ensure_future(other.stream(make_call(model="test/echo")))
    await wait_for_slots(stack, 1, 1)
    free.set()
    assert [(await first).text, (await second).text] == ["one", "two"]


async def test_two_routers_share_a_rate(pair: Pair) -> None:
    stack, other, _ = pair
    stack.reconfigure(lambda made: set_limits(made, "organization", requests_per_minute=6))
    stack.first.script(*(answer() for _ in range(20)))
    calls = [caller.stream(make_call(model="test/echo")) for _ in range(8) for caller in (stack.member, other)]
    found = await asyncio.gather(*calls)
    assert sum(one.error is None for one in found) == 6
    assert {one.error.reason for one in found if one.error is not None} == {"RATE_LIMITED"}
    assert len(stack.first.received) == 6


async def test_two_routers_share_what_rests(pair: Pair) -> None:
    stack, other, second = pair
    stack.first.script(respond(b"{}", status=429, retry_after="40"))
    assert (await stack.member.stream(make_call(model="test/echo"))).refused.reason == "UPSTREAM_RATE_LIMITED"
    await second.engine.edges.admission.board.refresh()  # which it does four times a second
    refused = (await other.stream(make_call(model="test/echo"))).refused
    assert refused.metadata["coolingDown"] == "true"
    assert len(stack.first.received) == 1


async def test_a_store_that_is_away_refuses_only_what_is_limited(tmp_path: Path, own_redis_server: RedisServer) -> None:
    async with running_stack(tmp_path, limits=own_redis_server.url()) as stack:
        await stack.save_key(FIRST)
        own_redis_server.stop()
        stack.first.script(answer("unlimited"))
        assert (await stack.member.stream(make_call(model="test/echo"))).text == "unlimited"
        stack.reconfigure(lambda made: set_limits(made, "organization", requests_per_minute=6))
        refused = (await stack.member.stream(make_call(model="test/echo"))).refused
        assert (refused.code, refused.reason) == (grpc.StatusCode.UNAVAILABLE, "LIMITS_UNAVAILABLE")
        assert refused.metadata == {"limit": "rates"}
        assert refused.retry_seconds is not None
