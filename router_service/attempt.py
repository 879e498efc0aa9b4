"""One attempt of a call: money set aside, a slot, a lease, one exchange, and all of it given back on every way out."""

from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from router_service.billing import Reservation, check_record, keep, plan_spending
from router_service.core.faults import Fault, Reason
from router_service.core.outcome import Output, ResponseEnded, ResponseStarted
from router_service.core.receipt import Receipt, ReceiptState
from router_service.core.secret import Hiding, Secret
from router_service.credentials.errors import StaleCredential
from router_service.credentials.leases import Lease
from router_service.dialects.registry import DIALECTS
from router_service.edges import Afterwork, Edges
from router_service.exchange import NEVER_CONNECTED, Exchange, Sink, drain
from router_service.framing.framer import framing_of
from router_service.policy.call import Candidate, Plan
from router_service.policy.retry import next_candidate
from router_service.preparation import (
    Prepared,
    Request,
    build_resolution,
    build_upstream_request,
    choose_timeouts,
    explain,
    is_own_timeout,
    lease_purpose,
    prepare,
    use_outcome,
)
from router_service.record import AttemptRecord, CallRecord
from router_service.upstream.auth import derived_secret
from router_service.upstream.client import UpstreamResponse


@dataclass(slots=True)
class Attempts:
    """Makes the attempts of one call, one after the other."""

    edges: Edges
    afterwork: Afterwork
    request: Request
    record: CallRecord
    sink: Sink
    kept: Receipt | None = None  # of an answer that is whole
    _made: int = 0  # also those that ended before anything was sent
    _sent: Secret | None = None  # with the latest
    _used: list[Secret] = field(default_factory=list)  # with all, in order: a later answer may repeat an earlier one's

    async def make(self, current: int, made: Plan, taken: AsyncExitStack) -> None:
        """Encodes, reserves, takes a slot, leases, sends; settles and reports whatever happens. Raises Fault."""
        candidate, edges = made.candidates[current], self.edges
        prepared = prepare(self.request, candidate)
        attempt = self._open(prepared)
        self._made += 1
        reservation = Reservation(edges, self.afterwork, self.record.response_id, self._made)
        detach: Callable[[], None] | None = None
        fault: Fault | None = None
        try:
            await self._set_aside(prepared, attempt, reservation)
            await self._take_slot(made, current, f"{self.record.response_id}:{reservation.number}", taken)
            lease = await self.lease(candidate)
            if lease is not None:
                self._sent = lease.secret
                self._used.append(lease.secret)
                attempt.lease_id, attempt.credential_version = lease.id, lease.credential_version
            self.record.attempts.append(attempt)
            exchange = self._exchange(prepared, attempt, lease, made)
            if lease is not None:
                cut = _cut(exchange, lease)
                detach = edges.credentials.leases.attach(lease.credential_version, cut)
            await _run(exchange)
        except Fault as found:
            fault = found
            explain(found, candidate)
            attempt.failure = found.reason
            if attempt.was_sent or found.metadata.get("cause") in NEVER_CONNECTED:
                is_own = is_own_timeout(self.request, found)
                await edges.admission.note_failure(candidate, found, self._sent, is_own_timeout=is_own)
            raise
        finally:
            if detach is not None:
                detach()
            attempt.end_time = edges.clock()
            attempt.complete_usage()
            reservation.settle(attempt)
            if attempt.number == len(self.record.attempts):
                self._report(attempt, fault)
            fault = None  # its traceback holds this frame, and so the key
        await self._end(exchange)

    def _open(self, prepared: Prepared) -> AttemptRecord:
        number, now = len(self.record.attempts) + 1, self.edges.clock()
        attempt = AttemptRecord(
            number, prepared.candidate, "", "", now, markup_basis_points=self.record.markup_basis_points
        )
        attempt.input_bytes, attempt.is_unbilled = prepared.input_bytes, self.request.is_count
        return attempt

    async def _set_aside(self, prepared: Prepared, attempt: AttemptRecord, reservation: Reservation) -> None:
        edges = self.edges
        spending = None
        if not attempt.is_unbilled:
            spending = plan_spending(self.request, prepared, attempt.markup_basis_points, edges.ledger)
        check_record(edges.ledger, is_recorded_first=edges.is_recorded_first and spending is None)
        if spending is not None:
            self.record.is_charged = True
            await reservation.make(spending)

    async def _take_slot(self, made: Plan, current: int, ticket: str, taken: AsyncExitStack) -> None:
        """Waits for a slot: briefly where another candidate could answer instead."""
        full = Fault(Reason.CONCURRENCY_LIMITED, "")
        may_spill = next_candidate(full, made.candidates, current, made.failover_causes) is not None
        candidate = made.candidates[current]
        await self.edges.admission.take_slot(candidate, self.request, ticket, taken, may_spill=may_spill)

    async def lease(self, candidate: Candidate, rejected_lease_id: str = "") -> Lease | None:
        """The candidate's key; None where its provider takes none."""
        if candidate.credential is None:
            return None
        return await self.edges.credentials.lease(
            candidate.credential.name,
            origin=candidate.provider.base_url.origin,
            caller=self.request.caller,
            principal=self.request.principal,
            request_id=self.record.response_id,
            purpose=lease_purpose(self.request),
            rejected_lease_id=rejected_lease_id,
        )

    def _exchange(self, prepared: Prepared, attempt: AttemptRecord, lease: Lease | None, made: Plan) -> Exchange:
        candidate, edges = prepared.candidate, self.edges
        streams = self.request.asked.stream

        def commit() -> ResponseStarted:
            board = edges.admission.board
            if board.needs_wake(candidate):
                self.afterwork.spawn(board.answered(candidate, attempt.first_content_seconds if streams else 0.0))
            resolution = build_resolution(made, candidate, attempt)
            return ResponseStarted(self.record.response_id, resolution, prepared.warnings, candidate.dialect)

        def drain_later(response: UpstreamResponse) -> None:
            self.afterwork.spawn(drain(response))

        upstream_request = build_upstream_request(self.request, prepared, lease, edges.clock())
        return Exchange(
            upstream=edges.upstream,
            dialect=DIALECTS[candidate.dialect],
            framing=framing_of(DIALECTS[candidate.dialect], candidate.endpoint.quirks),
            decoder=prepared.make_decoder(),
            request=upstream_request,
            record=attempt,
            timeouts=choose_timeouts(self.request, candidate),
            sink=self.sink,
            commit=commit,
            clock=edges.clock,
            spawn=drain_later,
            hide=Hiding(*self._used, derived_secret(upstream_request)),
            errors=candidate.provider.errors,
            min_flush_seconds=self.request.min_flush_seconds,
        )

    async def _end(self, exchange: Exchange) -> None:
        """The answer is whole: the last events travel with the receipt."""
        finished = exchange.finished
        if finished is None:
            raise AssertionError("an exchange that returns has finished")
        self.record.end(ReceiptState.SUCCEEDED, self.edges.clock())
        receipt = self.record.receipt()
        outputs: list[Output] = [*exchange.tail, ResponseEnded(finished.reason, finished.provider_reason, receipt)]
        try:
            if not self.request.is_count:
                await keep(self.edges.ledger, receipt, is_charged=self.record.is_charged)
                self.kept = receipt
            await self.sink.send(outputs)
        except BaseException:  # also a cancel: what did not reach the caller whole is no success
            self.record.state = ReceiptState.CANCELLED
            raise

    def _report(self, attempt: AttemptRecord, fault: Fault | None) -> None:
        """Puts the use of the secret on its way into the audit log, and counts the attempt."""
        edges = self.edges
        edges.metrics.attempt(attempt, fault)
        if not attempt.lease_id or not attempt.was_sent:
            return
        edges.credentials.uses.add(
            lease_id=attempt.lease_id,
            request_id=self.record.response_id,
            attempt=attempt.number,
            principal=self.request.principal,
            purpose=lease_purpose(self.request),
            outcome=use_outcome(fault, is_finished=attempt.is_finished),
            use_time=attempt.start_time,
        )

    async def is_rotated(self, fault: Fault, candidate: Candidate, attempt: AttemptRecord) -> bool:
        """After a rejected key: whether there is another one by now, of a new version or fetched anew. Asked once."""
        if fault.reason is not Reason.UPSTREAM_CREDENTIAL_REJECTED or candidate.credential is None:
            return False
        credentials = self.edges.credentials
        origin = candidate.provider.base_url.origin
        held = credentials.leases.held(candidate.credential.name, origin)
        if held is not None and held.id == attempt.lease_id:
            credentials.leases.forget(held)
        try:
            lease = await self.lease(candidate, attempt.lease_id)
        except (Fault, StaleCredential):
            return False  # what the caller is to hear of is the rejection
        return lease is not None and lease.secret != self._sent


async def _run(exchange: Exchange) -> None:
    try:
        await exchange.run()
    except Fault as fault:
        if exchange.is_committed:
            fault.metadata["committed"] = "true"
        raise


def _cut(exchange: Exchange, lease: Lease) -> Callable[[], None]:
    def cut() -> None:
        message = f"The key {lease.credential} was revoked, and the revocation cuts the streams that use it."
        exchange.watchdog.cut(Fault(Reason.CREDENTIAL_REVOKED, message))

    return cut
