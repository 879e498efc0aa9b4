"""What a caller's token proves for a lease."""

import pytest

from tests.unit.vault.test_core_access import (
    ACME,
    ADA,
    ADMIN,
    AUDITOR,
    BOB,
    DEPLOYMENT,
    MEMBER,
    OPERATOR,
    OTHER,
    caller,
)
from vault_service.core.access import Caller, Role, Scope
from vault_service.core.faults import Fault, Reason
from vault_service.core.names import Owner
from vault_service.core.proofs import check_lease_proof, check_list_proof

STRANGER = caller(Role.ADMIN, OTHER)
SERVICE = caller(Role.MEMBER, ACME, None, Scope.COMPLETE, Scope.ACT_ON_BEHALF)
PLAIN_SERVICE = caller(Role.MEMBER, ACME, None, Scope.COMPLETE)
BUDGETS = caller(Role.ADMIN, ACME, ADA, Scope.MANAGE_BUDGETS)


@pytest.mark.parametrize(
    ("proof", "owner", "principal", "is_trial", "cause"),
    [
        (MEMBER, ACME, ADA, False, None),
        (MEMBER, ADA, ADA, False, None),
        (MEMBER, DEPLOYMENT, ADA, False, None),
        (MEMBER, BOB, ADA, False, "other_owner"),
        (MEMBER, BOB, BOB, False, "other_principal"),
        (MEMBER, OTHER, ADA, False, "other_owner"),
        (MEMBER, ACME, OTHER, False, "other_owner"),
        (MEMBER, ADA, ACME, False, None),
        (STRANGER, ACME, ADA, False, "other_owner"),
        (STRANGER, DEPLOYMENT, ADA, False, "other_owner"),
        (SERVICE, ADA, ADA, False, None),
        (SERVICE, ADA, BOB, False, "other_owner"),
        (SERVICE, ACME, BOB, False, None),
        (PLAIN_SERVICE, ACME, ACME, False, None),
        (PLAIN_SERVICE, ACME, ADA, False, "other_principal"),
        (PLAIN_SERVICE, ADA, ACME, False, "other_owner"),
        (AUDITOR, ACME, ACME, False, "role"),
        (BUDGETS, ACME, ADA, False, "scope"),
        (ADMIN, ADA, ACME, True, None),
        (ADMIN, ADA, ACME, False, "other_owner"),
        (OPERATOR, DEPLOYMENT, DEPLOYMENT, True, None),
        (OPERATOR, ACME, ADA, True, "other_owner"),
    ],
)
def test_leases(proof: Caller, owner: Owner, principal: Owner, is_trial: bool, cause: str | None) -> None:
    if cause is None:
        check_lease_proof(proof, owner, principal, is_trial=is_trial)
        return
    with pytest.raises(Fault) as caught:
        check_lease_proof(proof, owner, principal, is_trial=is_trial)
    assert caught.value.reason is Reason.CALLER_PROOF_REQUIRED
    assert caught.value.metadata == {"cause": cause}


def test_a_token_of_one_application_serves_no_other() -> None:
    chat, other = "organizations/acme/applications/chat", "organizations/acme/applications/other"
    bound = caller(Role.MEMBER, ACME, None, application=chat)
    check_lease_proof(bound, ACME, ACME, application=chat, is_trial=False)
    with pytest.raises(Fault) as caught:
        check_lease_proof(bound, ACME, ACME, application=other, is_trial=False)
    assert caught.value.metadata == {"cause": "other_principal"}


@pytest.mark.parametrize(
    ("proof", "owner", "allowed"),
    [
        (MEMBER, ACME, True),
        (MEMBER, ADA, True),
        (MEMBER, BOB, False),
        (MEMBER, DEPLOYMENT, True),
        (STRANGER, ACME, False),
        (STRANGER, DEPLOYMENT, True),
        (SERVICE, ADA, True),
        (PLAIN_SERVICE, ADA, False),
        (PLAIN_SERVICE, ACME, True),
        (ADMIN, BOB, True),
    ],
)
def test_lists(proof: Caller, owner: Owner, allowed: bool) -> None:
    if allowed:
        check_list_proof(proof, owner)
        return
    with pytest.raises(Fault):
        check_list_proof(proof, owner)
