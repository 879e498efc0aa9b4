"""Two routers and two credential services over one real Vault server: what is changed at one holds at every router."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from keyswitch.vault.v1 import credential_service_pb2, lease_pb2

from router_service.app import RunningRouter
from router_service.config import Address, Addresses
from tests.fakes.scripted_upstream import Action, Received, Send, Stall, chunk, head, respond
from tests.fakes.vault_server import VaultServer
from tests.security.promises import count, is_thorough, tried
from tests.service.router_answers import answer, answer_events
from tests.service.router_harness import ADA, DEMO, Caller, Stack, follow, running_stack
from tests.service.two_routers import second_router
from tests.service.vault_harness import Vault, refused, running_vault
from vault_service.store.hashicorp import HashiCorpStore
from vault_service.store.memory import MemoryStore
from vault_service.store.store import Unavailable
from vault_service.store.vault_settings import AppRoleFiles, VaultSettings

pytestmark = [pytest.mark.vault, pytest.mark.timeout(300)]

MAIN = f"{DEMO}/credentials/first"
REJECTED: list[Action] = respond(b'{"error":{"message":"bad key","code":"invalid_api_key"}}', status=401)
BOUND_SECONDS = 2.0
CUT: list[Action] = [Send(head()), *(Send(chunk(event)) for event in answer_events("Hello")[:3]), Stall()]


@dataclass(frozen=True)
class Site:
    """Two credential services over one store, and a router in front of each that knows both."""

    stack: Stack
    other: Vault
    second: Caller
    routers: tuple[RunningRouter, RunningRouter]

    @property
    def callers(self) -> tuple[Caller, Caller]:
        return self.stack.member, self.second

    async def until_all_know(self) -> None:
        """Returns when both routers have heard of everything that was changed."""
        revision = max(self.stack.vault.service._parts.changes.revision, self.other.service._parts.changes.revision)
        async with asyncio.timeout(20):
            while any(router.credentials._revision < revision for router in self.routers):
                await asyncio.sleep(0.005)


def open_store(server: VaultServer, folder: Path) -> HashiCorpStore:
    """A store of its own for each service, as in two processes."""
    folder.mkdir()
    files = AppRoleFiles(*server.write_credentials(folder))
    return HashiCorpStore(VaultSettings(server.url, files, ca_file=server.ca_file))


@asynccontextmanager
async def running_site(server: VaultServer, home: Path) -> AsyncIterator[Site]:
    async with AsyncExitStack() as exits:
        changes = {"store": open_store(server, home / "store-0")}
        stack = await exits.enter_async_context(running_stack(home, vault_changes=changes))
        store = open_store(server, home / "store-1")
        other = await exits.enter_async_context(running_vault(home, store=store, chain="vault-1"))
        here, there = stack.vault.service.lease_port, other.service.lease_port
        targets = Addresses(Address("localhost", port) for port in (there, here))
        caller, router = await exits.enter_async_context(second_router(stack, home, lease_targets=targets))
        yield Site(stack, other, caller, (stack.router, router))


@pytest.fixture
async def site(own_vault_server: VaultServer, tmp_path: Path) -> AsyncIterator[Site]:
    async with running_site(own_vault_server, tmp_path) as running:
        yield running


class Provider:
    """A provider that takes the keys of now, and knows which one came when."""

    def __init__(self, site: Site, key: str) -> None:
        self.key = key
        self.also = ""
        self.rejected: list[float] = []
        site.stack.first.choose = self.choose

    def choose(self, request: Received) -> list[Action]:
        if request.headers["authorization"].removeprefix("Bearer ") in (self.key, self.also):
            return answer()
        self.rejected.append(time.monotonic())
        return REJECTED


class Load:
    """Callers of both routers that call without a pause; every answer is kept."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._is_over = False
        self.failed: list[str] = []
        self.served = 0

    async def __aenter__(self) -> "Load":
        callers = [caller for caller in self._site.callers for _ in range(3)]
        self._tasks = [asyncio.create_task(self._call(caller)) for caller in callers]
        return self

    async def _call(self, caller: Caller) -> None:
        while not self._is_over:
            found = await caller.stream()
            self.served += 1
            if found.error is not None:
                self.failed.append(found.error.reason)

    async def serve(self, calls: int) -> None:
        """Returns when so many more calls were answered."""
        until = self.served + calls
        async with asyncio.timeout(60):
            while self.served < until:
                await asyncio.sleep(0.005)

    async def __aexit__(self, *_: object) -> None:
        self._is_over = True
        await asyncio.gather(*self._tasks)


async def test_a_rotation_under_load_fails_no_call(site: Site) -> None:
    """The old key is rejected from the moment in which the new one is active: whoever holds it still fetches once."""
    stack, rotations, longest = site.stack, count(3, 25), 0.0
    provider = Provider(site, "sk-key-0-0123456789")
    await stack.save_key(MAIN, provider.key)
    async with Load(site) as load:
        await load.serve(10)
        for number in range(1, rotations + 1):
            provider.also = f"sk-key-{number}-0123456789"
            version = await stack.vault.add(stack.admin, MAIN, provider.also)
            refusal = await refused(stack.vault.activate(stack.admin, version.name, force=False))
            assert refusal.reason == "ERROR_REASON_TEST_REQUIRED"
            origin = stack.router.configuration.current.providers["first"].base_url.origin
            lease = await stack.vault.take(
                version.name,
                stack.member.token,
                principal=ADA,
                origin=origin,
                purpose=lease_pb2.LEASE_PURPOSE_TEST,
            )
            await stack.vault.report_test(lease)
            await stack.vault.activate(stack.admin, version.name, force=False)
            activated = time.monotonic()
            provider.key, provider.also = provider.also, ""
            await load.serve(20)
            longest = max([longest, *(moment - activated for moment in provider.rejected if moment > activated)])
    assert load.failed == []
    if is_thorough():
        assert longest <= BOUND_SECONDS
    tried(
        11,
        "rotated under load, two routers and two services over a real Vault",
        rotations=rotations,
        calls=load.served,
        failed=0,
        old_key_sent=len(provider.rejected),
        seconds_max=longest,
    )


async def test_a_service_that_cannot_read_the_changes_is_left_for_the_other(site: Site) -> None:
    """Without the change log it knows of no revocation: it ends its watches, and the router goes to the other one."""
    provider = Provider(site, "sk-key-0-0123456789")
    await site.stack.save_key(MAIN, provider.key)
    changes = site.other.service._parts.changes
    store: Any = changes._store
    changes._store = Unreadable()
    credentials = site.routers[1].credentials
    left = credentials._link
    async with Load(site) as load, asyncio.timeout(30):
        while credentials._link is left or not credentials.connected.is_set():
            await asyncio.sleep(0.005)
        await load.serve(50)
    assert load.failed == []
    changes._store = store
    tried(13, "a service lost sight of the changes, its router went to the other", calls=load.served, failed=0)


class Unreadable(MemoryStore):
    """A store that is away."""

    async def read(self, path: str, *, request_id: str = "") -> Any:
        raise Unavailable("away")


async def test_a_revocation_holds_on_both_routers(site: Site) -> None:
    stack = site.stack
    await stack.save_key(MAIN)
    slowest = 0.0
    tries = count(3, 20)
    for _ in range(tries):
        stack.first.script(answer(), answer())
        for caller in site.callers:
            assert (await caller.stream()).error is None
        streams = []
        for number, caller in enumerate(site.callers, 1):
            stack.first.script(CUT)
            seen = len(stack.first.received)
            opened = caller.open()
            await opened.read()
            streams.append(opened)
            assert len(stack.first.received) == seen + 1, number
        revocation = credential_service_pb2.Revocation(kill_in_flight=True)
        request = credential_service_pb2.DisableCredentialRequest(name=MAIN, revocation=revocation)
        await stack.admin.call(stack.admin.credentials.DisableCredential, request)
        began = time.monotonic()
        for opened in streams:
            cut = (await follow(opened)).refused
            assert (cut.code, cut.reason) == (grpc.StatusCode.ABORTED, "CREDENTIAL_REVOKED")
            slowest = max(slowest, time.monotonic() - began)
        seen = len(stack.first.received)
        for caller in site.callers:
            assert (await caller.stream()).refused.reason == "NO_USABLE_CREDENTIAL"
        assert len(stack.first.received) == seen, "nothing is sent after a revocation"
        enable = credential_service_pb2.EnableCredentialRequest(name=MAIN)
        await stack.admin.call(stack.admin.credentials.EnableCredential, enable)
        await site.until_all_know()
    if is_thorough():
        assert slowest <= BOUND_SECONDS
    tried(12, "revoked at one of two services, streams cut on both routers", revocations=tries, seconds_max=slowest)
