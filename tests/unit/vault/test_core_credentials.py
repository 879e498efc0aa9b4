"""The law of credentials, over the store in memory."""

import asyncio
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vault_service.core import changes, law
from vault_service.core.changes import ChangeLog, CredentialUpdated
from vault_service.core.credential import Credential, Draft, KeyTest, Request, decode, encode, material_path
from vault_service.core.credentials import Credentials, Revocation
from vault_service.core.faults import Fault, Reason
from vault_service.core.names import CredentialName, Owner, VersionName
from vault_service.core.policies import Policies
from vault_service.core.secret import Secret
from vault_service.core.states import VersionState
from vault_service.store.memory import MemoryStore
from vault_service.store.store import Document, Unavailable, Unsealable

ACME, ADA = Owner("acme"), Owner("acme", "ada")
MAIN = CredentialName(ACME, "main")
MINE = CredentialName(ADA, "mine")
DRAFT = Draft(provider="providers/openai", kind="API_KEY", allowed_origins=("https://api.openai.com",))
SECRET = Secret(b"sk-0123456789abcdefghijklmnop")
REQUEST = "4f7c1a52-1d0e-4b8e-9a77-0c2f8f0f7d11"


class YieldingStore(MemoryStore):
    """The store in memory with a gap between reading and writing, in which others may come."""

    async def read(self, path: str, *, request_id: str = "") -> Document | None:
        document = await super().read(path)
        await asyncio.sleep(0)
        return document


class World:
    def __init__(self, store: MemoryStore | None = None) -> None:
        self.now = 1_795_000_000.0
        self.store = store or MemoryStore(clock=self.clock)
        self.changes = ChangeLog(self.store, clock=self.clock, monotonic=self.clock, fresh_seconds=1)
        self.policies = Policies(self.store, self.changes, deployment_default=True)
        self.credentials = Credentials(self.store, self.changes, self.policies, clock=self.clock)

    def clock(self) -> float:
        return self.now

    async def add(self, name: CredentialName = MAIN, secret: Secret = SECRET, **fields: Any) -> VersionName:
        version = await self.credentials.add_version(name, "API_KEY", secret, "sk-…mnop", **fields)
        return VersionName(name, version.number)

    async def ready(self, name: CredentialName = MAIN) -> VersionName:
        await self.credentials.create(name, DRAFT)
        version = await self.add(name)
        await self.credentials.activate(version, force=True)
        return version

    def told(self) -> list[Any]:
        return [change.what for change in self.changes._log.changes]

    async def state(self, version: VersionName) -> VersionState:
        found = (await self.credentials.get(version.credential)).version(version.number or 0)
        assert found is not None
        return found.state


async def refusal(awaitable: Any) -> Fault:
    with pytest.raises(Fault) as caught:
        await awaitable
    return caught.value


async def test_creation_is_idempotent_within_a_day_and_only_for_the_same() -> None:
    world = World()
    first = await world.credentials.create(MAIN, DRAFT, REQUEST)
    assert await world.credentials.create(MAIN, DRAFT, REQUEST) == first
    assert len(world.told()) == 2  # each is told: what another instance missed it hears when it is repeated
    other = await refusal(world.credentials.create(MAIN, replace(DRAFT, plan="coding"), REQUEST))
    assert other.reason is Reason.REQUEST_ID_REUSED
    taken = await refusal(world.credentials.create(MAIN, DRAFT))
    assert (taken.reason, taken.metadata) == (Reason.CREDENTIAL_EXISTS, {"name": str(MAIN)})
    world.now += 86_400
    assert (await refusal(world.credentials.create(MAIN, DRAFT, REQUEST))).reason is Reason.CREDENTIAL_EXISTS


async def test_adding_is_idempotent_and_compares_the_bytes_themselves() -> None:
    world = World()
    await world.credentials.create(MAIN, DRAFT)
    first = await world.add(request_id=REQUEST)
    assert await world.add(request_id=REQUEST) == first
    other = await refusal(world.add(secret=Secret(b"sk-other-0123456789abcdefgh"), request_id=REQUEST))
    assert other.reason is Reason.REQUEST_ID_REUSED
    assert (await world.add(secret=SECRET)).number == 2


async def test_a_secret_of_another_kind_is_refused() -> None:
    world = World()
    await world.credentials.create(MAIN, DRAFT)
    fault = await refusal(world.credentials.add_version(MAIN, "AWS", SECRET, ""))
    assert (fault.reason, fault.metadata["cause"]) == (Reason.INVALID_SECRET, "kind")


async def test_the_store_never_holds_the_secret_and_opens_it_at_its_place_only() -> None:
    world = World()
    version = await world.ready()
    other = await world.add()
    kept = b"".join(document.value for document in world.store._documents.values())
    assert SECRET.reveal() not in kept
    assert await world.credentials.open_material(version) == SECRET
    moved = await world.store.read(material_path(MAIN, 1))
    place = await world.store.read(material_path(MAIN, 2))
    assert moved is not None
    assert place is not None
    await world.store.write(material_path(MAIN, 2), moved.value, expected_revision=place.revision)
    with pytest.raises(Unsealable):
        await world.credentials.open_material(other)


async def test_activation_needs_a_passed_test_or_force() -> None:
    world = World()
    await world.credentials.create(MAIN, DRAFT)
    version = await world.add()
    untested = await refusal(world.credentials.activate(version))
    assert untested.metadata == {"name": str(version), "outcome": "CREDENTIAL_TEST_OUTCOME_UNSPECIFIED"}
    await world.credentials.record_test(version, "INVALID_KEY", world.now)
    failed = await refusal(world.credentials.activate(version))
    assert (failed.reason, failed.metadata["outcome"]) == (
        Reason.TEST_REQUIRED,
        "CREDENTIAL_TEST_OUTCOME_INVALID_KEY",
    )
    await world.credentials.record_test(version, "PASSED", world.now + 1)
    await world.credentials.record_test(version, "UNREACHABLE", world.now)
    active = await world.credentials.activate(version)
    assert active.active_name == str(version)
    assert active.last_test is not None
    assert active.last_test.outcome == "PASSED"


async def test_rotation_supersedes_and_can_go_back() -> None:
    world = World()
    first = await world.ready()
    second = await world.add()
    await world.credentials.activate(second, force=True)
    assert (await world.state(first), await world.state(second)) == (VersionState.SUPERSEDED, VersionState.ACTIVE)
    await world.credentials.activate(first, force=True)
    assert (await world.state(first), await world.state(second)) == (VersionState.ACTIVE, VersionState.SUPERSEDED)
    told = world.told()[-1]
    assert told == CredentialUpdated("ACTIVATED", str(MAIN), "providers/openai", str(first), str(first))


async def test_destroying_removes_the_bytes_and_stays() -> None:
    world = World()
    version = await world.ready()
    after = await world.credentials.destroy_version(version, how=Revocation(kill_in_flight=True))
    assert after.active is None
    assert await world.store.read(material_path(MAIN, 1)) is None
    assert world.told()[-1].kill_in_flight
    await world.credentials.destroy_version(version)
    for awaitable in (
        world.credentials.activate(version, force=True),
        world.credentials.disable_version(version),
        world.credentials.open_material(version),
    ):
        assert (await refusal(awaitable)).reason is Reason.CREDENTIAL_DESTROYED


async def test_bytes_that_cannot_be_destroyed_are_not_said_to_be() -> None:
    class Stuck(MemoryStore):
        is_stuck = True

        async def delete(self, path: str, *, request_id: str = "") -> None:
            if self.is_stuck:
                raise Unavailable("away")
            await super().delete(path)

    store = Stuck()
    world = World(store)
    version = await world.ready()
    with pytest.raises(Unavailable):
        await world.credentials.destroy_version(version)
    assert await world.state(version) is VersionState.DISABLED
    store.is_stuck = False
    await world.credentials.destroy_version(version)
    assert await world.state(version) is VersionState.DESTROYED


async def test_a_deleted_credential_is_known_as_deleted_and_its_numbers_are_not_given_again() -> None:
    world = World()
    await world.ready()
    await world.credentials.delete(MAIN)
    fault = await refusal(world.credentials.get(MAIN))
    assert fault.reason is Reason.CREDENTIAL_DELETED
    assert fault.metadata == {"name": str(MAIN), "deleteTime": "2026-11-18T11:06:40Z"}
    assert await world.store.read(material_path(MAIN, 1)) is None
    assert not await world.credentials.list_owned(ACME)
    assert [what.type for what in world.told()[-2:]] == ["DISABLED", "DELETED"]
    await world.credentials.create(MAIN, DRAFT)
    assert (await world.add()).number == 2
    assert (await refusal(world.credentials.activate(VersionName(MAIN, 1)))).reason is Reason.CREDENTIAL_UNKNOWN


async def test_repeating_a_revocation_tells_it_again() -> None:
    world = World()
    version = await world.ready()
    told = [len(world.told())]
    for _ in range(2):
        await world.credentials.disable_version(version)
        told.append(len(world.told()))
    for _ in range(2):
        await world.credentials.disable(MAIN)
        told.append(len(world.told()))
    assert told == [told[0] + i for i in range(5)]


async def test_repeating_an_update_or_a_creation_tells_it_again() -> None:
    world = World()
    told = len(world.told())
    for _ in range(2):
        await world.credentials.create(MAIN, DRAFT, "request-1")
    for _ in range(2):
        await world.credentials.update(MAIN, lambda draft: replace(draft, allowed_origins=()), "")
    assert [what.type for what in world.told()[told:]] == ["UPDATED"] * 4


async def test_etags_change_with_changes_but_not_with_tests_and_uses() -> None:
    world = World()
    version = await world.ready()
    etag = (await world.credentials.get(MAIN)).etag
    await world.credentials.record_test(version, "PASSED", world.now)
    await world.credentials.record_use(version, world.now)
    used = await world.credentials.get(MAIN)
    assert used.etag == etag
    assert used.last_use_time == world.now
    after = await world.credentials.update(MAIN, lambda draft: replace(draft, display_name="x"), etag)
    assert after.etag != etag
    for awaitable in (
        world.credentials.update(MAIN, lambda draft: replace(draft, display_name="y"), etag),
        world.credentials.disable(MAIN, etag),
        world.credentials.delete(MAIN, etag),
        world.credentials.activate(version, etag),
        world.credentials.destroy_version(version, etag),
    ):
        assert (await refusal(awaitable)).reason is Reason.VERSION_CONFLICT
    assert await world.state(version) is VersionState.ACTIVE


async def test_revoking_all_counts_what_was_enabled_and_reaches_users_but_not_others() -> None:
    world = World()
    await world.ready()
    await world.ready(MINE)
    foreign = CredentialName(Owner("other"), "main")
    await world.ready(foreign)
    await world.credentials.disable(MAIN)
    assert await world.credentials.revoke_all(ACME) == 1
    assert (await world.credentials.get(MINE)).is_disabled
    assert not (await world.credentials.get(foreign)).is_disabled
    assert await world.credentials.revoke_all(ACME) == 0


async def test_own_keys_can_be_switched_off_and_then_only_go() -> None:
    world = World()
    version = await world.ready(MINE)
    await world.policies.set(Owner(), False, "")
    for awaitable in (
        world.credentials.create(CredentialName(ADA, "other"), DRAFT),
        world.credentials.update(MINE, lambda draft: draft, ""),
        world.credentials.enable(MINE),
        world.add(MINE),
        world.credentials.activate(version),
    ):
        fault = await refusal(awaitable)
        assert (fault.reason, fault.metadata) == (Reason.BYOK_DISABLED, {"parent": str(ADA)})
    assert (await refusal(world.policies.set(ACME, True, ""))).reason is Reason.BYOK_DISABLED
    await world.ready()
    await world.credentials.delete(MINE)


async def test_policies_have_etags() -> None:
    world = World()
    before = await world.policies.get(ACME)
    after = await world.policies.set(ACME, False, before.etag)
    assert after.etag != before.etag
    assert (await refusal(world.policies.set(ACME, True, before.etag))).reason is Reason.VERSION_CONFLICT
    assert not await world.policies.are_user_credentials_enabled(ADA)
    assert await world.policies.are_user_credentials_enabled(Owner("other", "kim"))


class LogAway(MemoryStore):
    """The store in memory, whose change log cannot be written for a time."""

    is_away = False

    async def write(self, path: str, value: bytes, **fields: Any) -> int:
        if self.is_away and path == changes.PATH:
            raise Unavailable("out of order")
        return await super().write(path, value, **fields)


async def test_a_policy_that_was_written_and_not_told_is_told_when_it_is_set_again() -> None:
    store = LogAway()
    world = World(store)
    store.is_away = True
    with pytest.raises(Unavailable):
        await world.policies.set(ACME, False, "")
    assert not (await world.policies.get(ACME)).user_credentials_enabled, "written"
    assert world.told() == []
    store.is_away = False
    again = await world.policies.set(ACME, False, "")
    assert again.changes == 1, "nothing was written anew"
    assert world.told() == [changes.PolicyUpdated(str(ACME))]
    await world.policies.set(ACME, False, again.etag)
    assert len(world.told()) == 2, "each time"


async def test_many_writers_lose_nothing() -> None:
    store = YieldingStore()
    worlds = [World(store) for _ in range(4)]
    await worlds[0].credentials.create(MAIN, DRAFT)
    await asyncio.gather(*(worlds[i % 4].add() for i in range(24)))
    credential = await worlds[0].credentials.get(MAIN)
    numbers = [version.number for version in credential.versions]
    assert numbers == list(range(1, 25))
    await asyncio.gather(*(worlds[i % 4].credentials.activate(VersionName(MAIN, i + 1), force=True) for i in range(24)))
    states = [version.state for version in (await worlds[0].credentials.get(MAIN)).versions]
    assert states.count(VersionState.ACTIVE) == 1
    assert states.count(VersionState.SUPERSEDED) == 23


async def test_a_version_whose_acknowledgement_was_lost_is_found_by_the_same_request() -> None:
    class LosingStore(MemoryStore):
        lost_path = ""

        async def write(self, path: str, value: bytes, *, expected_revision: int, request_id: str = "") -> int:
            revision = await super().write(path, value, expected_revision=expected_revision)
            if path == self.lost_path and b"mnop" in value:  # the version is on it now
                self.lost_path = ""
                raise Unavailable("the answer is lost")
            return revision

    store = LosingStore()
    world = World(store)
    await world.credentials.create(MAIN, DRAFT)
    store.lost_path = str(MAIN)
    with pytest.raises(Unavailable):
        await world.add(request_id=REQUEST)
    version = await world.add(request_id=REQUEST)
    assert version.number == 1
    assert (await world.credentials.open_material(version)).reveal() == SECRET.reveal()


async def test_a_version_that_comes_too_late_leaves_nothing_behind() -> None:
    world = World()
    await world.credentials.create(MAIN, DRAFT)
    seal = world.store.seal

    async def seal_after_deletion(*args: Any, **fields: Any) -> bytes:
        await world.credentials.delete(MAIN)
        return await seal(*args, **fields)

    world.store.seal = seal_after_deletion  # type: ignore[method-assign] # the moment that is wanted
    assert (await refusal(world.add())).reason is Reason.CREDENTIAL_DELETED
    assert await world.store.read(material_path(MAIN, 1)) is None


def make_credential(**changes: Any) -> Credential:
    credential = law.create(None, MAIN, DRAFT, "", 1.0)
    credential = law.add_version(law.reserve_version(credential), 1, "", "", 1.0)
    return replace(law.activate(credential, 1, "", force=True, time_seconds=1.0), **changes)


@pytest.mark.parametrize(
    ("credential", "number", "is_trial", "reason", "metadata"),
    [
        (make_credential(is_disabled=True), None, True, Reason.CREDENTIAL_DISABLED, {"cause": "disabled"}),
        (
            make_credential(draft=replace(DRAFT, expire_time=5.0)),
            None,
            False,
            Reason.CREDENTIAL_DISABLED,
            {"cause": "expired"},
        ),
        (
            law.disable_version(make_credential(), 1, "", 1.0),
            None,
            False,
            Reason.VERSION_NOT_ACTIVE,
            {"state": "CREDENTIAL_VERSION_STATE_UNSPECIFIED"},
        ),
        (
            law.disable_version(make_credential(), 1, "", 1.0),
            1,
            True,
            Reason.VERSION_NOT_ACTIVE,
            {"state": "CREDENTIAL_VERSION_STATE_DISABLED"},
        ),
        (law.mark_destroyed(make_credential(), 1, 1.0), 1, True, Reason.CREDENTIAL_DESTROYED, {}),
        (make_credential(), 2, False, Reason.CREDENTIAL_UNKNOWN, {}),
    ],
)
def test_what_is_not_leased(
    credential: Credential, number: int | None, is_trial: bool, reason: Reason, metadata: dict[str, str]
) -> None:
    with pytest.raises(Fault) as caught:
        law.choose_version(credential, number, is_trial=is_trial, time_seconds=5.0)
    assert caught.value.reason is reason
    assert metadata.items() <= caught.value.metadata.items()


def test_documents_are_read_as_written() -> None:
    credential = make_credential(
        draft=replace(DRAFT, labels={"a": "b"}, expire_time=9.5, max_concurrent_requests=3), last_use_time=4.0
    )
    credential = law.record_test(credential, KeyTest(1, "PASSED", 3.0))
    credential = replace(credential, requests=(Request(REQUEST, 1.0, 1),))
    assert decode(encode(credential)) == credential
    assert decode(encode(law.bury(credential, 9.0))) == law.bury(credential, 9.0)


@given(st.lists(st.tuples(st.sampled_from(["add", "activate", "disable", "destroy"]), st.integers(1, 5))))
def test_no_sequence_of_steps_makes_two_active_versions(steps: list[tuple[str, int]]) -> None:
    credential = law.create(None, MAIN, DRAFT, "", 1.0)
    destroyed: set[int] = set()
    for what, number in steps:
        with suppress(Fault):
            match what:
                case "add":
                    credential = law.reserve_version(credential)
                    credential = law.add_version(credential, credential.next_number - 1, "", "", 1.0)
                case "activate":
                    credential = law.activate(credential, number, "", force=True, time_seconds=1.0)
                case "disable":
                    credential = law.disable_version(credential, number, "", 1.0)
                case _:
                    credential = law.mark_destroyed(credential, number, 1.0)
                    destroyed.add(number)
        states = [version.state for version in credential.versions]
        assert states.count(VersionState.ACTIVE) <= 1
        for version in credential.versions:
            assert (version.number in destroyed) == (version.state is VersionState.DESTROYED)
        assert decode(encode(credential)) == credential
