"""AuditService: reads the audit log. Each read is a record as well."""
# ruff: noqa: N802 - gRPC names the methods

import asyncio
from pathlib import Path
from typing import Any

from keyswitch.vault.v1 import audit_pb2, audit_service_pb2_grpc
from keyswitch.vault.v1 import audit_service_pb2 as pb

from vault_service.audit import reader
from vault_service.audit.checkpoint import read_checkpoints
from vault_service.audit.notary import Notary
from vault_service.audit.record import number_of
from vault_service.audit.recorder import Recorder
from vault_service.audit.sink import Sink
from vault_service.core.access import Caller, Permission, Role, require
from vault_service.core.faults import Fault, Reason, invalid
from vault_service.core.names import Owner, is_within, parse_chain, parse_record
from vault_service.transport.audit_streams import Tail, decode_places, encode_places, export
from vault_service.transport.calls import caller, current
from vault_service.transport.pages import check_page_size, cut_page, decode_token, encode_token
from vault_service.transport.wire import read_timestamp


class AuditServicer(audit_service_pb2_grpc.AuditServiceServicer):
    """Auditors' view of the chains in one folder."""

    def __init__(self, root: Path, recorder: Recorder, sink: Sink, notary: Notary) -> None:
        self._root = root
        self._recorder = recorder
        self._sink = sink
        self._notary = notary

    async def ListAuditRecords(self, request: pb.ListAuditRecordsRequest, context: Any) -> pb.ListAuditRecordsResponse:
        chain = parse_chain(request.parent)
        limit = check_page_size(request.page_size)
        arguments = ("audit", request.parent, request.filter.SerializeToString(deterministic=True).hex())
        starts = decode_places(decode_token(arguments, request.page_token), "page_token")
        call = current()
        async with self._recorder.reading(call.actor, audit_pb2.AUDIT_ACTION_READ_AUDIT, request.parent):
            owner = _bound(caller())
            wanted = _read_filter(request.filter, owner)
            names = await self._find_chains(chain)
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

    async def TailAuditRecords(  # type: ignore[override] # written with context.write, which can be left at once
        self, request: pb.TailAuditRecordsRequest, context: Any
    ) -> None:
        chain = parse_chain(request.parent)
        places = decode_places(request.resume_token, "resume_token")
        call = current()
        # The record says that somebody began to listen. What is heard is not recorded, or it would never end.
        async with self._recorder.reading(call.actor, audit_pb2.AUDIT_ACTION_READ_AUDIT, request.parent):
            wanted = _read_filter(request.filter, _bound(caller()))
            names = await self._find_chains(chain)
            starts = {
                name: places.get(name) or await asyncio.to_thread(reader.last_number, self._root / name) + 1
                for name in names
            }
        tail = Tail(self._root, self._sink, wanted)
        await asyncio.to_thread(tail.begin, starts)
        await tail.run(context)

    async def GetAuditCheckpoint(
        self, request: pb.GetAuditCheckpointRequest, context: Any
    ) -> pb.GetAuditCheckpointResponse:
        found = await self._read_checkpoints(request.parent)
        if not found:
            raise Fault(Reason.AUDIT_RECORD_UNKNOWN, {"name": request.parent})
        return pb.GetAuditCheckpointResponse(checkpoint=max(found, key=lambda one: one.last_record))

    async def ListAuditCheckpoints(
        self, request: pb.ListAuditCheckpointsRequest, context: Any
    ) -> pb.ListAuditCheckpointsResponse:
        found = await self._read_checkpoints(request.parent)
        found.sort(key=_checkpoint_order)
        page, token = cut_page(
            found, _checkpoint_order, request.page_size, request.page_token, ("checkpoints", request.parent)
        )
        return pb.ListAuditCheckpointsResponse(checkpoints=page, next_page_token=token)

    async def ExportAuditRecords(  # type: ignore[override] # written with context.write, which can be left at once
        self, request: pb.ExportAuditRecordsRequest, context: Any
    ) -> None:
        chain = parse_chain(request.parent)
        if request.first_record < 0 or request.last_record < 0:
            raise invalid("first_record", "and last_record must not be negative")
        call = current()
        async with self._recorder.reading(call.actor, audit_pb2.AUDIT_ACTION_READ_AUDIT, request.parent):
            if _bound(caller()) is not None:
                raise Fault(Reason.CALLER_NOT_ALLOWED, {"missingRole": Role.OPERATOR.value})
            if chain == "-":
                raise invalid("parent", "must name one chain")
            await self._find_chains(chain)
        if chain == self._sink.chain:
            await self._notary.sign()  # so that the last record that is given is covered as well
        await export(self._root, chain, request.first_record, request.last_record, context)

    async def _find_chains(self, chain: str) -> list[str]:
        known = await asyncio.to_thread(reader.chains, self._root)
        if chain != "-" and chain not in known:
            raise Fault(Reason.AUDIT_RECORD_UNKNOWN, {"name": f"chains/{chain}"})
        return known if chain == "-" else [chain]

    async def _read_checkpoints(self, parent: str) -> list[audit_pb2.AuditCheckpoint]:
        chain = parse_chain(parent)
        call = current()
        async with self._recorder.reading(call.actor, audit_pb2.AUDIT_ACTION_READ_AUDIT, parent):
            _bound(caller())  # hashes of everybody's records tell nobody anything
            if chain == "-":
                raise invalid("parent", "must name one chain")
            await self._find_chains(chain)
            return await asyncio.to_thread(read_checkpoints, self._root / chain)


def _checkpoint_order(checkpoint: audit_pb2.AuditCheckpoint) -> str:
    return f"{10**18 - checkpoint.last_record:019d}{checkpoint.signature.hex()}"


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
    return encode_places(following)
