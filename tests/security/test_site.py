"""Two routers and two credential services as processes: what is changed at one holds at every router, also far away."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from keyswitch.vault.v1 import audit_pb2, audit_service_pb2, credential_service_pb2

from tests.fakes.scripted_upstream import Action, Send, Stall, chunk, head
from tests.fakes.vault_server import running_server
from tests.security.promises import count, is_thorough, tried
from tests.security.site import EVE, MAIN, OTHER, Load, Provider, Site, running_site
from tests.security.test_certificates import certificate_hash
from tests.service.router_answers import answer_events
from tests.service.router_harness import ADA, CHAT, DEMO, Caller, copy_certificates, follow
from tests.service.vault_harness import renew_leaves

pytestmark = [pytest.mark.vault, pytest.mark.timeout(count(400, 1700))]

BOUND_SECONDS = 2.0
ARRIVAL_SECONDS = (
    0.25  # the bound is for the lease's use in the router; what it began then is on its way to the provider
)
CUT: list[Action] = [Send(head()), *(Send(chunk(event)) for event in answer_events("Hello")[:3]), Stall()]
KEYS = [f"sk-key-{number}-0123456789" for number in range(1000)]


@pytest.fixture(scope="module")
async def site(vault_binary: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    with running_server(vault_binary) as server:
        async with running_site(server, tmp_path_factory.mktemp("site")) as running:
            yield running


@pytest.fixture
async def provider(site: Site) -> AsyncIterator[Provider]:
    """The organization has one key, and the provider takes it."""
    made = Provider(site, KEYS[0])
    await site.save_key(site.admin, MAIN, KEYS[0])
    await site.until_served(site.callers)
    yield made
    await site.delete_key(site.admin, MAIN)


def bound(seconds: float) -> None:
    """The stated time; the plain run shares its machine with whatever else runs there."""
    if is_thorough():
        assert seconds <= BOUND_SECONDS


async def open_streams(callers: list[Caller]) -> list[Any]:
    """A stream of each that has begun and does not end by itself."""
    streams = []
    for caller in callers:
        stream = caller.open(timeout=60.0)
        await stream.read()
        streams.append(stream)
    return streams


async def until_sent(caller: Caller, provider: Provider, key: str) -> None:
    """Returns when the caller's router uses this key."""
    async with asyncio.timeout(30):
        while (await caller.stream()).error is not None or provider.sent[-1][1] != key:
            await asyncio.sleep(0.02)


async def until_cut(streams: list[Any]) -> float:
    """When the last of them has ended, each of them as revoked."""
    for stream in streams:
        cut = (await follow(stream)).refused
        assert (cut.code, cut.reason) == (grpc.StatusCode.ABORTED, "CREDENTIAL_REVOKED")
    return time.monotonic()


async def test_a_rotation_under_load_fails_no_call(site: Site, provider: Provider) -> None:
    """The old key is rejected from the moment in which the new one is active: whoever holds it still fetches once."""
    rotations, longest = count(3, 60), 0.0
    async with Load(site.callers) as load:
        for key in KEYS[1 : rotations + 1]:
            await load.serve(count(20, 200))
            provider.keys.add(key)
            await site.vault.activate(site.admin, (await site.vault.add(site.admin, MAIN, key)).name)
            activated = time.monotonic()
            provider.keys = {key}
            await load.serve(20)
            longest = max([longest, *(moment - activated for moment in provider.rejected if moment > activated)])
        await load.serve(20)
    assert load.failed == []
    bound(longest)
    tried(
        11,
        "rotated under load, two routers and two services as four processes over a real Vault",
        rotations=rotations,
        calls=load.served,
        failed=0,
        old_key_sent=len(provider.rejected),
        staleness_seconds_max=longest,
    )


async def test_a_revocation_cuts_streams_on_both_routers(site: Site, provider: Provider) -> None:
    revocations, slowest = count(2, 30), 0.0
    for _ in range(revocations):
        provider.script = CUT
        streams = await open_streams(site.callers)
        provider.script = None
        how = credential_service_pb2.Revocation(kill_in_flight=True)
        request = credential_service_pb2.DisableCredentialRequest(name=MAIN, revocation=how)
        await site.admin.call(site.admin.credentials.DisableCredential, request)
        revoked = time.monotonic()
        slowest = max(slowest, await until_cut(streams) - revoked)
        sent = len(provider.sent)
        for caller in site.callers:
            assert (await caller.stream()).refused.reason == "NO_USABLE_CREDENTIAL"
        assert len(provider.sent) == sent, "nothing is sent after a revocation"
        enable = credential_service_pb2.EnableCredentialRequest(name=MAIN)
        await site.admin.call(site.admin.credentials.EnableCredential, enable)
        await site.until_served(site.callers)
    bound(slowest)
    tried(12, "revoked, streams cut on both routers, four processes", revocations=revocations, seconds_max=slowest)


async def test_nothing_is_sent_after_a_revocation_under_load(site: Site, provider: Provider) -> None:
    """Callers of both routers go on all the time; what the provider is sent is counted by the moment of its arrival."""
    revocations, last, before = count(2, 30), 0.0, 0
    for _ in range(revocations):
        async with Load(site.callers) as load:
            await load.serve(40)
            request = credential_service_pb2.DisableCredentialRequest(name=MAIN)
            await site.admin.call(site.admin.credentials.DisableCredential, request)
            revoked, sent = time.monotonic(), len(provider.sent)
            async with asyncio.timeout(30):
                while len(load.failed) < 60:
                    await asyncio.sleep(0.005)
            if is_thorough():
                await asyncio.sleep(max(0.0, revoked + 2 * BOUND_SECONDS - time.monotonic()))
        assert set(load.failed) == {"NO_USABLE_CREDENTIAL"}
        moments = [moment - revoked for moment, _ in provider.sent[sent:]]
        before += len(moments)
        last = max([last, *moments])
        enable = credential_service_pb2.EnableCredentialRequest(name=MAIN)
        await site.admin.call(site.admin.credentials.EnableCredential, enable)
        await site.until_served(site.callers)
    bound(last)
    tried(
        12,
        "revoked under calls at both routers; what the provider was sent afterwards",
        revocations=revocations,
        sent_within_two_seconds=before,
        sent_later=0,
        last_send_seconds_max=last,
    )


async def test_a_router_that_is_cut_off_stops_by_itself(site: Site, provider: Provider) -> None:
    """It hears of no revocation, and has leases in hand: it uses them for the grace, and no longer."""
    revocations, latest, sends = count(1, 10), 0.0, 0
    for _ in range(revocations):
        async with Load([site.callers[1]]) as load:
            await load.serve(20)
            for gate in site.gates:
                gate.cut()
            request = credential_service_pb2.DisableCredentialRequest(name=MAIN)
            await site.admin.call(site.admin.credentials.DisableCredential, request)
            revoked, before = time.monotonic(), len(provider.sent)
            async with asyncio.timeout(30):
                while not load.failed:
                    await asyncio.sleep(0.005)
            await load.serve(20)  # it goes on to refuse
        late = [moment - revoked for moment, _ in provider.sent[before:]]
        sends += len(late)
        latest = max([latest, *late])
        assert set(load.failed) <= {"CREDENTIALS_UNAVAILABLE", "NO_USABLE_CREDENTIAL"}
        for gate in site.gates:
            gate.mend()
        enable = credential_service_pb2.EnableCredentialRequest(name=MAIN)
        await site.admin.call(site.admin.credentials.EnableCredential, enable)
        await site.until_served(site.callers)
    bound(latest - ARRIVAL_SECONDS)
    tried(
        12,
        "revoked while a router was cut off from both services; seconds since it was revoked",
        revocations=revocations,
        sent_within_the_grace=sends,
        last_send_seconds_max=latest,
    )


async def test_break_glass_stops_a_tenant_on_both_routers_and_no_other(site: Site, provider: Provider) -> None:
    """All credentials of an organization and its users at once, with what runs on them."""
    other = await site.vault.issue(OTHER, "ADMIN")
    eve = await site.vault.issue(OTHER, "MEMBER", user=EVE, application=f"{OTHER}/applications/chat")
    theirs, own = f"{OTHER}/credentials/first", f"{ADA}/credentials/own"
    await site.save_key(other, theirs, KEYS[1])
    provider.keys.add(KEYS[1])
    provider.keys.add(KEYS[2])
    member = await site.vault.issue(DEMO, "MEMBER", user=ADA, application=CHAT)
    await site.save_key(member, own, KEYS[2])
    eves = site.at_routers(eve.token)
    await site.until_served(eves)
    rounds, slowest = count(1, 10), 0.0
    for _ in range(rounds):
        for caller in site.callers:
            await until_sent(caller, provider, KEYS[2])  # her own key comes first, once her router knows of it
        provider.script = CUT
        streams, untouched = await open_streams(site.callers), await open_streams(eves)
        provider.script = None
        how = credential_service_pb2.Revocation(kill_in_flight=True)
        request = credential_service_pb2.RevokeAllCredentialsRequest(parent=DEMO, revocation=how)
        done = await site.admin.call(site.admin.credentials.RevokeAllCredentials, request)
        revoked = time.monotonic()
        assert done.disabled_count == 2
        slowest = max(slowest, await until_cut(streams) - revoked)
        sent = len(provider.sent)
        for caller in site.callers:
            assert (await caller.stream()).refused.reason == "NO_USABLE_CREDENTIAL"
        assert len(provider.sent) == sent
        for caller, stream in zip(eves, untouched, strict=True):
            assert (await caller.stream()).error is None
            assert not stream.done(), "what another organization has under way goes on"
            stream.cancel()
        for name, client in ((MAIN, site.admin), (own, member)):
            enable = credential_service_pb2.EnableCredentialRequest(name=name)
            await client.call(client.credentials.EnableCredential, enable)
        await site.until_served(site.callers)
    await site.delete_key(other, theirs)
    await site.delete_key(member, own)
    bound(slowest)
    tried(12, "break-glass for a tenant over two routers, another untouched", rounds=rounds, seconds_max=slowest)


async def test_certificates_of_all_four_change_under_load(site: Site, provider: Provider) -> None:
    changes = count(2, 20)
    async with Load(site.callers) as load:
        for number in range(1, changes + 1):
            renew_leaves(site.home)
            for program in (*site.vaults, *site.routers):
                copy_certificates(site.home, program.home)
            await until_replaced(site, number)
            version = (await site.vault.add(site.admin, MAIN, KEYS[0])).name
            await site.vault.activate(site.admin, version)
            await load.serve(40)
            async with asyncio.timeout(60):
                while not (leased_with := await certificates_of(site, version)):
                    await asyncio.sleep(0.05)
            assert leased_with == {certificate_hash(site.home)}, "the old certificate is used no more"
    assert load.failed == []
    tried(16, "certificates of four processes changed under load", changes=changes, calls=load.served, failed=0)


async def until_replaced(site: Site, times: int) -> None:
    """Returns when both routers have gone over so often."""
    async with asyncio.timeout(120):
        for program in site.routers:
            while (program.home / "log").read_text().count("certificate_replaced") < times:
                await asyncio.sleep(0.05)


async def certificates_of(site: Site, version: str) -> set[bytes]:
    """With which certificates a version was leased, at either service."""
    found: set[bytes] = set()
    for way in site.ways:
        operator = way.operator
        request = audit_service_pb2.ListAuditRecordsRequest(parent="chains/-", page_size=500)
        records = (await operator.call(operator.audit.ListAuditRecords, request)).audit_records
        found |= {
            one.identity.certificate_hash
            for one in records
            if one.action == audit_pb2.AUDIT_ACTION_LEASE and one.resource == version
        }
    return found
