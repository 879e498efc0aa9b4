"""Limits set over gRPC: whose they are, what of them is refused, and that they hold for the next call everywhere."""

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from keyswitch.router.v1 import application_service_pb2 as applications
from keyswitch.router.v1 import configuration_service_pb2 as interchange
from keyswitch.router.v1 import organization_service_pb2 as organizations
from keyswitch.router.v1 import resolution_pb2
from keyswitch.router.v1.configuration_pb2 import RateLimits

from router_service.catalog.catalog import RateLimits as Held
from tests.fakes.postgres_server import PostgresServer
from tests.fakes.redis_server import RedisServer
from tests.service.configuration_harness import Desk, desks
from tests.service.router_answers import answer
from tests.service.router_harness import CHAT, DEMO, make_call, running_stack
from tests.service.test_router_limits import held_answer, limit_slots
from tests.service.two_routers import running_pair

POLICY = f"{DEMO}/policy"
TIERS = {"organization": "limits", "user": "user_limits", "token": "token_limits"}


def policy(*paths: str, **fields: Any) -> organizations.SetOrganizationPolicyRequest:
    return organizations.SetOrganizationPolicyRequest(
        policy=organizations.OrganizationPolicy(name=POLICY, **fields),
        update_mask=FieldMask(paths=paths or list(fields)),
        override_file=True,
    )


def application(*paths: str, **fields: Any) -> applications.UpdateApplicationRequest:
    return applications.UpdateApplicationRequest(
        application=applications.Application(name=CHAT, **fields),
        update_mask=FieldMask(paths=paths or list(fields)),
        override_file=True,
    )


@pytest.mark.parametrize("tier", ["organization", "application", "user", "token"])
async def test_a_limit_refuses_the_next_call_on_both_routers(
    tmp_path: Path, own_postgres_server: PostgresServer, redis_server: RedisServer, tier: str
) -> None:
    async with running_pair(tmp_path, own_postgres_server, redis_server) as pair:
        pair.stack.first.script(answer(), answer(), answer())
        assert (await pair.stack.member.stream(make_call(model="test/echo"))).error is None
        one = RateLimits(requests_per_minute=1)
        if tier == "application":
            await pair.here(application(limits=one))
        else:
            operator = Desk(pair.stack.caller(pair.stack.vault.operator.token), pair.stack.channel)
            await operator(policy(**{TIERS[tier]: one}))
        await pair.follow()
        assert (await pair.member_there.stream(make_call(model="test/echo"))).error is None
        for caller in (pair.stack.member, pair.member_there):
            refused = (await caller.stream(make_call(model="test/echo"))).refused
            assert (refused.code, refused.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED")
            assert refused.metadata == {"tier": tier, "limit": "requests_per_minute"}
            assert refused.retry_seconds is not None
            assert 0 < refused.retry_seconds <= 62
        assert len(pair.stack.first.received) == 2


async def test_an_administrator_reads_the_limits_of_the_operator_and_cannot_raise_them(tmp_path: Path) -> None:
    async with running_stack(tmp_path) as stack:
        who = await desks(stack)
        stated = {field: RateLimits(requests_per_minute=5, tokens_per_minute=9) for field in TIERS.values()}
        set_by_operator = (await who["operator"](policy(**stated))).policy
        revision = stack.router.configuration.documents.revision
        for role in ("admin", "member", "auditor"):
            read = (await who[role](organizations.GetOrganizationPolicyRequest(name=POLICY))).policy
            assert {field: getattr(read, field) for field in stated} == stated, role
            for field in (*TIERS.values(), "*"):
                request = policy(field, **{field: RateLimits(requests_per_minute=50)} if field != "*" else {})
                assert (await who[role].refused(request)).reason == "CALLER_NOT_ALLOWED", (role, field)
            unmasked = policy(limits=RateLimits(requests_per_minute=50))
            unmasked.ClearField("update_mask")
            assert (await who[role].refused(unmasked)).reason == "CALLER_NOT_ALLOWED", role
        raised = interchange.ImportConfigurationRequest(
            parent=DEMO,
            yaml="organizations: {demo: {users: [ada, bob], limits: {requests_per_minute: 50}}}",
            override_file=True,
        )
        assert (await who["admin"].refused(raised)).reason == "CALLER_NOT_ALLOWED"
        assert (await who["foreign"].refused(policy(limits=RateLimits()))).reason == "RESOURCE_NOT_FOUND"
        assert stack.router.configuration.documents.revision == revision
        held = stack.router.configuration.current.organizations["demo"]
        assert (held.limits, held.user_limits, held.token_limits) == (Held(5, 9), Held(5, 9), Held(5, 9))
        stale = policy(limits=RateLimits(requests_per_minute=6), etag=set_by_operator.etag)
        stale.update_mask.CopyFrom(FieldMask(paths=["limits"]))
        changed = (await who["operator"](stale)).policy
        assert (changed.limits.requests_per_minute, changed.limits.HasField("tokens_per_minute")) == (6, False)
        assert (await who["operator"].refused(stale)).reason == "ETAG_MISMATCH"


def limited(**bounds: int) -> dict[str, Any]:
    return {"limits": RateLimits(**bounds)}


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no requests": (limited(requests_per_minute=0), "limits.requests_per_minute"),
    "negative requests": (limited(requests_per_minute=-1), "limits.requests_per_minute"),
    "requests beyond all": (limited(requests_per_minute=10**9 + 1), "limits.requests_per_minute"),
    "the least number": (limited(requests_per_minute=-(2**63)), "limits.requests_per_minute"),
    "no tokens": (limited(tokens_per_minute=0), "limits.tokens_per_minute"),
    "negative tokens": (limited(tokens_per_minute=-5), "limits.tokens_per_minute"),
    "tokens beyond all": (limited(tokens_per_minute=2**63 - 1), "limits.tokens_per_minute"),
}
BAD_WAITS: dict[str, tuple[Duration, str]] = {
    "negative": (Duration(seconds=-1), "max_queue_wait"),
    "negative nanos": (Duration(nanos=-1), "max_queue_wait"),
    "a second less something": (Duration(seconds=2, nanos=-1), "max_queue_wait"),
    "nanos of a whole second": (Duration(nanos=10**9), "max_queue_wait"),
    "more than an hour": (Duration(seconds=3600, nanos=1), "max_queue_wait_seconds"),
    "longer than time": (Duration(seconds=2**62), "max_queue_wait_seconds"),
}


async def test_limits_that_are_none_are_named_and_nothing_is_set(tmp_path: Path) -> None:
    async with running_stack(tmp_path) as stack:
        operator = (await desks(stack))["operator"]
        read = organizations.GetOrganizationPolicyRequest(name=POLICY)
        read_application = applications.GetApplicationRequest(name=CHAT)
        before = (await operator(read), await operator(read_application))
        for what, (fields, field) in BAD.items():
            for request in (policy(**fields), application(**fields)):
                refusal = await operator.refused(request)
                assert (refusal.reason, refusal.fields) == ("INVALID_REQUEST", (field,)), what
        for what, (wait, field) in BAD_WAITS.items():
            refusal = await operator.refused(application(max_queue_wait=wait, **limited(requests_per_minute=3)))
            assert (refusal.reason, refusal.fields) == ("INVALID_REQUEST", (field,)), what
        nested = policy("limits.requests_per_minute", **limited(requests_per_minute=3))
        assert (await operator.refused(nested)).fields == ("update_mask",)
        assert (await operator(read), await operator(read_application)) == before
        assert stack.router.configuration.documents.revision == 0


async def test_limits_come_and_go_and_move_with_the_configuration(tmp_path: Path) -> None:
    async with running_stack(tmp_path / "one") as stack:
        operator = (await desks(stack))["operator"]
        await operator(
            policy(limits=RateLimits(requests_per_minute=5), user_limits=RateLimits(tokens_per_minute=10**12))
        )
        whole = application(limits=RateLimits(tokens_per_minute=7), max_queue_wait=Duration(nanos=250_000_000))
        changed = (await operator(whole)).application
        assert (changed.limits.tokens_per_minute, changed.max_queue_wait.nanos) == (7, 250_000_000)
        exported = await operator(interchange.ExportConfigurationRequest(parent="deployment"))
        sent_back = applications.UpdateApplicationRequest(application=changed, update_mask=FieldMask(paths=["*"]))
        assert (await operator(sent_back)).application == changed
        assert await operator(interchange.ExportConfigurationRequest(parent="deployment")) == exported
        none = (await operator(application("limits", "max_queue_wait"))).application
        assert not none.HasField("limits")
        assert not none.HasField("max_queue_wait")
        held = stack.router.configuration.current.organizations["demo"].applications["chat"]
        assert (held.limits, held.max_queue_wait_seconds) == (Held(), 2.0)
    async with running_stack(tmp_path / "two", configuration=lambda raw: raw.clear()) as stack:
        operator = (await desks(stack))["operator"]
        await operator(interchange.ImportConfigurationRequest(parent="deployment", yaml=exported.yaml))
        moved = stack.router.configuration.current.organizations["demo"]
        assert (moved.limits, moved.user_limits, moved.token_limits) == (Held(5), Held(None, 10**12), Held())
        chat = moved.applications["chat"]
        assert (chat.limits, chat.max_queue_wait_seconds) == (Held(None, 7), 0.25)


async def test_a_wait_for_a_slot_that_is_set_is_how_long_the_next_call_waits(tmp_path: Path) -> None:
    async with running_stack(tmp_path) as stack:
        for provider in ("first", "second"):
            await stack.save_key(f"{DEMO}/credentials/{provider}", provider=provider)
        await limit_slots(stack, 1)
        slots, waits = stack.router.engine.edges.admission.slots, list[float | None]()
        take = slots.take

        async def watched(key: str, ticket: str, limit: int, wait_seconds: float | None) -> bool:
            waits.append(wait_seconds)
            return await take(key, ticket, limit, wait_seconds)

        slots.take = watched  # type: ignore[method-assign] # only to see how long it is to wait
        await (await desks(stack))["admin"](application(max_queue_wait=Duration(nanos=50_000_000)))
        free = asyncio.Event()
        stack.first.script(held_answer(free))
        first = asyncio.ensure_future(stack.member.stream(make_call(model="test/both")))
        await stack.first.wait_for_requests(1)
        stack.second.script(answer("spilled"))
        found = await stack.member.stream(make_call(model="test/both"))
        assert (found.text, waits[-1]) == ("spilled", 0.05)
        receipt = found.receipt
        skipped = [one for one in receipt.skipped_candidates if one.reason == resolution_pb2.SKIP_REASON_SLOTS_TAKEN]
        assert [one.provider for one in skipped] == ["providers/first"]
        free.set()
        assert (await first).error is None
