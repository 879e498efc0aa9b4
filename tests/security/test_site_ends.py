"""Services that end, in order and by a kill, under calls and writes: neither loses what it began or acknowledged."""

import asyncio
import json
import random
import signal
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from keyswitch.vault.v1 import credential_pb2, credential_service_pb2, lease_pb2

from tests.fakes.scripted_upstream import LAST_CHUNK, Action, Pause, Send, chunk, head
from tests.fakes.vault_server import running_server
from tests.security.promises import count, tried
from tests.security.site import MAIN, Load, Program, Provider, Site, running_site
from tests.service.router_answers import answer_events
from tests.service.router_harness import DEMO, follow
from tests.service.vault_harness import Client

pytestmark = [pytest.mark.vault, pytest.mark.timeout(count(300, 1700))]

KEY = "sk-key-0-0123456789"
WRITERS, CREDENTIALS = 64, 4
LEFT_BY_ROUTERS = {"AUDIT_ACTION_LEASE", "AUDIT_ACTION_READ_CREDENTIALS"}
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture(scope="module")
async def site(vault_binary: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    with running_server(vault_binary) as server:
        async with running_site(server, tmp_path_factory.mktemp("ends")) as running:
            yield running


@pytest.fixture(scope="module")
async def provider(site: Site) -> Provider:
    made = Provider(site, KEY)
    await site.save_key(site.admin, MAIN, KEY)
    await site.until_served(site.callers)
    return made


async def watch_health(channel: grpc.aio.Channel) -> Awaitable[None]:
    """Watches from now on; what it gives returns when health says that nothing is served any more."""
    watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
    async with asyncio.timeout(60):
        await watch.read()

    async def until_not_serving() -> None:
        async with asyncio.timeout(60):
            while (await watch.read()).status != NOT_SERVING:
                pass
        watch.cancel()  # it is a call as well, and nothing is to wait for it

    return until_not_serving()


async def test_a_router_that_ends_lets_its_calls_end(site: Site, provider: Provider) -> None:
    rounds, calls = count(1, 10), 0
    for _ in range(rounds):
        released = asyncio.Event()
        events = [Send(chunk(event)) for event in answer_events("Hello", " world")]
        script: list[Action] = [Send(head()), *events[:2], Pause(released), *events[2:], Send(LAST_CHUNK)]
        provider.script = script
        streams = [site.callers[0].open(timeout=60.0) for _ in range(24)]
        await asyncio.gather(*(stream.read() for stream in streams))
        provider.script = None
        told = await watch_health(site._channels[0])
        site.routers[0].send(signal.SIGTERM)
        await told
        assert not any(stream.done() for stream in streams), "health comes first"
        released.set()
        found = await asyncio.gather(*(follow(stream) for stream in streams))
        assert [one.error for one in found] == [None] * len(streams)
        calls += len(found)
        assert await site.routers[0].ended() == 0
        await site.routers[0].start()
        await site.until_served(site.callers)
    tried(19, "SIGTERM of a router under streams, health first", ends=rounds, streams=calls, aborted=0)


@dataclass
class Written:
    """A version that was added: when, and whether and when somebody was told."""

    credential: str
    key: str
    begin: float
    name: str = ""
    activated: tuple[float, float] | None = None
    """From when to when its activation ran, where that was acknowledged."""


class Writers:
    """Callers that add versions and activate them, at either service; what they were told is kept."""

    def __init__(self, site: Site) -> None:
        self._ways = [site.admin, Client(site.ways[1].operator.channel, site.admin.token)]
        self._chance = random.Random(19)
        self.written: list[Written] = []
        self.ends: Counter[str] = Counter()

    async def write(self, credential: str, rounds: int) -> None:
        for _ in range(rounds):
            one = Written(credential, f"sk-{uuid.uuid4().hex}", time.monotonic())
            add = credential_service_pb2.AddCredentialVersionRequest(
                parent=credential, secret_material=credential_pb2.SecretMaterial(api_key=one.key)
            )
            added = await self._call("AddCredentialVersion", add)
            if added is None:
                continue
            one.name = added.credential_version.name
            self.written.append(one)
            begin = time.monotonic()
            activate = credential_service_pb2.ActivateCredentialVersionRequest(name=one.name, force=True)
            if await self._call("ActivateCredentialVersion", activate) is not None:
                one.activated = begin, time.monotonic()

    async def _call(self, method: str, request: Any) -> Any:
        client = self._chance.choice(self._ways)
        metadata = (("authorization", f"Bearer {client.token}"),)
        try:
            answer = await getattr(client.credentials, method)(request, timeout=30.0, metadata=metadata)
        except grpc.aio.AioRpcError as error:
            self.ends[error.code().name] += 1
            await asyncio.sleep(0.05)  # as a caller would, that goes to the other service next
            return None
        self.ends["OK"] += 1
        return answer

    async def check(self, site: Site, way: int) -> int:
        """Everything acknowledged is there and opens; no version has two owners, no activation was lost."""
        vault, client = site.ways[way], self._ways[way]
        async with asyncio.timeout(60):
            for channel in (client.channel, vault.lease.channel):
                await channel.channel_ready()  # its service was started anew
        for credential in {one.credential for one in self.written}:
            mine = [one for one in self.written if one.credential == credential]
            assert len({one.name for one in mine}) == len(mine), "one successor for each version"
            request = credential_service_pb2.ListCredentialVersionsRequest(parent=credential, page_size=1000)
            listed = (await client.call(client.credentials.ListCredentialVersions, request)).credential_versions
            states = {version.name: version.state for version in listed}
            assert {one.name for one in mine} <= set(states)
            active = [name for name, state in states.items() if state == credential_pb2.CREDENTIAL_VERSION_STATE_ACTIVE]
            assert len(active) <= 1
            last = [one for one in mine if active and one.name == active[0] and one.activated]
            if last and last[0].activated:
                end = last[0].activated[1]
                assert not [one for one in mine if one.activated and one.activated[0] > end], "a later one was lost"
        opened = self.written[:: max(1, len(self.written) // 100)]
        for one in opened:
            lease = await vault.take(
                one.name, site.member.token, principal=f"{DEMO}/users/ada", origin=site.origin,
                purpose=lease_pb2.LEASE_PURPOSE_TEST,
            )  # fmt: skip
            assert vault.router.open(lease, site.origin).api_key == one.key
        return len(opened)


async def make_credentials(site: Site, prefix: str) -> list[str]:
    """Of another provider than the calls go to, which know nothing of these keys."""
    async with asyncio.timeout(60):
        await site.admin.channel.channel_ready()  # its service may have been started anew
    names = [f"{DEMO}/credentials/{prefix}-{number}" for number in range(CREDENTIALS)]
    for name in names:
        await site.save_key(site.admin, name, f"sk-{uuid.uuid4().hex}", provider="second")
    return names


def unfinished(program: Program) -> list[str]:
    """Records of an intent to which no outcome belongs, and outcomes of calls that were left.

    But for leases and reads: a router that hears of the end leaves what it has asked for, and asks the other service.
    """
    folder = program.home / "audit" / program.environment["KEYSWITCH_VAULT_AUDIT_CHAIN"]
    records = [
        json.loads(line) for path in sorted(folder.glob("[0-9]*.jsonl")) for line in path.read_bytes().splitlines()
    ]
    answered = {record["intentRecord"] for record in records if "intentRecord" in record}
    left = [
        f"{one['name']} {one['action']}"
        for one in records
        if one["outcome"] == "AUDIT_OUTCOME_FAILED" and "reason" not in one and one["action"] not in LEFT_BY_ROUTERS
    ]
    return left + [
        one["name"] for one in records if one["outcome"] == "AUDIT_OUTCOME_INTENDED" and one["name"] not in answered
    ]


async def test_a_credential_service_that_ends_finishes_what_it_began(site: Site, provider: Provider) -> None:
    rounds, writers = count(1, 10), Writers(site)
    names = await make_credentials(site, "ends")
    async with Load(site.callers) as load:
        for _ in range(rounds):
            work = [asyncio.create_task(writers.write(names[number % CREDENTIALS], 2)) for number in range(16)]
            begun = writers.ends.total()
            async with asyncio.timeout(60):
                while writers.ends.total() < begun + 4:
                    await asyncio.sleep(0.005)
            site.vaults[0].send(signal.SIGTERM)
            status = await site.vaults[0].ended()
            left = unfinished(site.vaults[0])
            await asyncio.gather(*work)
            await load.serve(20)
            await site.vaults[0].start()
            assert (status, left) == (0, [])
        opened = await writers.check(site, 1)
    assert load.failed == [], "the routers went to the other service"
    tried(
        19,
        "SIGTERM of a credential service under calls and writes",
        ends=rounds,
        calls=load.served,
        failed=0,
        writes_acknowledged=writers.ends["OK"],
        writes_to_be_repeated=writers.ends.total() - writers.ends["OK"],
        versions_opened=opened,
        aborted=0,
    )


async def test_writers_at_two_services_of_which_one_is_killed_lose_nothing(site: Site, provider: Provider) -> None:
    kills, rounds, writers = count(2, 30), count(2, 12), Writers(site)
    names = await make_credentials(site, "killed")
    work = [asyncio.create_task(writers.write(names[number % CREDENTIALS], rounds)) for number in range(WRITERS)]
    done = 0
    for number in range(kills):
        victim = site.vaults[number % 2]
        begun = writers.ends["OK"]
        while writers.ends["OK"] < begun + 10 and not all(one.done() for one in work):
            await asyncio.sleep(0.01)
        if all(one.done() for one in work):
            break
        victim.send(signal.SIGKILL)
        await victim.ended()
        await victim.start()
        done += 1
    await asyncio.gather(*work)
    opened = await writers.check(site, 0)
    assert done > 0
    await site.until_served(site.callers)
    counts = {
        "kills": done,
        "writes_acknowledged": writers.ends["OK"],
        "answers_lost_or_refused": writers.ends.total() - writers.ends["OK"],
        "versions_opened": opened,
    }
    tried(10, f"{WRITERS} writers at two services over one Vault, one of them killed", **counts, lost_updates=0)
    tried(19, "kill -9 of a credential service over Vault under writers", **counts, lost=0)
