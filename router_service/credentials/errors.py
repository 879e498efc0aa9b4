"""What an error of the credential service means for a call: one table."""

from collections.abc import Mapping

import grpc
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status
from keyswitch.vault.v1 import error_reason_pb2 as vault_reasons

from router_service.core.faults import Fault, Reason

RETRY_SECONDS = 1.0

STALE = frozenset(
    {
        vault_reasons.ERROR_REASON_CREDENTIAL_UNKNOWN,
        vault_reasons.ERROR_REASON_CREDENTIAL_DELETED,
        vault_reasons.ERROR_REASON_CREDENTIAL_DESTROYED,
        vault_reasons.ERROR_REASON_CREDENTIAL_DISABLED,
        vault_reasons.ERROR_REASON_VERSION_NOT_ACTIVE,
        vault_reasons.ERROR_REASON_ORIGIN_NOT_ALLOWED,
        vault_reasons.ERROR_REASON_BYOK_DISABLED,
    }
)
"""The credential is not what the plan was made from: plan again."""

NOT_PROVEN = frozenset(
    {
        vault_reasons.ERROR_REASON_CALLER_PROOF_REQUIRED,
        vault_reasons.ERROR_REASON_CALLER_UNKNOWN,
    }
)


BLIND = vault_reasons.ERROR_REASON_VAULT_NOT_READY
"""What ends the watch of an instance that cannot read the change log."""

_OF_TOKEN_ENDPOINTS = frozenset({vault_reasons.ERROR_REASON_MINT_REFUSED, vault_reasons.ERROR_REASON_MINT_UNAVAILABLE})
_NOT_LISTED = "endpoint_not_allowed"  # a refusal of the deployment's own, and no word about the key


class StaleCredential(Exception):
    """A lease was refused because the credential changed since the plan was made. `reason` is the vault's."""

    def __init__(self, credential: str, reason: str) -> None:
        super().__init__(reason)
        self.credential = credential
        self.reason = reason


class LeaseRefused(Exception):
    """What the credential service says of one lease of several that were asked for together."""

    def __init__(self, status: status_pb2.Status) -> None:
        super().__init__(status.code)
        self.status = status


class OwnMistake(Exception):
    """The credential service found a request of this router malformed: a fault of the router, not an outage."""


OURS = frozenset({vault_reasons.ERROR_REASON_INVALID_REQUEST, vault_reasons.ERROR_REASON_DEADLINE_REQUIRED})


def fault_of(
    error: grpc.aio.AioRpcError | LeaseRefused | TimeoutError, credential: str
) -> Fault | StaleCredential | OwnMistake:
    """The fault that an error of the credential service becomes. Its text goes nowhere."""
    info = _error_info(error)
    try:
        reason = vault_reasons.ErrorReason.Value(info.reason) if info else vault_reasons.ERROR_REASON_UNSPECIFIED
    except ValueError:
        reason = vault_reasons.ERROR_REASON_UNSPECIFIED
    if reason in STALE:
        return StaleCredential(credential, vault_reasons.ErrorReason.Name(reason))
    if reason in OURS:
        return OwnMistake(vault_reasons.ErrorReason.Name(reason))
    if reason in NOT_PROVEN and info is not None and info.metadata.get("cause") == "missing":
        message = "A certificate alone proves you to this router only; send a proof signed with its key, as clients do."
        return Fault(Reason.CALLER_UNKNOWN, message, metadata={"cause": "proof_missing"})
    if reason in NOT_PROVEN:
        message = "The credential service does not accept your token for this key; renew the token."
        return Fault(Reason.CALLER_UNKNOWN, message, metadata={"cause": "proof_rejected"})
    if info is not None and reason in _OF_TOKEN_ENDPOINTS:
        return _fault_of_minting(info, reason)
    metadata: Mapping[str, str] = {"vaultReason": info.reason} if info is not None else {"cause": _code_name(error)}
    return unavailable("The credential service cannot give the key now; this is not about your key.", metadata)


def _fault_of_minting(info: error_details_pb2.ErrorInfo, reason: "vault_reasons.ErrorReason.ValueType") -> Fault:
    """Of a key that is a grant no token was to be had. The cause is a known word of the endpoint's, or a status."""
    cause = info.metadata.get("cause", "")
    metadata = {"vaultReason": info.reason, "cause": cause}
    if cause == _NOT_LISTED:
        message = "The credential service may not fetch tokens of this key; the operator lists the endpoint for it."
        return unavailable(message, metadata)
    if reason == vault_reasons.ERROR_REASON_MINT_UNAVAILABLE:
        message = "Where this key's tokens come from cannot be reached or fails; this is not about the key. Try again."
        return unavailable(message, metadata)
    message = f"No token is given for this key: its endpoint says {cause}. Its owner should test or replace it."
    return Fault(Reason.UPSTREAM_CREDENTIAL_REJECTED, message, metadata=metadata)


def unavailable(message: str, metadata: Mapping[str, str]) -> Fault:
    """The credential service is out of reach or out of order."""
    return Fault(Reason.CREDENTIALS_UNAVAILABLE, message, metadata=metadata, retry_after_seconds=RETRY_SECONDS)


def is_blindness(error: grpc.aio.AioRpcError) -> bool:
    """Whether a watch ended because its instance cannot read the changes any longer."""
    info = _error_info(error)
    return info is not None and info.reason == vault_reasons.ErrorReason.Name(BLIND)


def has_reason(error: grpc.aio.AioRpcError) -> bool:
    """Whether the credential service itself says what is wrong; else it is the connection."""
    return _error_info(error) is not None


def _error_info(error: grpc.aio.AioRpcError | LeaseRefused | TimeoutError) -> error_details_pb2.ErrorInfo | None:
    status = _status(error)
    for detail in status.details if status is not None else ():
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info):
            return info
    return None


def _status(error: grpc.aio.AioRpcError | LeaseRefused | TimeoutError) -> status_pb2.Status | None:
    match error:
        case LeaseRefused():
            return error.status
        case grpc.aio.AioRpcError():
            try:
                return rpc_status.from_call(error)  # type: ignore[arg-type] # it has the two methods that are read
            except ValueError:
                return None
        case TimeoutError():
            return None


def _code_name(error: grpc.aio.AioRpcError | LeaseRefused | TimeoutError) -> str:
    match error:
        case LeaseRefused():
            return "UNKNOWN"
        case grpc.aio.AioRpcError():
            return error.code().name
        case TimeoutError():
            return grpc.StatusCode.DEADLINE_EXCEEDED.name
