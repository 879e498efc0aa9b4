"""What every store of limits must do. A subclass opens stores over one shared state and lets time pass."""

import asyncio
import secrets
from abc import abstractmethod
from collections.abc import AsyncIterator

import pytest

from router_service.core.faults import Reason
from router_service.policy.cooldown import RestCause, RestOrder
from router_service.state.limits import SLOT_SECONDS, WAITER_SECONDS, Demand, Exceeded, Limits, Taken

KEY = "organizations/acme/credentials/glm"
TENANT = "organizations/acme"


class LimitsSuite:
    """The tests. `limits` and `other` are two routers over the same state."""

    @abstractmethod
    def open(self) -> Limits:
        """A store; all of a test share their state."""

    @abstractmethod
    async def age(self, seconds: float) -> None:
        """Lets time pass."""

    @pytest.fixture
    async def limits(self) -> AsyncIterator[Limits]:
        opened = self.open()
        yield opened
        await opened.close()

    @pytest.fixture
    async def other(self, limits: Limits) -> AsyncIterator[Limits]:
        opened = self.open()
        yield opened
        await opened.close()

    async def test_slots_are_shared_and_come_back(self, limits: Limits, other: Limits) -> None:
        assert await limits.take_slot(KEY, "a", 2) is None
        assert await other.take_slot(KEY, "b", 2) is None
        assert await limits.take_slot(KEY, "c", 2) == 0
        assert await limits.count_slots(KEY) == (2, 1)
        await other.leave_slot(KEY, "a")
        assert await limits.take_slot(KEY, "c", 2) is None
        assert await limits.count_slots(KEY) == (2, 0)

    async def test_the_queue_is_fair(self, limits: Limits, other: Limits) -> None:
        await limits.take_slot(KEY, "holder", 1)
        names = [f"waiter-{number}" for number in (3, 1, 2)]
        assert [await limits.take_slot(KEY, name, 1) for name in names] == [0, 1, 2]
        assert [await other.take_slot(KEY, name, 1) for name in reversed(names)] == [2, 1, 0]
        await limits.leave_slot(KEY, "holder")
        assert await other.take_slot(KEY, names[2], 1) == 2
        assert await other.take_slot(KEY, "late", 1) == 3
        assert await limits.take_slot(KEY, names[0], 1) is None
        assert await other.take_slot(KEY, names[1], 1) == 0

    async def test_a_ticket_takes_one_slot_however_often_it_asks(self, limits: Limits) -> None:
        for _ in range(3):
            assert await limits.take_slot(KEY, "a", 2) is None
        assert await limits.count_slots(KEY) == (1, 0)
        for _ in range(2):
            await limits.leave_slot(KEY, "a")
        await limits.leave_slot(KEY, "never seen")
        assert await limits.count_slots(KEY) == (0, 0)

    async def test_the_slot_of_a_killed_router_comes_back(self, limits: Limits, other: Limits) -> None:
        await other.take_slot(KEY, "killed", 1)
        assert await limits.take_slot(KEY, "next", 1) == 0
        await self.age(SLOT_SECONDS + 1)
        assert await limits.take_slot(KEY, "next", 1) is None

    async def test_a_killed_waiter_holds_up_nobody(self, limits: Limits, other: Limits) -> None:
        await limits.take_slot(KEY, "holder", 1)
        await other.take_slot(KEY, "killed", 1)
        assert await limits.take_slot(KEY, "next", 1) == 1
        await self.age(WAITER_SECONDS + 1)
        assert await limits.take_slot(KEY, "next", 1) == 0

    async def test_a_beat_keeps_slots_and_brings_lost_ones_back(self, limits: Limits, other: Limits) -> None:
        await limits.take_slot(KEY, "a", 1)
        for _ in range(3):
            await self.age(SLOT_SECONDS - 1)
            assert await limits.keep_slots({KEY: ["a"]}) == 0
        await self.age(SLOT_SECONDS + 1)
        assert await limits.keep_slots({KEY: ["a"]}) == 1
        assert await other.take_slot(KEY, "b", 1) == 0

    async def test_a_lowered_limit_lets_nobody_in_until_it_holds(self, limits: Limits) -> None:
        for name in ("a", "b", "c"):
            assert await limits.take_slot(KEY, name, 3) is None
        assert await limits.take_slot(KEY, "d", 1) == 0
        await limits.leave_slot(KEY, "a")
        await limits.leave_slot(KEY, "b")
        assert await limits.take_slot(KEY, "d", 1) == 0
        await limits.leave_slot(KEY, "c")
        assert await limits.take_slot(KEY, "d", 1) is None

    async def test_many_at_once_never_have_more_than_there_are(self, limits: Limits, other: Limits) -> None:
        inside = most = done = 0

        async def use(store: Limits, ticket: str) -> None:
            nonlocal inside, most, done
            while await store.take_slot(KEY, ticket, 3) is not None:
                await asyncio.sleep(0)
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0)
            inside -= 1
            done += 1
            await store.leave_slot(KEY, ticket)

        await asyncio.gather(*(use((limits, other)[number % 2], secrets.token_hex(4)) for number in range(16)))
        assert (most, done) == (3, 16)
        assert await limits.count_slots(KEY) == (0, 0)

    async def test_rates_are_taken_together_or_not_at_all(self, limits: Limits, other: Limits) -> None:
        wide, narrow = Demand("organization:requests", 10, 1), Demand("user:requests:ada", 2, 1)
        for store in (limits, other):
            assert isinstance(await store.take_rates(TENANT, [wide, narrow]), Taken)
        refused = await limits.take_rates(TENANT, [wide, narrow])
        assert isinstance(refused, Exceeded)
        assert refused.index == 1
        assert 0 < refused.retry_seconds <= 62
        for _ in range(8):
            assert isinstance(await other.take_rates(TENANT, [wide]), Taken)
        assert isinstance(await limits.take_rates(TENANT, [wide]), Exceeded)
        assert isinstance(await limits.take_rates("organizations/other", [wide, narrow]), Taken)

    async def test_no_minute_has_more_than_the_limit(self, limits: Limits) -> None:
        demand = Demand("requests", 5, 1)
        taken_at: list[float] = []
        now = 0.0
        for _ in range(60):
            if isinstance(await limits.take_rates(TENANT, [demand]), Taken):
                taken_at.append(now)
            await self.age(4)
            now += 4
        assert all(sum(start <= other < start + 60 for other in taken_at) <= 5 for start in taken_at)
        assert len(taken_at) >= 15  # and it gives what it has

    async def test_waiting_as_long_as_it_says_is_enough(self, limits: Limits) -> None:
        demand = Demand("tokens", 100, 40)
        await limits.take_rates(TENANT, [demand])
        await self.age(20)
        await limits.take_rates(TENANT, [demand])
        refused = await limits.take_rates(TENANT, [demand])
        assert isinstance(refused, Exceeded)
        await self.age(2 * (refused.retry_seconds // 2 + 1))
        assert isinstance(await limits.take_rates(TENANT, [demand]), Taken)
        assert isinstance(await limits.take_rates(TENANT, [demand]), Exceeded)

    async def test_a_rate_is_corrected(self, limits: Limits) -> None:
        large = Demand("tokens", 100, 90)
        taken = await limits.take_rates(TENANT, [large])
        assert isinstance(taken, Taken)
        await limits.correct_rate(TENANT, "tokens", taken.step, -80)
        assert isinstance(await limits.take_rates(TENANT, [large]), Taken)
        assert isinstance(await limits.take_rates(TENANT, [Demand("tokens", 100, 1)]), Exceeded)
        await self.age(70)
        again = await limits.take_rates(TENANT, [Demand("tokens", 100, 10)])
        assert isinstance(again, Taken)
        await limits.correct_rate(TENANT, "tokens", again.step, 90)
        assert isinstance(await limits.take_rates(TENANT, [Demand("tokens", 100, 1)]), Exceeded)
        await limits.correct_rate(TENANT, "tokens", taken.step - 1000, -90)  # its minute is over
        assert isinstance(await limits.take_rates(TENANT, [Demand("tokens", 100, 1)]), Exceeded)

    async def test_a_rest_ends_by_itself_and_one_tries_first(self, limits: Limits, other: Limits) -> None:
        await limits.rest(RestOrder("credential:a:m", RestCause.QUOTA_WINDOW, Reason.UPSTREAM_RATE_LIMITED, 100.0))
        found = (await other.rests())["credential:a:m"]
        assert (found.cause, found.reason) == (RestCause.QUOTA_WINDOW, Reason.UPSTREAM_RATE_LIMITED)
        assert 50 < found.seconds <= 100
        assert not await other.claim_probe("credential:a:m", 30)
        await self.age(101)
        assert (await other.rests())["credential:a:m"].seconds < 0
        assert [await store.claim_probe("credential:a:m", 30) for store in (limits, other, limits)] == [
            True,
            False,
            False,
        ]
        assert (await other.rests())["credential:a:m"].probe_seconds > 0
        await limits.wake("credential:a:m")
        assert await other.rests() == {}
        assert await other.claim_probe("credential:a:m", 30)

    async def test_a_rest_is_longer_each_time_until_it_is_forgotten(self, limits: Limits) -> None:
        order = RestOrder("endpoint:p:m", RestCause.BREAKER, Reason.UPSTREAM_RATE_LIMITED, None, 10.0)
        lengths = []
        for _ in range(6):
            await limits.rest(order)
            await limits.rest(order)  # calls that were under way are no further failure
            seconds = (await limits.rests())["endpoint:p:m"].seconds
            lengths.append(round(seconds))
            await self.age(seconds + 1)
        assert lengths == [10, 20, 40, 80, 120, 120]
        await self.age(200)
        assert await limits.rests() == {}
        await limits.rest(order)
        assert round((await limits.rests())["endpoint:p:m"].seconds) == 10

    async def test_a_rest_that_is_ended_is_tried_by_one_and_not_forgotten(self, limits: Limits, other: Limits) -> None:
        order = RestOrder("endpoint:p:m", RestCause.BREAKER, Reason.UPSTREAM_UNAVAILABLE, None, 10.0)
        await limits.rest(order)
        await other.end_rest(order.key)
        assert (await limits.rests())[order.key].seconds <= 0
        assert [await store.claim_probe(order.key, 30) for store in (limits, other)] == [True, False]
        await other.rest(order)
        assert round((await limits.rests())[order.key].seconds) == 20
        await limits.end_rest("endpoint:nobody:knows")
        assert set(await limits.rests()) == {order.key}

    async def test_a_rest_is_never_shortened(self, limits: Limits) -> None:
        await limits.rest(RestOrder("credential:a:*", RestCause.BALANCE, Reason.UPSTREAM_RATE_LIMITED, 300.0))
        await limits.rest(RestOrder("credential:a:*", RestCause.RATE, Reason.UPSTREAM_RATE_LIMITED, 1.0))
        assert (await limits.rests())["credential:a:*"].seconds > 150
