"""CredentialService: takes secrets in, and has no way to give one out."""
# ruff: noqa: N802 - gRPC names the methods

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from keyswitch.vault.v1 import audit_pb2, credential_pb2, credential_service_pb2_grpc
from keyswitch.vault.v1 import credential_service_pb2 as pb

from vault_service.audit.recorder import Recorder
from vault_service.core.access import Permission, require
from vault_service.core.credential import PASSED, Credential, Version
from vault_service.core.credentials import Credentials
from vault_service.core.denials import Denials
from vault_service.core.faults import Fault, Reason, invalid
from vault_service.core.fixed import FixedCredentials
from vault_service.core.law import require_version
from vault_service.core.leases import LastUses
from vault_service.core.names import (
    CredentialName,
    VersionName,
    check_credential_id,
    check_request_id,
    parse_credential,
    parse_owner,
    parse_policy,
    parse_version,
)
from vault_service.core.policies import Policies
from vault_service.minting.endpoints import TokenEndpoints
from vault_service.store.store import Unavailable
from vault_service.transport import wire
from vault_service.transport.calls import caller, current
from vault_service.transport.pages import cut_page
from vault_service.transport.wire_secrets import read_material

Done = TypeVar("Done")


class CredentialServicer(credential_service_pb2_grpc.CredentialServiceServicer):
    """The management plane."""

    def __init__(
        self,
        credentials: Credentials,
        policies: Policies,
        recorder: Recorder,
        last_uses: LastUses,
        denials: Denials,
        endpoints: TokenEndpoints,
        fixed: FixedCredentials,
    ) -> None:
        self._credentials = credentials
        self._policies = policies
        self._recorder = recorder
        self._last_uses = last_uses
        self._denials = denials
        self._endpoints = endpoints
        self._fixed = fixed

    async def CreateCredential(self, request: pb.CreateCredentialRequest, context: Any) -> pb.CreateCredentialResponse:
        owner = parse_owner(request.parent)
        name = CredentialName(owner, check_credential_id(request.credential_id))
        request_id = check_request_id(request.request_id)
        draft = wire.read_draft(request.credential, owner)
        call = current()
        async with self._recorder.doing(call.actor, audit_pb2.AUDIT_ACTION_CREATE_CREDENTIAL, str(name)):
            require(caller(), Permission.MANAGE, owner, str(name))
            self._fixed.require_said(name, request.override_environment)
            credential = await self._credentials.create(name, draft, request_id, call_id=call.call_id)
        return pb.CreateCredentialResponse(credential=self._build(credential))

    async def GetCredential(self, request: pb.GetCredentialRequest, context: Any) -> pb.GetCredentialResponse:
        credential = await self._read(parse_credential(request.name))
        return pb.GetCredentialResponse(credential=self._build(credential))

    async def ListCredentials(self, request: pb.ListCredentialsRequest, context: Any) -> pb.ListCredentialsResponse:
        owner = parse_owner(request.parent)
        call = current()
        async with self._recorder.reading(call.actor, audit_pb2.AUDIT_ACTION_READ_CREDENTIALS, str(owner)):
            require(caller(), Permission.SEE, owner, str(owner))
            found = await self._credentials.list_owned(owner, call_id=call.call_id)
            wanted = [one for one in found if not request.provider or one.draft.provider == request.provider]
            arguments = ("credentials", request.parent, request.provider)
            page, token = cut_page(
                wanted, lambda one: one.name.credential_id, request.page_size, request.page_token, arguments
            )
        return pb.ListCredentialsResponse(credentials=[self._build(one) for one in page], next_page_token=token)

    async def UpdateCredential(self, request: pb.UpdateCredentialRequest, context: Any) -> pb.UpdateCredentialResponse:
        name = parse_credential(request.credential.name, "credential.name")
        change = wire.read_update(request.credential, wire.read_mask(request))
        call = current()
        async with self._recorder.doing(call.actor, audit_pb2.AUDIT_ACTION_UPDATE_CREDENTIAL, str(name)):
            require(caller(), Permission.MANAGE, name.owner, str(name))
            self._fixed.require_said(name, request.override_environment)
            credential = await self._credentials.update(name, change, request.credential.etag, call_id=call.call_id)
        return pb.UpdateCredentialResponse(credential=self._build(credential))

    async def DisableCredential(
        self, request: pb.DisableCredentialRequest, context: Any
    ) -> pb.DisableCredentialResponse:
        name = parse_credential(request.name)
        how = wire.read_revocation(request.revocation)
        call = current()
        action = audit_pb2.AUDIT_ACTION_DISABLE_CREDENTIAL
        async with self._recorder.doing(call.actor, action, str(name), note=request.revocation.note):
            require(caller(), Permission.REVOKE, name.owner, str(name))
            self._fixed.require_said(name, request.override_environment)
            credential = await self._revoke(
                request.revocation,
                str(name),
                lambda etag: self._credentials.disable(name, etag, how, call_id=call.call_id),
                request.etag,
            )
        if credential is None:
            state = credential_pb2.CREDENTIAL_STATE_DISABLED
            known = credential_pb2.Credential(name=str(name), state=state)
            return pb.DisableCredentialResponse(credential=known, is_local_only=True)
        return pb.DisableCredentialResponse(credential=self._build(credential))

    async def EnableCredential(self, request: pb.EnableCredentialRequest, context: Any) -> pb.EnableCredentialResponse:
        name = parse_credential(request.name)
        call = current()
        async with self._recorder.doing(call.actor, audit_pb2.AUDIT_ACTION_ENABLE_CREDENTIAL, str(name)):
            require(caller(), Permission.MANAGE, name.owner, str(name))
            self._fixed.require_said(name, request.override_environment)
            credential = await self._credentials.enable(name, request.etag, call_id=call.call_id)
        return pb.EnableCredentialResponse(credential=self._build(credential))

    async def DeleteCredential(self, request: pb.DeleteCredentialRequest, context: Any) -> pb.DeleteCredentialResponse:
        name = parse_credential(request.name)
        how = wire.read_revocation(request.revocation)
        call = current()
        action = audit_pb2.AUDIT_ACTION_DELETE_CREDENTIAL
        async with self._recorder.doing(call.actor, action, str(name), note=request.revocation.note):
            require(caller(), Permission.REVOKE, name.owner, str(name))
            self._fixed.require_said(name, request.override_environment)
            done = await self._revoke(
                request.revocation,
                str(name),
                lambda etag: self._credentials.delete(name, etag, how, call_id=call.call_id),
                request.etag,
            )
        return pb.DeleteCredentialResponse(is_local_only=done is None)

    async def RevokeAllCredentials(
        self, request: pb.RevokeAllCredentialsRequest, context: Any
    ) -> pb.RevokeAllCredentialsResponse:
        owner = parse_owner(request.parent)
        how = wire.read_revocation(request.revocation)
        call = current()
        action = audit_pb2.AUDIT_ACTION_REVOKE_ALL_CREDENTIALS
        async with self._recorder.doing(call.actor, action, str(owner), note=request.revocation.note):
            require(caller(), Permission.REVOKE, owner, str(owner))
            disabled = await self._revoke(
                request.revocation,
                str(owner),
                lambda _: self._credentials.revoke_all(owner, how, call_id=call.call_id),
                "",
            )
        return pb.RevokeAllCredentialsResponse(disabled_count=disabled or 0, is_local_only=disabled is None)

    async def AddCredentialVersion(
        self, request: pb.AddCredentialVersionRequest, context: Any
    ) -> pb.AddCredentialVersionResponse:
        name = parse_credential(request.parent, "parent")
        request_id = check_request_id(request.request_id)
        call = current()
        async with self._recorder.doing(call.actor, audit_pb2.AUDIT_ACTION_ADD_VERSION, str(name)) as act:
            require(caller(), Permission.MANAGE, name.owner, str(name))
            self._fixed.require_said(name, request.override_environment)
            kind, material, fingerprint = read_material(request.secret_material, self._endpoints)
            version = await self._credentials.add_version(
                name, kind, material, fingerprint, request_id, call_id=call.call_id
            )
            act.resource = str(VersionName(name, version.number))
        credential = await self._credentials.get(name, call_id=call.call_id)
        return pb.AddCredentialVersionResponse(credential_version=self._build_version(credential, version))

    async def GetCredentialVersion(
        self, request: pb.GetCredentialVersionRequest, context: Any
    ) -> pb.GetCredentialVersionResponse:
        name = parse_version(request.name, allow_active=True)
        call = current()
        async with self._recorder.reading(call.actor, audit_pb2.AUDIT_ACTION_READ_CREDENTIALS, str(name)):
            require(caller(), Permission.SEE, name.credential.owner, str(name))
            credential = await self._credentials.get(name.credential, call_id=call.call_id)
            version = credential.active if name.number is None else require_version(credential, name.number)
            if version is None:
                metadata = {"name": str(name), "state": "CREDENTIAL_VERSION_STATE_UNSPECIFIED"}
                raise Fault(Reason.VERSION_NOT_ACTIVE, metadata)
        return pb.GetCredentialVersionResponse(credential_version=self._build_version(credential, version))

    async def ListCredentialVersions(
        self, request: pb.ListCredentialVersionsRequest, context: Any
    ) -> pb.ListCredentialVersionsResponse:
        credential = await self._read(parse_credential(request.parent, "parent"))
        page, token = cut_page(
            credential.versions[::-1],
            lambda one: f"{10**9 - one.number:010d}",
            request.page_size,
            request.page_token,
            ("versions", request.parent),
        )
        return pb.ListCredentialVersionsResponse(
            credential_versions=[self._build_version(credential, one) for one in page], next_page_token=token
        )

    async def ActivateCredentialVersion(
        self, request: pb.ActivateCredentialVersionRequest, context: Any
    ) -> pb.ActivateCredentialVersionResponse:
        name = parse_version(request.name)
        call = current()
        action = audit_pb2.AUDIT_ACTION_ACTIVATE_VERSION
        if request.force and not await self._has_passed(name):
            action = audit_pb2.AUDIT_ACTION_FORCE_ACTIVATE_VERSION
        async with self._recorder.doing(call.actor, action, str(name)):
            require(caller(), Permission.MANAGE, name.credential.owner, str(name))
            self._fixed.require_said(name.credential, request.override_environment)
            credential = await self._credentials.activate(name, request.etag, force=request.force, call_id=call.call_id)
        return pb.ActivateCredentialVersionResponse(credential_version=self._build_named(credential, name))

    async def DisableCredentialVersion(
        self, request: pb.DisableCredentialVersionRequest, context: Any
    ) -> pb.DisableCredentialVersionResponse:
        name = parse_version(request.name)
        how = wire.read_revocation(request.revocation)
        call = current()
        action = audit_pb2.AUDIT_ACTION_DISABLE_VERSION
        async with self._recorder.doing(call.actor, action, str(name), note=request.revocation.note):
            require(caller(), Permission.REVOKE, name.credential.owner, str(name))
            self._fixed.require_said(name.credential, request.override_environment)
            credential = await self._revoke(
                request.revocation,
                str(name),
                lambda etag: self._credentials.disable_version(name, etag, how, call_id=call.call_id),
                request.etag,
            )
        if credential is None:
            return pb.DisableCredentialVersionResponse(credential_version=_disabled_version(name), is_local_only=True)
        return pb.DisableCredentialVersionResponse(credential_version=self._build_named(credential, name))

    async def DestroyCredentialVersion(
        self, request: pb.DestroyCredentialVersionRequest, context: Any
    ) -> pb.DestroyCredentialVersionResponse:
        name = parse_version(request.name)
        how = wire.read_revocation(request.revocation)
        call = current()
        action = audit_pb2.AUDIT_ACTION_DESTROY_VERSION
        async with self._recorder.doing(call.actor, action, str(name), note=request.revocation.note):
            require(caller(), Permission.REVOKE, name.credential.owner, str(name))
            self._fixed.require_said(name.credential, request.override_environment)
            credential = await self._revoke(
                request.revocation,
                str(name),
                lambda etag: self._credentials.destroy_version(name, etag, how, call_id=call.call_id),
                request.etag,
            )
        if credential is None:
            return pb.DestroyCredentialVersionResponse(credential_version=_disabled_version(name), is_local_only=True)
        return pb.DestroyCredentialVersionResponse(credential_version=self._build_named(credential, name))

    async def GetCredentialPolicy(
        self, request: pb.GetCredentialPolicyRequest, context: Any
    ) -> pb.GetCredentialPolicyResponse:
        owner = parse_policy(request.name)
        call = current()
        async with self._recorder.reading(call.actor, audit_pb2.AUDIT_ACTION_READ_CREDENTIALS, request.name):
            require(caller(), Permission.SEE_POLICY, owner, request.name)
            policy = await self._policies.get(owner, request_id=call.call_id)
        return pb.GetCredentialPolicyResponse(credential_policy=wire.build_policy(policy))

    async def SetCredentialPolicy(
        self, request: pb.SetCredentialPolicyRequest, context: Any
    ) -> pb.SetCredentialPolicyResponse:
        wanted = request.credential_policy
        owner = parse_policy(wanted.name, "credential_policy.name")
        enabled = wanted.user_credentials_enabled if wanted.HasField("user_credentials_enabled") else True
        call = current()
        async with self._recorder.doing(call.actor, audit_pb2.AUDIT_ACTION_SET_CREDENTIAL_POLICY, wanted.name):
            require(caller(), Permission.SET_POLICY, owner, wanted.name)
            policy = await self._policies.set(owner, enabled, wanted.etag, request_id=call.call_id)
        return pb.SetCredentialPolicyResponse(credential_policy=wire.build_policy(policy))

    async def _revoke(
        self, revocation: pb.Revocation, name: str, write: Callable[[str], Awaitable[Done]], etag: str
    ) -> Done | None:
        """Gives what was written, or None where it holds only here so far."""
        try:
            return await write(etag)
        except Unavailable:
            if not revocation.deny_locally:
                raise
        # Later the etag may well have changed; the revocation is wanted all the same.
        self._denials.add(name, lambda: write(""))
        return None

    async def _read(self, name: CredentialName) -> Credential:
        call = current()
        async with self._recorder.reading(call.actor, audit_pb2.AUDIT_ACTION_READ_CREDENTIALS, str(name)):
            require(caller(), Permission.SEE, name.owner, str(name))
            return await self._credentials.get(name, call_id=call.call_id)

    async def _has_passed(self, name: VersionName) -> bool:
        """Only chooses the word in the audit log; the law decides anew, on what it reads itself."""
        try:
            version = (await self._credentials.get(name.credential)).version(name.number or 0)
        except Fault:
            return False
        return version is not None and version.last_test is not None and version.last_test.outcome == PASSED

    def _build(self, credential: Credential) -> Any:
        last_use = self._last_uses.get(str(credential.name))
        return wire.build_credential(credential, last_use, source=self._fixed.source(credential))

    def _build_version(self, credential: Credential, version: Version) -> Any:
        name = str(VersionName(credential.name, version.number))
        return wire.build_version(credential, version, self._last_uses.get(name))

    def _build_named(self, credential: Credential, name: VersionName) -> Any:
        if name.number is None:
            raise invalid("name", "must name a version by its number")
        return self._build_version(credential, require_version(credential, name.number))


def _disabled_version(name: VersionName) -> credential_pb2.CredentialVersion:
    """What can be said of a version while the store is away."""
    state = credential_pb2.CREDENTIAL_VERSION_STATE_DISABLED
    return credential_pb2.CredentialVersion(name=str(name), state=state)
