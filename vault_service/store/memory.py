"""The store that forgets: everything is in this process and ends with it. For tests.

It awaits nothing, so each method is atomic on the event loop, which is all that compare-and-set needs here.
"""

import os
import time
from collections.abc import Callable, Sequence

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from vault_service.store.envelope import (
    KEY_BYTES,
    RandomBytes,
    close_versioned,
    key_id_of,
    open_envelope,
    split_version,
)
from vault_service.store.names import check_folder, check_path, check_tenant, children
from vault_service.store.store import Conflict, Document, Purpose, SigningKey, Unsealable


class MemoryStore:
    """A `Store` over two dictionaries."""

    def __init__(self, *, clock: Callable[[], float] = time.time, random_bytes: RandomBytes = os.urandom) -> None:
        self._clock = clock
        self._random_bytes = random_bytes
        self._documents: dict[str, Document] = {}
        self._tenant_keys: dict[str, dict[int, bytes]] = {}  # by version
        self._signing: dict[Purpose, list[tuple[SigningKey, Ed25519PrivateKey]]] = {}

    async def read(self, path: str, *, request_id: str = "") -> Document | None:
        return self._documents.get(check_path(path))

    async def write(self, path: str, value: bytes, *, expected_revision: int, request_id: str = "") -> int:
        current = self._documents.get(check_path(path))
        if (current.revision if current else 0) != expected_revision:
            raise Conflict("the document is not at the expected revision")
        self._documents[path] = Document(bytes(value), expected_revision + 1)
        return expected_revision + 1

    async def delete(self, path: str, *, request_id: str = "") -> None:
        self._documents.pop(check_path(path), None)

    async def list(self, prefix: str, *, request_id: str = "") -> Sequence[str]:
        return children(check_folder(prefix), [*self._documents])

    async def seal(self, tenant: str, plaintext: bytes, *, context: str, request_id: str = "") -> bytes:
        keys = self._tenant_keys.setdefault(check_tenant(tenant), {})
        if not keys:
            keys[1] = self._random_bytes(KEY_BYTES)
        version = max(keys)
        return close_versioned(version, keys[version], plaintext, (tenant, context), self._random_bytes)

    async def unseal(self, tenant: str, ciphertext: bytes, *, context: str, request_id: str = "") -> bytes:
        version, envelope = split_version(ciphertext)
        key = self._tenant_keys.get(check_tenant(tenant), {}).get(version)
        if key is None:
            raise Unsealable("the tenant has no such key")
        return open_envelope(key, envelope, (tenant, context))

    async def rotate_key(self, tenant: str) -> None:
        keys = self._tenant_keys.get(check_tenant(tenant))
        if not keys:
            raise Unsealable("the tenant has no key")
        keys[max(keys) + 1] = self._random_bytes(KEY_BYTES)

    async def retire_old_keys(self, tenant: str) -> None:
        keys = self._tenant_keys.get(check_tenant(tenant), {})
        for version in sorted(keys)[:-1]:
            del keys[version]

    async def shred_key(self, tenant: str) -> None:
        self._tenant_keys.pop(check_tenant(tenant), None)

    async def sign(self, payload: bytes, *, purpose: Purpose = Purpose.TOKEN) -> tuple[str, bytes]:
        public, private = self._signing_pair(purpose)
        return public.key_id, private.sign(payload)

    async def signing_keys(self, *, purpose: Purpose = Purpose.TOKEN) -> Sequence[SigningKey]:
        self._signing_pair(purpose)
        return tuple(public for public, _ in reversed(self._signing[purpose]))

    async def rotate_signing_key(self, *, purpose: Purpose) -> None:
        self._make_signing_key(purpose)

    async def check(self) -> None:
        return None

    def last_request_ids(self) -> Sequence[str]:
        return ()

    async def close(self) -> None:
        return None

    def _signing_pair(self, purpose: Purpose) -> tuple[SigningKey, Ed25519PrivateKey]:
        if not self._signing.get(purpose):
            self._make_signing_key(purpose)
        return self._signing[purpose][-1]

    def _make_signing_key(self, purpose: Purpose) -> None:
        private = Ed25519PrivateKey.from_private_bytes(self._random_bytes(KEY_BYTES))
        public_bytes = private.public_key().public_bytes_raw()
        public = SigningKey(key_id_of(public_bytes), public_bytes, self._clock())
        self._signing.setdefault(purpose, []).append((public, private))
