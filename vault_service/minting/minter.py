"""From what is kept to what is leased: a key as it is, or a short-lived token that is fetched for it.

However many leases find a token missing, there is one renewal per version in this process, and of several instances
over one store one claims it. It is no caller's: it goes on when a caller leaves, since a refresh token that was spent
must not be lost. A renewed grant is in the store before any token of it is given out.
"""

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import assert_never

from keyswitch.vault.v1 import audit_pb2, credential_pb2, lease_pb2

from vault_service.audit.recorder import SERVICE, Recorder
from vault_service.core.credential import material_path
from vault_service.core.credentials import Credentials
from vault_service.core.faults import Fault, Reason
from vault_service.core.leases import Leases
from vault_service.core.names import VersionName
from vault_service.core.recollection import Recollection
from vault_service.core.secret import Secret
from vault_service.minting import aws, entra, google, oauth
from vault_service.minting.egress import Egress, MintRefused, MintUnavailable, fault_of
from vault_service.minting.tokens import Minted
from vault_service.store.patience import waited_for
from vault_service.store.store import Conflict, Store, StoreError, Unsealable

RENEW_BEFORE_SECONDS = 60.0
FORCED_RENEWAL_PAUSE_SECONDS = 5.0
CLAIM_SECONDS = 30.0
_CLAIM_POLL_SECONDS = 0.2
_UNKNOWN_LEASE_SECONDS = 30.0
_COMMIT_ATTEMPTS = 5

Token = Minted | aws.Session
Material = credential_pb2.SecretMaterial


@dataclass(frozen=True, slots=True)
class Leasable:
    """What is to be sealed, and until when it can be used; None for a key that does not end by itself."""

    secret: Secret
    expire_time: float | None = None


class Minter:
    """Makes what is leased."""

    def __init__(
        self,
        credentials: Credentials,
        lately: Credentials,
        memory: Recollection,
        store: Store,
        leases: Leases,
        recorder: Recorder,
        egress: Egress,
        *,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
        new_id: Callable[[], str],
        on_minted: Callable[[str, str], None] = lambda kind, outcome: None,
        sts_endpoint: Callable[[str], str] = aws.sts_endpoint,
    ) -> None:
        self._credentials = credentials
        self._lately = lately
        self._memory = memory
        self._store = store
        self._leases = leases
        self._recorder = recorder
        self._egress = egress
        self._clock = clock
        self._sleep = sleep
        self._new_id = new_id
        self._on_minted = on_minted
        self._sts_endpoint = sts_endpoint
        self._held: dict[VersionName, Token] = {}
        self._mint_times: dict[VersionName, float] = {}
        self._renewals: dict[VersionName, asyncio.Task[Token]] = {}
        self._uncommitted: dict[VersionName, credential_pb2.OauthGrant] = {}

    async def lease(self, version: VersionName, *, rejected_lease_id: str = "", call_id: str = "") -> Leasable:
        """Gives what is leased of a version. Raises MINT_REFUSED, MINT_UNAVAILABLE and what reading it raises."""
        material = await self._open(version, call_id)
        match material.WhichOneof("material"):
            case "api_key":
                return _leasable(lease_pb2.LeasedMaterial(api_key=material.api_key))
            case "aws" if not material.aws.role_arn:
                return _leasable(_pair(material.aws))
            case "aws" | "oauth" | "entra" | "google_service_account":
                return self._build(material, await self._token(version, material, rejected_lease_id))
            case None:
                raise Fault(Reason.INTERNAL)

    async def _open(self, version: VersionName, call_id: str) -> Material:
        is_remembered_well = True
        try:
            kept = await self._lately.open_material(version, call_id=call_id)
        except Unsealable:  # maintenance has sealed it anew, and tells nobody
            kept = await self._credentials.open_material(version, call_id=call_id)
            is_remembered_well = False
        material = Material.FromString(kept.reveal())
        # A grant renews itself, also at other instances, and no change says so.
        if material.HasField("oauth") or not is_remembered_well:
            self._memory.forget(material_path(version.credential, version.number or 0))
        return material

    async def close(self) -> None:
        """Lets renewals end, and lets go of connections."""
        await asyncio.gather(*self._renewals.values(), return_exceptions=True)
        await self._egress.close()

    def _build(self, material: Material, token: Token) -> Leasable:
        match token:
            case Minted():
                return _leasable(lease_pb2.LeasedMaterial(bearer_token=token.token), token.expire_time)
            case aws.Session():
                leased = lease_pb2.AwsCredentials(
                    access_key_id=token.access_key_id,
                    secret_access_key=token.secret_access_key,
                    session_token=token.session_token,
                    region=material.aws.region,
                )
                return _leasable(lease_pb2.LeasedMaterial(aws_credentials=leased), token.expire_time)
            case _:
                assert_never(token)

    async def _token(self, version: VersionName, material: Material, rejected_lease_id: str) -> Token:
        held = oauth.current(material.oauth) if material.HasField("oauth") else self._held.get(version)
        is_rejected = bool(rejected_lease_id) and self._is_rejected(version, rejected_lease_id)
        if held is not None and not self._is_due(held) and not is_rejected:
            return held
        task = self._renewals.get(version)
        if task is None:
            with waited_for(None):
                task = asyncio.create_task(self._renew(version, material, held))
            self._renewals[version] = task
            task.add_done_callback(lambda done: self._end(version, done))
        return await asyncio.shield(task)

    def _is_due(self, token: Token) -> bool:
        return token.expire_time - self._clock() <= RENEW_BEFORE_SECONDS

    def _is_rejected(self, version: VersionName, lease_id: str) -> bool:
        """Whether the rejected lease held the present token. Reports ask for one renewal, not for one after another."""
        minted_time = self._mint_times.get(version, float("-inf"))
        lease = self._leases.find(lease_id)
        if lease is not None and lease.version == version:
            is_of_present = lease.give_time >= minted_time
        else:  # another instance gave it
            is_of_present = self._clock() - minted_time >= _UNKNOWN_LEASE_SECONDS
        return is_of_present and self._clock() - minted_time >= FORCED_RENEWAL_PAUSE_SECONDS

    def _end(self, version: VersionName, done: "asyncio.Task[Token]") -> None:
        if self._renewals.get(version) is done:
            del self._renewals[version]
        if not done.cancelled():
            done.exception()  # looked at, or asyncio would log it when every caller has left

    async def _renew(self, version: VersionName, material: Material, spent: Token | None) -> Token:
        kind = material.WhichOneof("material") or ""
        async with self._recorder.doing(SERVICE, audit_pb2.AUDIT_ACTION_MINT, str(version)):
            try:
                token = await self._fetch(version, material, spent)
            except (MintRefused, MintUnavailable) as error:
                self._on_minted(kind, "refused" if isinstance(error, MintRefused) else "unavailable")
                raise fault_of(error, str(version)) from None
        self._on_minted(kind, "minted")
        now = self._clock()
        self._mint_times[version] = now
        if not material.HasField("oauth"):
            self._held = {name: one for name, one in self._held.items() if one.expire_time > now}
            self._held[version] = token
        return token

    async def _fetch(self, version: VersionName, material: Material, spent: Token | None) -> Token:
        now = self._clock()
        match material.WhichOneof("material"):
            case "oauth":
                return await self._renew_grant(version, spent)
            case "entra":
                return await entra.mint(material.entra, self._egress, now, self._new_id)
            case "google_service_account":
                return await google.mint(material.google_service_account, self._egress, now)
            case _:
                endpoint = self._sts_endpoint(material.aws.region)
                return await aws.assume_role(material.aws, self._egress, endpoint, f"keyswitch-{self._new_id()[:16]}")

    async def _renew_grant(self, version: VersionName, spent: Token | None) -> Token:
        give_up_time = self._clock() + CLAIM_SECONDS
        while True:
            found = await self._renewed_elsewhere(version, spent)
            if found is not None:
                return found
            if await self._claim(version):
                break
            if self._clock() >= give_up_time:
                raise MintUnavailable("busy")
            await self._sleep(_CLAIM_POLL_SECONDS)
        try:
            # Another instance may have renewed it between our look and our claim.
            return await self._renewed_elsewhere(version, spent) or await self._spend(version)
        finally:
            with contextlib.suppress(StoreError):  # it ends by itself
                await self._store.delete(_claim_path(version))

    async def _renewed_elsewhere(self, version: VersionName, spent: Token | None) -> Minted | None:
        if version in self._uncommitted:
            await self._commit(version)
        grant, _ = await self._read_grant(version)
        found = oauth.current(grant)
        if found is None or self._is_due(found) or (isinstance(spent, Minted) and spent.token == found.token):
            return None
        return found

    async def _spend(self, version: VersionName) -> Minted:
        grant, _ = await self._read_grant(version)
        minted = await oauth.refresh(grant, self._egress, self._clock())
        self._uncommitted[version] = oauth.merge(grant, minted)
        await self._commit(version)
        return minted

    async def _commit(self, version: VersionName) -> None:
        """Writes a renewed grant. What cannot be written now stays here, and the next lease begins with it."""
        grant = self._uncommitted[version]
        kept = Secret(Material(oauth=grant).SerializeToString(deterministic=True))
        for _ in range(_COMMIT_ATTEMPTS):
            try:
                _, revision = await self._read_grant(version)
                await self._credentials.replace_material(version, kept, revision)
            except Conflict:
                continue  # sealed anew by maintenance, or destroyed: reading it again tells which
            except Fault as fault:
                if fault.reason is Reason.CREDENTIAL_DESTROYED:
                    del self._uncommitted[version]
                raise
            del self._uncommitted[version]
            return
        raise Conflict("the grant is written too often")

    async def _read_grant(self, version: VersionName) -> tuple[credential_pb2.OauthGrant, int]:
        kept, revision = await self._credentials.read_material(version)
        return Material.FromString(kept.reveal()).oauth, revision

    async def _claim(self, version: VersionName) -> bool:
        """Takes the turn to spend the refresh token; one that was not given back ends by itself."""
        path, now = _claim_path(version), self._clock()
        document = await self._store.read(path)
        if document is not None and json.loads(document.value)["until"] > now:
            return False
        claim = json.dumps({"until": now + CLAIM_SECONDS}).encode()
        try:
            await self._store.write(path, claim, expected_revision=document.revision if document else 0)
        except Conflict:
            return False
        return True


def _claim_path(version: VersionName) -> str:
    return f"{version}/renewal"


def _leasable(leased: lease_pb2.LeasedMaterial, expire_time: float | None = None) -> Leasable:
    return Leasable(Secret(leased.SerializeToString()), expire_time)


def _pair(pair: credential_pb2.AwsKeyPair) -> lease_pb2.LeasedMaterial:
    leased = lease_pb2.AwsCredentials(
        access_key_id=pair.access_key_id,
        secret_access_key=pair.secret_access_key,
        session_token=pair.session_token,
        region=pair.region,
    )
    return lease_pb2.LeasedMaterial(aws_credentials=leased)
