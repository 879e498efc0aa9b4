"""What every credential store must do. Each store's tests inherit `CredentialStoreSuite` and give it a `harness`."""

import asyncio
import uuid
from abc import abstractmethod
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from vault_service.store.store import Conflict, Purpose, Store, Unavailable, Unsealable

WRITERS = 64


@dataclass
class Harness:
    """A store under test. `organization` is this test's own, since several tests may share one server."""

    store: Store
    open_again: Callable[[], Awaitable[Store]]
    """Opens another store over what the closed one left."""
    read_all: Callable[[], Awaitable[bytes]]
    """Gives everything that the store keeps of documents, history included, as somebody would find it who has its
    files, or the operator's rights on its server."""
    organization: str = field(default_factory=lambda: f"t-{uuid.uuid4().hex[:12]}")

    @property
    def tenant(self) -> str:
        return f"organizations/{self.organization}"

    def path(self, name: str) -> str:
        return f"{self.tenant}/{name}"


async def counted_write(store: Store, path: str) -> int:
    """One writer's read-change-write loop; gives the revision that it made."""
    while True:
        found = await store.read(path)
        count = int(found.value) if found else 0
        try:
            return await store.write(path, str(count + 1).encode(), expected_revision=found.revision if found else 0)
        except Conflict:
            continue


class CredentialStoreSuite:
    """Inherit it, and override the fixture `harness`."""

    @pytest.fixture
    @abstractmethod
    def harness(self) -> Harness:
        """Each store gives its own."""

    # --- documents ---------------------------------------------------------------------------------------------------

    async def test_reads_back_what_was_written(self, harness: Harness) -> None:
        path = harness.path("credentials/main")
        assert await harness.store.read(path) is None
        assert await harness.store.write(path, b"\x00first\xff", expected_revision=0) == 1
        assert await harness.store.write(path, b"second", expected_revision=1) == 2
        found = await harness.store.read(path)
        assert found is not None
        assert (found.value, found.revision) == (b"second", 2)

    async def test_keeps_an_empty_and_a_large_value(self, harness: Harness) -> None:
        large = bytes(range(256)) * 256
        assert len(large) == 64 * 1024
        for name, value in (("empty", b""), ("large", large)):
            await harness.store.write(harness.path(name), value, expected_revision=0)
            found = await harness.store.read(harness.path(name))
            assert found is not None
            assert found.value == value

    async def test_creates_only_where_nothing_stands(self, harness: Harness) -> None:
        await harness.store.write(harness.path("a"), b"first", expected_revision=0)
        with pytest.raises(Conflict):
            await harness.store.write(harness.path("a"), b"second", expected_revision=0)
        found = await harness.store.read(harness.path("a"))
        assert found is not None
        assert found.value == b"first"

    @pytest.mark.parametrize("expected_revision", [1, 3, 99])
    async def test_refuses_a_stale_or_invented_revision(self, harness: Harness, expected_revision: int) -> None:
        path = harness.path("a")
        await harness.store.write(path, b"1", expected_revision=0)
        await harness.store.write(path, b"2", expected_revision=1)
        with pytest.raises(Conflict):
            await harness.store.write(path, b"x", expected_revision=expected_revision)
        found = await harness.store.read(path)
        assert found is not None
        assert (found.value, found.revision) == (b"2", 2)

    async def test_refuses_to_change_what_is_not_there(self, harness: Harness) -> None:
        with pytest.raises(Conflict):
            await harness.store.write(harness.path("nothing"), b"x", expected_revision=1)
        assert await harness.store.read(harness.path("nothing")) is None

    async def test_loses_no_write_of_many_concurrent_writers(self, harness: Harness) -> None:
        path = harness.path("counter")
        revisions = await asyncio.gather(*(counted_write(harness.store, path) for _ in range(WRITERS)))
        assert sorted(revisions) == list(range(1, WRITERS + 1))  # exactly one successor for each revision
        found = await harness.store.read(path)
        assert found is not None
        assert (found.value, found.revision) == (str(WRITERS).encode(), WRITERS)

    async def test_lets_one_of_many_creators_win(self, harness: Harness) -> None:
        path = harness.path("raced")
        tries = [harness.store.write(path, str(n).encode(), expected_revision=0) for n in range(WRITERS)]
        outcomes = await asyncio.gather(*tries, return_exceptions=True)
        winners = [number for number, outcome in enumerate(outcomes) if outcome == 1]
        assert len(winners) == 1
        assert sum(isinstance(outcome, Conflict) for outcome in outcomes) == WRITERS - 1
        found = await harness.store.read(path)
        assert found is not None
        assert found.value == str(winners[0]).encode()

    # --- deletion ----------------------------------------------------------------------------------------------------

    async def test_deletes_and_begins_anew(self, harness: Harness) -> None:
        path = harness.path("a")
        await harness.store.write(path, b"1", expected_revision=0)
        await harness.store.write(path, b"2", expected_revision=1)
        await harness.store.delete(path)
        assert await harness.store.read(path) is None
        assert await harness.store.list(harness.tenant) == ()
        assert await harness.store.write(path, b"new", expected_revision=0) == 1

    async def test_deletes_nothing_without_an_error(self, harness: Harness) -> None:
        await harness.store.delete(harness.path("never"))
        await harness.store.delete(harness.path("never"))

    async def test_deletes_only_the_document_that_was_named(self, harness: Harness) -> None:
        for name in ("a", "a/b", "ab", "a-b"):
            await harness.store.write(harness.path(name), b"x", expected_revision=0)
        await harness.store.delete(harness.path("a"))
        assert await harness.store.list(harness.tenant) == ("a-b", "a/", "ab")
        assert await harness.store.read(harness.path("a/b")) is not None

    async def test_keeps_nothing_of_deleted_and_replaced_values(self, harness: Harness) -> None:
        values = [f"value-{number}-{uuid.uuid4().hex}".encode() * size for number, size in enumerate((1, 3, 40, 900))]
        replaced, deleted = harness.path("replaced"), harness.path("deleted")
        for revision, value in enumerate(values):
            await harness.store.write(replaced, value, expected_revision=revision)
            await harness.store.write(deleted, value[::-1], expected_revision=revision)
        assert values[-1][:40] in await harness.read_all()  # the place looked in is the right one
        await harness.store.write(replaced, b"last", expected_revision=len(values))
        await harness.store.delete(deleted)
        kept = await harness.read_all()
        for value in values:
            assert value[:40] not in kept
            assert value[::-1][:40] not in kept

    # --- lists -------------------------------------------------------------------------------------------------------

    async def test_lists_the_names_directly_below(self, harness: Harness) -> None:
        for name in ("b", "a", "a/x", "c/y/z", "c/w", "c-d"):
            await harness.store.write(harness.path(name), b"x", expected_revision=0)
        assert await harness.store.list(harness.tenant) == ("a", "a/", "b", "c-d", "c/")
        assert await harness.store.list(harness.tenant + "/") == ("a", "a/", "b", "c-d", "c/")
        assert await harness.store.list(harness.path("c")) == ("w", "y/")
        assert await harness.store.list(harness.path("b")) == ()
        assert await harness.store.list(harness.path("none")) == ()
        assert f"{harness.organization}/" in await harness.store.list("organizations")
        assert "organizations/" in await harness.store.list("")

    async def test_does_not_take_a_longer_name_for_a_folder(self, harness: Harness) -> None:
        await harness.store.write(harness.path("ab/c"), b"x", expected_revision=0)
        assert await harness.store.list(harness.path("a")) == ()

    @pytest.mark.parametrize(
        "name",
        [
            "a--b",
            "0",
            "z" * 63,
            "data",
            "metadata",
            "config",
            "delete",
            "a/data/b",
            "x-/-y",
            "1/2/3/4/5/6/7/8",
            "A_b.c",
        ],
    )
    async def test_takes_every_name_that_resources_have(self, harness: Harness, name: str) -> None:
        await harness.store.write(harness.path(name), name.encode(), expected_revision=0)
        found = await harness.store.read(harness.path(name))
        assert found is not None
        assert found.value == name.encode()
        folder, _, last = harness.path(name).rpartition("/")
        assert await harness.store.list(folder) == (last,)
        await harness.store.delete(harness.path(name))
        assert await harness.store.read(harness.path(name)) is None

    @pytest.mark.parametrize(
        "path",
        [
            "",
            "/",
            "/a",
            "a/",
            "a//b",
            "..",
            "a/../b",
            "a/./b",
            ".a",
            "a b",
            "a?b",
            "a%2Fb",
            "a#b",
            "a\nb",
            "a*",
            "a+b/+",
        ],
    )
    async def test_refuses_a_path_that_could_mean_another(self, harness: Harness, path: str) -> None:
        with pytest.raises(ValueError, match="path"):
            await harness.store.read(path)
        with pytest.raises(ValueError, match="path"):
            await harness.store.write(path, b"x", expected_revision=0)
        with pytest.raises(ValueError, match="path"):
            await harness.store.delete(path)
        if path not in {"", "/", "a/"}:
            with pytest.raises(ValueError, match="path"):
                await harness.store.list(path)

    # --- keys --------------------------------------------------------------------------------------------------------

    async def test_unseals_what_it_sealed(self, harness: Harness) -> None:
        for secret in (b"sk-1", b"", bytes(range(256)) * 256):
            sealed = await harness.store.seal(harness.tenant, secret, context="credentials/a/versions/1")
            assert not secret or secret not in sealed
            assert await harness.store.unseal(harness.tenant, sealed, context="credentials/a/versions/1") == secret

    async def test_seals_the_same_secret_differently(self, harness: Harness) -> None:
        sealed = {await harness.store.seal(harness.tenant, b"same", context="c") for _ in range(4)}
        assert len(sealed) == 4

    async def test_opens_under_the_same_tenant_and_context_only(self, harness: Harness) -> None:
        sealed = await harness.store.seal(harness.tenant, b"secret", context="a")
        await harness.store.seal(harness.tenant + "x", b"other", context="a")
        for tenant, context in (
            (harness.tenant, "b"),
            (harness.tenant, ""),
            (harness.tenant, "a "),
            (harness.tenant + "x", "a"),  # has a key of its own
            (harness.tenant + "y", "a"),  # has none
        ):
            with pytest.raises(Unsealable):
                await harness.store.unseal(tenant, sealed, context=context)

    async def test_notices_every_flipped_bit(self, harness: Harness) -> None:
        sealed = await harness.store.seal(harness.tenant, b"secret", context="a")
        for bit in range(len(sealed) * 8):
            changed = bytearray(sealed)
            changed[bit // 8] ^= 1 << bit % 8
            with pytest.raises(Unsealable):
                await harness.store.unseal(harness.tenant, bytes(changed), context="a")

    @pytest.mark.parametrize("junk", [b"", b"x", b"vault:v1:", b"vault:v9:AAAA", b"\xff" * 64, b"\x01" + b"\x00" * 11])
    async def test_does_not_open_what_it_never_sealed(self, harness: Harness, junk: bytes) -> None:
        await harness.store.seal(harness.tenant, b"secret", context="a")
        with pytest.raises(Unsealable):
            await harness.store.unseal(harness.tenant, junk, context="a")

    @pytest.mark.parametrize(
        "tenant", ["", "acme", "organizations/", "organizations/a/b", "organizations/A", "Deployment"]
    )
    async def test_refuses_what_is_no_tenant(self, harness: Harness, tenant: str) -> None:
        with pytest.raises(ValueError, match="tenant"):
            await harness.store.seal(tenant, b"x", context="a")
        with pytest.raises(ValueError, match="tenant"):
            await harness.store.unseal(tenant, b"x", context="a")

    async def test_makes_one_key_for_many_first_seals(self, harness: Harness) -> None:
        sealed = await asyncio.gather(
            *(harness.store.seal(harness.tenant, str(n).encode(), context="a") for n in range(16))
        )
        opened = [await harness.store.unseal(harness.tenant, each, context="a") for each in sealed]
        assert opened == [str(n).encode() for n in range(16)]

    async def test_signs_what_its_public_key_verifies(self, harness: Harness) -> None:
        key_id, signature = await harness.store.sign(b"payload")
        keys = await harness.store.signing_keys()
        assert keys[0].key_id == key_id
        assert len({key.key_id for key in keys}) == len(keys)
        assert keys[0].create_time > 0
        public = Ed25519PublicKey.from_public_bytes(keys[0].public_key)
        assert len(signature) == 64
        public.verify(signature, b"payload")
        with pytest.raises(InvalidSignature):
            public.verify(signature, b"other")

    async def test_signs_tokens_and_checkpoints_with_different_keys(self, harness: Harness) -> None:
        key_id, signature = await harness.store.sign(b"x", purpose=Purpose.AUDIT)
        keys = await harness.store.signing_keys(purpose=Purpose.AUDIT)
        assert keys[0].key_id == key_id
        assert key_id not in {key.key_id for key in await harness.store.signing_keys()}
        Ed25519PublicKey.from_public_bytes(keys[0].public_key).verify(signature, b"x")

    async def test_makes_one_signing_key_for_many_first_signers(self, harness: Harness) -> None:
        signed = await asyncio.gather(*(harness.store.sign(b"x") for _ in range(8)))
        assert len({key_id for key_id, _ in signed}) == 1

    # --- life --------------------------------------------------------------------------------------------------------

    async def test_checks_itself(self, harness: Harness) -> None:
        await harness.store.check()

    async def test_closes_twice_without_an_error(self, harness: Harness) -> None:
        await harness.store.close()
        await harness.store.close()


class PersistentStoreSuite(CredentialStoreSuite):
    """What holds besides, for a store that outlives its process."""

    async def test_finds_everything_again(self, harness: Harness) -> None:
        await harness.store.write(harness.path("a"), b"1", expected_revision=0)
        await harness.store.write(harness.path("a"), b"2", expected_revision=1)
        sealed = await harness.store.seal(harness.tenant, b"secret", context="c")
        key_id, signature = await harness.store.sign(b"payload")
        await harness.store.close()
        again = await harness.open_again()
        try:
            found = await again.read(harness.path("a"))
            assert found is not None
            assert (found.value, found.revision) == (b"2", 2)
            assert await again.unseal(harness.tenant, sealed, context="c") == b"secret"
            assert (await again.seal(harness.tenant, b"more", context="c")) != sealed
            keys = {key.key_id: key for key in await again.signing_keys()}
            Ed25519PublicKey.from_public_bytes(keys[key_id].public_key).verify(signature, b"payload")
        finally:
            await again.close()

    async def test_serves_nothing_after_closing(self, harness: Harness) -> None:
        await harness.store.close()
        with pytest.raises(Unavailable):
            await harness.store.read(harness.path("a"))
