"""A router between two credential services of which the connected one becomes unreachable in every way there is."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from router_service.config import Address, Addresses
from tests.fakes.fault_proxy import FaultProxy, Way, WayFault
from tests.fakes.scripted_upstream import Action, Received
from tests.security.promises import count, is_thorough, tried
from tests.service.router_answers import answer
from tests.service.router_harness import DEMO, Answer, Caller, Stack, running_stack
from tests.service.two_routers import second_router
from tests.service.vault_harness import running_vault
from vault_service.store.memory import MemoryStore

MAIN = f"{DEMO}/credentials/first"
DEADLINE_SECONDS = 10.0
SHORT_SECONDS, LATE_SECONDS = 3.0, 0.05
FAILOVER_SECONDS = 4.0
SILENT = [WayFault.BLACKHOLE, WayFault.DEAF, WayFault.MUTE, WayFault.DRIP]
FAULTS = [WayFault.REFUSED, WayFault.RESET, WayFault.CUT, *SILENT, WayFault.LATE, WayFault.NARROW]
if not is_thorough():
    SILENT = SILENT[:2]
    FAULTS = FAULTS[:5]


@dataclass(frozen=True)
class Site:
    """Two services over one store, and a router that reaches the first one over a way that can be made bad."""

    stack: Stack
    caller: Caller
    way: Way


@asynccontextmanager
async def running_site(proxy: FaultProxy, home: Path, *, is_alone: bool) -> AsyncIterator[Site]:
    async with AsyncExitStack() as exits:
        store = MemoryStore()
        stack = await exits.enter_async_context(running_stack(home, vault_changes={"store": store}))
        other = await exits.enter_async_context(running_vault(home, store=store, chain="vault-1"))
        way = await asyncio.to_thread(proxy.way_to, stack.vault.service.lease_port)
        ports = [way.port] if is_alone else [way.port, other.service.lease_port]
        targets = Addresses(Address("localhost", port) for port in ports)
        caller, router = await exits.enter_async_context(second_router(stack, home, lease_targets=targets))
        await stack.save_key(MAIN)
        stack.router = router
        stack.first.choose = always_answers
        yield Site(stack, caller, way)


def always_answers(_: Received) -> list[Action]:
    return answer()


async def call(site: Site, *, is_cold: bool) -> float:
    """A call that must be answered; gives how long that took."""
    if is_cold:
        site.stack.end_leases()
    began = time.monotonic()
    found = await site.caller.stream(timeout=DEADLINE_SECONDS)
    assert found.error is None, found.error
    return time.monotonic() - began


@pytest.mark.parametrize("fault", FAULTS)
async def test_the_other_service_answers_within_the_callers_deadline(
    fault_proxy: FaultProxy, tmp_path: Path, fault: WayFault
) -> None:
    """A call that needs a lease waits for the change of instance; one that has its lease notices nothing."""
    async with running_site(fault_proxy, tmp_path, is_alone=False) as site:
        credentials = site.stack.router.credentials
        await call(site, is_cold=True)
        left = credentials._link
        await site.way.impair(fault)
        if fault is WayFault.NARROW:  # slow, but not silent: there is no reason to leave it
            seconds, served = await call(site, is_cold=True), 0
        else:
            warm = asyncio.create_task(call_until_left(site, left))
            seconds = await call(site, is_cold=True)
            served = await warm
            assert credentials._link is not left
    if is_thorough():
        assert seconds <= FAILOVER_SECONDS
    tried(
        13,
        "the connected service out of reach in every way, the other one answered the waiting call",
        faults=1,
        warm_calls=served,
        failed=0,
        seconds_max=seconds,
    )


async def call_until_left(site: Site, left: object) -> int:
    served = 0
    async with asyncio.timeout(30):
        while site.stack.router.credentials._link is left or not site.stack.router.credentials.connected.is_set():
            await call(site, is_cold=False)
            served += 1
    return served


@pytest.mark.parametrize("fault", [*FAULTS, WayFault.SNAP])
async def test_with_the_only_service_out_of_reach_calls_end_in_time(
    fault_proxy: FaultProxy, tmp_path: Path, fault: WayFault
) -> None:
    """From the first moment on and after the grace: each call ends by its own deadline, with the reason, or is served
    by the lease in hand."""
    calls, latest = 0, 0.0
    async with running_site(fault_proxy, tmp_path, is_alone=True) as site:
        await call(site, is_cold=True)
        found: list[Answer] = []
        await site.way.impair(fault)
        is_silent = fault is not WayFault.NARROW  # which is slow, and a service like any other
        end = time.monotonic() + 2 * SHORT_SECONDS
        while time.monotonic() < end:
            if calls % 8:
                site.stack.end_leases()
            began = time.monotonic()
            found = await asyncio.gather(*(site.caller.stream(timeout=SHORT_SECONDS) for _ in range(4)))
            latest = max(latest, time.monotonic() - began)
            calls += len(found)
            assert {one.error.reason for one in found if one.error} <= {"CREDENTIALS_UNAVAILABLE"}
        if is_silent:
            assert all(one.error for one in found), "the grace is over"
        await site.way.heal()
        async with asyncio.timeout(30):
            await site.stack.router.credentials.connected.wait()
        await call(site, is_cold=True)
    if is_thorough():
        assert latest <= SHORT_SECONDS + LATE_SECONDS
    text = "the only service out of reach in every way; calls with three seconds, with and without a lease in hand"
    tried(13, text, faults=1, calls=calls, seconds_max=round(latest, 3))


@pytest.mark.parametrize("fault", SILENT)
async def test_a_dead_connection_to_the_only_service_is_replaced(
    fault_proxy: FaultProxy, tmp_path: Path, fault: WayFault
) -> None:
    """The way is good again, but the connection is as dead as before: a new one is made, without a restart."""
    async with running_site(fault_proxy, tmp_path, is_alone=True) as site:
        credentials = site.stack.router.credentials
        for _ in range(count(1, 5)):
            await call(site, is_cold=True)
            await site.way.impair(fault)
            async with asyncio.timeout(30):
                while credentials.is_fresh:
                    await asyncio.sleep(0.02)
            refused = (await site.caller.stream(timeout=DEADLINE_SECONDS)).refused
            assert (refused.reason, refused.metadata) == ("CREDENTIALS_UNAVAILABLE", {"cause": "disconnected"})
            await site.way.heal()
            async with asyncio.timeout(30):
                await credentials.connected.wait()
            await call(site, is_cold=True)
    tried(13, "a dead connection to the only service, replaced", faults=1, failed_after_it=0)
