"""LeaseService: the only way out for secrets, each time between two durable audit records."""
# ruff: noqa: N802 - gRPC names the methods

import asyncio
import re
from collections.abc import Callable
from typing import Any

import structlog
from google.protobuf import duration_pb2, timestamp_pb2
from keyswitch.vault.v1 import (
    audit_pb2,
    credential_test_pb2,
    lease_pb2,
    lease_service_pb2_grpc,
)
from keyswitch.vault.v1 import (
    lease_service_pb2 as pb,
)

from vault_service.audit.recorder import Actor, Recorder, begin_call
from vault_service.core.changes import ChangeLog
from vault_service.core.credential import Credential
from vault_service.core.credentials import Credentials
from vault_service.core.faults import Fault, Reason, invalid
from vault_service.core.law import require_version
from vault_service.core.leases import LastUses, Lease, Leases, ReportedUses
from vault_service.core.names import (
    Owner,
    VersionName,
    parse_owner,
    parse_principal,
    parse_token,
    parse_version,
)
from vault_service.core.origins import check_origin
from vault_service.core.policies import Policies
from vault_service.core.sealing import parse_chain
from vault_service.leasing import LeaseRequest, Leasing, Recipient
from vault_service.minting.egress import is_word_about_key
from vault_service.observe.metrics import Metrics
from vault_service.store.store import StoreError
from vault_service.transport import wire, wire_changes
from vault_service.transport.calls import Call, certificate, current
from vault_service.transport.interceptors.faults import explain
from vault_service.transport.pages import cut_page
from vault_service.transport.status import describe

MAX_BATCH = 64
MAX_USES = 1000
_BATCH_METHOD = "/keyswitch.vault.v1.LeaseService/BatchLeaseCredentials"
_PURPOSES = frozenset(lease_pb2.LeasePurpose.values()) - {lease_pb2.LEASE_PURPOSE_UNSPECIFIED}
_TRIALS = frozenset({lease_pb2.LEASE_PURPOSE_TEST, lease_pb2.LEASE_PURPOSE_DISCOVERY})
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_METHOD = re.compile(r"[A-Za-z]{1,64}/[A-Za-z]{1,64}")
_CAUSE = re.compile(r"[a-z_]{1,64}")
_log = structlog.stdlib.get_logger("vault_service.leases")


class LeaseServicer(lease_service_pb2_grpc.LeaseServiceServicer):
    """The data plane."""

    def __init__(
        self,
        leasing: Leasing,
        credentials: Credentials,
        policies: Policies,
        changes: ChangeLog,
        recorder: Recorder,
        leases: Leases,
        last_uses: LastUses,
        metrics: Metrics,
        *,
        clock: Callable[[], float],
        new_id: Callable[[], str],
        heartbeat_seconds: float,
    ) -> None:
        self._leasing = leasing
        self._credentials = credentials
        self._policies = policies
        self._changes = changes
        self._recorder = recorder
        self._leases = leases
        self._last_uses = last_uses
        self._metrics = metrics
        self._clock = clock
        self._new_id = new_id
        self._heartbeat_seconds = heartbeat_seconds
        self._reported = ReportedUses()

    async def LeaseCredential(self, request: pb.LeaseCredentialRequest, context: Any) -> pb.LeaseCredentialResponse:
        return await self._lease(request, lambda: _read_recipient(request), current())

    async def BatchLeaseCredentials(  # type: ignore[override] # written with context.write, which can be left at once
        self, request: pb.BatchLeaseCredentialsRequest, context: Any
    ) -> None:
        """A write that is blocked when the call ends raises a private error of grpc: hence `finally`."""
        _check_batch(request)
        recipient = _read_recipient(request)
        call = current()
        pending = {
            asyncio.create_task(self._lease_of_batch(index, one, recipient, call))
            for index, one in enumerate(request.requests)
        }
        try:
            while pending:
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                await context.write(pb.BatchLeaseCredentialsResponse(results=[task.result() for task in done]))
        finally:
            for task in pending:
                task.cancel()
            await asyncio.gather(*pending, return_exceptions=True)

    async def _lease_of_batch(
        self, index: int, request: pb.LeaseCredentialRequest, recipient: Recipient, call: Call
    ) -> pb.LeaseResult:
        """One of a batch: in a task of its own, as Vault's ids are kept by task, and under a call id of its own."""
        trace = begin_call(f"{call.call_id}-{index}")
        try:
            lease = await self._lease(request, lambda: recipient, Call(call.actor, trace.call_id))
        except Exception as error:  # noqa: BLE001 - a border like the interceptor's: the others of the batch go on
            status = describe(explain(_BATCH_METHOD, error))
            return pb.LeaseResult(index=index, status=status.SerializeToString())
        return pb.LeaseResult(index=index, lease=lease)

    async def _lease(
        self, request: pb.LeaseCredentialRequest, read_recipient: Callable[[], Recipient], call: Call
    ) -> pb.LeaseCredentialResponse:
        lease_id = self._new_id()
        fields = {
            "purpose": request.purpose,
            "request_id": _well_formed(request.request_id, _check_id),
            "principal": _well_formed(request.principal, _read_principal),
            "lease_id": lease_id,
            "origin": _well_formed(request.origin, check_origin),
        }
        resource = _well_formed(request.name, lambda text, _: parse_version(text, allow_active=True))
        try:
            async with self._recorder.doing(call.actor, audit_pb2.AUDIT_ACTION_LEASE, resource, **fields) as act:
                wanted = _read_lease_request(request, lease_id, read_recipient())
                given = await self._leasing.lease(wanted, call_id=call.call_id)
                act.resource = str(given.version)
        except Fault as fault:
            if request.purpose == lease_pb2.LEASE_PURPOSE_TEST and is_word_about_key(fault):
                await self._record_failed_test(parse_version(fault.metadata["name"]), lease_id, call)
            raise
        try:
            await self._leasing.check_still_allowed(wanted, given, call_id=call.call_id)
        except Fault as fault:
            await self._recorder.note(call.actor, audit_pb2.AUDIT_ACTION_LEASE, act.resource, fault, **fields)
            raise
        self._metrics.count_lease(lease_pb2.LeasePurpose.Name(request.purpose))
        return pb.LeaseCredentialResponse(
            lease_id=lease_id,
            credential_version=str(given.version),
            provider=given.provider,
            expire_time=timestamp_pb2.Timestamp(seconds=given.expire_time_seconds),
            sealed_material=given.sealed_material,
            audit_record=act.record_name,
        )

    async def _record_failed_test(self, version: VersionName, lease_id: str, call: Call) -> None:
        """A key for which no token is given has been tested by that: there is no lease to report on."""
        outcome = credential_test_pb2.CREDENTIAL_TEST_OUTCOME_INVALID_KEY
        fields = {"lease_id": lease_id, "test_outcome": outcome}
        async with self._recorder.doing(call.actor, audit_pb2.AUDIT_ACTION_TEST, str(version), **fields):
            await self._credentials.record_test(version, "INVALID_KEY", self._clock(), call_id=call.call_id)

    async def ListLeasable(self, request: pb.ListLeasableRequest, context: Any) -> pb.ListLeasableResponse:
        owner = parse_owner(request.parent)
        call = current()
        async with self._recorder.reading(call.actor, audit_pb2.AUDIT_ACTION_READ_CREDENTIALS, str(owner)):
            await self._leasing.check_list_proof(request.caller_proof, owner)
            revision = self._changes.revision
            enabled = await self._policies.are_user_credentials_enabled(owner, request_id=call.call_id)
            found = await self._credentials.list_owned(owner, call_id=call.call_id)
            page, token = cut_page(
                found,
                lambda one: one.name.credential_id,
                request.page_size,
                request.page_token,
                ("leasable", request.parent),
            )
        return pb.ListLeasableResponse(
            credentials=[self._build(one) for one in page],
            next_page_token=token,
            revision=revision,
            user_credentials_enabled=enabled,
        )

    async def ReportUses(self, request: pb.ReportUsesRequest, context: Any) -> pb.ReportUsesResponse:
        if not 1 <= len(request.uses) <= MAX_USES:
            raise invalid("uses", f"must hold from 1 to {MAX_USES}")
        for i, use in enumerate(request.uses):
            _check_use(use, f"uses[{i}]")
        call = current()
        fresh = [use for use in request.uses if self._reported.take(_key(use))]
        results = await asyncio.gather(*(self._record_use(call.actor, use) for use in fresh), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        for use in fresh:
            self._metrics.count_use(lease_pb2.LeasePurpose.Name(use.purpose))
        for use in fresh:
            await self._note_last_use(use, call.call_id)
        return pb.ReportUsesResponse()

    async def ReportRefusals(self, request: pb.ReportRefusalsRequest, context: Any) -> pb.ReportRefusalsResponse:
        if not 1 <= len(request.refusals) <= MAX_USES:
            raise invalid("refusals", f"must hold from 1 to {MAX_USES}")
        for i, one in enumerate(request.refusals):
            _check_refusals(one, f"refusals[{i}]")
        call = current()
        unknown = Fault(Reason.CALLER_UNKNOWN)
        results = await asyncio.gather(
            *(
                self._recorder.note(
                    call.actor,
                    audit_pb2.AUDIT_ACTION_AUTHENTICATE,
                    "",
                    unknown,
                    note=f"{one.method}, {one.cause}, from {one.address_count} addresses",
                    refused_count=one.count,
                )
                for one in request.refusals
            ),
            return_exceptions=True,
        )
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return pb.ReportRefusalsResponse()

    async def ReportTest(self, request: pb.ReportTestRequest, context: Any) -> pb.ReportTestResponse:
        lease = self._leases.find(request.lease_id)
        outcome = request.test.outcome
        resource = str(lease.version) if lease else _well_formed(request.test.credential_version, parse_version)
        call = current()
        fields = {"lease_id": _well_formed(request.lease_id, _check_id), "test_outcome": outcome}
        async with self._recorder.doing(call.actor, audit_pb2.AUDIT_ACTION_TEST, resource, **fields):
            found = _check_test(request, lease)
            has_time = request.test.HasField("test_time")
            time = wire.read_timestamp(request.test.test_time, "test.test_time") if has_time else self._clock()
            name = credential_test_pb2.CredentialTestOutcome.Name(outcome).removeprefix("CREDENTIAL_TEST_OUTCOME_")
            credential = await self._credentials.record_test(found.version, name, time, call_id=call.call_id)
            version = require_version(credential, found.version.number or 0)
        last_use = self._last_uses.get(str(found.version))
        return pb.ReportTestResponse(credential_version=wire.build_version(credential, version, last_use))

    async def WatchCredentialChanges(  # type: ignore[override] # written with context.write, which can be left at once
        self, request: pb.WatchCredentialChangesRequest, context: Any
    ) -> None:
        """A write that is blocked when the call ends raises a private error of grpc: hence `finally`."""
        if request.after_revision < 0:
            raise invalid("after_revision", "must not be negative")
        heartbeat = duration_pb2.Duration()
        heartbeat.FromNanoseconds(int(self._heartbeat_seconds * 1e9))
        # Names of all tenants' credentials go out here, so somebody who begins to listen is a record.
        await self._recorder.note(current().actor, audit_pb2.AUDIT_ACTION_READ_CREDENTIALS, str(Owner()))
        seen, is_first = request.after_revision, True
        self._metrics.add_watcher(1)
        try:
            while not self._changes.is_closed:
                if not self._changes.is_fresh:
                    raise Fault(Reason.VAULT_NOT_READY)
                is_reset, changes = self._changes.since(seen, is_first=is_first)
                if is_reset and not is_first:
                    return  # too far behind: the next first message says so
                seen, is_first = self._changes.revision, False
                await context.write(
                    pb.WatchCredentialChangesResponse(
                        revision=seen,
                        changes=[wire_changes.build_change(change) for change in changes],
                        is_reset=is_reset,
                        heartbeat_interval=heartbeat,
                    )
                )
                await self._changes.wait_beyond(seen, self._heartbeat_seconds * 0.8)
        finally:
            self._metrics.add_watcher(-1)

    async def _record_use(self, actor: Actor, use: lease_pb2.CredentialUse) -> None:
        lease = self._leases.find(use.lease_id)
        try:
            await self._recorder.note(
                actor,
                audit_pb2.AUDIT_ACTION_USE,
                str(lease.version) if lease else "",
                purpose=use.purpose,
                request_id=use.request_id,
                attempt=use.attempt,
                principal=use.principal,
                lease_id=use.lease_id,
                use_outcome=use.outcome,
            )
        except BaseException:  # also a caller that left: what is not recorded may be reported again
            self._reported.give_back(_key(use))
            raise

    async def _note_last_use(self, use: lease_pb2.CredentialUse, call_id: str) -> None:
        """A convenience for people: the audit log is the record, so a store that is away fails nothing here."""
        lease = self._leases.find(use.lease_id)
        if lease is None:
            return
        time = min(wire.read_timestamp(use.use_time, "use_time"), self._clock())
        if not self._last_uses.note(lease.version, time):
            return
        try:
            await self._credentials.record_use(lease.version, time, call_id=call_id)
        except (Fault, StoreError) as error:
            _log.info("last_use_not_kept", error_type=type(error).__name__)

    def _build(self, credential: Credential) -> Any:
        return wire.build_credential(credential, self._last_uses.get(str(credential.name)))


def _read_recipient(request: pb.LeaseCredentialRequest | pb.BatchLeaseCredentialsRequest) -> Recipient:
    chain = parse_chain(request.recipient_certificate_chain)
    own = certificate()
    if not chain and own is not None:
        chain = [own]
    return Recipient(request.recipient_public_key, request.recipient_key_signature, tuple(chain))


def _check_batch(request: pb.BatchLeaseCredentialsRequest) -> None:
    if not 1 <= len(request.requests) <= MAX_BATCH:
        raise invalid("requests", f"must hold from 1 to {MAX_BATCH}")
    for index, one in enumerate(request.requests):
        if one.recipient_public_key or one.recipient_key_signature or one.recipient_certificate_chain:
            raise invalid(f"requests[{index}].recipient_public_key", "must be empty, as must what goes with it")


def _read_lease_request(request: pb.LeaseCredentialRequest, lease_id: str, recipient: Recipient) -> LeaseRequest:
    version = parse_version(request.name, allow_active=True)
    if request.purpose not in _PURPOSES:
        raise invalid("purpose", "must be one of LeasePurpose")
    _check_id(request.request_id, "request_id")
    return LeaseRequest(
        lease_id=lease_id,
        version=version,
        is_test=request.purpose == lease_pb2.LEASE_PURPOSE_TEST,
        is_trial=request.purpose in _TRIALS,
        principal=_read_principal(request.principal, "principal"),
        application=request.principal if "/applications/" in request.principal else "",
        caller_proof=request.caller_proof,
        origin=check_origin(request.origin, "origin"),
        recipient=recipient,
        rejected_lease_id=_check_rejected(request.rejected_lease_id),
    )


def _check_rejected(lease_id: str) -> str:
    if lease_id:
        _check_id(lease_id, "rejected_lease_id")
    return lease_id


def _read_principal(text: str, field: str) -> Owner:
    """Gives who is served; a token that has neither user nor application stands for itself."""
    if "/tokens/" in text:
        return parse_token(text, field).owner
    return parse_principal(text, field)


def _check_use(use: lease_pb2.CredentialUse, field: str) -> None:
    _check_id(use.lease_id, f"{field}.lease_id")
    _check_id(use.request_id, f"{field}.request_id")
    _read_principal(use.principal, f"{field}.principal")
    if use.attempt < 1:
        raise invalid(f"{field}.attempt", "must be at least 1")
    if use.outcome not in lease_pb2.CredentialUseOutcome.values() or use.outcome == 0:
        raise invalid(f"{field}.outcome", "must be one of CredentialUseOutcome")
    if use.purpose and use.purpose not in _PURPOSES:
        raise invalid(f"{field}.purpose", "must be one of LeasePurpose")
    if not use.HasField("use_time"):
        raise invalid(f"{field}.use_time", "is missing")
    wire.read_timestamp(use.use_time, f"{field}.use_time")


def _check_refusals(one: pb.CallerRefusals, field: str) -> None:
    if not _METHOD.fullmatch(one.method):
        raise invalid(f"{field}.method", "must be a service and a method")
    if not _CAUSE.fullmatch(one.cause):
        raise invalid(f"{field}.cause", "must be small letters and underscores, at most 64")
    if one.count < 1 or one.address_count < 1:
        raise invalid(f"{field}.count", "must be at least 1, as must address_count")


def _check_test(request: pb.ReportTestRequest, lease: Lease | None) -> Lease:
    if lease is None or not lease.is_test:
        raise invalid("lease_id", "must be a lease for a test that this instance gave lately")
    if request.test.credential_version != str(lease.version):
        raise invalid("test.credential_version", "must be the lease's")
    if request.test.outcome not in credential_test_pb2.CredentialTestOutcome.values() or request.test.outcome == 0:
        raise invalid("test.outcome", "must be one of CredentialTestOutcome")
    return lease


def _check_id(text: str, field: str) -> None:
    if not _ID.fullmatch(text):
        raise invalid(field, "must have from 1 to 64 letters, digits, dashes and underscores")


def _key(use: lease_pb2.CredentialUse) -> tuple[str, str, int]:
    return use.lease_id, use.request_id, use.attempt


def _well_formed(text: str, check: Callable[[str, str], object]) -> str:
    """What an unchecked request may put into the audit log: a text that is what it should be, else nothing."""
    try:
        check(text, "")
    except Fault:
        return ""
    return text
