"""Keys over both services: rotation, revocation, the credential service gone, tokens revoked, uses in the audit log."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import jwt
import pytest
from keyswitch.router.v1 import payer_pb2
from keyswitch.vault.v1 import credential_service_pb2, lease_service_pb2

from router_service.core.caller import Caller
from router_service.transport.interceptors.tokens import Verifier
from tests.fakes.scripted_upstream import Action, Pause, Send, Stall, chunk, head, respond
from tests.service.router_answers import Json, answer, answer_events
from tests.service.router_harness import (
    ADA,
    CHAT,
    DEMO,
    Stack,
    follow,
    make_call,
    make_policy,
    revoke_token_request,
    running_stack,
)
from tests.service.vault_harness import renew_leaves

MAIN = f"{DEMO}/credentials/first"
OWN = f"{ADA}/credentials/mine"
REJECTED: list[Action] = respond(b'{"error":{"message":"bad key","code":"invalid_api_key"}}', status=401)
EVENTS = answer_events("Hello", " world")


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[Stack]:
    async with running_stack(tmp_path) as running:
        yield running


def silence_changes(stack: Stack) -> None:
    """The router no longer hears of changes, as when they are still on their way."""
    credentials = stack.router.credentials
    apply = credentials._apply_change
    assert apply is not None
    credentials._apply_change = lambda change: None  # type: ignore[method-assign]


def keys_used(stack: Stack) -> list[str]:
    """The keys that the provider saw."""
    return [request.headers["authorization"].removeprefix("Bearer ") for request in stack.first.received]


async def test_a_rotated_key_is_fetched_anew_once_and_serves(stack: Stack) -> None:
    await stack.save_key(MAIN, "sk-old-0123456789")
    stack.first.script(answer(), REJECTED, answer("Hello"))
    await stack.member.stream()
    silence_changes(stack)  # the old lease stays in hand
    await stack.rotate_key(MAIN, "sk-new-0123456789")
    found = await stack.member.stream()
    assert found.text == "Hello"
    assert keys_used(stack) == ["sk-old-0123456789", "sk-old-0123456789", "sk-new-0123456789"]
    assert found.kinds[:2] == ["attempt_failed", "response_started"]
    assert found.receipt.attempts[1].credential_version == f"{MAIN}/versions/2"


async def test_a_rotated_key_is_an_attempt_like_any_other(stack: Stack) -> None:
    await stack.save_key(MAIN, "sk-old-0123456789")
    stack.first.script(answer(), REJECTED, answer("Hello"))
    await stack.member.stream()
    silence_changes(stack)
    await stack.rotate_key(MAIN, "sk-new-0123456789")
    found = await stack.member.stream(make_call(route_policy=make_policy(max_attempts=1)))
    assert found.refused.reason == "UPSTREAM_CREDENTIAL_REJECTED"
    assert len(stack.first.received) == 2


async def test_a_rejected_key_that_was_not_rotated_is_the_callers_to_mend(stack: Stack) -> None:
    await stack.save_key(MAIN)
    stack.first.script(REJECTED, answer())
    found = await stack.member.stream()
    assert (found.refused.code, found.refused.reason) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "UPSTREAM_CREDENTIAL_REJECTED",
    )
    assert found.refused.metadata["credential"] == MAIN
    assert len(stack.first.received) == 1


async def test_a_key_of_another_plan_is_said_to_be_one(tmp_path: Path) -> None:
    def subscribe(configuration: Json) -> None:
        configuration["providers"]["first"]["template"] = "zai-coding"

    refusal = respond(b'{"error":{"code":"1113","message":"Insufficient balance"}}', status=429)
    async with running_stack(tmp_path, configuration=subscribe) as stack:
        await stack.save_key(MAIN)
        stack.first.script(refusal)
        found = await stack.member.stream()
    assert (found.refused.code, found.refused.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "PLAN_MISMATCH")
    assert found.refused.metadata["plan"] == "coding"
    assert found.refused.metadata["detectedPlan"] == "providers/zai"
    assert found.refused.metadata["credential"] == MAIN


async def test_a_rejected_key_that_is_deleted_meanwhile_does_not_move_the_bill(stack: Stack) -> None:
    await stack.save_key("deployment/credentials/first")
    await stack.add_credits(10**9)
    await stack.save_key(MAIN, "sk-old-0123456789")
    go_on = asyncio.Event()
    stack.first.script([Pause(go_on), *REJECTED], answer("at whose cost"))
    opened = stack.member.open(make_call(route_policy=make_policy(payers=["PAYER_ORGANIZATION_KEY", "PAYER_CREDITS"])))
    await stack.first.wait_for_requests(1)
    await stack.delete_key(MAIN)
    go_on.set()
    found = await follow(opened)
    assert found.refused.reason == "UPSTREAM_CREDENTIAL_REJECTED"
    assert len(stack.first.received) == 1


async def test_a_deleted_key_passes_the_next_call_to_the_next_payer(stack: Stack) -> None:
    await stack.save_key(OWN)
    await stack.save_key(MAIN)
    stack.first.script(answer(), answer(), answer())
    found = await stack.member.stream()
    assert found.receipt.attempts[0].payer == payer_pb2.PAYER_USER_KEY
    await stack.delete_key(OWN)
    found = await stack.member.stream()
    assert found.receipt.attempts[0].payer == payer_pb2.PAYER_ORGANIZATION_KEY
    await stack.revoke(MAIN)
    found = await stack.member.stream()
    assert (found.refused.code, found.refused.reason) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "NO_USABLE_CREDENTIAL",
    )
    assert len(stack.first.received) == 2


async def test_a_revocation_that_the_router_has_not_heard_of_is_learnt_from_the_lease(stack: Stack) -> None:
    await stack.save_key(OWN)
    await stack.save_key(MAIN)
    await stack.router.credentials.holdings(
        await identify(stack), ADA
    )  # the list is known, the key itself was never leased
    silence_changes(stack)
    await stack.revoke(OWN)
    stack.first.script(answer())
    found = await stack.member.stream()
    assert found.receipt.attempts[0].payer == payer_pb2.PAYER_ORGANIZATION_KEY
    assert keys_used(stack) == ["sk-first-0123456789"]


async def identify(stack: Stack) -> Caller:
    """Who the member is to the router."""
    router = stack.router
    verifier = Verifier(lambda: "keyswitch", router.credentials.signing_keys, router.engine.edges.clock)
    return await verifier.verify(stack.member.token)


async def test_a_revocation_lets_a_stream_run_to_its_end_unless_it_says_otherwise(stack: Stack) -> None:
    await stack.save_key(MAIN)
    go_on = asyncio.Event()
    sent: list[Action] = [Send(chunk(event)) for event in EVENTS]
    stack.first.script([Send(head()), *sent[:3], Pause(go_on), *sent[3:], Send(b"0\r\n\r\n")])
    opened = stack.member.open()
    await opened.read()
    await stack.revoke(MAIN)
    go_on.set()
    assert (await follow(opened)).error is None


async def test_a_revocation_that_kills_cuts_the_stream(stack: Stack) -> None:
    await stack.save_key(MAIN)
    stack.first.script([Send(head()), *(Send(chunk(event)) for event in EVENTS[:3]), Stall()])
    opened = stack.member.open()
    await opened.read()
    await stack.revoke(MAIN, kill_in_flight=True)
    found = await follow(opened)
    assert (found.refused.code, found.refused.reason) == (grpc.StatusCode.ABORTED, "CREDENTIAL_REVOKED")
    assert found.refused.metadata["committed"] == "true"
    await stack.first.wait_for_connections(0)


async def test_a_revocation_that_kills_does_not_wait_for_the_head(stack: Stack) -> None:
    await stack.save_key(MAIN)
    stack.first.script([Stall()])
    opened = stack.member.open()
    await stack.first.wait_for_requests(1)
    await stack.revoke(MAIN, kill_in_flight=True)
    found = await follow(opened)
    assert found.refused.reason == "CREDENTIAL_REVOKED"
    assert "committed" not in found.refused.metadata
    await stack.first.wait_for_connections(0)


async def test_breaking_the_glass_cuts_every_stream_of_an_owner(stack: Stack) -> None:
    await stack.save_key(OWN)
    stack.first.script([Send(head()), *(Send(chunk(event)) for event in EVENTS[:3]), Stall()])
    opened = stack.member.open()
    await opened.read()
    revocation = credential_service_pb2.Revocation(kill_in_flight=True)
    request = credential_service_pb2.RevokeAllCredentialsRequest(parent=DEMO, revocation=revocation)
    operator = stack.vault.operator
    await operator.call(operator.credentials.RevokeAllCredentials, request)
    assert (await follow(opened)).refused.reason == "CREDENTIAL_REVOKED"


async def test_the_credential_service_gone_is_not_about_the_caller(stack: Stack) -> None:
    """Leases in hand serve until the grace is over; then the call is refused and the key is not used."""
    await stack.save_key(MAIN)
    stack.first.script(answer(), answer())
    await stack.member.stream()
    credentials = stack.router.credentials
    await stack.vault.service.stop(grace_seconds=0)
    credentials._heard = credentials._monotonic()
    assert (await stack.member.stream()).error is None
    credentials._heard = float("-inf")
    found = await stack.member.stream()
    assert (found.refused.code, found.refused.reason) == (grpc.StatusCode.UNAVAILABLE, "CREDENTIALS_UNAVAILABLE")
    assert found.refused.retry_seconds is not None
    assert len(stack.first.received) == 2


async def test_a_cold_lease_needs_the_credential_service(stack: Stack) -> None:
    await stack.save_key(MAIN)
    await stack.router.credentials.holdings(await identify(stack), ADA)
    await stack.vault.service.stop(grace_seconds=0)
    stack.router.credentials._heard = stack.router.credentials._monotonic()
    found = await stack.member.stream()
    assert found.refused.reason == "CREDENTIALS_UNAVAILABLE"
    assert stack.first.received == []


async def test_a_revoked_token_is_refused(stack: Stack) -> None:
    await stack.save_key(MAIN)
    stack.first.script(answer(), answer())
    operator = stack.vault.operator
    short = await stack.issue("MEMBER", user=ADA, application=CHAT)
    assert (await short.stream()).error is None
    claims = jwt.decode(short.token, options={"verify_signature": False})
    await operator.call(operator.tokens.RevokeToken, revoke_token_request(f"{DEMO}/tokens/{claims['jti']}"))
    await stack.settle()
    found = await short.stream()
    assert (found.refused.code, found.refused.reason) == (grpc.StatusCode.UNAUTHENTICATED, "CALLER_UNKNOWN")
    assert found.refused.metadata["cause"] == "token_revoked"
    assert (await stack.member.stream()).error is None


async def test_a_lease_and_its_uses_are_in_the_audit_log(stack: Stack) -> None:
    await stack.save_key(MAIN)
    stack.first.script(answer(), REJECTED)
    served = await stack.member.stream()
    await stack.member.stream()
    await stack.router.credentials.uses.flush()
    records = [json.loads(line) for line in stack.vault.audit_bytes().splitlines()]
    text = [json.dumps(record) for record in records]
    lease_id = served.receipt.attempts[0].lease_id
    about = [one for one in text if lease_id in one]
    assert any("USE" in one and served.response_id in one for one in about)
    assert any("LEASE" in one for one in text if served.response_id in one)
    assert any("SUCCEEDED" in one for one in about)
    assert any("REJECTED" in one for one in about)
    assert ADA in "".join(about)


async def test_own_keys_that_are_switched_off_are_ignored(stack: Stack) -> None:
    await stack.save_key(OWN)
    stack.reconfigure(lambda file: file["deployment"].update(byok_enabled=False))
    policy = make_policy(payers=["PAYER_USER_KEY"])
    found = await stack.member.stream(make_call(route_policy=policy))
    assert (found.refused.code, found.refused.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "BYOK_DISABLED")
    await stack.save_key(MAIN)
    stack.first.script(answer())
    found = await stack.member.stream()
    assert found.receipt.attempts[0].payer == payer_pb2.PAYER_ORGANIZATION_KEY


def native(configuration: Json) -> None:
    """The application has a native provider."""
    configuration["organizations"]["demo"]["applications"]["chat"].update(
        native_provider="first", payers=["ORGANIZATION_KEY", "CREDITS"]
    )


async def test_an_own_key_serves_only_the_native_provider_until_it_is_deleted(stack: Stack) -> None:
    stack.reconfigure(native)
    await stack.save_key(MAIN)
    await stack.save_key("deployment/credentials/second", provider="second")
    await stack.add_credits(10**9)
    found = await stack.member.stream(make_call(model="test/other"))
    assert (found.refused.code, found.refused.reason) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "MODEL_NOT_ALLOWED_WITH_OWN_KEY",
    )
    assert found.refused.metadata == {"model": "test/other", "nativeProvider": "providers/first"}
    await stack.delete_key(MAIN)
    stack.second.script(answer())
    found = await stack.member.stream(make_call(model="test/other"))
    assert found.receipt.attempts[0].payer == payer_pb2.PAYER_CREDITS


async def test_many_cold_keys_are_leased_together(stack: Stack) -> None:
    """Each caller's call goes out with that caller's key, and one answer of the credential service brought them."""
    users = [f"{DEMO}/users/user-{number}" for number in range(8)]
    callers = [await stack.issue("MEMBER", user=user, application=CHAT) for user in users]
    for number, user in enumerate(users):
        await stack.save_key(f"{user}/credentials/mine", f"sk-of-{number}-0123456789")
    stack.first.script(*[answer("Hello") for _ in users])
    answers = await asyncio.gather(*(caller.stream() for caller in callers))
    assert [found.text for found in answers] == ["Hello"] * len(users)
    assert sorted(keys_used(stack)) == [f"sk-of-{number}-0123456789" for number in range(8)]
    for user, found in zip(users, answers, strict=True):
        assert found.receipt.attempts[0].credential_version == f"{user}/credentials/mine/versions/1"
    url = f"http://127.0.0.1:{stack.vault.service.http_port}/metrics"
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        calls = [line for line in (await response.text()).splitlines() if "BatchLeaseCredentials" in line]
    assert any(line.startswith("keyswitch_vault_calls_total") and 'code="OK"' in line for line in calls)


async def test_what_waits_to_be_sent_when_the_certificate_is_renewed_goes_over_the_new_connection(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lease that came too soon after the one before waits for its turn; its connection is closed in between."""
    await stack.save_key(MAIN)
    stack.first.script(answer("one"), answer("two"))
    await stack.member.stream()
    queue: Any = stack.router.credentials._link.leases
    sent, send = asyncio.Event(), queue._send
    monkeypatch.setattr(queue, "_send", sent.set)
    stack.end_leases()
    waiting = asyncio.create_task(stack.member.stream())
    await sent.wait()
    renew_leaves(stack.home)
    assert await stack.router.renew_certificate()
    send()
    assert (await waiting).text == "two"


def copied(lease: lease_service_pb2.LeaseCredentialResponse) -> lease_service_pb2.LeaseCredentialResponse:
    copy = lease_service_pb2.LeaseCredentialResponse()
    copy.CopyFrom(lease)
    return copy


class LyingService:
    """What comes to the router in place of the credential service's answers, from somebody who stands between them and
    holds the lease's bytes, or from a service that mixes its answers up."""

    def __init__(self, stack: Stack) -> None:
        queue: Any = stack.router.credentials._link.leases
        self._ask = queue.ask
        self.heard: dict[str, lease_service_pb2.LeaseCredentialResponse] = {}
        self.change: Callable[[lease_service_pb2.LeaseCredentialResponse], Any] = lambda lease: lease
        queue.ask = self.ask

    async def ask(self, request: lease_service_pb2.LeaseCredentialRequest, seconds: float) -> Any:
        lease = await self._ask(request, seconds)
        self.heard[request.name.partition("/versions/")[0]] = copied(lease)
        return self.change(copied(lease))


async def test_a_lease_answer_that_was_replayed_swapped_or_cut_is_not_used(stack: Stack) -> None:
    shared = "deployment/credentials/first"
    await stack.save_key(MAIN, "sk-own-0123456789")
    await stack.save_key(shared, "sk-shared-0123456789")
    await stack.add_credits(10**9)
    between = LyingService(stack)
    stack.first.choose = lambda _: answer("Hello")
    own, on_credits = (
        make_call(route_policy=make_policy(payers=[one])) for one in ("PAYER_ORGANIZATION_KEY", "PAYER_CREDITS")
    )
    for call in (own, on_credits):
        assert (await stack.member.stream(call)).error is None

    def cut(lease: lease_service_pb2.LeaseCredentialResponse) -> lease_service_pb2.LeaseCredentialResponse:
        lease.sealed_material = lease.sealed_material[:-1]
        return lease

    def renamed(lease: lease_service_pb2.LeaseCredentialResponse) -> lease_service_pb2.LeaseCredentialResponse:
        other = copied(between.heard[shared])
        other.credential_version = lease.credential_version
        return other

    lies: dict[str, Callable[[Any], Any]] = {
        "the deployment's, for the organization's": lambda _: copied(between.heard[shared]),
        "the same under the right name": renamed,
        "cut": cut,
        "empty": lambda _: lease_service_pb2.LeaseCredentialResponse(),
    }
    sent = len(stack.first.received)
    for how, lie in lies.items():
        stack.end_leases()
        between.change = lie
        refused = (await stack.member.stream(own)).refused
        assert (refused.code, refused.reason) == (grpc.StatusCode.UNAVAILABLE, "CREDENTIALS_UNAVAILABLE"), how
        assert len(stack.first.received) == sent, how
    between.change = lambda lease: lease
    assert (await stack.member.stream(own)).error is None
    assert keys_used(stack)[-1] == "sk-own-0123456789"
