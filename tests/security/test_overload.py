"""Promise 18: readers that stall, messages that are too large, floods: refused early, fairly, in bounded memory."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import grpc
import pytest

from tests.fakes.scripted_upstream import Action, Send, chunk, head
from tests.security.promises import count, tried
from tests.security.site import EVE, MAIN, OTHER, Provider, Site, running_router
from tests.service.router_answers import Json, answer_events
from tests.service.router_harness import Caller, make_call

pytestmark = pytest.mark.timeout(count(400, 1700))

MEBIBYTE = 1 << 20
FLOOD: list[Action] = [Send(head()), *(Send(chunk(event)) for event in answer_events(*["x" * 32_768] * 128))]
REQUESTS_PER_MINUTE = 120


def configure(made: Json) -> None:
    """One organization has a limit."""
    made["organizations"]["other"]["limits"] = {"requests_per_minute": REQUESTS_PER_MINUTE}


@pytest.fixture(scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    """A router as a process of its own, whose memory can be looked at."""
    async with running_router(tmp_path_factory.mktemp("overload"), configure) as running:
        yield running


@pytest.fixture(scope="module")
async def provider(site: Site) -> Provider:
    made = Provider(site, "sk-first-0123456789", "sk-other-0123456789")
    await site.save_key(site.admin, MAIN, "sk-first-0123456789")
    other = await site.vault.issue(OTHER, "ADMIN")
    await site.save_key(other, f"{OTHER}/credentials/first", "sk-other-0123456789")
    await site.until_served(site.callers)
    return made


async def test_readers_that_stall_take_bounded_memory(site: Site, provider: Provider) -> None:
    """Each is sent four mebibytes over TLS and reads one message. What the router holds of the rest is little, and what
    it held is used again for the next ones."""
    readers, router = count(50, 1_000), site.routers[0]
    before = router.resident_bytes
    held, waited = await _stall(site, provider, readers)
    left = await _until_given_back(router, before, held) if readers == 1_000 else await _until_steady(router)
    again, waited_again = await _stall(site, provider, readers)
    each = (held - before) / readers
    assert each < 800 * 1024
    assert again - before < 1.5 * (held - before)
    tried(
        18,
        "readers that stall; a router's memory for each, and for all",
        readers=2 * readers,
        kibibytes_each_max=round(each / 1024),
        mebibytes_max=round(held / MEBIBYTE),
        mebibytes_before_max=round(before / MEBIBYTE),
        mebibytes_after_max=round(left / MEBIBYTE),
        mebibytes_the_second_time_max=round(again / MEBIBYTE),
        seconds_for_another_call_max=round(max(waited, waited_again), 3),
    )


async def _stall(site: Site, provider: Provider, readers: int) -> tuple[int, float]:
    """What the router holds while so many do not read, and how long another call takes meanwhile; then they leave."""
    provider.script = FLOOD
    async with AsyncExitStack() as exits:
        streams: list[Any] = []
        for _ in range(-(-readers // 100)):  # as many connections as readers behind a proxy would have
            channel = await exits.enter_async_context(site.open_channel())
            caller = Caller(channel, site.member.token)
            for _ in range(0, min(100, readers - len(streams)), 10):
                streams += await asyncio.gather(*(_begin(caller) for _ in range(10)))
        provider.script = None
        held = await _until_steady(site.routers[0])
        began = time.monotonic()
        assert (await site.callers[0].stream()).error is None, "others are served meanwhile"
        waited = time.monotonic() - began
        for stream in streams:
            stream.cancel()
    async with asyncio.timeout(60):
        while site.upstream.open_connections > 8:
            await asyncio.sleep(0.05)
    return held, waited


async def _begin(caller: Caller) -> Any:
    """A stream of which one message was read. The credential service shares this process with all of the load."""
    async with asyncio.timeout(60):
        while True:
            stream = caller.open(timeout=600.0)
            try:
                await stream.read()
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise
                await asyncio.sleep(0.1)
            else:
                return stream


async def _until_given_back(router: Any, before: int, held: int) -> int:
    """The memory when more than half of what the readers took is the system's again."""
    async with asyncio.timeout(120):
        while router.resident_bytes > (before + held) / 2:
            await asyncio.sleep(0.5)
    return int(router.resident_bytes)


async def _until_steady(router: Any) -> int:
    """The memory when it has not grown for a second, and a mebibyte is no growth."""
    held = router.resident_bytes
    async with asyncio.timeout(120):
        while True:
            await asyncio.sleep(1.0)
            now = router.resident_bytes
            if now <= held + MEBIBYTE:
                return int(max(now, held))
            held = now


async def test_messages_that_are_too_large_are_refused(site: Site, provider: Provider) -> None:
    messages, before, refusals = count(10, 200), site.routers[0].resident_bytes, Counter[str]()
    sent = len(provider.sent)
    options = (("grpc.max_send_message_length", -1),)
    texts = ["x" * (32 * MEBIBYTE + 1), "x" * (48 * MEBIBYTE)]
    async with site.open_channel(options) as channel:
        caller = Caller(channel, site.member.token)

        async def send(number: int) -> None:
            call = caller.open(make_call(texts[number % 2]), timeout=60.0)
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await call.read()
            assert refused.value.code() in (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.INVALID_ARGUMENT)
            refusals[refused.value.code().name] += 1

        for begin in range(0, messages, 2):
            await asyncio.gather(*(send(number) for number in range(begin, min(begin + 2, messages))))
    assert len(provider.sent) == sent, "none of them went any further"
    await site.until_served([site.callers[0]])  # the credential service of this test was held up by the large messages
    grown = site.routers[0].resident_bytes - before
    assert grown < 600 * MEBIBYTE
    counts = {name.lower(): number for name, number in refusals.items()}
    tried(
        18, "messages beyond 32 MiB refused", messages=messages, mebibytes_grown_max=round(grown / MEBIBYTE), **counts
    )


async def test_a_flood_of_one_tenant_is_refused_and_another_is_served(site: Site, provider: Provider) -> None:
    flood, ends = count(400, 4_000), Counter[str]()
    eve = await site.vault.issue(OTHER, "MEMBER", user=EVE, application=f"{OTHER}/applications/chat")
    is_over, others = asyncio.Event(), Counter[str]()

    async def call_on(number: int) -> None:
        for _ in range(number):
            found = await site.at_routers(eve.token)[0].stream()
            if found.error is None:
                ends["served"] += 1
                continue
            assert found.refused.code is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert found.refused.retry_seconds is not None, "it is told when to come back"
            ends[found.refused.reason] += 1

    async def call_as_another() -> None:
        while not is_over.is_set():
            found = await site.callers[0].stream()
            others["served" if found.error is None else found.error.reason] += 1

    async with asyncio.timeout(600):
        other = asyncio.create_task(call_as_another())
        began = time.monotonic()
        await asyncio.gather(*(call_on(flood // 32) for _ in range(32)))
        minutes = int((time.monotonic() - began) / 60) + 1
        is_over.set()
        await other
    assert set(ends) == {"served", "RATE_LIMITED"}
    assert ends["served"] <= REQUESTS_PER_MINUTE * (minutes + 1)
    assert set(others) == {"served"}
    tried(
        18,
        "a tenant's flood beyond its limit, each refusal with RetryInfo; another tenant meanwhile",
        calls=ends.total(),
        refused=ends["RATE_LIMITED"],
        another_served=others.total(),
        another_refused=0,
    )
