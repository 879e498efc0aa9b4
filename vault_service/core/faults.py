"""What can go wrong, as one table: reason, gRPC code, the sentence that the caller reads.

A `Fault` is the only exception that may reach a caller. Its sentence is the table's, never the text of another
exception, so that nothing secret can travel in it; metadata holds names and causes only.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, unique

from vault_service.store.store import (
    AuditFailed,
    Conflict,
    Denied,
    Sealed,
    StoreError,
    Throttled,
    Unavailable,
    Uninitialised,
)

DOMAIN = "vault.keyswitch.dev"


@unique
class Code(Enum):
    """The gRPC codes that this service uses, by their canonical names."""

    INVALID_ARGUMENT = "INVALID_ARGUMENT"
    UNAUTHENTICATED = "UNAUTHENTICATED"
    PERMISSION_DENIED = "PERMISSION_DENIED"
    NOT_FOUND = "NOT_FOUND"
    ALREADY_EXISTS = "ALREADY_EXISTS"
    FAILED_PRECONDITION = "FAILED_PRECONDITION"
    ABORTED = "ABORTED"
    RESOURCE_EXHAUSTED = "RESOURCE_EXHAUSTED"
    UNAVAILABLE = "UNAVAILABLE"
    INTERNAL = "INTERNAL"


@unique
class Reason(Enum):
    """The values of keyswitch.vault.v1.ErrorReason, by their whole names; a test compares the two."""

    INVALID_REQUEST = "ERROR_REASON_INVALID_REQUEST"
    CALLER_UNKNOWN = "ERROR_REASON_CALLER_UNKNOWN"
    CALLER_NOT_ALLOWED = "ERROR_REASON_CALLER_NOT_ALLOWED"
    CALLER_PROOF_REQUIRED = "ERROR_REASON_CALLER_PROOF_REQUIRED"
    DEADLINE_REQUIRED = "ERROR_REASON_DEADLINE_REQUIRED"
    CREDENTIAL_UNKNOWN = "ERROR_REASON_CREDENTIAL_UNKNOWN"
    CREDENTIAL_EXISTS = "ERROR_REASON_CREDENTIAL_EXISTS"
    CREDENTIAL_DELETED = "ERROR_REASON_CREDENTIAL_DELETED"
    CREDENTIAL_DESTROYED = "ERROR_REASON_CREDENTIAL_DESTROYED"
    CREDENTIAL_DISABLED = "ERROR_REASON_CREDENTIAL_DISABLED"
    VERSION_NOT_ACTIVE = "ERROR_REASON_VERSION_NOT_ACTIVE"
    VERSION_CONFLICT = "ERROR_REASON_VERSION_CONFLICT"
    TEST_REQUIRED = "ERROR_REASON_TEST_REQUIRED"
    INVALID_SECRET = "ERROR_REASON_INVALID_SECRET"  # noqa: S105 - the name of a reason
    ORIGIN_NOT_ALLOWED = "ERROR_REASON_ORIGIN_NOT_ALLOWED"
    RECIPIENT_KEY_REJECTED = "ERROR_REASON_RECIPIENT_KEY_REJECTED"
    BYOK_DISABLED = "ERROR_REASON_BYOK_DISABLED"
    MINT_REFUSED = "ERROR_REASON_MINT_REFUSED"
    MINT_UNAVAILABLE = "ERROR_REASON_MINT_UNAVAILABLE"
    REQUEST_ID_REUSED = "ERROR_REASON_REQUEST_ID_REUSED"
    TOKEN_UNKNOWN = "ERROR_REASON_TOKEN_UNKNOWN"  # noqa: S105 - the name of a reason
    AUDIT_RECORD_UNKNOWN = "ERROR_REASON_AUDIT_RECORD_UNKNOWN"
    AUDIT_FAILED = "ERROR_REASON_AUDIT_FAILED"
    VAULT_AUDIT_FAILED = "ERROR_REASON_VAULT_AUDIT_FAILED"
    VAULT_NOT_READY = "ERROR_REASON_VAULT_NOT_READY"
    VAULT_SEALED = "ERROR_REASON_VAULT_SEALED"
    VAULT_UNINITIALISED = "ERROR_REASON_VAULT_UNINITIALISED"
    VAULT_RATE_LIMITED = "ERROR_REASON_VAULT_RATE_LIMITED"
    VAULT_DENIED = "ERROR_REASON_VAULT_DENIED"
    INTERNAL = "ERROR_REASON_INTERNAL"
    ISSUER_UNAVAILABLE = "ERROR_REASON_ISSUER_UNAVAILABLE"
    AUTHENTICATION_LIMITED = "ERROR_REASON_AUTHENTICATION_LIMITED"
    CREDENTIAL_FIXED = "ERROR_REASON_CREDENTIAL_FIXED"


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the table. `retry_seconds` becomes a RetryInfo; None sends none."""

    code: Code
    sentence: str
    retry_seconds: float | None = None


TABLE: Mapping[Reason, Row] = {
    Reason.INVALID_REQUEST: Row(Code.INVALID_ARGUMENT, "A field of the request is wrong; correct the field named."),
    Reason.CALLER_UNKNOWN: Row(
        Code.UNAUTHENTICATED, "The caller gave no valid token; send a valid one as `authorization: Bearer`."
    ),
    Reason.CALLER_NOT_ALLOWED: Row(
        Code.PERMISSION_DENIED, "The caller's token does not allow this; ask somebody whose role does."
    ),
    Reason.CALLER_PROOF_REQUIRED: Row(
        Code.PERMISSION_DENIED, "The lease needs a valid token of the credential's owner or of a member of it."
    ),
    Reason.DEADLINE_REQUIRED: Row(Code.INVALID_ARGUMENT, "This call needs a deadline; set one."),
    Reason.CREDENTIAL_UNKNOWN: Row(Code.NOT_FOUND, "There is no such credential or version that the caller may see."),
    Reason.CREDENTIAL_EXISTS: Row(Code.ALREADY_EXISTS, "The credential's id is taken; choose another."),
    Reason.CREDENTIAL_DELETED: Row(Code.NOT_FOUND, "The credential was deleted; create it again to use its name."),
    Reason.CREDENTIAL_DESTROYED: Row(Code.NOT_FOUND, "The version's bytes were destroyed; add a new version."),
    Reason.CREDENTIAL_DISABLED: Row(
        Code.FAILED_PRECONDITION, "The credential is disabled or has expired; its owner can enable or renew it."
    ),
    Reason.VERSION_NOT_ACTIVE: Row(
        Code.FAILED_PRECONDITION, "The version is not in a state for this; activate a version of the credential."
    ),
    Reason.VERSION_CONFLICT: Row(Code.ABORTED, "It was changed meanwhile; read it and try again."),
    Reason.TEST_REQUIRED: Row(
        Code.FAILED_PRECONDITION, "The version's last test did not pass; test it, or activate it with force."
    ),
    Reason.INVALID_SECRET: Row(Code.INVALID_ARGUMENT, "The secret does not fit its kind; check how it was copied."),
    Reason.ORIGIN_NOT_ALLOWED: Row(
        Code.PERMISSION_DENIED, "The secret may not be sent to this origin; see the credential's allowed_origins."
    ),
    Reason.RECIPIENT_KEY_REJECTED: Row(
        Code.PERMISSION_DENIED, "The recipient's key is not signed by the key of an allowed certificate."
    ),
    Reason.BYOK_DISABLED: Row(
        Code.FAILED_PRECONDITION, "Own keys of users are switched off here; an administrator can allow them."
    ),
    Reason.MINT_REFUSED: Row(
        Code.FAILED_PRECONDITION,
        "The token endpoint refused the stored grant, or is not among those allowed; renew the grant or allow it.",
    ),
    Reason.MINT_UNAVAILABLE: Row(
        Code.UNAVAILABLE, "The token endpoint cannot be reached or fails; try again soon.", retry_seconds=1.0
    ),
    Reason.REQUEST_ID_REUSED: Row(
        Code.ALREADY_EXISTS, "The request id was used before within a day; send a new one for a new request."
    ),
    Reason.TOKEN_UNKNOWN: Row(Code.NOT_FOUND, "There is no such token that the caller may see."),
    Reason.AUDIT_RECORD_UNKNOWN: Row(Code.NOT_FOUND, "There is no such chain or record that the caller may see."),
    Reason.AUDIT_FAILED: Row(
        Code.UNAVAILABLE, "The audit log cannot be written, so nothing is given out; its disk needs the operator."
    ),
    Reason.VAULT_AUDIT_FAILED: Row(Code.UNAVAILABLE, "Vault's own audit devices failed; the operator must mend them."),
    Reason.VAULT_NOT_READY: Row(
        Code.UNAVAILABLE, "The store of the credential service is not ready; try again soon.", retry_seconds=1.0
    ),
    Reason.VAULT_SEALED: Row(Code.UNAVAILABLE, "Vault is sealed; the operator must unseal it."),
    Reason.VAULT_UNINITIALISED: Row(Code.UNAVAILABLE, "Vault was never initialised; the operator must do so."),
    Reason.VAULT_RATE_LIMITED: Row(
        Code.RESOURCE_EXHAUSTED, "Vault throttles the credential service; try again later.", retry_seconds=1.0
    ),
    Reason.VAULT_DENIED: Row(
        Code.FAILED_PRECONDITION,
        "Vault denies the credential service what it needs; the operator must mend its policy.",
    ),
    Reason.ISSUER_UNAVAILABLE: Row(
        Code.UNAVAILABLE,
        "The issuer of the caller's token cannot be asked for its keys; the token may be valid: try again soon.",
        retry_seconds=5.0,
    ),
    Reason.AUTHENTICATION_LIMITED: Row(
        Code.RESOURCE_EXHAUSTED,
        "Too many callers from there proved no identity lately; wait, and come back with a valid one.",
        retry_seconds=1.0,
    ),
    Reason.CREDENTIAL_FIXED: Row(
        Code.FAILED_PRECONDITION,
        "The environment of the credential service fixes it; change it there, or set override_environment.",
    ),
    Reason.INTERNAL: Row(Code.INTERNAL, "A fault of the credential service; report the incident id."),
}


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One wrong field of a request and what is wrong with it; the description repeats no value."""

    field: str
    description: str


class Fault(Exception):
    """A refusal or failure that the caller is told of, by its reason. `retry_seconds` goes before the table's."""

    def __init__(
        self,
        reason: Reason,
        metadata: Mapping[str, str] | None = None,
        *,
        violations: Sequence[FieldViolation] = (),
        retry_seconds: float | None = None,
    ) -> None:
        super().__init__(reason.value)
        self.reason = reason
        self.metadata = dict(metadata or {})
        self.violations = tuple(violations)[:16]
        self.retry_seconds = TABLE[reason].retry_seconds if retry_seconds is None else retry_seconds

    @property
    def row(self) -> Row:
        """The table's row of its reason."""
        return TABLE[self.reason]

    @property
    def is_denial(self) -> bool:
        """Whether the caller was refused, as opposed to: it could not be done."""
        return self.row.code not in (Code.UNAVAILABLE, Code.INTERNAL, Code.RESOURCE_EXHAUSTED, Code.ABORTED)


def invalid(field: str, description: str) -> Fault:
    """Makes the fault for one wrong field."""
    return Fault(
        Reason.INVALID_REQUEST, {"field": field}, violations=[FieldViolation(field=field, description=description)]
    )


def unknown_credential(name: str) -> Fault:
    """Makes the one answer for what does not exist and for what the caller may not know of."""
    return Fault(Reason.CREDENTIAL_UNKNOWN, {"name": name})


def from_store(error: StoreError, name: str) -> Fault:
    """Gives the fault for a store's error about the thing called `name`; the error's own text is not used."""
    status = {} if error.status is None else {"vaultStatus": str(error.status)}
    match error:
        case Conflict():
            return Fault(Reason.VERSION_CONFLICT, {"name": name})
        case Sealed():
            return Fault(Reason.VAULT_SEALED, status)
        case Uninitialised():
            return Fault(Reason.VAULT_UNINITIALISED, status)
        case AuditFailed():
            return Fault(Reason.VAULT_AUDIT_FAILED, status)
        case Throttled():
            return Fault(Reason.VAULT_RATE_LIMITED, status)
        case Unavailable():
            return Fault(Reason.VAULT_NOT_READY, status)
        case Denied():
            return Fault(Reason.VAULT_DENIED, status)
        case _:
            return Fault(Reason.INTERNAL)
