"""Callers' certificates and their authority change under calls: none fails, and the old dies with its connections."""

import asyncio
from pathlib import Path

import pytest
from grpc import StatusCode
from keyswitch.router.v1 import provider_service_pb2
from keyswitch_client import ClientCertificate, KeyswitchError

from router_service.workloads import LOOK_AGAIN_SECONDS
from tests.fakes.caller_certificates import DOMAIN, CallerAuthority, write_workloads
from tests.security.promises import count, tried
from tests.service.callers_harness import WORKLOADS, Callers, running_callers
from tests.service.router_answers import answer
from tests.service.router_harness import DEMO

MAIN = f"{DEMO}/credentials/main"
CALLERS = 4
AGE_SECONDS = 1.0


def trust(callers: Callers, *authorities: CallerAuthority) -> None:
    """Changes the bundle of both services; they look at it within a second."""
    write_workloads(callers.stack.home, WORKLOADS, *authorities)


def look_again(callers: Callers) -> None:
    """Makes that second pass; a thread that was already looking may have seen what was there before."""
    bundle = (callers.stack.home / "callers.pem").read_bytes()
    for workloads in (
        callers.stack.router.workloads,
        callers.stack.vault.service._parts.workloads,
    ):
        workloads._look_time -= LOOK_AGAIN_SECONDS
        while workloads.bundle != bundle:
            workloads._look_time -= LOOK_AGAIN_SECONDS


async def test_callers_change_their_certificates_under_calls(tmp_path: Path) -> None:
    rounds, is_over, laps = count(3, 30), asyncio.Event(), [0] * CALLERS
    async with running_callers(tmp_path, max_connection_age_seconds=AGE_SECONDS) as callers:
        await callers.stack.save_key(MAIN)
        callers.stack.first.script(*[answer()] * 100_000)
        async with callers.client(callers.authority.caller("demo/chat")) as client:

            async def keep_calling(number: int) -> None:
                while not is_over.is_set():
                    callers.stack.end_leases()  # each call proves itself to both services
                    await client.complete("hi")
                    laps[number] += 1

            async def let_calls_end() -> None:
                """Returns when no call is under way that was so before; a call that fails ends the test."""
                before = list(laps)
                while not all(now > then for now, then in zip(laps, before, strict=True)):
                    for calling in callings:
                        assert not calling.done() or calling.result()
                    await asyncio.sleep(0)

            callings = [asyncio.create_task(keep_calling(number)) for number in range(CALLERS)]
            current = callers.authority
            for _ in range(rounds):
                following = CallerAuthority()
                trust(callers, current, following)
                look_again(callers)
                await client.renew(ClientCertificate(*following.issue(f"spiffe://{DOMAIN}/demo/chat")))
                await let_calls_end()
                trust(callers, following)
                look_again(callers)
                current = following
                await let_calls_end()
            is_over.set()
            await asyncio.gather(*callings)
    tried(16, "callers' certificates and authorities changed under calls", changes=rounds, calls=sum(laps), failed=0)


async def test_an_old_authority_dies_with_its_connections(tmp_path: Path) -> None:
    """Connections end by themselves after their age; then the old certificate opens no other one."""
    request = provider_service_pb2.ListProvidersRequest()
    async with running_callers(tmp_path, max_connection_age_seconds=AGE_SECONDS) as callers:
        async with callers.client(callers.authority.caller("demo/chat")) as client:
            client._metadata = lambda: ()  # type: ignore[method-assign] # the connection alone proves it
            await client.call(client.providers.ListProviders, request)
            trust(callers, CallerAuthority())
            look_again(callers)
            begun, served = asyncio.get_running_loop().time(), 0
            code = StatusCode.OK
            async with asyncio.timeout(30):
                while code is StatusCode.OK:
                    try:
                        await client.call(client.providers.ListProviders, request)
                        served += 1
                    except KeyswitchError as error:
                        code = error.code
            lasted = asyncio.get_running_loop().time() - begun
        assert code is StatusCode.UNAVAILABLE
    tried(16, "an authority that is no longer trusted", calls_on_the_old_connection=served, seconds=round(lasted, 2))


async def test_a_certificate_that_is_not_let_in_leaves_the_old_one(tmp_path: Path) -> None:
    async with running_callers(tmp_path) as callers:
        await callers.stack.save_key(MAIN)
        callers.stack.first.script(*[answer()] * 3)
        async with callers.client(callers.authority.caller("demo/chat")) as client:
            for bad in (CallerAuthority().caller("demo/chat"), callers.authority.caller("people/nobody")):
                with pytest.raises(KeyswitchError):
                    await client.renew(bad)
                await client.complete("hi")
