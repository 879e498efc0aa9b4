"""What becomes of the values that an environment fixes: taken once by however many, and never again."""

import asyncio
from dataclasses import replace
from itertools import count
from typing import Any

import pytest

from tests.unit.vault.test_core_credentials import World, YieldingStore
from vault_service.core.credential import Draft, material_path
from vault_service.core.faults import Fault, Reason
from vault_service.core.fixed import FixedCredential, FixedCredentials, OtherwiseStored, memory_path
from vault_service.core.names import CredentialName, Owner, VersionName
from vault_service.core.secret import Secret
from vault_service.core.states import VersionState
from vault_service.maintenance.rotation import rotate_tenant
from vault_service.maintenance.shredding import shred_tenant
from vault_service.store.memory import MemoryStore
from vault_service.store.store import Unavailable

NAME = CredentialName(Owner(), "anthropic")
DRAFT = Draft(provider="providers/anthropic", kind="API_KEY", allowed_origins=("https://api.anthropic.com",))
ONE, TWO = Secret(b"sk-ant-0123456789-one"), Secret(b"sk-ant-0123456789-two")


def fixing(world: World, material: Secret = ONE, draft: Draft = DRAFT) -> FixedCredentials:
    """What an instance with this environment has."""
    ids = count()
    fixed = FixedCredential(NAME, draft, material, "sk-…", "KEYSWITCH_VAULT_FIXED_ANTHROPIC_KEY")
    return FixedCredentials([fixed], world.store, world.credentials, new_id=lambda: f"id-{id(ids)}-{next(ids)}")


async def start(world: World, material: Secret = ONE, draft: Draft = DRAFT) -> FixedCredentials:
    """One start of an instance."""
    fixed = fixing(world, material, draft)
    for one in fixed:
        if not await fixed.is_taken(one):
            await fixed.take(one)
    return fixed


async def numbers(world: World) -> list[tuple[int, VersionState]]:
    return [(version.number, version.state) for version in (await world.credentials.get(NAME)).versions]


async def active(world: World) -> Secret | None:
    found = (await world.credentials.get(NAME)).active
    return await world.credentials.open_material(VersionName(NAME, found.number)) if found else None


async def test_a_value_is_taken_once_and_a_new_one_takes_its_place() -> None:
    world = World()
    for _ in range(3):
        fixed = await start(world)
        assert await numbers(world) == [(1, VersionState.ACTIVE)]
        assert fixed.source(await world.credentials.get(NAME)) == "ENVIRONMENT"
    assert await active(world) == ONE
    await start(world, TWO)
    assert await numbers(world) == [(1, VersionState.SUPERSEDED), (2, VersionState.ACTIVE)]
    assert await active(world) == TWO


async def test_an_instance_with_an_older_environment_does_not_take_turns_with_a_newer_one() -> None:
    world = World()
    await start(world)
    await start(world, TWO)
    old = await start(world)
    assert await active(world) == TWO
    assert old.source(await world.credentials.get(NAME)) == "STORED_OVER_ENVIRONMENT"


async def test_what_was_replaced_by_hand_stays_until_the_environment_has_something_new() -> None:
    world = World()
    await start(world)
    version = await world.add(NAME, Secret(b"sk-ant-0123456789-by-hand"))
    await world.credentials.activate(version, force=True)
    fixed = await start(world)
    assert fixed.source(await world.credentials.get(NAME)) == "STORED_OVER_ENVIRONMENT"
    assert (await active(world)) == Secret(b"sk-ant-0123456789-by-hand")
    await start(world, TWO)
    assert await active(world) == TWO


@pytest.mark.parametrize("how", ["disabled", "version disabled", "destroyed", "deleted"])
async def test_no_start_brings_back_what_was_revoked(how: str) -> None:
    world = World()
    await start(world)
    version = VersionName(NAME, 1)
    match how:
        case "disabled":
            await world.credentials.disable(NAME)
        case "version disabled":
            await world.credentials.disable_version(version)
        case "destroyed":
            await world.credentials.destroy_version(version)
        case "deleted":
            await world.credentials.delete(NAME)
    before = dict(world.store._documents)
    await start(world)
    assert world.store._documents == before
    await start(world, TWO)
    assert await active(world) == TWO
    assert (await world.credentials.get(NAME)).is_disabled == (how == "disabled")


async def test_a_value_that_was_put_in_by_hand_is_not_put_in_again() -> None:
    world = World()
    await world.credentials.create(NAME, DRAFT)
    await world.credentials.activate(await world.add(NAME, ONE), force=True)
    fixed = await start(world)
    assert await numbers(world) == [(1, VersionState.ACTIVE)]
    assert fixed.source(await world.credentials.get(NAME)) == "ENVIRONMENT"


@pytest.mark.parametrize(
    "changes",
    [
        {"provider": "providers/openai"},
        {"kind": "AWS"},
        {"plan": "coding"},
        {"allowed_origins": ("https://proxy.example",)},
    ],
)
async def test_one_that_is_there_for_something_else_is_not_touched(changes: dict[str, Any]) -> None:
    world = World()
    await world.credentials.create(NAME, replace(DRAFT, **changes))
    before = dict(world.store._documents)
    with pytest.raises(OtherwiseStored, match="FIXED_ANTHROPIC_KEY: deployment/credentials/anthropic is there already"):
        await start(world)
    assert world.store._documents == before


async def test_the_order_of_origins_and_what_is_not_fixed_do_not_matter() -> None:
    world = World()
    draft = replace(DRAFT, allowed_origins=("https://a.example", "https://b.example"))
    await start(world, ONE, draft)
    await world.credentials.update(NAME, lambda one: replace(one, max_concurrent_requests=3), "")
    await start(world, ONE, replace(draft, allowed_origins=draft.allowed_origins[::-1]))
    assert (await world.credentials.get(NAME)).draft.max_concurrent_requests == 3


@pytest.mark.parametrize("materials", [(ONE,) * 5, (ONE, TWO, ONE, TWO)])
async def test_instances_that_start_at_once_make_one_version_of_each_value(materials: tuple[Secret, ...]) -> None:
    world = World(YieldingStore())
    await asyncio.gather(*(start(world, material) for material in materials))
    found = await world.credentials.get(NAME)
    kept = [await world.credentials.open_material(VersionName(NAME, one.number)) for one in found.versions]
    assert [kept.count(one) for one in (ONE, TWO)] == [materials.count(one) > 0 for one in (ONE, TWO)]
    assert found.active is not None
    for material in materials:
        await start(world, material)
    assert await world.credentials.get(NAME) == found


class FailingStore(MemoryStore):
    """Fails at the write that is counted down to."""

    def __init__(self) -> None:
        super().__init__()
        self.left = -1

    async def write(self, path: str, value: bytes, *, expected_revision: int, request_id: str = "") -> int:
        self.left -= 1
        if self.left == 0:
            raise Unavailable
        return await super().write(path, value, expected_revision=expected_revision)


async def test_a_start_that_broke_off_at_any_write_is_finished_by_the_next_one() -> None:
    for at in count(1):
        store = FailingStore()
        world = World(store)
        store.left = at
        try:
            await start(world)
        except Unavailable:
            await start(world)
        assert await active(world) == ONE
        assert [state for _, state in await numbers(world)] == [VersionState.ACTIVE]
        if store.left > 0:  # the start had fewer writes
            assert at > 8
            return


async def test_nothing_of_a_value_is_kept_but_ciphertext() -> None:
    world = World()
    await start(world)
    sealed = (world.store._documents[memory_path(NAME)], world.store._documents[material_path(NAME, 1)])
    for document in sealed:
        assert ONE.reveal() not in document.value
    opened = await world.store.unseal("deployment", sealed[0].value, context=f"{NAME}/environment")
    assert ONE.reveal() not in opened


async def test_maintenance_seals_the_memory_anew_and_forgets_it_with_the_tenant() -> None:
    world = World()
    await start(world)
    done = await rotate_tenant(world.store, Owner())
    assert done.resealed == 2
    await start(world)
    assert await numbers(world) == [(1, VersionState.ACTIVE)]
    await shred_tenant(world.store, world.credentials, world.changes, Owner())
    assert memory_path(NAME) not in world.store._documents


def test_a_change_of_what_is_fixed_has_to_be_meant() -> None:
    fixed = fixing(World())
    with pytest.raises(Fault) as caught:
        fixed.require_said(NAME, False)
    assert (caught.value.reason, caught.value.metadata) == (Reason.CREDENTIAL_FIXED, {"name": str(NAME)})
    fixed.require_said(NAME, True)
    fixed.require_said(CredentialName(Owner(), "another"), False)
