"""What owners have, remembered until a change says otherwise."""

import asyncio

import pytest

from router_service.core.caller import Credential
from router_service.core.faults import Fault, Reason
from router_service.core.secret import Secret
from router_service.credentials.leases import Lease, Leases
from router_service.credentials.owners import Owned, Owners

ACME = "organizations/acme"
ADA = "organizations/acme/users/ada"
OTHER = "organizations/acme2"
ORIGIN = "https://api.example"
NAME = f"{ADA}/credentials/main"


class Store:
    """Lists owners; every list differs from the last one."""

    def __init__(self) -> None:
        self.owners = Owners()
        self.asked: list[str] = []
        self.go_on = asyncio.Event()
        self.go_on.set()
        self.fault: Fault | None = None

    async def load(self, owner: str) -> Owned:
        self.asked.append(owner)
        number = len(self.asked)
        await self.go_on.wait()
        if self.fault is not None:
            raise self.fault
        name = f"{owner}/credentials/c{number}"
        return Owned((Credential(name, "providers/x", "", (), True, f"{name}/versions/1", None),), True)

    async def get(self, owner: str = ACME, token: str = "t") -> str:
        """The name of what it has."""
        return (await self.owners.get(owner, token, self.load)).credentials[0].name


@pytest.fixture
async def store() -> Store:
    return Store()


async def test_a_list_is_remembered_for_everybody(store: Store) -> None:
    assert await store.get() == await store.get(token="other")
    assert store.asked == [ACME]
    held = store.owners.held(ACME)
    assert held is not None
    assert held.credentials[0].name == f"{ACME}/credentials/c1"
    assert store.owners.held(ADA) is None


async def test_callers_with_one_token_wait_for_one_list(store: Store) -> None:
    store.go_on.clear()
    callers = [asyncio.create_task(store.get()) for _ in range(5)]
    callers.append(asyncio.create_task(store.get(token="other")))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    callers[0].cancel()
    store.go_on.set()
    names = await asyncio.gather(*callers[1:])
    assert len(store.asked) == 2
    assert set(names) == {f"{ACME}/credentials/c1", f"{ACME}/credentials/c2"}


async def test_a_change_on_the_way_makes_it_be_asked_for_again(store: Store) -> None:
    store.go_on.clear()
    caller = asyncio.create_task(store.get())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    store.owners.forget(ACME)
    store.go_on.set()
    assert await caller == f"{ACME}/credentials/c2"


async def test_a_failure_is_not_remembered(store: Store) -> None:
    store.fault = Fault(Reason.CREDENTIALS_UNAVAILABLE, "away")
    with pytest.raises(Fault):
        await store.get()
    store.fault = None
    assert await store.get() == f"{ACME}/credentials/c2"


@pytest.mark.parametrize(
    ("changed", "kept"),
    [
        ("deployment", set()),
        (ACME, {"deployment", OTHER}),
        (ADA, {"deployment", ACME, OTHER}),
        ("organizations/ac", {"deployment", ACME, ADA, OTHER}),
    ],
)
async def test_a_change_reaches_those_below_and_nobody_of_a_like_name(
    store: Store, changed: str, kept: set[str]
) -> None:
    every = ("deployment", ACME, ADA, OTHER)
    for owner in every:
        await store.get(owner)
    store.owners.forget_below(changed)
    assert {owner for owner in every if store.owners.held(owner) is not None} == kept


async def test_one_owners_change_leaves_those_below_it(store: Store) -> None:
    for owner in (ACME, ADA):
        await store.get(owner)
    store.owners.forget(ACME)
    assert store.owners.held(ACME) is None
    assert store.owners.held(ADA) is not None


async def test_who_asks_after_a_change_gets_no_list_from_before_it(store: Store) -> None:
    """The list has just arrived, and nobody has cleared it away yet."""
    store.go_on.clear()

    async def change_and_ask() -> str:
        await store.go_on.wait()
        store.owners.forget(ACME)
        return await store.get()

    first = asyncio.create_task(store.get())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    second = asyncio.create_task(change_and_ask())
    await asyncio.sleep(0)
    store.go_on.set()
    assert await second == f"{ACME}/credentials/c2"
    await first


async def test_who_asks_after_a_revocation_gets_no_lease_from_before_it() -> None:
    """The lease has just arrived, and nobody has cleared it away yet."""
    leases = Leases(lambda: 0.0)
    go_on = asyncio.Event()
    asked = 0

    async def load() -> Lease:
        nonlocal asked
        asked += 1
        lease = Lease(f"l{asked}", NAME, f"{NAME}/versions/1", ORIGIN, 60.0, Secret("sk-x"))
        await go_on.wait()
        return lease

    async def revoke_and_ask() -> Lease:
        await go_on.wait()
        leases.drop_credential(NAME)
        return await leases.get(NAME, ORIGIN, "t", load)

    first = asyncio.create_task(leases.get(NAME, ORIGIN, "t", load))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    second = asyncio.create_task(revoke_and_ask())
    await asyncio.sleep(0)
    go_on.set()
    assert (await second).id == "l2"
    assert (await first).id == "l2"


async def test_the_deployments_revocation_reaches_everybody() -> None:
    leases = Leases(lambda: 0.0)

    async def load() -> Lease:
        return Lease("l", NAME, f"{NAME}/versions/1", ORIGIN, 60.0, Secret("sk-x"))

    await leases.get(NAME, ORIGIN, "t", load)
    cut: list[str] = []
    detach = leases.attach(f"{NAME}/versions/1", lambda: cut.append(NAME))
    leases.drop_below("deployment")
    leases.kill("deployment")
    assert leases.held(NAME, ORIGIN) is None
    assert cut == [NAME]
    detach()
    detach()
    leases.kill("deployment")
    assert cut == [NAME]


async def test_a_lease_is_for_its_origin_and_hides_its_secret() -> None:
    leases = Leases(lambda: 0.0)

    async def load() -> Lease:
        return Lease("l", NAME, f"{NAME}/versions/1", ORIGIN, 60.0, Secret("sk-x"))

    lease = await leases.get(NAME, ORIGIN, "t", load)
    assert leases.held(NAME, "https://evil.example") is None
    assert leases.held(f"{NAME}2", ORIGIN) is None
    assert "sk-x" not in repr(lease)
