"""What a caller's own token proves when a router asks for a lease or a list in the caller's name.

With it a captured router can use only the keys of tenants that call right now.
"""

from vault_service.core.access import Caller, Permission, Role, Scope, is_allowed
from vault_service.core.faults import Fault, Reason
from vault_service.core.names import Owner, is_within


def check_lease_proof(proof: Caller, owner: Owner, principal: Owner, *, application: str = "", is_trial: bool) -> None:
    """Raises unless the proof's bearer may have the owner's key used for the principal.

    `principal` is a user, or the organization of `application`.
    """
    _check_principal(proof, principal)
    if application and proof.application and application != proof.application:
        raise refuse("other_principal")
    if owner.is_deployment:
        return
    if is_trial and is_allowed(proof, Permission.TEST, owner):
        return
    if not _belongs(proof, owner, principal):
        raise refuse("other_owner")
    if proof.roles <= {Role.AUDITOR}:
        raise refuse("role")
    used_for = (Scope.COMPLETE, Scope.ACT_ON_BEHALF, Scope.TEST_CREDENTIALS, Scope.MANAGE_ROUTING)
    if not proof.has_scope(*used_for):
        raise refuse("scope")


def check_list_proof(proof: Caller, owner: Owner) -> None:
    """Raises unless the proof's bearer may have the owner's credentials planned with."""
    if owner.is_deployment or is_allowed(proof, Permission.SEE, owner):
        return
    if not _belongs(proof, owner, owner):
        raise refuse("other_owner")


def refuse(cause: str) -> Fault:
    """Makes the fault of a proof that does not do."""
    return Fault(Reason.CALLER_PROOF_REQUIRED, {"cause": cause})


def _belongs(proof: Caller, owner: Owner, principal: Owner) -> bool:
    if proof.owner.organization != owner.organization:
        return False
    if not owner.is_user:
        return True
    if proof.user == owner:
        return True
    return proof.user is None and Scope.ACT_ON_BEHALF in proof.scopes and principal == owner


def _check_principal(proof: Caller, principal: Owner) -> None:
    """A token of an organization serves that organization; a user's token no other user."""
    if proof.owner.is_deployment:
        return
    if not is_within(str(principal), proof.owner):
        raise refuse("other_owner")
    if principal.is_user and proof.user != principal and Scope.ACT_ON_BEHALF not in proof.scopes:
        raise refuse("other_principal")
