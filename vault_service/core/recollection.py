"""What leasing has read lately: documents and ciphertexts, never a key. Every secret is still opened by the store.

What is remembered counts only while the change log is fresh, which is how this instance hears of what others have
written; a change drops what it is about before anybody is told of it. It is bounded, and forgotten after as long as a
lease may live: what another instance wrote and could not tell of holds no longer than that.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence

from vault_service.core.changes import Change, ChangeLog, CredentialUpdated, TokenRevoked
from vault_service.store.store import Document, Purpose, SigningKey, Store

MAX_CREDENTIALS = 10_000


class Recollection:
    """The memory. `seconds` is for how long; 0 remembers nothing."""

    def __init__(self, changes: ChangeLog, *, monotonic: Callable[[], float], seconds: float) -> None:
        self._changes = changes
        self._monotonic = monotonic
        self._seconds = seconds
        self._held: OrderedDict[str, dict[str, tuple[Document, float]]] = OrderedDict()
        self.drops = 0
        changes.listen(self._take_in)

    def find(self, path: str) -> Document | None:
        """What stands there, as far as this instance can know anything; None where that is not known."""
        held = self._held.get(_root(path), {}).get(path)
        if held is None or not self._changes.is_fresh or self._monotonic() - held[1] > self._seconds:
            return None
        return held[0]

    def keep(self, path: str, document: Document | None, drops_before: int) -> None:
        """Remembers what was read, unless something was dropped since the reading began.

        That there is nothing is not remembered: Vault says so too where it hides a path, for a moment perhaps.
        """
        if document is None or drops_before != self.drops or self._seconds <= 0:
            return
        self._held.setdefault(_root(path), {})[path] = document, self._monotonic()
        self._held.move_to_end(_root(path))
        while len(self._held) > MAX_CREDENTIALS:
            self._held.popitem(last=False)

    def forget(self, path: str) -> None:
        """Forgets one document."""
        self.drops += 1
        self._held.get(_root(path), {}).pop(path, None)

    def forget_credential(self, name: str) -> None:
        """Forgets a credential and its versions."""
        self.drops += 1
        self._held.pop(name, None)

    def _take_in(self, changes: Sequence[Change] | None) -> None:
        """Drops what changes are about; None says that some were missed."""
        whats = None if changes is None else [change.what for change in changes]
        if whats is None or not all(isinstance(what, CredentialUpdated | TokenRevoked) for what in whats):
            self.drops += 1
            self._held.clear()
            return
        for what in whats:
            if isinstance(what, CredentialUpdated):
                self.forget_credential(what.credential)


def _root(path: str) -> str:
    return path.partition("/versions/")[0]


class ForgettingStore:
    """A store whose writes are forgotten before and after: told or not, this instance does not use what was before."""

    def __init__(self, store: Store, memory: Recollection) -> None:
        self._store = store
        self._memory = memory

    async def read(self, path: str, *, request_id: str = "") -> Document | None:
        return await self._store.read(path, request_id=request_id)

    async def write(self, path: str, value: bytes, *, expected_revision: int, request_id: str = "") -> int:
        self._memory.forget(path)
        try:
            return await self._store.write(path, value, expected_revision=expected_revision, request_id=request_id)
        finally:
            self._memory.forget(path)

    async def delete(self, path: str, *, request_id: str = "") -> None:
        self._memory.forget(path)
        try:
            await self._store.delete(path, request_id=request_id)
        finally:
            self._memory.forget(path)

    async def list(self, prefix: str, *, request_id: str = "") -> Sequence[str]:
        return await self._store.list(prefix, request_id=request_id)

    async def seal(self, tenant: str, plaintext: bytes, *, context: str, request_id: str = "") -> bytes:
        return await self._store.seal(tenant, plaintext, context=context, request_id=request_id)

    async def unseal(self, tenant: str, ciphertext: bytes, *, context: str, request_id: str = "") -> bytes:
        return await self._store.unseal(tenant, ciphertext, context=context, request_id=request_id)

    async def sign(self, payload: bytes, *, purpose: Purpose = Purpose.TOKEN) -> tuple[str, bytes]:
        return await self._store.sign(payload, purpose=purpose)

    async def signing_keys(self, *, purpose: Purpose = Purpose.TOKEN) -> Sequence[SigningKey]:
        return await self._store.signing_keys(purpose=purpose)

    async def rotate_signing_key(self, *, purpose: Purpose) -> None:
        await self._store.rotate_signing_key(purpose=purpose)

    async def check(self) -> None:
        await self._store.check()

    def last_request_ids(self) -> Sequence[str]:
        return self._store.last_request_ids()

    async def close(self) -> None:
        await self._store.close()


class RecollectingStore(ForgettingStore):
    """The same, read from memory where it remembers."""

    async def read(self, path: str, *, request_id: str = "") -> Document | None:
        held = self._memory.find(path)
        if held is not None:
            return held
        drops_before = self._memory.drops
        document = await self._store.read(path, request_id=request_id)
        self._memory.keep(path, document, drops_before)
        return document
