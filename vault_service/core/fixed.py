"""Credentials whose value the environment of the service fixes: taken once, and kept as an operator's are.

What was taken is remembered by a keyed digest that is sealed under the deployment's own key, for the bytes of a version
that was destroyed can no longer be compared. So no start brings back what somebody revoked, replaced or deleted since,
and instances whose environments differ do not take turns.
"""

import hashlib
import hmac
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from vault_service.core.credential import Credential, Draft
from vault_service.core.credentials import Credentials
from vault_service.core.faults import Fault, Reason
from vault_service.core.names import CredentialName, VersionName
from vault_service.core.secret import Secret
from vault_service.store.store import Conflict, Store

MAX_ATTEMPTS = 32
MAX_REMEMBERED = 100


@dataclass(frozen=True, slots=True)
class FixedCredential:
    """What the environment says of one. `variable` is where its value stands."""

    name: CredentialName
    draft: Draft
    material: Secret
    fingerprint: str
    variable: str


class OtherwiseStored(Exception):
    """The credential is there already and is for something else; the text says what to do."""


@dataclass(frozen=True, slots=True)
class _Memory:
    """What was taken of one credential: digests with their versions' numbers, the newest last.

    `begun` holds digests with the request ids under which their versions are being made.
    """

    salt: str
    taken: tuple[tuple[str, int], ...] = ()
    begun: tuple[tuple[str, str], ...] = ()
    revision: int = 0

    def digest(self, material: Secret) -> str:
        return hmac.new(self.salt.encode(), material.reveal(), hashlib.sha256).hexdigest()

    def number(self, digest: str) -> int | None:
        return dict(self.taken).get(digest)

    def with_taken(self, digest: str, number: int) -> "_Memory":
        begun = tuple(one for one in self.begun if one[0] != digest)
        return replace(self, taken=(*self.taken, (digest, number))[-MAX_REMEMBERED:], begun=begun)


def memory_name(name: CredentialName) -> str:
    """Gives what the memory is sealed for."""
    return f"{name}/environment"


def memory_path(name: CredentialName) -> str:
    """Gives where it stands, which maintenance finds like the bytes of a version."""
    return f"{memory_name(name)}/material"


class FixedCredentials:
    """All that the environment of this instance fixes, and what becomes of them."""

    def __init__(
        self, fixed: Iterable[FixedCredential], store: Store, credentials: Credentials, *, new_id: Callable[[], str]
    ) -> None:
        self._fixed = {one.name: one for one in fixed}
        self._store = store
        self._credentials = credentials
        self._new_id = new_id
        self._numbers: dict[CredentialName, int] = {}

    def __iter__(self) -> Iterator[FixedCredential]:
        return iter(self._fixed.values())

    def require_said(self, name: CredentialName, is_overridden: bool) -> None:
        """Raises CREDENTIAL_FIXED for a change of what is fixed, unless the request says that it is meant."""
        if name in self._fixed and not is_overridden:
            raise Fault(Reason.CREDENTIAL_FIXED, {"name": str(name)})

    def source(self, credential: Credential) -> str:
        """Where the version that is leased comes from, as a CredentialSource without its prefix."""
        if credential.name not in self._fixed:
            return "STORED"
        active = credential.active
        is_own = active is not None and active.number == self._numbers.get(credential.name)
        return "ENVIRONMENT" if is_own else "STORED_OVER_ENVIRONMENT"

    async def is_taken(self, fixed: FixedCredential) -> bool:
        """Whether its value was taken at some time, here or elsewhere. Raises OtherwiseStored."""
        await self._find(fixed)
        memory = await self._recall(fixed.name)
        number = memory.number(memory.digest(fixed.material))
        if number is not None:
            self._numbers[fixed.name] = number
        return number is not None

    async def take(self, fixed: FixedCredential) -> VersionName:
        """Makes the value a version and activates it. May be repeated, by any instance, from wherever it stopped."""
        for _ in range(MAX_ATTEMPTS):
            try:
                number = await self._try(fixed)
            except Conflict:
                continue
            except Fault as fault:
                if fault.reason not in (Reason.VERSION_CONFLICT, Reason.CREDENTIAL_EXISTS):
                    raise
                continue  # another instance makes the same; the next try finds what it made
            self._numbers[fixed.name] = number
            return VersionName(fixed.name, number)
        raise Conflict("the credential is written too often")

    async def _try(self, fixed: FixedCredential) -> int:
        memory = await self._recall(fixed.name)
        digest = memory.digest(fixed.material)
        known = memory.number(digest)
        if known is not None:
            return known
        live = await self._find(fixed)
        number = await self._find_active(live, fixed)
        if number is None:
            if digest not in dict(memory.begun):
                begun = (*memory.begun, (digest, self._new_id()))
                memory = await self._remember(fixed.name, replace(memory, begun=begun))
            if live is None:
                await self._credentials.create(fixed.name, fixed.draft)
            version = await self._credentials.add_version(
                fixed.name, fixed.draft.kind, fixed.material, fixed.fingerprint, dict(memory.begun)[digest]
            )
            number = version.number
            await self._credentials.activate(VersionName(fixed.name, number), force=True)
        await self._remember(fixed.name, memory.with_taken(digest, number))
        return number

    async def _find(self, fixed: FixedCredential) -> Credential | None:
        try:
            live = await self._credentials.get(fixed.name)
        except Fault as fault:
            if fault.reason not in (Reason.CREDENTIAL_UNKNOWN, Reason.CREDENTIAL_DELETED):
                raise
            return None
        wanted, there = fixed.draft, live.draft
        if (there.provider, there.kind, there.plan, set(there.allowed_origins)) != (
            wanted.provider,
            wanted.kind,
            wanted.plan,
            set(wanted.allowed_origins),
        ):
            raise OtherwiseStored(
                f"{fixed.variable}: {fixed.name} is there already, for another provider, kind, plan or origins, and "
                "those cannot be changed; give the environment's another id, or delete that one first"
            )
        return live

    async def _find_active(self, live: Credential | None, fixed: FixedCredential) -> int | None:
        """The active version's number, where it has the very value: somebody has put it in by hand."""
        if live is None or live.active is None:
            return None
        kept = await self._credentials.open_material(VersionName(live.name, live.active.number))
        return live.active.number if kept == fixed.material else None

    async def _recall(self, name: CredentialName) -> _Memory:
        document = await self._store.read(memory_path(name))
        if document is None:
            return _Memory(self._new_id())
        plaintext = await self._store.unseal(name.owner.tenant, document.value, context=memory_name(name))
        found = json.loads(plaintext)
        return _Memory(
            found["salt"],
            tuple((digest, number) for digest, number in found["taken"]),
            tuple((digest, request_id) for digest, request_id in found["begun"]),
            document.revision,
        )

    async def _remember(self, name: CredentialName, memory: _Memory) -> _Memory:
        text = json.dumps({"salt": memory.salt, "taken": memory.taken, "begun": memory.begun}).encode()
        sealed = await self._store.seal(name.owner.tenant, text, context=memory_name(name))
        revision = await self._store.write(memory_path(name), sealed, expected_revision=memory.revision)
        return replace(memory, revision=revision)
