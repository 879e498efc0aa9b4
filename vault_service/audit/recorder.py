"""Records around what is done: the intent before it, the outcome after it, whatever the outcome is.

What only reads needs no intent: its one record is durable before the answer. The identity and the peer of the call
come from the call's context, and never from the request.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
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

    @asynccontextmanager
    async def doing(
        self, actor: Actor, action: audit_pb2.AuditAction.ValueType, resource: str, **fields: Any
    ) -> AsyncIterator[Act]:
        """Records the intent, lets it be done, records the outcome; `record_name` is then the outcome's."""
        intent = await self._append(_record(actor, Act(action, resource, fields), audit_pb2.AUDIT_OUTCOME_INTENDED))
        act = Act(action, resource, dict(fields))
        async with self._outcome(actor, act, intent):
            yield act

    @asynccontextmanager
    async def reading(
        self, actor: Actor, action: audit_pb2.AuditAction.ValueType, resource: str, **fields: Any
    ) -> AsyncIterator[Act]:
        """Records the outcome only."""
        act = Act(action, resource, dict(fields))
        async with self._outcome(actor, act, ""):
            yield act

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
        return await self._append(record)

    async def _append(self, record: audit_pb2.AuditRecord) -> str:
        trace = _TRACE.get()
        if trace is not None:
            record.call_id = trace.call_id
        name = await self._sink.append(record)
        if trace is not None:
            trace.records += 1
        return name

    @asynccontextmanager
    async def _outcome(self, actor: Actor, act: Act, intent: str) -> AsyncIterator[None]:
        self._last_request_ids()  # those of whatever this task did before are not of this act
        try:
            yield
        except StoreError as error:
            fault = from_store(error, act.resource)
            await self._end(actor, act, intent, fault)
            raise fault from error
        except Fault as fault:
            await self._end(actor, act, intent, fault)
            raise
        except asyncio.CancelledError:
            # The caller went away. The record is written although nobody waits for it any longer.
            made = self._last_request_ids()  # they belong to this task, and the record is written by another one
            await asyncio.shield(asyncio.ensure_future(self._end(actor, act, intent, None, left_requests=made)))
            raise
        except Exception:  # whatever it was, the intent gets its outcome
            await self._end(actor, act, intent, Fault(Reason.INTERNAL))
            raise
        await self._end(actor, act, intent, None)

    async def _end(
        self,
        actor: Actor,
        act: Act,
        intent: str,
        fault: Fault | None,
        *,
        left_requests: Sequence[str] | None = None,
    ) -> None:
        """Records the outcome. `left_requests` are Vault's ids of an act whose caller went away."""
        was_left = left_requests is not None
        outcome = audit_pb2.AUDIT_OUTCOME_FAILED if was_left else audit_pb2.AUDIT_OUTCOME_SUCCEEDED
        record = _record(actor, act, outcome)
        _set_fault(record, fault)
        record.intent_record = intent
        record.vault_request_ids.extend(self._last_request_ids() if left_requests is None else left_requests)
        act.record_name = await self._append(record)


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
