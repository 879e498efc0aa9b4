"""Credentials in the store: the law's steps under compare-and-set, the sealed bytes, and what routers are told.

An acknowledged revocation has been told to the routers: it is written first and told then, and repeating one that
was written but perhaps not told (a crash in between) tells it again.
"""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from vault_service.core import law
from vault_service.core.changes import ChangeLog, CredentialUpdated, OwnerRevoked
from vault_service.core.credential import Credential, Draft, KeyTest, Request, Version, decode, encode, material_path
from vault_service.core.documents import Documents
from vault_service.core.faults import Fault, Reason, from_store
from vault_service.core.names import CredentialName, Owner, VersionName
from vault_service.core.policies import Policies
from vault_service.core.secret import Secret
from vault_service.core.states import VersionState
from vault_service.store.store import Conflict, Store, StoreError, Unsealable


@dataclass(frozen=True, slots=True)
class Revocation:
    """How a revocation is carried out."""

    kill_in_flight: bool = False


class Credentials:
    """All credentials of all owners. Whether the caller may is decided before, in access.py."""

    def __init__(self, store: Store, changes: ChangeLog, policies: Policies, *, clock: Callable[[], float]) -> None:
        self._store = store
        self._documents: Documents[Credential] = Documents(
            store, encode=encode, decode=decode, name=lambda credential: credential.name
        )
        self._changes = changes
        self._policies = policies
        self._clock = clock

    async def get(self, name: CredentialName, *, call_id: str = "") -> Credential:
        """Gives one. Raises CREDENTIAL_UNKNOWN and CREDENTIAL_DELETED."""
        return law.require_live(await self._documents.read(str(name), request_id=call_id), name)

    async def list_owned(self, owner: Owner, *, call_id: str = "") -> Sequence[Credential]:
        """Gives an owner's own, by name."""
        entries = await self._store.list(f"{owner}/credentials", request_id=call_id)
        found = [
            await self._documents.read(f"{owner}/credentials/{entry}", request_id=call_id)
            for entry in entries
            if not entry.endswith("/")
        ]
        return [credential for credential in found if credential is not None and credential.delete_time is None]

    async def create(
        self, name: CredentialName, draft: Draft, request_id: str = "", *, call_id: str = ""
    ) -> Credential:
        """Creates one without a version."""
        await self._policies.require(name.owner, request_id=call_id)
        _, after = await self._documents.change(
            str(name),
            lambda before: law.create(before, name, draft, request_id, self._clock()),
            request_id=call_id,
        )
        await self._tell(after, "UPDATED", call_id=call_id)
        return after

    async def update(
        self, name: CredentialName, change: Callable[[Draft], Draft], etag: str, *, call_id: str = ""
    ) -> Credential:
        """Changes what its owner may change."""
        await self._policies.require(name.owner, request_id=call_id)
        _, after = await self._step(name, lambda live: law.update(live, change, etag, self._clock()), call_id=call_id)
        await self._tell(after, "DISABLED" if after.is_expired(self._clock()) else "UPDATED", call_id=call_id)
        return after

    async def disable(
        self, name: CredentialName, etag: str = "", how: Revocation = Revocation(), *, call_id: str = ""
    ) -> Credential:
        """Stops leasing all its versions."""
        _, after = await self._step(
            name, lambda live: law.set_disabled(live, True, etag, self._clock()), call_id=call_id
        )
        await self._tell(after, "DISABLED", kill=how.kill_in_flight, call_id=call_id)
        return after

    async def enable(self, name: CredentialName, etag: str = "", *, call_id: str = "") -> Credential:
        """Leases its active version again."""
        await self._policies.require(name.owner, request_id=call_id)
        _, after = await self._step(
            name, lambda live: law.set_disabled(live, False, etag, self._clock()), call_id=call_id
        )
        await self._tell(after, "ENABLED", call_id=call_id)
        return after

    async def delete(
        self, name: CredentialName, etag: str = "", how: Revocation = Revocation(), *, call_id: str = ""
    ) -> Credential:
        """Destroys all versions and leaves a tombstone. Told before the bytes go, so that nothing waits for them."""
        live = await self.disable(name, etag, how, call_id=call_id)
        await self._destroy_materials(live, call_id=call_id)
        before, _ = await self._step(name, lambda live: law.bury(live, self._clock()), call_id=call_id)
        if before is not None:
            await self._destroy_materials(before, call_id=call_id)
        await self._changes.append(
            [CredentialUpdated("DELETED", str(name), live.draft.provider, kill_in_flight=how.kill_in_flight)],
            request_id=call_id,
        )
        return live

    async def revoke_all(self, owner: Owner, how: Revocation = Revocation(), *, call_id: str = "") -> int:
        """Disables everything of an owner and of an organization's users; gives how many were enabled."""
        owners = [owner]
        if not owner.is_deployment and not owner.is_user:
            users = await self._store.list(f"{owner}/users", request_id=call_id)
            owners += [Owner(owner.organization, user.removesuffix("/")) for user in users if user.endswith("/")]
        disabled = 0
        for one in owners:
            for credential in await self.list_owned(one, call_id=call_id):
                disabled += await self._disable_silently(credential.name, call_id=call_id)
        await self._changes.append([OwnerRevoked(str(owner), how.kill_in_flight)], request_id=call_id)
        return disabled

    async def add_version(
        self,
        name: CredentialName,
        kind: str,
        material: Secret,
        fingerprint: str,
        request_id: str = "",
        *,
        call_id: str = "",
    ) -> Version:
        """Keeps a value, sealed, in state PENDING."""
        await self._policies.require(name.owner, request_id=call_id)
        live = await self.get(name, call_id=call_id)
        if live.draft.kind != kind:
            raise Fault(Reason.INVALID_SECRET, {"field": "secret_material", "cause": "kind"})
        used = law.find_request(live, request_id, self._clock())
        if used is not None:
            version = await self._repeat_version(live, used, material, call_id=call_id)
            await self._tell(live, "UPDATED", version.number, call_id=call_id)
            return version
        _, reserved = await self._step(name, law.reserve_version, call_id=call_id)
        number = reserved.next_number - 1
        version_name = VersionName(name, number)
        sealed = await self._store.seal(
            name.owner.tenant, material.reveal(), context=str(version_name), request_id=call_id
        )
        await self._store.write(material_path(name, number), sealed, expected_revision=0, request_id=call_id)
        try:
            _, after = await self._step(
                name,
                lambda live: self._add(live, number, fingerprint, request_id),
                call_id=call_id,
            )
        except (Fault, Conflict):
            # No document names these bytes. Where even this fails they are ciphertext that nobody asks for. After any
            # other end, a lost answer for one, the document may name them, and the same request again finds them.
            with contextlib.suppress(StoreError):
                await self._store.delete(material_path(name, number), request_id=call_id)
            raise
        await self._tell(after, "UPDATED", number, call_id=call_id)
        return law.require_version(after, number)

    async def activate(
        self, version: VersionName, etag: str = "", *, force: bool = False, call_id: str = ""
    ) -> Credential:
        """Makes a version the one that is leased."""
        await self._policies.require(version.credential.owner, request_id=call_id)
        number = _number(version)
        _, after = await self._step(
            version.credential,
            lambda live: law.activate(live, number, etag, force=force, time_seconds=self._clock()),
            call_id=call_id,
        )
        await self._tell(after, "ACTIVATED", number, call_id=call_id)
        return after

    async def disable_version(
        self, version: VersionName, etag: str = "", how: Revocation = Revocation(), *, call_id: str = ""
    ) -> Credential:
        """Stops leasing a version."""
        number = _number(version)
        _, after = await self._step(
            version.credential,
            lambda live: law.disable_version(live, number, etag, self._clock()),
            call_id=call_id,
        )
        await self._tell(after, "VERSION_REVOKED", number, kill=how.kill_in_flight, call_id=call_id)
        return after

    async def destroy_version(
        self, version: VersionName, etag: str = "", how: Revocation = Revocation(), *, call_id: str = ""
    ) -> Credential:
        """Destroys a value: first nobody may lease it, then the bytes go, then it is said so."""
        number = _number(version)
        live = await self.get(version.credential, call_id=call_id)
        law.check_etag(live, etag)
        if law.require_version(live, number).state is not VersionState.DESTROYED:
            await self.disable_version(version, etag, how, call_id=call_id)
        await self._store.delete(material_path(version.credential, number), request_id=call_id)
        _, after = await self._step(
            version.credential, lambda live: law.mark_destroyed(live, number, self._clock()), call_id=call_id
        )
        await self._tell(after, "VERSION_REVOKED", number, kill=how.kill_in_flight, call_id=call_id)
        return after

    async def record_test(
        self, version: VersionName, outcome: str, time_seconds: float, *, call_id: str = ""
    ) -> Credential:
        """Keeps the outcome of a test."""
        test = KeyTest(_number(version), outcome, time_seconds)
        _, after = await self._step(version.credential, lambda live: law.record_test(live, test), call_id=call_id)
        await self._tell(after, "UPDATED", test.number, call_id=call_id)
        return after

    async def record_use(self, version: VersionName, time_seconds: float, *, call_id: str = "") -> None:
        """Keeps when a version was used last."""
        number = _number(version)
        await self._step(version.credential, lambda live: law.record_use(live, number, time_seconds), call_id=call_id)

    async def open_material(self, version: VersionName, *, call_id: str = "") -> Secret:
        """Reads and opens a value. What cannot be opened was moved or changed, and is our fault to find."""
        return (await self.read_material(version, call_id=call_id))[0]

    async def read_material(self, version: VersionName, *, call_id: str = "") -> tuple[Secret, int]:
        """As `open_material`, with the revision that replacing it must name."""
        number = _number(version)
        path = material_path(version.credential, number)
        document = await self._store.read(path, request_id=call_id)
        if document is None:
            raise Fault(Reason.CREDENTIAL_DESTROYED, {"name": str(version)})
        plaintext = await self._store.unseal(
            version.credential.owner.tenant, document.value, context=str(version), request_id=call_id
        )
        return Secret(plaintext), document.revision

    async def replace_material(self, version: VersionName, material: Secret, expected_revision: int) -> None:
        """Keeps what a value became by itself, as a grant does with each renewal. Raises Conflict."""
        sealed = await self._store.seal(version.credential.owner.tenant, material.reveal(), context=str(version))
        path = material_path(version.credential, _number(version))
        await self._store.write(path, sealed, expected_revision=expected_revision)

    async def _step(
        self, name: CredentialName, change: Callable[[Credential], Credential], *, call_id: str
    ) -> tuple[Credential | None, Credential]:
        return await self._documents.change(
            str(name), lambda before: change(law.require_live(before, name)), request_id=call_id
        )

    def _add(self, live: Credential, number: int, fingerprint: str, request_id: str) -> Credential:
        if law.find_request(live, request_id, self._clock()) is not None:
            raise Fault(Reason.VERSION_CONFLICT, {"name": str(live.name)})  # the same request runs twice at once
        return law.add_version(live, number, fingerprint, request_id, self._clock())

    async def _repeat_version(self, live: Credential, used: Request, material: Secret, *, call_id: str) -> Version:
        """Gives the version that the same request made; the bytes themselves are compared, no digest is kept."""
        version = live.version(used.number) if used.number else None
        if version is None or version.state is VersionState.DESTROYED:
            raise law.reused(used.request_id)
        name = VersionName(live.name, version.number)
        try:
            kept = await self.open_material(name, call_id=call_id)
        except Unsealable as error:
            raise from_store(error, str(name)) from None
        if kept != material:
            raise law.reused(used.request_id)
        return version

    async def _disable_silently(self, name: CredentialName, *, call_id: str) -> int:
        try:
            before, after = await self._step(
                name, lambda live: law.set_disabled(live, True, "", self._clock()), call_id=call_id
            )
        except Fault as fault:
            if fault.reason is Reason.CREDENTIAL_DELETED:
                return 0
            raise
        return int(after is not before)

    async def _destroy_materials(self, credential: Credential, *, call_id: str) -> None:
        for version in credential.versions:
            if version.state is not VersionState.DESTROYED:
                await self._store.delete(material_path(credential.name, version.number), request_id=call_id)

    async def _tell(
        self, credential: Credential, type_name: str, number: int | None = None, *, kill: bool = False, call_id: str
    ) -> None:
        version = "" if number is None else str(VersionName(credential.name, number))
        update = CredentialUpdated(
            type_name, str(credential.name), credential.draft.provider, version, credential.leasable_name, kill
        )
        await self._changes.append([update], request_id=call_id)


def _number(version: VersionName) -> int:
    if version.number is None:
        raise ValueError("the active version must be resolved before")
    return version.number
