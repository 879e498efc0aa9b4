"""Leases in hand: one loading for many, nothing kept that was dropped, streams cut by name."""

import asyncio
from collections.abc import Callable
from functools import partial

import pytest

from router_service.core.faults import Fault, Reason
from router_service.core.secret import Secret
from router_service.credentials.leases import MARGIN_SECONDS, Lease, Leases
from router_service.credentials.owners import Owned, Owners

NAME = "organizations/acme/credentials/main"
OTHER = "organizations/acme/users/ada/credentials/mine"
ORIGIN = "https://api.example"


class Shop:
    """Gives leases, each when the test lets it."""

    def __init__(self) -> None:
        self.now = 100.0
        self.leases = Leases(lambda: self.now)
        self.asked = 0
        self.asking = asyncio.Event()
        self.go_on = asyncio.Event()
        self.fault: Fault | None = None

    def lease(self, name: str = NAME) -> Lease:
        return Lease(f"l{self.asked}", name, f"{name}/versions/1", ORIGIN, self.now + 60, Secret("sk-x"))

    async def load(self) -> Lease:
        self.asked += 1
        made = self.lease()
        self.asking.set()
        await self.go_on.wait()
        if self.fault is not None:
            raise self.fault
        return made

    def get(self, token: str = "t") -> "asyncio.Task[Lease]":
        return asyncio.ensure_future(self.leases.get(NAME, ORIGIN, token, self.load))


@pytest.fixture
async def shop() -> Shop:
    return Shop()


async def test_callers_with_one_token_wait_together(shop: Shop) -> None:
    callers = [shop.get() for _ in range(10)]
    await shop.asking.wait()
    shop.go_on.set()
    assert len({lease.id for lease in await asyncio.gather(*callers)}) == 1
    assert shop.asked == 1
    assert (await shop.get()).id == "l1"
    assert shop.asked == 1


async def test_callers_with_other_tokens_prove_themselves(shop: Shop) -> None:
    callers = [shop.get("one"), shop.get("two")]
    await shop.asking.wait()
    shop.go_on.set()
    await asyncio.gather(*callers)
    assert shop.asked == 2


async def test_a_caller_that_leaves_does_not_end_the_loading_of_the_others(shop: Shop) -> None:
    one, two = shop.get(), shop.get()
    await shop.asking.wait()
    one.cancel()
    shop.go_on.set()
    assert (await two).id == "l1"


async def test_a_revocation_overtakes_the_lease_on_its_way(shop: Shop) -> None:
    caller = shop.get()
    await shop.asking.wait()
    shop.leases.drop_credential(NAME)
    shop.go_on.set()
    assert (await caller).id == "l2"


async def test_a_revocation_between_the_arrival_and_the_use_counts(shop: Shop) -> None:
    """The loading is over, its caller not yet awake."""
    caller = shop.get()
    await shop.asking.wait()
    loading = next(iter(shop.leases._loading.values()))
    loading.add_done_callback(lambda _: shop.leases.drop_credential(NAME) if shop.asked == 1 else None)
    shop.go_on.set()
    assert (await caller).id == "l2"


async def test_a_credential_that_keeps_changing_is_said_so(shop: Shop) -> None:
    shop.go_on.set()

    async def load() -> Lease:
        shop.leases.drop_credential(NAME)
        return shop.lease()

    with pytest.raises(Fault) as raised:
        await shop.leases.get(NAME, ORIGIN, "t", load)
    assert raised.value.reason is Reason.CREDENTIALS_UNAVAILABLE


async def test_a_lease_is_not_used_in_its_last_moments(shop: Shop) -> None:
    shop.go_on.set()
    await shop.get()
    shop.now += 60 - MARGIN_SECONDS - 0.1
    assert shop.leases.held(NAME, ORIGIN) is not None
    shop.now += 0.2
    assert shop.leases.held(NAME, ORIGIN) is None


async def test_a_failure_reaches_every_caller_and_is_not_remembered(shop: Shop) -> None:
    shop.fault = Fault(Reason.CREDENTIALS_UNAVAILABLE, "away")
    shop.go_on.set()
    for _ in range(2):
        with pytest.raises(Fault):
            await shop.get()
    assert shop.asked == 2


async def test_what_is_dropped_is_what_is_named(shop: Shop) -> None:
    shop.go_on.set()

    async def load_other() -> Lease:
        return shop.lease(OTHER)

    drops: list[tuple[Callable[[], None], tuple[bool, bool]]] = [
        (lambda: shop.leases.drop_credential(NAME), (False, True)),
        (lambda: shop.leases.drop_below("organizations/acme/users/ada"), (True, False)),
        (lambda: shop.leases.drop_below("organizations/acme"), (False, False)),
        (lambda: shop.leases.drop_below("organizations/ac"), (True, True)),
        (shop.leases.drop_all, (False, False)),
    ]
    for drop, is_kept in drops:
        await shop.get()
        await shop.leases.get(OTHER, ORIGIN, "t", load_other)
        drop()
        held = tuple(shop.leases.held(name, ORIGIN) is not None for name in (NAME, OTHER))
        assert held == is_kept


async def test_a_rejected_lease_is_forgotten_unless_another_took_its_place(shop: Shop) -> None:
    shop.go_on.set()
    first = await shop.get()
    shop.leases.forget(first)
    second = await shop.get()
    shop.leases.forget(first)
    assert shop.leases.held(NAME, ORIGIN) is second


def test_streams_are_cut_by_version_credential_or_owner() -> None:
    for prefix, expected in (
        (f"{NAME}/versions/1", {"one"}),
        (NAME, {"one", "two"}),
        ("organizations/acme", {"one", "two", "mine"}),
        (f"{NAME}/versions/", set()),
        ("organizations/ac", set()),
    ):
        leases = Leases(lambda: 0.0)
        cut: set[str] = set()
        versions = {"one": f"{NAME}/versions/1", "two": f"{NAME}/versions/2", "mine": f"{OTHER}/versions/1"}
        ends = [leases.attach(version, partial(cut.add, name)) for name, version in versions.items()]
        leases.kill(prefix)
        assert cut == expected
        for end in ends:
            end()
        cut.clear()
        leases.kill("organizations/acme")
        assert cut == set()


async def test_a_list_that_a_change_overtakes_is_asked_for_again() -> None:
    owners = Owners()
    asked = 0

    async def load(owner: str) -> Owned:
        nonlocal asked
        asked += 1
        if asked == 1:
            owners.forget(owner)
        return Owned((), user_credentials_enabled=True)

    await owners.get("organizations/acme", "t", load)
    assert asked == 2
    await owners.get("organizations/acme", "t", load)
    assert asked == 2
    owners.forget_below("deployment")
    await owners.get("organizations/acme", "t", load)
    assert asked == 3


async def test_a_lease_that_has_ended_is_let_go_with_its_secret(shop: Shop) -> None:
    shop.go_on.set()
    lease = await shop.get()
    shop.leases.sweep()
    assert shop.leases.held(NAME, ORIGIN) is lease
    shop.now = lease.expire_time
    shop.leases.sweep()
    shop.now = 100.0
    assert shop.leases.held(NAME, ORIGIN) is None
