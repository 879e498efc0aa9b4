"""Who may do what: the settled table, row by row."""

from dataclasses import replace

import pytest

from vault_service.core.access import Caller, Permission, Role, Scope, is_allowed, may_grant, require
from vault_service.core.faults import Fault, Reason
from vault_service.core.names import Owner

DEPLOYMENT, ACME, OTHER = Owner(), Owner("acme"), Owner("other")
ADA, BOB = Owner("acme", "ada"), Owner("acme", "bob")
OWNERS = {"deployment": DEPLOYMENT, "acme": ACME, "ada": ADA, "bob": BOB, "other": OTHER}


def caller(role: Role, owner: Owner = ACME, user: Owner | None = None, *scopes: Scope, application: str = "") -> Caller:
    return Caller("id", str(user or owner), owner, frozenset({role}), 1e12, user, application, frozenset(scopes))


OPERATOR = caller(Role.OPERATOR, DEPLOYMENT)
ADMIN = caller(Role.ADMIN)
MEMBER = caller(Role.MEMBER, ACME, ADA)
AUDITOR = caller(Role.AUDITOR)
DEPLOYMENT_AUDITOR = caller(Role.AUDITOR, DEPLOYMENT)
ALL = "deployment acme ada bob other"


@pytest.mark.parametrize(
    ("who", "permission", "reached"),
    [
        (OPERATOR, Permission.SEE, ALL),
        (ADMIN, Permission.SEE, "acme ada bob"),
        (MEMBER, Permission.SEE, "acme ada"),
        (AUDITOR, Permission.SEE, "acme ada bob"),
        (DEPLOYMENT_AUDITOR, Permission.SEE, ALL),
        (OPERATOR, Permission.TEST, "deployment"),
        (ADMIN, Permission.TEST, "acme ada bob"),
        (MEMBER, Permission.TEST, "acme ada"),
        (AUDITOR, Permission.TEST, ""),
        (OPERATOR, Permission.MANAGE, "deployment"),
        (ADMIN, Permission.MANAGE, "acme ada bob"),
        (MEMBER, Permission.MANAGE, "ada"),
        (AUDITOR, Permission.MANAGE, ""),
        (OPERATOR, Permission.REVOKE, ALL),
        (ADMIN, Permission.REVOKE, "acme ada bob"),
        (MEMBER, Permission.REVOKE, "ada"),
        (AUDITOR, Permission.REVOKE, ""),
        (OPERATOR, Permission.TOKENS, ALL),
        (ADMIN, Permission.TOKENS, "acme ada bob"),
        (MEMBER, Permission.TOKENS, ""),
        (AUDITOR, Permission.TOKENS, ""),
        (OPERATOR, Permission.AUDIT, ALL),
        (ADMIN, Permission.AUDIT, "acme ada bob"),
        (MEMBER, Permission.AUDIT, ""),
        (AUDITOR, Permission.AUDIT, "acme ada bob"),
        (DEPLOYMENT_AUDITOR, Permission.AUDIT, ALL),
        (ADMIN, Permission.SEE_POLICY, "deployment acme ada bob"),
        (MEMBER, Permission.SET_POLICY, ""),
    ],
)
def test_the_table(who: Caller, permission: Permission, reached: str) -> None:
    assert {name for name, owner in OWNERS.items() if is_allowed(who, permission, owner)} == set(reached.split())


def test_an_operator_role_outside_the_deployment_reaches_nothing() -> None:
    forged = caller(Role.OPERATOR, ACME)
    assert not any(is_allowed(forged, permission, owner) for permission in Permission for owner in OWNERS.values())


def test_the_unknown_and_the_forbidden_look_the_same() -> None:
    for who, owner in ((ADMIN, OTHER), (ADMIN, DEPLOYMENT), (MEMBER, BOB), (MEMBER, OTHER)):
        for permission in (Permission.SEE, Permission.TEST, Permission.MANAGE, Permission.REVOKE):
            with pytest.raises(Fault) as caught:
                require(who, permission, owner, "name")
            assert caught.value.reason is Reason.CREDENTIAL_UNKNOWN
            assert caught.value.metadata == {"name": "name"}


def test_what_may_be_known_but_not_done_says_which_role_does() -> None:
    for who, owner, role in (
        (MEMBER, ACME, "admin"),
        (OPERATOR, ACME, "admin"),
        (DEPLOYMENT_AUDITOR, DEPLOYMENT, "operator"),
    ):
        with pytest.raises(Fault) as caught:
            require(who, Permission.MANAGE, owner, "name")
        assert caught.value.reason is Reason.CALLER_NOT_ALLOWED
        assert caught.value.metadata == {"missingRole": role}


def test_scopes_only_narrow() -> None:
    reader = replace(ADMIN, scopes=frozenset({Scope.READ_AUDIT}))
    assert is_allowed(reader, Permission.AUDIT, ACME)
    assert not is_allowed(reader, Permission.MANAGE, ACME)
    assert not is_allowed(reader, Permission.AUDIT, OTHER)
    with pytest.raises(Fault) as caught:
        require(reader, Permission.MANAGE, ACME, "name")
    assert caught.value.metadata == {"missingScope": "manage_credentials"}


def test_acting_on_behalf_is_never_implied() -> None:
    assert ADMIN.has_scope(Scope.COMPLETE)
    assert not ADMIN.has_scope(Scope.ACT_ON_BEHALF)


@pytest.mark.parametrize(
    ("issuer", "roles", "scopes", "application", "allowed"),
    [
        (OPERATOR, {Role.OPERATOR}, set(), "", True),
        (OPERATOR, {Role.ADMIN, Role.AUDITOR}, set(), "", True),
        (ADMIN, {Role.ADMIN}, set(), "", True),
        (ADMIN, {Role.MEMBER}, {Scope.ACT_ON_BEHALF}, "", True),
        (ADMIN, {Role.OPERATOR}, set(), "", False),
        (MEMBER, {Role.ADMIN}, set(), "", False),
        (AUDITOR, {Role.MEMBER}, set(), "", False),
        (replace(ADMIN, scopes=frozenset({Scope.MANAGE_TOKENS})), {Role.MEMBER}, set(), "", False),
        (replace(ADMIN, scopes=frozenset({Scope.MANAGE_TOKENS})), {Role.MEMBER}, {Scope.MANAGE_TOKENS}, "", True),
        (replace(ADMIN, scopes=frozenset({Scope.MANAGE_TOKENS})), {Role.MEMBER}, {Scope.COMPLETE}, "", False),
        (replace(ADMIN, application="a"), {Role.MEMBER}, set(), "", False),
        (replace(ADMIN, application="a"), {Role.MEMBER}, set(), "a", True),
    ],
)
def test_nobody_grants_more_than_he_has(
    issuer: Caller, roles: set[Role], scopes: set[Scope], application: str, allowed: bool
) -> None:
    refusal = may_grant(issuer, frozenset(roles), frozenset(scopes), application)
    assert (refusal is None) == allowed
    assert refusal is None or refusal.reason is Reason.CALLER_NOT_ALLOWED
