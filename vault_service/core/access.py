"""Who may do what to whose credentials, tokens and records: one table, no I/O.

Whether something exists is never looked at here, so a refusal cannot tell: what the caller may not know of is
unknown, whether it is there or not.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, unique
from typing import assert_never

from vault_service.core.faults import Fault, Reason, unknown_credential
from vault_service.core.names import Owner


@unique
class Role(Enum):
    """The values of CallerRole; the value is its spelling in a token."""

    OPERATOR = "operator"
    ADMIN = "admin"
    MEMBER = "member"
    AUDITOR = "auditor"


@unique
class Scope(Enum):
    """The values of TokenScope; the value is its spelling in a token."""

    COMPLETE = "complete"
    ACT_ON_BEHALF = "act_on_behalf"
    TEST_CREDENTIALS = "test_credentials"
    MANAGE_CREDENTIALS = "manage_credentials"
    MANAGE_ROUTING = "manage_routing"
    MANAGE_BUDGETS = "manage_budgets"
    READ_USAGE = "read_usage"
    READ_AUDIT = "read_audit"
    MANAGE_TOKENS = "manage_tokens"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls, as a verified token or certificate says. `owner` is the deployment or the organization of it.

    `spiffe_id` and `certificate_hash` are of the certificate that proved it, where one did.
    """

    token_id: str
    subject: str
    owner: Owner
    roles: frozenset[Role]
    expire_time: float
    user: Owner | None = None
    application: str = ""
    scopes: frozenset[Scope] = frozenset()
    is_external: bool = False
    spiffe_id: str = ""
    certificate_hash: bytes = b""

    def has_scope(self, *scopes: Scope) -> bool:
        """Whether the token may be used for any of these; without scopes it may for all but acting on behalf."""
        if not self.scopes:
            return any(scope is not Scope.ACT_ON_BEHALF for scope in scopes)
        return not self.scopes.isdisjoint(scopes)


@unique
class Permission(Enum):
    """What can be allowed, about the credentials, tokens, policy or records of an owner."""

    SEE = "see"
    TEST = "test"
    MANAGE = "manage"
    REVOKE = "revoke"
    SET_POLICY = "set_policy"
    SEE_POLICY = "see_policy"
    TOKENS = "tokens"
    AUDIT = "audit"


@unique
class Reach(Enum):
    """Over which owners a role has a permission."""

    EVERYTHING = "everything"
    DEPLOYMENT = "deployment"
    ORGANIZATION = "organization"
    """The caller's organization and its users."""
    OWN_AND_SHARED = "own_and_shared"
    """The caller itself and its organization, not the organization's other users."""
    OWN = "own"
    AUDITED = "audited"
    """The caller's organization and its users; everything for a caller of the deployment."""
    POLICY = "policy"
    """The caller's organization, and the deployment whose switch is above it."""


ROLES: Mapping[Permission, Mapping[Role, Reach]] = {
    Permission.SEE: {
        Role.OPERATOR: Reach.EVERYTHING,
        Role.ADMIN: Reach.ORGANIZATION,
        Role.MEMBER: Reach.OWN_AND_SHARED,
        Role.AUDITOR: Reach.AUDITED,
    },
    Permission.TEST: {
        Role.OPERATOR: Reach.DEPLOYMENT,
        Role.ADMIN: Reach.ORGANIZATION,
        Role.MEMBER: Reach.OWN_AND_SHARED,
    },
    Permission.MANAGE: {
        Role.OPERATOR: Reach.DEPLOYMENT,
        Role.ADMIN: Reach.ORGANIZATION,
        Role.MEMBER: Reach.OWN,
    },
    Permission.REVOKE: {
        Role.OPERATOR: Reach.EVERYTHING,
        Role.ADMIN: Reach.ORGANIZATION,
        Role.MEMBER: Reach.OWN,
    },
    Permission.SET_POLICY: {Role.OPERATOR: Reach.EVERYTHING, Role.ADMIN: Reach.ORGANIZATION},
    Permission.SEE_POLICY: {
        Role.OPERATOR: Reach.EVERYTHING,
        Role.ADMIN: Reach.POLICY,
        Role.MEMBER: Reach.POLICY,
        Role.AUDITOR: Reach.POLICY,
    },
    Permission.TOKENS: {Role.OPERATOR: Reach.EVERYTHING, Role.ADMIN: Reach.ORGANIZATION},
    Permission.AUDIT: {
        Role.OPERATOR: Reach.EVERYTHING,
        Role.ADMIN: Reach.ORGANIZATION,
        Role.AUDITOR: Reach.AUDITED,
    },
}

SCOPES: Mapping[Permission, tuple[Scope, ...]] = {
    Permission.SEE: (Scope.TEST_CREDENTIALS, Scope.MANAGE_CREDENTIALS),
    Permission.TEST: (Scope.TEST_CREDENTIALS, Scope.MANAGE_CREDENTIALS),
    Permission.MANAGE: (Scope.MANAGE_CREDENTIALS,),
    Permission.REVOKE: (Scope.MANAGE_CREDENTIALS,),
    Permission.SET_POLICY: (Scope.MANAGE_ROUTING, Scope.MANAGE_CREDENTIALS),
    Permission.SEE_POLICY: (Scope.MANAGE_ROUTING, Scope.MANAGE_CREDENTIALS, Scope.TEST_CREDENTIALS),
    Permission.TOKENS: (Scope.MANAGE_TOKENS,),
    Permission.AUDIT: (Scope.READ_AUDIT,),
}

_RANKS: Mapping[Role, frozenset[Role]] = {
    Role.OPERATOR: frozenset(Role),
    Role.ADMIN: frozenset({Role.ADMIN, Role.MEMBER, Role.AUDITOR}),
    Role.MEMBER: frozenset({Role.MEMBER}),
    Role.AUDITOR: frozenset({Role.AUDITOR}),
}


def is_allowed(caller: Caller, permission: Permission, owner: Owner) -> bool:
    """Whether a role of the caller reaches the owner and the token's scopes cover the permission."""
    return _has_role(caller, permission, owner) and caller.has_scope(*SCOPES[permission])


def require(caller: Caller, permission: Permission, owner: Owner, name: str) -> None:
    """Raises what the caller is to read about `name` where the permission is missing."""
    if is_allowed(caller, permission, owner):
        return
    about_credentials = permission in (Permission.SEE, Permission.TEST, Permission.MANAGE, Permission.REVOKE)
    if about_credentials and not _has_role(caller, Permission.SEE, owner):
        raise unknown_credential(name)
    if not _has_role(caller, permission, owner):
        missing = Role.OPERATOR if owner.is_deployment else Role.ADMIN
        raise Fault(Reason.CALLER_NOT_ALLOWED, {"missingRole": missing.value})
    raise Fault(Reason.CALLER_NOT_ALLOWED, {"missingScope": SCOPES[permission][0].value})


def may_grant(issuer: Caller, roles: frozenset[Role], scopes: frozenset[Scope], application: str) -> Fault | None:
    """Gives what forbids the issuer to issue a token of these roles, scopes and application; None allows it.

    A token narrowed by scopes or an application cannot issue a wider one, or narrowing would mean nothing.
    """
    grantable: frozenset[Role] = frozenset().union(*(_RANKS[role] for role in issuer.roles))
    beyond = sorted(role.value for role in roles - grantable)
    if beyond:
        return Fault(Reason.CALLER_NOT_ALLOWED, {"missingRole": beyond[0]})
    if issuer.scopes:
        wider = sorted(scope.value for scope in (scopes or frozenset(Scope)) - issuer.scopes)
        if wider:
            return Fault(Reason.CALLER_NOT_ALLOWED, {"missingScope": wider[0]})
    if issuer.application and application != issuer.application:
        return Fault(Reason.CALLER_NOT_ALLOWED, {"cause": "application"})
    return None


def _has_role(caller: Caller, permission: Permission, owner: Owner) -> bool:
    reaches = ROLES[permission]
    return any(_covers(caller, reaches[role], owner) for role in caller.roles if role in reaches)


def _covers(caller: Caller, reach: Reach, owner: Owner) -> bool:
    of_deployment = caller.owner.is_deployment
    same_organization = not of_deployment and owner.organization == caller.owner.organization
    is_self = caller.user is not None and owner == caller.user
    match reach:
        case Reach.EVERYTHING:
            return of_deployment
        case Reach.DEPLOYMENT:
            return of_deployment and owner.is_deployment
        case Reach.ORGANIZATION:
            return same_organization
        case Reach.OWN_AND_SHARED:
            return is_self or (same_organization and not owner.is_user)
        case Reach.OWN:
            return is_self
        case Reach.AUDITED:
            return of_deployment or same_organization
        case Reach.POLICY:
            return of_deployment or owner.is_deployment or same_organization
        case _:
            assert_never(reach)
