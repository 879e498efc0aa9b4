"""AuditService: reads the audit log. Each read is a record as well."""
# ruff: noqa: N802 - gRPC names the methods

import asyncio
import base64
import binascii
import json
from pathlib import Path
from typing import Any

from keyswitch.vault.v1 import audit_pb2, audit_service_pb2_grpc
from keyswitch.vault.v1 import audit_service_pb2 as pb

from vault_service.audit import reader
from vault_service.audit.record import number_of
from vault_service.audit.recorder import Recorder
from vault_service.core.access import Caller, Permission, require
from vault_service.core.faults import Fault, Reason, invalid
from vault_service.core.names import Owner, is_within, parse_chain, parse_record
from vault_service.transport.calls import caller, current
from vault_service.transport.pages import check_page_size, decode_token, encode_token
from vault_service.transport.wire import read_timestamp


class AuditServicer(audit_service_pb2_grpc.AuditServiceServicer):
    """Auditors' view of the chains in one folder."""

    def __init__(self, root: Path, recorder: Recorder) -> None:
        self._root = root
        self._recorder = recorder

    async def ListAuditRecords(self, request: pb.ListAuditRecordsRequest, context: Any) -> pb.ListAuditRecordsResponse:
        chain = parse_chain(request.parent)
        limit = check_page_size(request.page_size)
        arguments = ("audit", request.parent, request.filter.SerializeToString(deterministic=True).hex())
        starts = _decode_starts(decode_token(arguments, request.page_token))
        call = current()
        async with self._recorder.reading(call.actor, audit_pb2.AUDIT_ACTION_READ_AUDIT, request.parent):
            owner = _bound(caller())
            wanted = _read_filter(request.filter, owner)
            known = await asyncio.to_thread(reader.chains, self._root)
            if chain != "-" and chain not in known:
                raise Fault(Reason.AUDIT_RECORD_UNKNOWN, {"name": request.parent})
            names = known if chain == "-" else [chain]
            # One more than asked for tells whether there is a further page.
            found = await asyncio.to_thread(reader.list_records, self._root, names, wanted, limit + 1, starts.get)
        page = found[:limit]
        token = encode_token(arguments, _encode_starts(starts, page)) if len(found) > limit else ""
        return pb.ListAuditRecordsResponse(audit_records=page, next_page_token=token)

    async def GetAuditRecord(self, request: pb.GetAuditRecordRequest, context: Any) -> pb.GetAuditRecordResponse:
        name = parse_record(request.name)
        call = current()
        async with self._recorder.reading(call.actor, audit_pb2.AUDIT_ACTION_READ_AUDIT, request.name):
            owner = _bound(caller())
            record = await asyncio.to_thread(reader.get_record, self._root, name.chain, name.number)
            if record is None or (owner is not None and not is_within(record.resource, owner)):
                raise Fault(Reason.AUDIT_RECORD_UNKNOWN, {"name": request.name})
        return pb.GetAuditRecordResponse(audit_record=record)


def _bound(auditor: Caller) -> Owner | None:
    """Gives whose records the caller may see; None for all."""
    require(auditor, Permission.AUDIT, auditor.owner, "")
    return None if auditor.owner.is_deployment else auditor.owner


def _read_filter(wanted: pb.AuditFilter, owner: Owner | None) -> reader.RecordFilter:
    has_start, has_end = wanted.HasField("start_time"), wanted.HasField("end_time")
    return reader.RecordFilter(
        owner=owner,
        resource=wanted.resource,
        subject=wanted.subject,
        actions=frozenset(wanted.actions),
        outcomes=frozenset(wanted.outcomes),
        request_id=wanted.request_id,
        lease_id=wanted.lease_id,
        start_seconds=read_timestamp(wanted.start_time, "filter.start_time") if has_start else None,
        end_seconds=read_timestamp(wanted.end_time, "filter.end_time") if has_end else None,
    )


def _encode_starts(starts: dict[str, int], page: list[audit_pb2.AuditRecord]) -> str:
    """Gives, per chain, the record from which on the next page leaves records out."""
    following = dict(starts)
    for record in page:
        following[record.name.split("/")[1]] = number_of(record)
    return base64.urlsafe_b64encode(json.dumps(following).encode()).decode()


def _decode_starts(cursor: str) -> dict[str, int]:
    if not cursor:
        return {}
    try:
        starts = json.loads(base64.urlsafe_b64decode(cursor.encode()))
        return {str(chain): int(number) for chain, number in starts.items()}
    except (ValueError, TypeError, AttributeError, binascii.Error):
        raise invalid("page_token", "is not one of this service") from None
