"""No call leaves the audit log without a trace: what no servicer recorded is recorded here, refusals above all.

A servicer records what it does, with the resource. Before it gets that far a call may be refused: the caller is
unknown, the message is none, too large or wrong, the deadline is missing.
"""

import secrets
from collections.abc import Mapping
from typing import Any

import grpc
from keyswitch.vault.v1 import audit_pb2

from vault_service.audit.recorder import Actor, Recorder, begin_call
from vault_service.audit.refusals import Refusals
from vault_service.core.faults import Fault, Reason, from_store
from vault_service.core.refusal_limit import RefusalLimit, source_of
from vault_service.store.store import StoreError
from vault_service.transport.calls import unproven_actor
from vault_service.transport.interceptors.identity import OPEN_METHODS
from vault_service.transport.interceptors.wrap import AroundInterceptor, Behaviour, Context, is_infrastructure

_PACKAGE = "/keyswitch.vault.v1."

ACTIONS: Mapping[str, audit_pb2.AuditAction.ValueType] = {
    _PACKAGE + name: action
    for service, methods in {
        "CredentialService": {
            "CreateCredential": audit_pb2.AUDIT_ACTION_CREATE_CREDENTIAL,
            "GetCredential": audit_pb2.AUDIT_ACTION_READ_CREDENTIALS,
            "ListCredentials": audit_pb2.AUDIT_ACTION_READ_CREDENTIALS,
            "UpdateCredential": audit_pb2.AUDIT_ACTION_UPDATE_CREDENTIAL,
            "DisableCredential": audit_pb2.AUDIT_ACTION_DISABLE_CREDENTIAL,
            "EnableCredential": audit_pb2.AUDIT_ACTION_ENABLE_CREDENTIAL,
            "DeleteCredential": audit_pb2.AUDIT_ACTION_DELETE_CREDENTIAL,
            "RevokeAllCredentials": audit_pb2.AUDIT_ACTION_REVOKE_ALL_CREDENTIALS,
            "AddCredentialVersion": audit_pb2.AUDIT_ACTION_ADD_VERSION,
            "GetCredentialVersion": audit_pb2.AUDIT_ACTION_READ_CREDENTIALS,
            "ListCredentialVersions": audit_pb2.AUDIT_ACTION_READ_CREDENTIALS,
            "ActivateCredentialVersion": audit_pb2.AUDIT_ACTION_ACTIVATE_VERSION,
            "DisableCredentialVersion": audit_pb2.AUDIT_ACTION_DISABLE_VERSION,
            "DestroyCredentialVersion": audit_pb2.AUDIT_ACTION_DESTROY_VERSION,
            "GetCredentialPolicy": audit_pb2.AUDIT_ACTION_READ_CREDENTIALS,
            "SetCredentialPolicy": audit_pb2.AUDIT_ACTION_SET_CREDENTIAL_POLICY,
        },
        "TokenService": {
            "IssueToken": audit_pb2.AUDIT_ACTION_ISSUE_TOKEN,
            "ListTokens": audit_pb2.AUDIT_ACTION_READ_TOKENS,
            "RevokeToken": audit_pb2.AUDIT_ACTION_REVOKE_TOKEN,
        },
        "AuditService": dict.fromkeys(
            (
                "ListAuditRecords",
                "GetAuditRecord",
                "TailAuditRecords",
                "GetAuditCheckpoint",
                "ListAuditCheckpoints",
                "ExportAuditRecords",
            ),
            audit_pb2.AUDIT_ACTION_READ_AUDIT,
        ),
        "LeaseService": {
            "LeaseCredential": audit_pb2.AUDIT_ACTION_LEASE,
            "BatchLeaseCredentials": audit_pb2.AUDIT_ACTION_LEASE,
            "ListLeasable": audit_pb2.AUDIT_ACTION_READ_CREDENTIALS,
            "ReportUses": audit_pb2.AUDIT_ACTION_USE,
            "ReportRefusals": audit_pb2.AUDIT_ACTION_AUTHENTICATE,
            "ReportTest": audit_pb2.AUDIT_ACTION_TEST,
            "WatchCredentialChanges": audit_pb2.AUDIT_ACTION_READ_CREDENTIALS,
        },
    }.items()
    for name, action in ((f"{service}/{method}", action) for method, action in methods.items())
}
"""What stands in the log for a call that was refused before its servicer could say."""


class RecordsInterceptor(AroundInterceptor):
    """Records what is refused before it is recorded otherwise, and limits how often strangers are told why."""

    def __init__(self, recorder: Recorder, refusals: Refusals, limit: RefusalLimit) -> None:
        self._recorder = recorder
        self._refusals = refusals
        self._limit = limit

    def around(self, method: str, behaviour: Behaviour) -> Behaviour:
        if method in OPEN_METHODS or is_infrastructure(method):
            return behaviour

        async def run(request: Any, context: Context) -> Any:
            trace = begin_call(secrets.token_hex(16))
            try:
                return await behaviour(request, context)
            except grpc.aio.AbortError:
                raise
            except Exception as error:
                if trace.records == 0 and not (context.cancelled() or context.done()):
                    await self._note(method, error)
                raise

        return run

    async def _note(self, method: str, error: Exception) -> None:
        fault = _fault_of(error)
        if fault.reason is Reason.AUDIT_FAILED:
            return  # that it cannot be recorded is what the caller is told
        actor = unproven_actor() or Actor()
        name = method.rpartition("/")[2]
        is_unknown = fault.reason is Reason.CALLER_UNKNOWN or fault.metadata.get("cause") == "identity"
        if is_unknown:
            await self._refusals.refused(actor, name, fault)
            wait_seconds = self._limit.refuse(actor.subject or source_of(actor.peer))
            if wait_seconds:
                raise Fault(Reason.AUTHENTICATION_LIMITED, retry_seconds=wait_seconds)
        else:
            action = ACTIONS.get(method, audit_pb2.AUDIT_ACTION_UNSPECIFIED)
            await self._recorder.note(actor, action, "", fault, note=name)


def _fault_of(error: Exception) -> Fault:
    match error:
        case Fault():
            return error
        case StoreError():
            return from_store(error, "")
        case _:
            return Fault(Reason.INTERNAL)
