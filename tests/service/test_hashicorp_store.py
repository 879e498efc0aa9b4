"""The suite of credential stores over a real Vault server, and what holds for that store besides."""

import asyncio
import base64
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.vault_server import (
    KV_MOUNT,
    MAINTENANCE,
    TRANSIT_MOUNT,
    VaultServer,
    running_server,
    stop,
)
from tests.suites.credential_store import Harness, PersistentStoreSuite
from tests.suites.key_maintenance import KeyMaintenanceSuite
from tests.suites.vault_openings import OpeningsSuite
from vault_service.store.hashicorp import HashiCorpStore
from vault_service.store.store import Denied, MaintainedStore, Sealed, Store, Unavailable, Unsealable
from vault_service.store.vault_settings import AppRoleFiles, TokenFile, VaultSettings

pytestmark = pytest.mark.vault

# Short, since some of these tests stop the server: what is asserted is the kind of the error, not the time.
CONNECT_SECONDS, READ_SECONDS, CALL_SECONDS = 2.0, 10.0, 20.0


def new_store(
    server: VaultServer, folder: Path, *, role: str = "keyswitch", trusts_server: bool = True
) -> HashiCorpStore:
    settings = VaultSettings(
        server.url,
        AppRoleFiles(*server.write_credentials(folder, role)),
        ca_file=server.ca_file if trusts_server else None,
        namespace=server.namespace,
        connect_timeout_seconds=CONNECT_SECONDS,
        read_timeout_seconds=READ_SECONDS,
        call_timeout_seconds=CALL_SECONDS,
    )
    return HashiCorpStore(settings)


class TestHashiCorpStore(OpeningsSuite, PersistentStoreSuite):
    @pytest.fixture
    async def harness(self, vault_server: VaultServer, tmp_path: Path) -> AsyncIterator[Harness]:
        async def open_again() -> Store:
            return new_store(vault_server, tmp_path)

        async def read_all() -> bytes:
            return await asyncio.to_thread(_every_version, vault_server, harness.tenant)

        harness = Harness(new_store(vault_server, tmp_path), open_again, read_all)
        yield harness
        await harness.store.close()

    async def test_names_the_server_s_own_request_ids(self, harness: Harness, vault_server: VaultServer) -> None:
        request_id = f"call-{uuid.uuid4()}"
        harness.store.last_request_ids()
        sealed = await harness.store.seal(harness.tenant, b"secret", context="c", request_id=request_id)
        await harness.store.write(harness.path("a"), sealed, expected_revision=0, request_id=request_id)
        await harness.store.read(harness.path("a"), request_id=request_id)
        ids = harness.store.last_request_ids()
        assert harness.store.last_request_ids() == ()
        records = _answers_of(vault_server, request_id)
        # Both ways: each id that we keep is one of Vault's records for this call, and no record lacks one.
        assert [record["request"]["id"] for record in records] == list(ids)
        assert len(ids) == 4  # key, encrypt, write, read

    async def test_keeps_the_ids_of_concurrent_calls_apart(self, harness: Harness, vault_server: VaultServer) -> None:
        async def call(request_id: str) -> tuple[str, ...]:
            await harness.store.read(harness.path("none"), request_id=request_id)
            await harness.store.list("organizations", request_id=request_id)
            return tuple(harness.store.last_request_ids())

        await harness.store.write(harness.path("a"), b"x", expected_revision=0)
        request_ids = [f"call-{uuid.uuid4()}" for _ in range(8)]
        seen = await asyncio.gather(*(call(request_id) for request_id in request_ids))
        for request_id, ids in zip(request_ids, seen, strict=True):
            logged = {record["request"]["id"] for record in _answers_of(vault_server, request_id)}
            assert ids
            assert set(ids) <= logged

    async def test_leaves_no_secret_in_vault_s_audit_log(self, harness: Harness, vault_server: VaultServer) -> None:
        secret = f"sk-canary-{uuid.uuid4().hex}"
        sealed = await harness.store.seal(harness.tenant, secret.encode(), context="c")
        await harness.store.write(harness.path("a"), sealed, expected_revision=0)
        await harness.store.unseal(harness.tenant, sealed, context="c")
        log = vault_server.audit_log.read_text()
        assert harness.organization in log
        assert secret not in log
        assert sealed.decode() not in log

    async def test_shreds_a_tenant_by_its_key(self, harness: Harness, vault_server: VaultServer) -> None:
        sealed = await harness.store.seal(harness.tenant, b"secret", context="c")
        key = f"keyswitch-transit/keys/tenant-organizations-{harness.organization}"
        await asyncio.to_thread(vault_server.require, "POST", f"{key}/config", {"deletion_allowed": True})
        await asyncio.to_thread(vault_server.require, "DELETE", key)
        with pytest.raises(Unsealable):
            await harness.store.unseal(harness.tenant, sealed, context="c")

    async def test_lists_a_rotated_signing_key_first(self, harness: Harness, vault_server: VaultServer) -> None:
        old_id, _ = await harness.store.sign(b"x")
        await asyncio.to_thread(vault_server.require, "POST", "keyswitch-transit/keys/keyswitch-signing/rotate")
        new_id, _ = await harness.store.sign(b"x")
        keys = [key.key_id for key in await harness.store.signing_keys()]
        assert new_id != old_id
        assert keys[0] == new_id
        assert old_id in keys


class TestHashiCorpKeyMaintenance(KeyMaintenanceSuite):
    @pytest.fixture
    async def harness(self, vault_server: VaultServer, tmp_path: Path) -> AsyncIterator[Harness]:
        async def open_again() -> Store:
            return new_store(vault_server, tmp_path)

        async def read_all() -> bytes:
            return await asyncio.to_thread(_every_version, vault_server, harness.tenant)

        harness = Harness(new_store(vault_server, tmp_path, role=MAINTENANCE), open_again, read_all)
        yield harness
        await harness.store.close()

    @pytest.fixture
    def store(self, harness: Harness) -> MaintainedStore:
        assert isinstance(harness.store, HashiCorpStore)
        return harness.store


# --- mounts ---------------------------------------------------------------------------------------------------------


async def test_a_write_without_compare_and_set_is_refused(vault_server: VaultServer) -> None:
    token = vault_server.login()
    answer = vault_server.ask("POST", "keyswitch/data/x", {"data": {"value": "eA=="}}, token=token)
    assert answer.status_code == 400


async def test_check_refuses_a_mount_that_keeps_history(own_vault_server: VaultServer, tmp_path: Path) -> None:
    own_vault_server.require("POST", f"{KV_MOUNT}/config", {"max_versions": 10})
    store = new_store(own_vault_server, tmp_path)
    try:
        with pytest.raises(Denied, match="max_versions=1"):
            await store.check()
    finally:
        await store.close()


async def test_a_missing_mount_is_not_an_empty_one(own_vault_server: VaultServer, tmp_path: Path) -> None:
    store = new_store(own_vault_server, tmp_path)
    try:
        await store.check()
        own_vault_server.require("DELETE", f"sys/mounts/{TRANSIT_MOUNT}")
        with pytest.raises(Denied, match="no secrets engine"):
            await store.check()
        own_vault_server.require("DELETE", f"sys/mounts/{KV_MOUNT}")
        with pytest.raises(Denied):
            await store.read("a")
        with pytest.raises(Denied):
            await store.list("a")
    finally:
        await store.close()


# --- logins ----------------------------------------------------------------------------------------------------------


async def test_a_wrong_secret_id_is_denied_and_not_tried_in_a_row(vault_server: VaultServer, tmp_path: Path) -> None:
    login = AppRoleFiles(*vault_server.write_credentials(tmp_path))
    login.secret_id_file.write_text(str(uuid.uuid4()))
    store = HashiCorpStore(VaultSettings(vault_server.url, login, namespace=vault_server.namespace))
    try:
        with pytest.raises(Denied) as refused:
            await store.read("a")
        assert refused.value.status == 400
        # Vault would lock the role out after five; these never reach it.
        for _ in range(10):
            with pytest.raises(Denied, match="mount a fresh secret id") as repeated:
                await store.read("a")
            assert repeated.value.status is None
    finally:
        await store.close()


async def test_a_revoked_token_is_replaced_unseen(vault_server: VaultServer, tmp_path: Path) -> None:
    store = new_store(vault_server, tmp_path)
    try:
        await store.check()
        for _ in range(3):
            vault_server.require("POST", "auth/token/revoke", {"token": store._keeper._token})
            await asyncio.gather(*(store.check() for _ in range(8)))
    finally:
        await store.close()


async def test_short_lived_tokens_serve_without_a_gap(vault_server: VaultServer, tmp_path: Path) -> None:
    """Tokens of 4 s that end after 8 s at the latest: no call fails, and Vault never sees a dead token."""
    role = f"short-{uuid.uuid4().hex[:8]}"
    vault_server.make_role(role, ttl="4s", max_ttl="8s")
    store = new_store(vault_server, tmp_path, role=role)
    request_id = f"gap-{uuid.uuid4()}"
    tokens = set[str]()
    earlier = len(_renewals(vault_server))
    try:
        calls = 0
        while len(tokens) < 2 or len(_renewals(vault_server)) == earlier:
            await store.list("", request_id=request_id)
            tokens.add(store._keeper._token)
            calls += 1
        # A refused token would have been replaced unseen; that none was needed is what makes it "no gap".
        answers = _answers_of(vault_server, request_id)
        assert len(answers) == calls
        assert not [answer for answer in answers if answer.get("error")]
    finally:
        await store.close()


async def test_a_token_from_a_file_is_read_anew(vault_server: VaultServer, tmp_path: Path) -> None:
    file = tmp_path / "token"
    first, second = vault_server.login(), vault_server.login()
    file.write_text(first + "\n")
    store = HashiCorpStore(VaultSettings(vault_server.url, TokenFile(file), namespace=vault_server.namespace))
    try:
        await store.check()
        file.write_text(second + "\n")
        vault_server.require("POST", "auth/token/revoke", {"token": first})
        await store.check()
    finally:
        await store.close()
    assert vault_server.ask("GET", "auth/token/lookup-self", token=second).ok  # closing revokes only what it made


async def test_closing_revokes_the_token(vault_server: VaultServer, tmp_path: Path) -> None:
    store = new_store(vault_server, tmp_path)
    await store.check()
    token = store._keeper._token
    await store.close()
    assert vault_server.ask("GET", "auth/token/lookup-self", token=token).status_code == 403


async def test_a_server_with_a_ca_of_its_own_is_trusted_by_that_ca_alone(vault_binary: str, tmp_path: Path) -> None:
    with running_server(vault_binary, tls=True) as server:
        store, stranger = new_store(server, tmp_path), new_store(server, tmp_path, trusts_server=False)
        try:
            await store.check()
            with pytest.raises(Unavailable, match="certificate"):
                await stranger.check()
        finally:
            await store.close()
            await stranger.close()


# --- a server in trouble ---------------------------------------------------------------------------------------------


async def test_a_sealed_server_is_sealed_and_comes_back(own_vault_server: VaultServer, tmp_path: Path) -> None:
    store, late = new_store(own_vault_server, tmp_path), new_store(own_vault_server, tmp_path)
    try:
        await store.check()
        own_vault_server.require("PUT", "sys/seal")
        for call in _calls(store):
            with pytest.raises(Sealed):
                await call()
        with pytest.raises(Sealed):
            await late.check()  # has not logged in yet
    finally:
        await store.close()
        await late.close()


async def test_a_stopped_server_is_unavailable(own_vault_server: VaultServer, tmp_path: Path) -> None:
    store = new_store(own_vault_server, tmp_path)
    try:
        await store.check()
        stop(own_vault_server)
        for call in _calls(store):
            with pytest.raises(Unavailable) as refused:
                await call()
            assert not isinstance(refused.value, Sealed)
    finally:
        await store.close()


async def test_a_server_that_cannot_audit_is_unavailable(own_vault_server: VaultServer, tmp_path: Path) -> None:
    store = new_store(own_vault_server, tmp_path)
    own_vault_server.require(
        "PUT", "sys/audit/full", {"type": "file", "options": {"file_path": "/dev/full", "skip_test": "true"}}
    )
    # The answer is 500, since it can no longer be recorded, but the device is gone.
    own_vault_server.ask("DELETE", "sys/audit/file")
    try:
        for call in _calls(store):
            with pytest.raises(Unavailable, match="audit device"):
                await call()
    finally:
        await store.close()


def _calls(store: Store) -> list[Callable[[], Awaitable[object]]]:
    return [
        store.check,
        lambda: store.read("a"),
        lambda: store.write("a", b"x", expected_revision=0),
        lambda: store.delete("a"),
        lambda: store.list(""),
        lambda: store.seal("deployment", b"x", context="c"),
        lambda: store.unseal("deployment", b"vault:v1:AAAA", context="c"),
        lambda: store.sign(b"x"),
        store.signing_keys,
    ]


def _answers_of(server: VaultServer, request_id: str) -> list[dict[str, Any]]:
    """Gives Vault's own records of answers to one call, found by the header that it was told to write down."""
    return [
        record
        for record in server.audit_records(request_id)
        if record["type"] == "response"
        and record["request"].get("headers", {}).get("x-keyswitch-request-id") == [request_id]
    ]


def _renewals(server: VaultServer) -> list[dict[str, Any]]:
    records = server.audit_records("auth/token/renew-self")
    return [record for record in records if record["type"] == "response" and not record.get("error")]


def _every_version(server: VaultServer, folder: str) -> bytes:
    """Gives all versions of all documents below, decoded, as the operator can read them."""
    found = b""
    listed = server.ask("LIST", f"{KV_MOUNT}/metadata/{folder}")
    names = listed.json()["data"]["keys"] if listed.ok else []
    for name in names:
        path = f"{folder}/{name}"
        if name.endswith("/"):
            found += _every_version(server, path.removesuffix("/"))
            continue
        current = server.require("GET", f"{KV_MOUNT}/metadata/{path}")["data"]["current_version"]
        for version in range(1, current + 1):
            answer = server.ask("GET", f"{KV_MOUNT}/data/{path}?version={version}")
            if answer.ok:
                found += base64.b64decode(answer.json()["data"]["data"]["value"])
    return found
