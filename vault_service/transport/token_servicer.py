"""TokenService: issues, lists and revokes callers' tokens, and publishes the keys that verify them."""
# ruff: noqa: N802 - gRPC names the methods

from typing import Any

from google.protobuf import duration_pb2
from keyswitch.vault.v1 import audit_pb2, token_service_pb2_grpc
from keyswitch.vault.v1 import token_service_pb2 as pb

from vault_service.audit.recorder import Recorder
from vault_service.core.access import Caller, Permission, Role, Scope, may_grant, require
from vault_service.core.faults import Fault, Reason, invalid
from vault_service.core.issuance import (
    DEFAULT_LIFETIME_SECONDS,
    MAX_LIFETIME_SECONDS,
    MIN_LIFETIME_SECONDS,
    Issuance,
    IssuedToken,
    roles_of,
)
from vault_service.core.names import (
    Owner,
    check_request_id,
    parse_application,
    parse_tenant,
    parse_token,
    parse_user,
)
from vault_service.core.tokens import KEYS_MAX_AGE_SECONDS
from vault_service.store.store import Purpose, Store
from vault_service.transport.calls import caller, current
from vault_service.transport.pages import cut_page
from vault_service.transport.wire import MAX_DISPLAY_NAME_CHARACTERS, check_note, make_timestamp

_ROLE_PREFIX = "CALLER_ROLE_"
_SCOPE_PREFIX = "TOKEN_SCOPE_"
_SIGNING_KEY_PURPOSES = {
    Purpose.TOKEN: pb.SIGNING_KEY_PURPOSE_TOKEN,
    Purpose.AUDIT: pb.SIGNING_KEY_PURPOSE_AUDIT_CHECKPOINT,
}


class TokenServicer(token_service_pb2_grpc.TokenServiceServicer):
    """Identity for both services."""

    def __init__(self, issuance: Issuance, store: Store, recorder: Recorder) -> None:
        self._issuance = issuance
        self._store = store
        self._recorder = recorder

    async def IssueToken(self, request: pb.IssueTokenRequest, context: Any) -> pb.IssueTokenResponse:
        owner = parse_tenant(request.parent)
        request_id = check_request_id(request.request_id)
        token = self._read_token(owner, request)
        call = current()
        async with self._recorder.doing(call.actor, audit_pb2.AUDIT_ACTION_ISSUE_TOKEN, str(token.name)):
            issuer = caller()
            require(issuer, Permission.TOKENS, owner, str(owner))
            refusal = may_grant(issuer, token.roles, token.scopes, token.application)
            if refusal is not None:
                raise refusal
            text = await self._issuance.issue(token, request_id, call_id=call.call_id)
        return pb.IssueTokenResponse(token=_build(token), bearer_token=text)

    async def ListTokens(self, request: pb.ListTokensRequest, context: Any) -> pb.ListTokensResponse:
        owner = parse_tenant(request.parent)
        call = current()
        async with self._recorder.reading(call.actor, audit_pb2.AUDIT_ACTION_READ_TOKENS, str(owner)):
            require(caller(), Permission.TOKENS, owner, str(owner))
            found = await self._issuance.list_issued(owner, show_inactive=request.show_inactive, call_id=call.call_id)
            page, token = cut_page(
                found, _order, request.page_size, request.page_token, ("tokens", request.parent, request.show_inactive)
            )
        return pb.ListTokensResponse(tokens=[_build(one) for one in page], next_page_token=token)

    async def RevokeToken(self, request: pb.RevokeTokenRequest, context: Any) -> pb.RevokeTokenResponse:
        name = parse_token(request.name)
        note = check_note(request.note, "note")
        call = current()
        async with self._recorder.doing(call.actor, audit_pb2.AUDIT_ACTION_REVOKE_TOKEN, str(name), note=note):
            _require_knowledge(caller(), name.owner, str(name))
            token = await self._issuance.revoke(name, call_id=call.call_id)
        return pb.RevokeTokenResponse(token=_build(token))

    async def GetSigningKeys(self, request: pb.GetSigningKeysRequest, context: Any) -> pb.GetSigningKeysResponse:
        keys = [
            pb.SigningKey(
                key_id=key.key_id,
                purpose=number,
                public_key=key.public_key,
                create_time=make_timestamp(key.create_time),
            )
            for purpose, number in _SIGNING_KEY_PURPOSES.items()
            for key in await self._store.signing_keys(purpose=purpose)
        ]
        return pb.GetSigningKeysResponse(
            signing_keys=keys, max_age=duration_pb2.Duration(seconds=int(KEYS_MAX_AGE_SECONDS))
        )

    def _read_token(self, owner: Owner, request: pb.IssueTokenRequest) -> IssuedToken:
        wanted = request.token
        if not 1 <= len(wanted.display_name) <= MAX_DISPLAY_NAME_CHARACTERS:
            raise invalid("token.display_name", f"must have from 1 to {MAX_DISPLAY_NAME_CHARACTERS} characters")
        user = parse_user(wanted.user, "token.user") if wanted.user else None
        if user is not None and user.parent != owner:
            raise invalid("token.user", "must belong to the parent")
        if wanted.application and (
            owner.is_deployment or parse_application(wanted.application, "token.application") != owner
        ):
            raise invalid("token.application", "must belong to the parent")
        scopes = _read_scopes(wanted)
        if Scope.ACT_ON_BEHALF in scopes and (user is not None or owner.is_deployment):
            raise invalid("token.scopes", "act_on_behalf is for services of an organization")
        return self._issuance.draft(
            owner,
            wanted.display_name,
            _read_roles(wanted, owner),
            _read_lifetime(request),
            user=user,
            application=wanted.application,
            scopes=scopes,
        )


def _require_knowledge(revoker: Caller, owner: Owner, name: str) -> None:
    """Raises TOKEN_UNKNOWN for tokens of others, whether they exist or not."""
    try:
        require(revoker, Permission.TOKENS, owner, name)
    except Fault:
        if revoker.owner == owner or revoker.owner.is_deployment:
            raise
        raise Fault(Reason.TOKEN_UNKNOWN, {"name": name}) from None


def _read_roles(token: pb.Token, owner: Owner) -> frozenset[Role]:
    roles = {role for role in Role if pb.CallerRole.Value(_ROLE_PREFIX + role.value.upper()) in token.roles}
    if not roles or len(set(token.roles)) != len(roles):
        raise invalid("token.roles", "must name at least one role, and only known ones")
    if not roles <= roles_of(owner):
        raise invalid("token.roles", "are none of this parent: the deployment has operators and auditors, only")
    return frozenset(roles)


def _read_scopes(token: pb.Token) -> frozenset[Scope]:
    scopes = {scope for scope in Scope if pb.TokenScope.Value(_SCOPE_PREFIX + scope.value.upper()) in token.scopes}
    if len(set(token.scopes)) != len(scopes):
        raise invalid("token.scopes", "must only name known scopes")
    return frozenset(scopes)


def _read_lifetime(request: pb.IssueTokenRequest) -> float:
    if not request.HasField("lifetime"):
        return DEFAULT_LIFETIME_SECONDS
    lifetime_seconds = request.lifetime.seconds + request.lifetime.nanos / 1e9
    if not MIN_LIFETIME_SECONDS <= lifetime_seconds <= MAX_LIFETIME_SECONDS:
        raise invalid("lifetime", "must be from 1 minute to 10 years")
    return lifetime_seconds


def _build(token: IssuedToken) -> pb.Token:
    message = pb.Token(
        name=str(token.name),
        display_name=token.display_name,
        user=str(token.user) if token.user else "",
        application=token.application,
        roles=sorted(pb.CallerRole.Value(_ROLE_PREFIX + role.value.upper()) for role in token.roles),
        scopes=sorted(pb.TokenScope.Value(_SCOPE_PREFIX + scope.value.upper()) for scope in token.scopes),
        create_time=make_timestamp(token.create_time),
        expire_time=make_timestamp(token.expire_time),
    )
    if token.revoke_time is not None:
        message.revoke_time.CopyFrom(make_timestamp(token.revoke_time))
    return message


def _order(token: IssuedToken) -> str:
    return f"{10**12 - int(token.create_time):013d}{token.name.token_id}"
