"""Giving a secret out: every check, then the bytes, sealed to the one process that asked.

It runs between the two audit records of the lease: the intent is durable before anything is read here, and the outcome
before what is returned here leaves the service.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from cryptography import x509

from vault_service.core.access import Caller
from vault_service.core.changes import ChangeLog
from vault_service.core.credential import Credential, Version
from vault_service.core.credentials import Credentials
from vault_service.core.denials import Denials
from vault_service.core.faults import Fault, Reason
from vault_service.core.law import choose_version
from vault_service.core.leases import Lease, Leases
from vault_service.core.names import CredentialName, Owner, VersionName
from vault_service.core.policies import Policies
from vault_service.core.proofs import check_lease_proof, check_list_proof, refuse
from vault_service.core.recipients import Recipients
from vault_service.core.recollection import Recollection
from vault_service.core.sealing import LeaseBinding, seal
from vault_service.core.tokens import Verifier
from vault_service.minting.minter import Minter


@dataclass(frozen=True, slots=True)
class Recipient:
    """The process that asks: its public key, and what vouches for it; see LeaseCredentialRequest."""

    public_key: bytes
    key_signature: bytes
    chain: tuple[x509.Certificate, ...]


@dataclass(frozen=True, slots=True)
class LeaseRequest:
    """What a router asks for, well formed but not yet allowed. `principal` is who is served, or its organization.

    A trial finds out what a key is good for: a test, or the provider's list of models. The right to test is enough
    for it, and the version need not be active.
    """

    lease_id: str
    version: VersionName
    is_test: bool
    is_trial: bool
    principal: Owner
    application: str
    caller_proof: str
    origin: str
    recipient: Recipient
    rejected_lease_id: str = ""


@dataclass(frozen=True, slots=True)
class GivenLease:
    """What may leave the service once its outcome is recorded. `revision` is of the changes it has taken in."""

    version: VersionName
    provider: str
    expire_time_seconds: int
    sealed_material: bytes
    revision: int


@dataclass(frozen=True, slots=True)
class LeasePolicy:
    """What the deployment has settled about leases."""

    ttl_seconds: int
    require_caller_proof: bool
    allowed_identities: Collection[str]
    authorities: Callable[[], Sequence[x509.Certificate]]


class Leasing:
    """Decides on leases and makes them."""

    def __init__(
        self,
        credentials: Credentials,
        policies: Policies,
        changes: ChangeLog,
        verifier: Verifier,
        leases: Leases,
        policy: LeasePolicy,
        *,
        denials: Denials,
        clock: Callable[[], float],
        minter: Minter,
        memory: Recollection,
    ) -> None:
        self._credentials = credentials
        self._policies = policies
        self._changes = changes
        self._verifier = verifier
        self._leases = leases
        self._policy = policy
        self._denials = denials
        self._clock = clock
        self._minter = minter
        self._memory = memory
        self._recipients = Recipients(policy.allowed_identities)

    async def lease(self, request: LeaseRequest, *, call_id: str) -> GivenLease:
        """Raises why it may not be had."""
        self._recipients.check(
            request.recipient.public_key,
            request.recipient.key_signature,
            request.recipient.chain,
            authorities=self._policy.authorities(),
            time_seconds=self._clock(),
        )
        await self._check_proof(request)
        if request.rejected_lease_id:  # what is remembered may be what was rejected
            self._memory.forget_credential(str(request.version.credential))
        revision = self._changes.revision
        credential, version = await self._choose(request, call_id=call_id)
        name = VersionName(credential.name, version.number)
        leasable = await self._minter.lease(name, rejected_lease_id=request.rejected_lease_id, call_id=call_id)
        now = self._clock()
        expire_time = now + self._policy.ttl_seconds
        if credential.draft.expire_time is not None:
            expire_time = min(expire_time, credential.draft.expire_time)
        if leasable.expire_time is not None:
            expire_time = min(expire_time, leasable.expire_time)
        binding = LeaseBinding(
            lease_id=request.lease_id,
            credential_version=str(name),
            provider=credential.draft.provider,
            origin=request.origin,
            expire_time_seconds=int(expire_time),
            recipient_public_key=request.recipient.public_key,
        )
        sealed = seal(leasable.secret, binding)
        self._leases.add(Lease(request.lease_id, name, request.is_test, expire_time, now))
        return GivenLease(name, credential.draft.provider, int(expire_time), sealed, revision)

    async def check_still_allowed(self, request: LeaseRequest, given: GivenLease, *, call_id: str) -> None:
        """Looks again when something changed meanwhile: no lease leaves after a revocation was told."""
        if self._changes.revision == given.revision and not self._denials.names:
            return
        _, version = await self._choose(request, call_id=call_id)
        if version.number != given.version.number:
            metadata = {"name": str(given.version), "state": "CREDENTIAL_VERSION_STATE_SUPERSEDED"}
            raise Fault(Reason.VERSION_NOT_ACTIVE, metadata)

    async def check_list_proof(self, caller_proof: str, owner: Owner) -> None:
        """Raises unless the proof allows to plan with the owner's credentials."""
        if caller_proof:
            check_list_proof(await self._verify_proof(caller_proof), owner)
        elif self._policy.require_caller_proof:
            raise refuse("missing")

    async def _check_proof(self, request: LeaseRequest) -> None:
        owner = request.version.credential.owner
        if request.caller_proof:
            proof = await self._verify_proof(request.caller_proof)
            check_lease_proof(
                proof, owner, request.principal, application=request.application, is_trial=request.is_trial
            )
        elif self._policy.require_caller_proof:
            raise refuse("missing")

    async def _verify_proof(self, caller_proof: str) -> Caller:
        try:
            return await self._verifier.verify(caller_proof)
        except Fault as fault:
            if fault.reason is Reason.CALLER_UNKNOWN:
                raise refuse(fault.metadata["cause"]) from None
            raise

    async def _choose(self, request: LeaseRequest, *, call_id: str) -> tuple[Credential, Version]:
        name = request.version.credential
        if self._denials.denies(request.version):
            raise denied_locally(name)
        await self._policies.require(name.owner, request_id=call_id)
        credential = await self._credentials.get(name, call_id=call_id)
        version = choose_version(
            credential, request.version.number, is_trial=request.is_trial, time_seconds=self._clock()
        )
        if self._denials.denies(VersionName(name, version.number)):
            raise denied_locally(name)
        if request.origin not in credential.draft.allowed_origins:
            raise Fault(Reason.ORIGIN_NOT_ALLOWED, {"name": str(name), "origin": request.origin})
        return credential, version


def denied_locally(name: CredentialName) -> Fault:
    """Makes the fault of a revocation that only this instance knows of."""
    return Fault(Reason.CREDENTIAL_DISABLED, {"name": str(name), "cause": "disabled"})
