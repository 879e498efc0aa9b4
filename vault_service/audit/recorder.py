"""Records around what is done: the intent before it, the outcome after it, whatever the outcome is.

What only reads needs no intent: its one record is durable before the answer. The identity and the peer of the call
come from the call's context, and never from the request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from keyswitch.vault.v1 import audit_pb2, error_reason_pb2

from vault_service.audit.sink import Sink
from vault_service.core.faults import Fault, Reason, from_store
from vault_service.store.store import StoreError


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acts, as it was proven, and from where."""

    subject: str = ""
    proof: audit_pb2.AuditIdentityProof.ValueType = audit_pb2.AUDIT_IDENTITY_PROOF_UNSPECIFIED
    token_id: str = ""
    certificate_hash: bytes = b""
    peer: str = ""


@dataclass(slots=True)
class CallTrace:
    """One call that is served: its id, and how much of it is in the audit log. Shared by the tasks that serve it."""

    call_id: str
    records: int = 0


_TRACE: ContextVar[CallTrace | None] = ContextVar("trace", default=None)


def begin_call(call_id: str) -> CallTrace:
    """Begins a call in this task; every record that is written for it carries its id."""
    trace = CallTrace(call_id)
    _TRACE.set(trace)
    return trace


def current_call_id() -> str:
    """Gives the id of the call that this task serves; empty outside of one."""
    trace = _TRACE.get()
    return trace.call_id if trace else ""


SERVICE = Actor(subject="service", proof=audit_pb2.AUDIT_IDENTITY_PROOF_SERVICE)


@dataclass(slots=True)
class Act:
    """What is being done. `resource` and further fields may be made more exact before the outcome is recorded."""

    action: audit_pb2.AuditAction.ValueType
    resource: str
    fields: dict[str, Any] = field(default_factory=dict)
    record_name: str = ""


class Recorder:
    """Writes the records of one instance."""

    def __init__(self, sink: Sink, *, last_request_ids: Callable[[], Sequence[str]]) -> None:
        self._sink = sink
        self._last_request_ids = last_request_ids

    def doing(
        self, actor: Actor, action: audit_pb2.AuditAction.ValueType, resource: str, **fields: Any
    ) -> AbstractAsyncContextManager[Act]:
        """Records the intent, lets it be done, records the outcome; `record_name` is then the outcome's."""
        return _Recorded(self, actor, Act(action, resource, fields), has_intent=True)

    def reading(
        self, actor: Actor, action: audit_pb2.AuditAction.ValueType, resource: str, **fields: Any
    ) -> AbstractAsyncContextManager[Act]:
        """Records the outcome only."""
        return _Recorded(self, actor, Act(action, resource, fields), has_intent=False)

    async def note(
        self,
        actor: Actor,
        action: audit_pb2.AuditAction.ValueType,
        resource: str,
        fault: Fault | None = None,
        **fields: Any,
    ) -> str:
        """Records what has already happened."""
        record = _record(actor, Act(action, resource, fields), audit_pb2.AUDIT_OUTCOME_SUCCEEDED)
        _set_fault(record, fault)
        return await self.append(record)

    async def append(self, record: audit_pb2.AuditRecord) -> str:
        """Gives the record's name when it is durable, with the id of the call that this task serves."""
        trace = _TRACE.get()
        if trace is not None:
            record.call_id = trace.call_id
        name = await self._sink.append(record)
        if trace is not None:
            trace.records += 1
        return name

    def take_request_ids(self) -> Sequence[str]:
        """Gives Vault's ids of what this task has done since they were taken last."""
        return self._last_request_ids()


class _Recorded(AbstractAsyncContextManager[Act]):
    """What is done between its records. A class, as two of them are entered for each lease."""

    def __init__(self, recorder: Recorder, actor: Actor, act: Act, *, has_intent: bool) -> None:
        self._recorder = recorder
        self._actor = actor
        self._act = act
        self._has_intent = has_intent
        self._intent = ""

    async def __aenter__(self) -> Act:
        if self._has_intent:
            record = _record(self._actor, self._act, audit_pb2.AUDIT_OUTCOME_INTENDED)
            self._intent = await self._recorder.append(record)
        self._recorder.take_request_ids()  # those of whatever this task did before are not of this act
        return self._act

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        match error:
            case None:
                await self._end(None)
            case StoreError():
                fault = from_store(error, self._act.resource)
                await self._end(fault)
                raise fault from error
            case Fault():
                await self._end(error)
            case asyncio.CancelledError():
                # The caller went away. The record is written although nobody waits for it any longer.
                made = self._recorder.take_request_ids()  # this task's: the record is written by another one
                await asyncio.shield(asyncio.ensure_future(self._end(None, left_requests=made)))
            case Exception():  # whatever it was, the intent gets its outcome
                await self._end(Fault(Reason.INTERNAL))

    async def _end(self, fault: Fault | None, *, left_requests: Sequence[str] | None = None) -> None:
        """Records the outcome. `left_requests` are Vault's ids of an act whose caller went away."""
        was_left = left_requests is not None
        outcome = audit_pb2.AUDIT_OUTCOME_FAILED if was_left else audit_pb2.AUDIT_OUTCOME_SUCCEEDED
        record = _record(self._actor, self._act, outcome)
        _set_fault(record, fault)
        record.intent_record = self._intent
        record.vault_request_ids.extend(self._recorder.take_request_ids() if left_requests is None else left_requests)
        self._act.record_name = await self._recorder.append(record)


def _record(actor: Actor, act: Act, outcome: audit_pb2.AuditOutcome.ValueType) -> audit_pb2.AuditRecord:
    return audit_pb2.AuditRecord(
        identity=audit_pb2.AuditIdentity(
            subject=actor.subject,
            proof=actor.proof,
            token_id=actor.token_id,
            certificate_hash=actor.certificate_hash,
        ),
        action=act.action,
        resource=act.resource,
        peer=actor.peer,
        outcome=outcome,
        **act.fields,
    )


def _set_fault(record: audit_pb2.AuditRecord, fault: Fault | None) -> None:
    if fault is None:
        return
    record.outcome = audit_pb2.AUDIT_OUTCOME_DENIED if fault.is_denial else audit_pb2.AUDIT_OUTCOME_FAILED
    record.reason = error_reason_pb2.ErrorReason.Value(fault.reason.value)
