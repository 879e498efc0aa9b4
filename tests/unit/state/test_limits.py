"""Both stores of limits through the suite, and what only one of them does."""

import asyncio
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from redis.crc import key_slot

from router_service.core.faults import Fault, Reason
from router_service.policy.cooldown import RestCause, RestOrder
from router_service.state.limits import SLOT_SECONDS, WAITER_SECONDS, Demand, Exceeded, Limits, LimitsAway, Taken
from router_service.state.memory import MemoryLimits
from router_service.state.redis_store import RedisLimits, rate_key, slot_keys
from router_service.state.shared import SharedLimits, WhenAway
from tests.fakes.redis_server import RedisServer, age
from tests.suites.limits_suite import KEY, TENANT, LimitsSuite

ROOT = Path(__file__).resolve().parents[3]


class TestMemory(LimitsSuite):
    @pytest.fixture(autouse=True)
    def state(self) -> None:
        self.now = 1000.0
        self.store = MemoryLimits(lambda: self.now)

    def open(self) -> Limits:
        return self.store

    async def age(self, seconds: float) -> None:
        self.now += seconds


class TestRedis(LimitsSuite):
    @pytest.fixture(autouse=True)
    def state(self, redis_server: RedisServer) -> None:
        self.server = redis_server
        with redis_server.connect() as client:
            client.flushall()

    def open(self) -> Limits:
        return RedisLimits(self.server.url())

    async def age(self, seconds: float) -> None:
        await age(self.server, seconds)

    async def test_everything_ends_by_itself(self, limits: Limits) -> None:
        for ticket in ("a", "b"):
            await limits.take_slot(KEY, ticket, 1)
        await limits.take_rates(TENANT, [Demand("requests", 5, 1)])
        await limits.correct_rate(TENANT, "tokens", 1, 5)
        await limits.rest(RestOrder("credential:a:m", RestCause.RATE, Reason.UPSTREAM_RATE_LIMITED, None))
        with self.server.connect() as client:
            keys = client.keys("*")
            assert len(keys) == 7
            assert [key for key in keys if client.pttl(key) <= 0] == []

    async def test_scripts_survive_a_flush_of_scripts(self, limits: Limits) -> None:
        await limits.take_slot(KEY, "a", 1)
        with self.server.connect() as client:
            client.script_flush()
        assert await limits.take_slot(KEY, "b", 1) == 0


def test_the_keys_of_a_script_share_a_cluster_slot() -> None:
    assert len({key_slot(key.encode()) for key in slot_keys(KEY)}) == 1
    assert len({key_slot(rate_key(TENANT, key).encode()) for key in ("organization:requests:x", "user:tokens:y")}) == 1


class Away:
    """A router over a server that goes away, and its clock."""

    def __init__(self, server: RedisServer, when_away: WhenAway, routers: int = 2) -> None:
        self.now = 0.0
        self.noted: list[bool] = []
        store = RedisLimits(server.url())
        self.limits = SharedLimits(store, when_away, routers, lambda: self.now, self.noted.append)


@pytest.fixture
def server(own_redis_server: RedisServer) -> Iterator[RedisServer]:
    yield own_redis_server
    own_redis_server.signal(signal.SIGCONT)


KILLED = """
import asyncio, sys
from prometheus_client import CollectorRegistry
from router_service.observe.metrics import Metrics
from router_service.state.redis_store import RedisLimits
from router_service.state.slots import SlotKeeper
async def main():
    limits = RedisLimits(sys.argv[1])
    keeper = SlotKeeper(limits, Metrics(CollectorRegistry()))
    assert await keeper.take(sys.argv[2], "killed", 1, None)
    await keeper.beat()
    print("taken", flush=True)
    await keeper.take(sys.argv[2], "waits", 1, None)
asyncio.run(main())
"""


async def test_the_slot_and_the_place_of_a_killed_process_come_back(redis_server: RedisServer) -> None:
    with redis_server.connect() as client:
        client.flushall()
    limits = RedisLimits(redis_server.url())
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", KILLED, redis_server.url(), KEY, stdout=asyncio.subprocess.PIPE, cwd=ROOT
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"taken\n"
    async with asyncio.timeout(10):
        while await limits.count_slots(KEY) != (1, 1):
            await asyncio.sleep(0)
    process.kill()
    await process.wait()
    assert await limits.take_slot(KEY, "next", 1) == 1
    await age(redis_server, WAITER_SECONDS + 1)
    assert await limits.take_slot(KEY, "next", 1) == 0
    await age(redis_server, SLOT_SECONDS)
    assert await limits.take_slot(KEY, "next", 1) is None
    await limits.close()


@pytest.mark.parametrize("how", ["stopped", "frozen"])
async def test_closed_refuses_what_it_cannot_count(server: RedisServer, how: str) -> None:
    away = Away(server, WhenAway.CLOSED)
    assert await away.limits.take_slot(KEY, "a", 1) is None
    if how == "frozen":
        server.signal(signal.SIGSTOP)
    else:
        server.stop()
    with pytest.raises(Fault) as slot:
        await away.limits.take_slot(KEY, "b", 1)
    assert slot.value.reason is Reason.LIMITS_UNAVAILABLE
    with pytest.raises(Fault) as rate:
        await away.limits.take_rates(TENANT, [Demand("requests", 5, 1)])
    assert rate.value.metadata == {"limit": "rates"}
    await away.limits.leave_slot(KEY, "a")  # what cannot be given back ends by itself
    assert away.noted == [True]
    if how == "frozen":
        server.signal(signal.SIGCONT)
    else:
        server.start()
    away.now += 2
    assert isinstance(await away.limits.take_rates(TENANT, [Demand("requests", 5, 1)]), Taken)
    assert away.noted == [True, False]
    await away.limits.close()


async def test_local_keeps_this_routers_share(server: RedisServer) -> None:
    away = Away(server, WhenAway.LOCAL)
    await away.limits.take_rates(TENANT, [Demand("requests", 4, 1)])
    server.stop()
    assert isinstance(await away.limits.take_rates(TENANT, [Demand("requests", 4, 1)]), Taken)
    assert isinstance(await away.limits.take_rates(TENANT, [Demand("requests", 4, 1)]), Taken)
    assert isinstance(await away.limits.take_rates(TENANT, [Demand("requests", 4, 1)]), Exceeded)
    assert await away.limits.take_slot(KEY, "a", 3) is None
    assert await away.limits.take_slot(KEY, "b", 3) == 0
    assert await away.limits.count_slots(KEY) == (1, 1)
    await away.limits.leave_slot(KEY, "a")
    assert await away.limits.take_slot(KEY, "b", 3) is None
    assert away.noted == [True]
    await away.limits.close()


async def test_rests_hold_also_without_the_store(server: RedisServer) -> None:
    away = Away(server, WhenAway.CLOSED)
    await away.limits.rest(RestOrder("credential:a:m", RestCause.RATE, Reason.UPSTREAM_RATE_LIMITED, 50.0))
    server.stop()
    assert await away.limits.rests() == {}
    await away.limits.rest(RestOrder("credential:b:m", RestCause.RATE, Reason.UPSTREAM_RATE_LIMITED, 50.0))
    assert list(await away.limits.rests()) == ["credential:b:m"]
    assert await away.limits.claim_probe("credential:b:m", 5) is False
    server.start()
    away.now += 2
    assert list(await away.limits.rests()) == ["credential:b:m"]
    await away.limits.close()


async def test_what_the_store_last_said_to_rest_rests_while_it_is_away(server: RedisServer) -> None:
    away = Away(server, WhenAway.CLOSED)
    for name, seconds in (("a", 50.0), ("b", 5.0), ("c", 50.0)):
        order = RestOrder(f"credential:{name}:m", RestCause.RATE, Reason.UPSTREAM_RATE_LIMITED, seconds)
        await away.limits.rest(order)
    assert len(await away.limits.rests()) == 3
    server.stop()
    away.now += 10
    await away.limits.wake("credential:c:m")
    (left,) = (await away.limits.rests()).items()
    assert left[0] == "credential:a:m"
    assert 20 < left[1].seconds <= 40
    away.now += 45
    assert await away.limits.rests() == {}
    await away.limits.close()


async def test_a_cancel_that_the_client_loses_is_not_lost(server: RedisServer) -> None:
    store = RedisLimits(server.url())

    async def lose() -> int:
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        return 1

    asking = asyncio.ensure_future(store._ask(lose))
    await asyncio.sleep(0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert await store.count_slots(KEY) == (0, 0)
    await store.close()


async def test_holders_are_known_again_after_the_server_lost_everything(server: RedisServer) -> None:
    away = Away(server, WhenAway.CLOSED)
    await away.limits.take_slot(KEY, "a", 1)
    server.stop()
    server.start()
    assert await away.limits.keep_slots({KEY: ["a"]}) == 1
    assert await away.limits.take_slot(KEY, "b", 1) == 0
    await away.limits.close()


async def test_the_error_says_nothing_of_the_address(server: RedisServer) -> None:
    server.stop()
    store = RedisLimits(server.url())
    with pytest.raises(LimitsAway) as error:
        await store.take_slot(KEY, "a", 1)
    assert str(server.folder) not in str(error.value)
    await store.close()
