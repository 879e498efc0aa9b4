"""The store in a HashiCorp Vault server: documents in KV v2, keys in transit.

Import this module only where Vault is configured: its client takes long to import. The client blocks, so it runs in a
bounded pool of threads, and every call ends within `call_timeout_seconds` whatever the server does.

The KV mount must keep one version (`max_versions=1`): with Vault's default of ten, a destroyed credential would stay
readable as an earlier version of its document. `check` refuses to call such a mount ready.
"""

import asyncio
import base64
import contextlib
import copy
import re
import time
import weakref
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from secrets import SystemRandom
from typing import Any, TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hvac.api.secrets_engines import KvV2, Transit

from vault_service.store.batches import Batches
from vault_service.store.envelope import key_id_of
from vault_service.store.hvac_session import Exchange, VaultAdapter, Waiting, new_pools
from vault_service.store.key_import import wrap_for_import
from vault_service.store.names import check_folder, check_path, check_tenant
from vault_service.store.openings import OpenedItem, SealedItem, make_batch, read_batch
from vault_service.store.patience import left_seconds
from vault_service.store.renewal import LONGEST_LOGIN_PAUSE_SECONDS, TOKEN_FILE_PAUSE_SECONDS
from vault_service.store.store import (
    Conflict,
    Denied,
    Document,
    Purpose,
    SigningKey,
    StoreError,
    Unavailable,
    Unsealable,
)
from vault_service.store.token_keeper import TokenKeeper
from vault_service.store.vault_errors import Missing, Refused, TokenRefused
from vault_service.store.vault_login import Logins
from vault_service.store.vault_settings import TokenFile, VaultSettings

_MAX_REMEMBERED_IDS = 64
_CIPHERTEXT = re.compile(rb"vault:v[1-9][0-9]*:([A-Za-z0-9+/=]+)")
_DOES_NOT_OPEN = "the ciphertext does not open under this tenant and context"
_JITTER = SystemRandom().random
_REVOCATION_TIMEOUT_SECONDS = 2.0

T = TypeVar("T")


class HashiCorpStore:
    """A `Store` in Vault. It logs in with its first call, so that it may be made while Vault is away."""

    def __init__(
        self,
        settings: VaultSettings,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        jitter: Callable[[], float] = _JITTER,
    ) -> None:
        self._settings = settings
        self._pools = new_pools(settings)
        self._adapter = VaultAdapter(self._pools, settings)
        self._kv = KvV2(self._adapter)
        self._transit = Transit(self._adapter)
        self._threads = ThreadPoolExecutor(max_workers=settings.threads, thread_name_prefix="vault")
        self._logins = Logins(self._adapter, settings)
        self._keeper = TokenKeeper(
            lambda: self._bounded(self._logins.log_in),
            lambda token: self._bounded(lambda: self._logins.renew(token)),
            clock=clock,
            sleep=sleep,
            jitter=jitter,
            longest_pause_seconds=(
                TOKEN_FILE_PAUSE_SECONDS if isinstance(settings.login, TokenFile) else LONGEST_LOGIN_PAUSE_SECONDS
            ),
        )
        self._openings: Batches[SealedItem, OpenedItem] = Batches(self._open)
        self._made_keys: set[str] = set()
        self._signing_keys: dict[Purpose, dict[int, SigningKey]] = {}
        self._ids: weakref.WeakKeyDictionary[asyncio.Task[Any], deque[str]] = weakref.WeakKeyDictionary()
        self._closed = False

    async def read(self, path: str, *, request_id: str = "") -> Document | None:
        check_path(path)
        try:
            answer = await self._call(
                lambda: self._kv.read_secret_version(
                    path, mount_point=self._settings.kv_mount, raise_on_deleted_version=True
                ),
                request_id,
            )
        except Missing:
            return None
        data = answer["data"]
        return Document(_decode(data["data"].get("value")), int(data["metadata"]["version"]))

    async def write(self, path: str, value: bytes, *, expected_revision: int, request_id: str = "") -> int:
        check_path(path)
        problem: StoreError
        try:
            answer = await self._call(
                lambda: self._kv.create_or_update_secret(
                    path, {"value": _encode(value)}, cas=expected_revision, mount_point=self._settings.kv_mount
                ),
                request_id,
            )
            return int(answer["data"]["version"])
        except Refused as fault:
            problem = (
                Conflict("the document is not at the expected revision", status=fault.status)
                if fault.cas_mismatch
                else fault
            )
        raise problem

    async def delete(self, path: str, *, request_id: str = "") -> None:
        check_path(path)
        with contextlib.suppress(Missing):
            await self._call(
                lambda: self._kv.delete_metadata_and_all_versions(path, mount_point=self._settings.kv_mount), request_id
            )

    async def list(self, prefix: str, *, request_id: str = "") -> Sequence[str]:
        folder = check_folder(prefix)
        try:
            answer = await self._call(
                lambda: self._kv.list_secrets(folder, mount_point=self._settings.kv_mount), request_id
            )
        except Missing:
            return ()
        return tuple(sorted(answer["data"]["keys"]))

    async def seal(self, tenant: str, plaintext: bytes, *, context: str, request_id: str = "") -> bytes:
        name = _tenant_key(tenant)
        await self._make_key(name, request_id)
        try:
            answer = await self._call(
                lambda: self._transit.encrypt_data(
                    name,
                    _encode(plaintext),
                    associated_data=_encode(context.encode()),
                    mount_point=self._settings.transit_mount,
                ),
                request_id,
            )
        except Denied:
            # Encrypting without a key is refused too; the next call asks for one again.
            self._made_keys.discard(name)
            raise
        return str(answer["data"]["ciphertext"]).encode("ascii")

    async def unseal(self, tenant: str, ciphertext: bytes, *, context: str, request_id: str = "") -> bytes:
        name = _tenant_key(tenant)
        if not _is_canonical(ciphertext):
            raise Unsealable(_DOES_NOT_OPEN)
        sealed = SealedItem(ciphertext.decode("ascii"), _encode(context.encode()), request_id)
        if request_id:
            opened = await self._open_with_others(name, sealed)
        else:  # a batch says for whose calls it is
            opened = await self._open_alone(name, sealed)
        self._note_ids(opened.vault_request_ids)
        if opened.problem is not None:
            raise opened.problem
        return _decode(opened.text)

    async def _open_with_others(self, name: str, sealed: SealedItem) -> OpenedItem:
        try:
            return await self._openings.ask(name, sealed, left_seconds(self._settings.call_timeout_seconds))
        except TimeoutError:
            raise Unavailable("the Vault server did not answer in time") from None

    async def _open(self, name: str, sealed: Sequence[SealedItem]) -> Sequence[OpenedItem]:
        """Opens what is sealed under one key: together, and what does not open so, by itself for its own answer."""
        if len(sealed) == 1:
            return [await self._open_alone(name, sealed[0])]
        found: Sequence[object] = [None] * len(sealed)
        problem: StoreError | None = None
        try:
            body = make_batch(sealed)
            path = f"/v1/{self._settings.transit_mount}/decrypt/{name}"
            ids = [one.request_id for one in sealed]
            answer = await self._call(lambda: self._adapter.post(path, json=body), *ids)
            found = read_batch(answer, len(sealed))
        except Refused:
            pass  # none of them opened
        except StoreError as error:
            problem = error
        noted = self.last_request_ids()
        if problem is not None:
            return [OpenedItem(vault_request_ids=noted, problem=copy.copy(problem)) for _ in sealed]
        texts = zip(sealed, found, strict=True)
        return [
            OpenedItem(text, noted) if text is not None else (await self._open_alone(name, one)).after(noted)
            for one, text in texts
        ]

    async def _open_alone(self, name: str, sealed: SealedItem) -> OpenedItem:
        text: object = None
        problem: StoreError | None = None
        try:
            answer = await self._call(
                lambda: self._transit.decrypt_data(
                    name,
                    sealed.ciphertext,
                    associated_data=sealed.associated_data,
                    mount_point=self._settings.transit_mount,
                ),
                sealed.request_id,
            )
            text = answer["data"]["plaintext"]
        except Refused as fault:
            problem = Unsealable(_DOES_NOT_OPEN, status=fault.status)
        except StoreError as error:
            problem = error
        return OpenedItem(text, self.last_request_ids(), problem)

    async def sign(self, payload: bytes, *, purpose: Purpose = Purpose.TOKEN) -> tuple[str, bytes]:
        if not self._signing_keys.get(purpose):
            await self.signing_keys(purpose=purpose)
        answer = await self._call(
            lambda: self._transit.sign_data(
                self._settings.signing_key_of(purpose), _encode(payload), mount_point=self._settings.transit_mount
            )
        )
        _, version, signature = str(answer["data"]["signature"]).split(":", 2)
        number = int(version.removeprefix("v"))
        if number not in self._signing_keys[purpose]:  # rotated by the operator meanwhile
            await self.signing_keys(purpose=purpose)
        return self._signing_keys[purpose][number].key_id, _decode(signature)

    async def signing_keys(self, *, purpose: Purpose = Purpose.TOKEN) -> Sequence[SigningKey]:
        name = self._settings.signing_key_of(purpose)
        try:
            answer = await self._call(lambda: self._read_signing_key(name))
        except Missing:
            await self._call(lambda: self._create_key(name, "ed25519"))
            answer = await self._call(lambda: self._read_signing_key(name))
        keys = {int(version): _signing_key(key) for version, key in answer["data"]["keys"].items()}
        self._signing_keys[purpose] = keys
        return tuple(key for _, key in sorted(keys.items(), reverse=True))

    async def rotate_signing_key(self, *, purpose: Purpose) -> None:
        key = f"{self._settings.transit_mount}/keys/{self._settings.signing_key_of(purpose)}"
        raise Denied(f"this service may not rotate keys in Vault; an operator may: vault write -f {key}/rotate")

    async def rotate_key(self, tenant: str) -> None:
        name = _tenant_key(tenant)
        with _no_key_is_unsealable():
            await self._call(lambda: self._transit.rotate_key(name, mount_point=self._settings.transit_mount))

    async def retire_old_keys(self, tenant: str) -> None:
        name, mount = _tenant_key(tenant), self._settings.transit_mount
        with contextlib.suppress(Missing):
            newest = (await self._call(lambda: self._transit.read_key(name, mount_point=mount)))["data"][
                "latest_version"
            ]
            await self._call(
                lambda: self._transit.update_key_configuration(name, min_decryption_version=newest, mount_point=mount)
            )

    async def shred_key(self, tenant: str) -> None:
        name, mount = _tenant_key(tenant), self._settings.transit_mount
        with contextlib.suppress(Missing):
            await self._call(lambda: self._transit.read_key(name, mount_point=mount))
            await self._call(
                lambda: self._transit.update_key_configuration(name, deletion_allowed=True, mount_point=mount)
            )
            await self._call(lambda: self._transit.delete_key(name, mount_point=mount))
        self._made_keys.discard(name)

    async def import_signing_key(self, private: Ed25519PrivateKey) -> None:
        """Takes over the key of the tokens from another store, wrapped for Vault alone. Raises Conflict where Vault has
        one already. Rule: https://developer.hashicorp.com/vault/docs/secrets/transit#bring-your-own-key-byok"""
        mount, name = self._settings.transit_mount, self._settings.signing_key
        with contextlib.suppress(Missing):
            await self._call(lambda: self._read_signing_key(self._settings.signing_key))
            raise Conflict("Vault has a signing key already")
        answer = await self._call(lambda: self._adapter.get(f"/v1/{mount}/wrapping_key"))
        ciphertext = wrap_for_import(private, answer["data"]["public_key"].encode("ascii"))
        body = {"type": "ed25519", "ciphertext": ciphertext, "hash_function": "SHA256", "allow_rotation": True}
        await self._call(lambda: self._adapter.post(f"/v1/{mount}/keys/{name}/import", json=body))

    async def check(self) -> None:
        answer = await self._call(lambda: self._kv.read_configuration(mount_point=self._settings.kv_mount))
        if answer["data"].get("max_versions") != 1:
            mount = self._settings.kv_mount
            raise Denied(
                f"the Vault mount {mount} keeps earlier versions, so destroyed credentials would stay readable; "
                f"run: vault write {mount}/config max_versions=1 cas_required=true"
            )
        with contextlib.suppress(Missing):  # the first signature makes the key; here the mount must answer
            await self._call(lambda: self._read_signing_key(self._settings.signing_key))

    def last_request_ids(self) -> Sequence[str]:
        """The ids for this very task. A task that it starts has its own: bound calls by `asyncio.timeout`, which stays
        in the task, and not by `asyncio.wait_for`, which before Python 3.12 starts one."""
        task = asyncio.current_task()
        return tuple(self._ids.pop(task, ())) if task is not None else ()

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        token = await self._keeper.close()
        # A token of ours would live on until its lease ends.
        with contextlib.suppress(StoreError, TimeoutError):
            async with asyncio.timeout(_REVOCATION_TIMEOUT_SECONDS):
                await self._in_thread(lambda: self._logins.revoke(token))
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._pools.clear()

    async def _make_key(self, name: str, request_id: str) -> None:
        """Makes a tenant's key where there is none. `encrypt` could do so in passing, and would for any mistyped name,
        so the policy denies it that; making a key that exists changes nothing."""
        if name not in self._made_keys:
            await self._call(lambda: self._create_key(name, "aes256-gcm96"), request_id)
            self._made_keys.add(name)

    def _create_key(self, name: str, key_type: str) -> Any:
        return self._transit.create_key(name, key_type=key_type, mount_point=self._settings.transit_mount)

    def _read_signing_key(self, name: str) -> Any:
        return self._transit.read_key(name, mount_point=self._settings.transit_mount)

    async def _call(self, work: Callable[[], Any], *request_ids: str) -> Any:
        """Does the work under the current token; once more after a new login when the token is refused."""
        if not self._is_open():
            raise Unavailable("the store is closed")
        problem: StoreError
        try:
            async with asyncio.timeout(left_seconds(self._settings.call_timeout_seconds)):
                token = await self._keeper.token()
                try:
                    return await self._exchange(work, token, request_ids)
                except TokenRefused as refusal:
                    problem = refusal
                    if self._keeper.may_help(refusal) or await self._in_thread(lambda: self._logins.is_dead(token)):
                        token = await self._keeper.replace(token)
                        return await self._exchange(work, token, request_ids)
        except TokenRefused as refusal:
            problem = refusal
        except TimeoutError:
            raise Unavailable("the Vault server did not answer in time") from None
        except (RuntimeError, asyncio.CancelledError):
            # Closing ends the login and the threads under whoever waits for them; nobody has cancelled the caller then.
            task = asyncio.current_task()
            if self._is_open() or (task is not None and task.cancelling()):
                raise
            raise Unavailable("the store is closed") from None
        raise Denied(
            "Vault's policy refuses this service what it needs; compare it with deploy/vault/policies",
            status=problem.status,
            vault_request_ids=problem.vault_request_ids,
        )

    def _is_open(self) -> bool:
        return not self._closed

    async def _exchange(self, work: Callable[[], Any], token: str, request_ids: Sequence[str]) -> Any:
        exchange = Exchange(token, request_ids)

        def run() -> Any:
            with self._adapter.exchanging(exchange):
                return work()

        try:
            return await self._in_thread(run)
        finally:
            self._note_ids(exchange.vault_request_ids)

    def _note_ids(self, vault_request_ids: Sequence[str]) -> None:
        task = asyncio.current_task()
        if task is not None and vault_request_ids:
            self._ids.setdefault(task, deque(maxlen=_MAX_REMEMBERED_IDS)).extend(vault_request_ids)

    async def _bounded(self, work: Callable[[], T]) -> T:
        try:
            async with asyncio.timeout(self._settings.call_timeout_seconds):
                return await self._in_thread(work)
        except TimeoutError:
            raise Unavailable("the Vault server did not answer in time") from None

    async def _in_thread(self, work: Callable[[], T]) -> T:
        waiting = Waiting()

        def run() -> T:
            with waiting.here():
                return work()

        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, run)
        finally:
            waiting.abandon()  # or the thread would be lost for as long as somebody lets bytes drip in


@contextlib.contextmanager
def _no_key_is_unsealable() -> Iterator[None]:
    """Vault says 400 to the rotation of a key that is not there, and 404 to reading one."""
    problem: StoreError
    try:
        yield
        return
    except (Missing, Refused) as fault:
        problem = Unsealable("the tenant has no key", status=fault.status)
    raise problem


def _tenant_key(tenant: str) -> str:
    """Names the tenant's transit key: one key for each, so that deleting it shreds that tenant's secrets alone."""
    return "tenant-" + check_tenant(tenant).replace("/", "-")


def _encode(value: bytes) -> str:
    return base64.b64encode(value).decode("ascii")


def _decode(text: object) -> bytes:
    if isinstance(text, str):
        with contextlib.suppress(ValueError):
            return base64.b64decode(text, validate=True)
    raise StoreError("a document in Vault is not what this service writes; something else writes to its mount")


def _is_canonical(ciphertext: bytes) -> bool:
    """Vault reads base64 leniently: bits after the end and line breaks may change and it still opens. Here they may
    not, so that a ciphertext that was touched never passes for the one that was sealed."""
    found = _CIPHERTEXT.fullmatch(ciphertext)
    if found is None:
        return False
    try:
        return base64.b64encode(base64.b64decode(found[1], validate=True)) == found[1]
    except ValueError:
        return False


def _signing_key(key: dict[str, Any]) -> SigningKey:
    public_key = _decode(key["public_key"])
    return SigningKey(key_id_of(public_key), public_key, datetime.fromisoformat(key["creation_time"]).timestamp())
