"""When tokens are renewed and replaced: the rule by itself, and the keeper that follows it, on the test's own clock."""

import asyncio
import math
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vault_service.store.renewal import (
    TOKEN_FILE_PAUSE_SECONDS,
    LogIn,
    Renew,
    failed,
    login_retry_seconds,
    new_lifetime,
    next_step,
    renewed,
)
from vault_service.store.store import Denied, StoreError, Unavailable
from vault_service.store.token_keeper import TokenKeeper
from vault_service.store.vault_errors import TokenRefused
from vault_service.store.vault_login import Grant

jitters = st.floats(0.0, 1.0, exclude_max=True)
leases = st.floats(1.0, 32 * 86400.0)


@given(lease=leases, first=jitters, second=jitters)
def test_a_new_token_is_renewed_after_two_thirds_of_its_time(lease: float, first: float, second: float) -> None:
    lifetime = new_lifetime(100.0, lease, renewable=True, jitter=first)
    step = next_step(lifetime, 100.0, jitter=second)
    assert isinstance(step, Renew)
    assert lease * 0.69 <= step.after_seconds <= lease * 0.74
    assert lease - step.after_seconds > lifetime.grace_seconds


@given(lease=leases, jitter=jitters)
def test_a_token_that_cannot_be_renewed_is_replaced_within_its_grace(lease: float, jitter: float) -> None:
    step = next_step(new_lifetime(0.0, lease, renewable=False, jitter=jitter), 0.0, jitter=jitter)
    assert isinstance(step, LogIn)
    assert lease * 0.79 <= step.after_seconds <= lease * 0.91


def test_a_token_without_an_end_needs_nothing() -> None:
    lifetime = new_lifetime(0.0, None, renewable=False, jitter=0.5)
    assert next_step(lifetime, 1e9, jitter=0.5) is None
    assert lifetime.remaining_seconds(1e9) == math.inf


@given(ttl=st.floats(2.0, 3600.0), ages=st.floats(1.0, 50.0), seed=st.lists(jitters, min_size=8, max_size=8))
def test_a_token_that_nears_its_maximum_age_is_replaced_before_it_ends(
    ttl: float, ages: float, seed: list[float]
) -> None:
    """Renewals give `ttl` until the maximum age cuts them short; the login must come while the token still lives."""
    now, end = 0.0, ttl * ages
    lifetime = new_lifetime(now, min(ttl, end), renewable=True, jitter=seed[0])
    for turn in range(10_000):
        jitter = seed[turn % len(seed)]
        step = next_step(lifetime, now, jitter=jitter)
        assert step is not None
        now += step.after_seconds
        assert now < end
        if isinstance(step, LogIn):
            return
        lifetime = renewed(lifetime, now, min(ttl, end - now), renewable=True, jitter=jitter)
    pytest.fail("no login came")


@given(lease=leases, jitter=jitters)
def test_failed_renewals_back_off_and_end_in_a_login_while_the_token_lives(lease: float, jitter: float) -> None:
    lifetime = new_lifetime(0.0, lease, renewable=True, jitter=jitter)
    step = next_step(lifetime, 0.0, jitter=jitter)
    assert isinstance(step, Renew)
    now = step.after_seconds
    waits = []
    while isinstance(step, Renew):
        lifetime = failed(lifetime)
        step = next_step(lifetime, now, jitter=jitter)
        assert step is not None
        now += step.after_seconds
        if isinstance(step, Renew):
            waits.append(step.after_seconds)
    assert now <= lease - lifetime.grace_seconds * (1 - 1e-9)
    assert waits == sorted(waits)
    assert len(waits) >= 1


def test_a_renewal_that_gives_nothing_more_calls_for_a_login_at_once() -> None:
    lifetime = new_lifetime(0.0, 10.0, renewable=True, jitter=0.0)
    lifetime = renewed(lifetime, 7.0, 0.0, renewable=True, jitter=0.0)
    assert next_step(lifetime, 7.0, jitter=0.0) == LogIn(0.0)


def test_fifty_instances_do_not_come_at_once() -> None:
    steps = [next_step(new_lifetime(0.0, 1200.0, renewable=True, jitter=n / 50), 0.0, jitter=0.5) for n in range(50)]
    times = sorted(step.after_seconds for step in steps if step is not None)
    assert len(set(times)) == 50
    assert times[-1] - times[0] > 0.03 * 1200


def test_refused_logins_are_tried_ever_less_often_up_to_a_minute() -> None:
    waits = [login_retry_seconds(n, jitter=0.5) for n in range(1, 12)]
    assert waits == sorted(waits)
    assert waits[0] == 1.0
    assert waits[-1] == 60.0


# --- the keeper ------------------------------------------------------------------------------------------------------


class Clock:
    """Time that passes only by `pass_time`; sleepers wake in the order of their times."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._sleepers: list[tuple[float, asyncio.Future[None]]] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        future = asyncio.get_running_loop().create_future()
        self._sleepers.append((self.now + seconds, future))
        await future

    async def pass_time(self, seconds: float) -> None:
        end = self.now + seconds
        while True:
            await settle()
            due = [sleeper for sleeper in self._sleepers if sleeper[0] <= end and not sleeper[1].done()]
            if not due:
                break
            time, future = min(due, key=lambda sleeper: sleeper[0])
            self.now = max(self.now, time)
            self._sleepers.remove((time, future))
            future.set_result(None)
        self.now = end


async def settle() -> None:
    """Lets every task go as far as it can without time passing."""
    for _ in range(20):
        await asyncio.sleep(0)


class Issuer:
    """Stands for Vault: gives tokens with a lease and a maximum age, and fails when told to."""

    def __init__(self, clock: Clock, *, lease_seconds: float = 20.0, max_age_seconds: float = 1e9) -> None:
        self.clock = clock
        self.lease_seconds = lease_seconds
        self.max_age_seconds = max_age_seconds
        self.login_fault: StoreError | None = None
        self.renewal_fault: StoreError | None = None
        self.born: dict[str, float] = {}
        self.ends: dict[str, float] = {}
        self.logins = 0
        self.renewals = 0

    async def log_in(self) -> Grant:
        self.logins += 1
        await asyncio.sleep(0)
        if self.login_fault is not None:
            raise self.login_fault
        token = f"token-{self.logins}"
        self.born[token] = self.clock.now
        self.ends[token] = self.clock.now + self.lease_seconds
        return Grant(token, self.lease_seconds, True)

    async def renew(self, token: str) -> Grant:
        self.renewals += 1
        await asyncio.sleep(0)
        if self.renewal_fault is not None:
            raise self.renewal_fault
        if self.ends[token] <= self.clock.now:
            dead = TokenRefused("dead", status=403)
            dead.token_is_dead = True
            raise dead
        self.ends[token] = min(self.clock.now + self.lease_seconds, self.born[token] + self.max_age_seconds)
        return Grant(token, self.ends[token] - self.clock.now, True)

    def keeper(self, jitter: Callable[[], float] = lambda: 0.5, **more: float) -> TokenKeeper:
        sleep: Callable[[float], Awaitable[None]] = self.clock.sleep
        return TokenKeeper(self.log_in, self.renew, clock=self.clock, sleep=sleep, jitter=jitter, **more)


async def assert_no_gap(issuer: Issuer, keeper: TokenKeeper, seconds: float) -> None:
    """Passes the time in small steps; at each the token in hand must be one that the issuer still takes."""
    for _ in range(int(seconds * 4)):
        await issuer.clock.pass_time(0.25)
        assert issuer.ends[keeper._token] > issuer.clock.now


async def test_keeps_one_token_alive_by_renewals() -> None:
    issuer = Issuer(Clock())
    keeper = issuer.keeper()
    await keeper.token()
    await assert_no_gap(issuer, keeper, 600)
    assert issuer.logins == 1
    assert issuer.renewals > 30
    await keeper.close()


async def test_replaces_tokens_that_reach_their_maximum_age_without_a_gap() -> None:
    issuer = Issuer(Clock(), max_age_seconds=50)
    keeper = issuer.keeper()
    await keeper.token()
    await assert_no_gap(issuer, keeper, 600)
    assert issuer.logins > 10
    await keeper.close()


async def test_survives_failing_renewals_by_a_login_before_the_token_ends() -> None:
    issuer = Issuer(Clock())
    keeper = issuer.keeper()
    await keeper.token()
    issuer.renewal_fault = Unavailable("away")
    await assert_no_gap(issuer, keeper, 60)
    assert issuer.renewals > 3
    assert issuer.logins > 1
    await keeper.close()


async def test_a_policy_that_forbids_renewals_leads_to_logins_without_a_gap() -> None:
    issuer = Issuer(Clock())
    keeper = issuer.keeper()
    await keeper.token()
    issuer.renewal_fault = TokenRefused("no", status=403)
    await assert_no_gap(issuer, keeper, 100)
    assert 5 <= issuer.logins <= 8
    assert issuer.renewals in {issuer.logins, issuer.logins - 1}  # one try for each token
    await keeper.close()


async def test_goes_on_after_vault_was_away_longer_than_the_token_lived() -> None:
    issuer = Issuer(Clock())
    keeper = issuer.keeper()
    first = await keeper.token()
    issuer.renewal_fault = issuer.login_fault = Unavailable("away")
    await issuer.clock.pass_time(300)
    with pytest.raises(Unavailable):
        await keeper.token()
    issuer.renewal_fault = issuer.login_fault = None
    await issuer.clock.pass_time(120)
    logins = issuer.logins
    assert await keeper.token() != first
    assert issuer.logins == logins  # the background work had logged in before anybody asked
    await assert_no_gap(issuer, keeper, 60)
    await keeper.close()


async def test_replaces_a_token_that_a_renewal_finds_dead() -> None:
    issuer = Issuer(Clock())
    keeper = issuer.keeper()
    first = await keeper.token()
    issuer.ends[first] = 0.0
    await issuer.clock.pass_time(16)
    assert await keeper.token() != first
    await keeper.close()


async def test_logs_in_once_for_many_callers() -> None:
    issuer = Issuer(Clock())
    keeper = issuer.keeper()
    assert set(await asyncio.gather(*(keeper.token() for _ in range(32)))) == {"token-1"}
    assert set(await asyncio.gather(*(keeper.replace("token-1") for _ in range(32)))) == {"token-2"}
    assert await keeper.replace("token-1") == "token-2"  # a latecomer with the old token
    assert issuer.logins == 2
    await keeper.close()


async def test_one_impatient_caller_does_not_end_the_login_of_the_others() -> None:
    issuer = Issuer(Clock())
    keeper = issuer.keeper()
    impatient, patient = asyncio.create_task(keeper.token()), asyncio.create_task(keeper.token())
    await asyncio.sleep(0)
    impatient.cancel()
    assert await patient == "token-1"
    assert impatient.cancelled()
    await keeper.close()


async def test_does_not_hammer_a_refusing_vault() -> None:
    issuer = Issuer(Clock())
    keeper = issuer.keeper()
    issuer.login_fault = Denied("refused", status=400)
    for _ in range(100):
        with pytest.raises(Denied):
            await keeper.token()
    assert issuer.logins == 1
    for _ in range(120):
        await issuer.clock.pass_time(1)
        with pytest.raises(Denied):
            await keeper.token()
    assert issuer.logins < 12
    issuer.login_fault = None
    await issuer.clock.pass_time(61)
    assert await keeper.token()
    await keeper.close()


async def test_a_file_of_tokens_is_looked_at_every_second_however_long_it_was_no_good() -> None:
    issuer = Issuer(Clock())
    keeper = issuer.keeper(longest_pause_seconds=TOKEN_FILE_PAUSE_SECONDS)
    issuer.login_fault = Denied("refused", status=403)
    for asked in range(1, 301):
        with pytest.raises(Denied):
            await keeper.token()
        assert issuer.logins == asked
        await issuer.clock.pass_time(1.0)
    issuer.login_fault = None
    assert await keeper.token() == "token-301"
    await keeper.close()


async def test_a_refused_policy_is_worth_a_login_only_when_the_token_is_old_or_dead() -> None:
    issuer = Issuer(Clock())
    keeper = issuer.keeper()
    await keeper.token()
    policy, dead = TokenRefused("no"), TokenRefused("no")
    dead.token_is_dead = True
    assert keeper.may_help(dead)
    assert not keeper.may_help(policy)
    await issuer.clock.pass_time(10)
    assert keeper.may_help(policy)
    await keeper.close()


async def test_closing_ends_the_background_work_and_forgets_the_token() -> None:
    issuer = Issuer(Clock())
    keeper = issuer.keeper()
    await keeper.token()
    assert await keeper.close() == "token-1"
    renewals = issuer.renewals
    await issuer.clock.pass_time(600)
    assert (issuer.renewals, issuer.logins) == (renewals, 1)


def test_a_grant_does_not_show_its_token() -> None:
    assert "sk-canary" not in repr(Grant("sk-canary", 1.0, True))
