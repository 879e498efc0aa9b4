"""What a place that keeps credentials must do: documents under compare-and-set, and keys that never leave it.

Everything the service knows besides its audit log is a document: a path, bytes, and a revision that grows with
every write. All laws of credentials (states, versions, tenants) are written once, above this interface, as
read-change-write loops; a store only has to be right about compare-and-set, about durability (a write that returned
is there after a crash) and about its keys.

Secrets are documents too, but the bytes in them are ciphertext made by `seal` under a tenant's own key, so that
neither a copy of the documents nor the right to read them gives a secret away.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, unique
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Document:
    """What stands at a path. `revision` is 1 for the first write of a path and grows with each further one."""

    value: bytes
    revision: int


class StoreError(Exception):
    """A store could not do what was asked. `detail` is for the operator, in words of our own that hold nothing of what
    was sent; `vault_request_ids` are the server's own ids, where there is a server."""

    def __init__(self, detail: str = "", *, status: int | None = None, vault_request_ids: Sequence[str] = ()) -> None:
        super().__init__(detail)
        self.detail = detail
        self.status = status
        self.vault_request_ids = tuple(vault_request_ids)


class Conflict(StoreError):
    """The document is not at the expected revision: somebody else wrote it meanwhile."""


class Unsealable(StoreError):
    """The ciphertext cannot be opened: it was changed, moved to another path or tenant, or its key is gone."""


class Unavailable(StoreError):
    """The store cannot be reached or is not ready; the same call may work later."""


class Sealed(Unavailable):
    """The Vault server is sealed."""


class Uninitialised(Unavailable):
    """The Vault server was never initialised."""


class AuditFailed(Unavailable):
    """No audit device of the Vault server could record the request."""


class Throttled(Unavailable):
    """The Vault server refuses because of a rate limit."""


class Denied(StoreError):
    """The store refuses this service what it needs, also after a new login: the operator must mend its policy."""


@unique
class Purpose(Enum):
    """What a signing key signs. Each purpose has a key of its own: who may ask for tokens cannot vouch for the log."""

    TOKEN = "token"  # noqa: S105 - the name of a purpose
    AUDIT = "audit"


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A public Ed25519 key of the store. The private half stays inside it."""

    key_id: str
    public_key: bytes
    create_time: float


class Store(Protocol):
    """The interface. Every method may raise Unavailable (or a kind of it) and Denied.

    `request_id` is the id of the call that it is done for; a store that keeps an audit log of its own writes it there.
    """

    async def read(self, path: str, *, request_id: str = "") -> Document | None:
        """Gives what stands at `path`, or None when nothing does (also after `delete`)."""
        ...

    async def write(self, path: str, value: bytes, *, expected_revision: int, request_id: str = "") -> int:
        """Writes and gives the new revision; 0 expects that nothing stands there. Raises Conflict."""
        ...

    async def delete(self, path: str, *, request_id: str = "") -> None:
        """Removes the document and all its history, so that no earlier value can be read. Nothing there is no error."""
        ...

    async def list(self, prefix: str, *, request_id: str = "") -> Sequence[str]:
        """Gives the sorted names directly below the folder `prefix`; a name that ends in "/" is a folder."""
        ...

    async def seal(self, tenant: str, plaintext: bytes, *, context: str, request_id: str = "") -> bytes:
        """Encrypts under the tenant's own key, which is made on first use. Only the same `context` opens it again."""
        ...

    async def unseal(self, tenant: str, ciphertext: bytes, *, context: str, request_id: str = "") -> bytes:
        """Decrypts. Raises Unsealable."""
        ...

    async def sign(self, payload: bytes, *, purpose: Purpose = Purpose.TOKEN) -> tuple[str, bytes]:
        """Signs with the newest signing key of the purpose (Ed25519): its key id and the 64 bytes."""
        ...

    async def signing_keys(self, *, purpose: Purpose = Purpose.TOKEN) -> Sequence[SigningKey]:
        """Gives the public keys, the newest first; makes the first one where there is none."""
        ...

    async def rotate_signing_key(self, *, purpose: Purpose) -> None:
        """Makes a new key of the purpose, with which is signed from now on. Raises Denied where operators do that."""
        ...

    async def check(self) -> None:
        """Returns when the store can serve; raises what a call would raise."""
        ...

    def last_request_ids(self) -> Sequence[str]:
        """The server's own ids of the requests made so far in this asyncio task's context; clears them."""
        ...

    async def close(self) -> None:
        """Lets go of files, connections and threads."""
        ...


class MaintainedStore(Store, Protocol):
    """What maintenance alone does to a store's keys: a running service neither needs these rights nor has them."""

    async def rotate_key(self, tenant: str) -> None:
        """Makes a new version of the tenant's key, under which everything is sealed from now on. Raises Unsealable
        where the tenant has no key."""
        ...

    async def retire_old_keys(self, tenant: str) -> None:
        """Makes what earlier versions sealed unreadable for good, wherever a copy of it is."""
        ...

    async def shred_key(self, tenant: str) -> None:
        """Deletes all versions of the tenant's key: nothing of its secrets can be read again. No key is no error."""
        ...
