"""A verified token of another issuer as a caller of this service."""

from vault_service.core.access import Caller, Role, Scope
from vault_service.core.faults import Fault, Reason
from vault_service.core.names import Owner, TokenName
from vault_service.core.tokens import ReadExternal, unknown_caller
from vault_service.external import ExternalCaller, ExternalTokenRefused, Issuers, IssuerUnavailable


def make_reader(issuers: Issuers) -> ReadExternal:
    """Gives what reads a token of one of the issuers, and None for tokens that are none of theirs."""

    async def read(token: str) -> Caller | None:
        if not issuers.concerns(token):
            return None
        try:
            return _caller(await issuers.verify(token))
        except ExternalTokenRefused as refused:
            raise unknown_caller(refused.cause) from None
        except IssuerUnavailable:
            raise Fault(Reason.ISSUER_UNAVAILABLE, {"cause": "issuer_keys"}) from None

    return read


def _caller(found: ExternalCaller) -> Caller:
    owner = Owner(found.organization)
    user = Owner(found.organization, found.user) if found.user else None
    return Caller(
        token_id=found.token_id,
        subject=str(user or TokenName(owner, found.token_id)),
        owner=owner,
        roles=frozenset(Role(role) for role in found.roles),
        expire_time=found.expire_time,
        user=user,
        application=f"{owner}/applications/{found.application}" if found.application else "",
        scopes=frozenset(Scope(scope) for scope in found.scopes),
        is_external=True,
    )
