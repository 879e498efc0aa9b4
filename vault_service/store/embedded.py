"""The store for one machine: SQLite documents and AES-256-GCM envelopes, with nothing else to install.

SQLite runs in one thread of its own, so the event loop never waits for a disk and no two statements ever meet.
"""

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from vault_service.store.embedded_database import EmbeddedDatabase, NamedKey, version_name
from vault_service.store.envelope import RandomBytes, close_versioned, key_id_of, open_envelope, split_version
from vault_service.store.names import check_folder, check_path, check_tenant, children
from vault_service.store.store import Document, Purpose, SigningKey, Unavailable, Unsealable

_KEY_NAMES = {Purpose.TOKEN: "signing", Purpose.AUDIT: "audit"}

T = TypeVar("T")


class EmbeddedStore:
    """A `Store` in a folder. Get one by `open`; one process at a time may have it open."""

    def __init__(self, worker: ThreadPoolExecutor, database: EmbeddedDatabase, random_bytes: RandomBytes) -> None:
        self._worker = worker
        self._database = database
        self._random_bytes = random_bytes
        self._closed = False

    @classmethod
    async def open(
        cls, folder: Path, *, clock: Callable[[], float] = time.time, random_bytes: RandomBytes = os.urandom
    ) -> "EmbeddedStore":
        """Opens the store, makes it on first use. Raises StoreError with what to do when it must not be opened."""
        worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="embedded-store")
        try:
            database = await asyncio.get_running_loop().run_in_executor(
                worker, lambda: EmbeddedDatabase(folder, clock=clock, random_bytes=random_bytes)
            )
        except BaseException:  # also a cancel: its thread would outlive it
            worker.shutdown(wait=False)
            raise
        return cls(worker, database, random_bytes)

    async def read(self, path: str, *, request_id: str = "") -> Document | None:
        check_path(path)
        return await self._run(lambda: self._database.read(path))

    async def write(self, path: str, value: bytes, *, expected_revision: int, request_id: str = "") -> int:
        check_path(path)
        return await self._run(lambda: self._database.write(path, value, expected_revision))

    async def delete(self, path: str, *, request_id: str = "") -> None:
        check_path(path)
        await self._run(lambda: self._database.delete(path))

    async def list(self, prefix: str, *, request_id: str = "") -> Sequence[str]:
        folder = check_folder(prefix)
        return children(folder, await self._run(lambda: self._database.paths_below(folder)))

    async def seal(self, tenant: str, plaintext: bytes, *, context: str, request_id: str = "") -> bytes:
        name = _tenant_key(tenant)
        version, key = await self._run(lambda: self._database.make_newest_key(name))
        return close_versioned(version, key.secret, plaintext, (tenant, context), self._random_bytes)

    async def unseal(self, tenant: str, ciphertext: bytes, *, context: str, request_id: str = "") -> bytes:
        version, envelope = split_version(ciphertext)
        name = version_name(_tenant_key(tenant), version)
        # Most keys are unwrapped already, and the database's thread is a long way for a look at a dictionary.
        key = self._database.held_key(name) if not self._closed else None
        if key is None:
            key = await self._run(lambda: self._database.find_key(name))
        if key is None:
            raise Unsealable("the tenant has no such key")
        return open_envelope(key.secret, envelope, (tenant, context))

    async def sign(self, payload: bytes, *, purpose: Purpose = Purpose.TOKEN) -> tuple[str, bytes]:
        public, private = (await self._run(lambda: self._signing_pairs(purpose)))[0]
        return public.key_id, private.sign(payload)

    async def signing_keys(self, *, purpose: Purpose = Purpose.TOKEN) -> Sequence[SigningKey]:
        return tuple(public for public, _ in await self._run(lambda: self._signing_pairs(purpose)))

    async def rotate_signing_key(self, *, purpose: Purpose) -> None:
        def rotate() -> None:
            self._database.make_key(_key_name(purpose, len(self._signing_pairs(purpose)) + 1))

        await self._run(rotate)

    async def rotate_key(self, tenant: str) -> None:
        name = _tenant_key(tenant)

        def rotate() -> None:
            newest = self._database.newest_version(name)
            if newest == 0:
                raise Unsealable("the tenant has no key")
            self._database.make_key(version_name(name, newest + 1))

        await self._run(rotate)

    async def retire_old_keys(self, tenant: str) -> None:
        name = _tenant_key(tenant)
        await self._run(lambda: self._database.delete_keys(name, below=self._database.newest_version(name)))

    async def shred_key(self, tenant: str) -> None:
        name = _tenant_key(tenant)
        await self._run(lambda: self._database.delete_keys(name))

    async def rotate_root_key(self) -> None:
        """Puts another root key in the place of the present one, and everything under it. Whatever happens on the way,
        one of the two opens the store afterwards."""
        await self._run(self._database.rotate_root_key)

    async def export_signing_key(self) -> Ed25519PrivateKey:
        """Gives the private key of the tokens, for a move to another store."""
        return (await self._run(lambda: self._signing_pairs(Purpose.TOKEN)))[0][1]

    async def check(self) -> None:
        await self._run(self._database.check)

    def last_request_ids(self) -> Sequence[str]:
        """Always empty: there is no server that would give ids."""
        return ()

    async def close(self) -> None:
        if self._closed:
            return
        try:
            await self._run(self._database.close)
        finally:
            self._closed = True
            self._worker.shutdown(wait=False)

    def _signing_pairs(self, purpose: Purpose) -> Sequence[tuple[SigningKey, Ed25519PrivateKey]]:
        """Gives the keys of a purpose, the newest first. Belongs to the database's thread."""
        keys = [self._database.make_key(_key_name(purpose, 1))]
        while (key := self._database.find_key(_key_name(purpose, len(keys) + 1))) is not None:
            keys.append(key)
        return [_signing_pair(key) for key in reversed(keys)]

    async def _run(self, work: Callable[[], T]) -> T:
        if self._closed:
            raise Unavailable("the store is closed")
        # A cancelled caller leaves its work running to the end: a commit is never cut in half.
        return await asyncio.get_running_loop().run_in_executor(self._worker, work)


def _key_name(purpose: Purpose, number: int) -> str:
    return f"{_KEY_NAMES[purpose]}-{number}"


def _signing_pair(key: NamedKey) -> tuple[SigningKey, Ed25519PrivateKey]:
    private = Ed25519PrivateKey.from_private_bytes(key.secret)
    public_bytes = private.public_key().public_bytes_raw()
    return SigningKey(key_id_of(public_bytes), public_bytes, key.create_time), private


def _tenant_key(tenant: str) -> str:
    return f"tenant/{check_tenant(tenant)}"
