"""A call from its plan to its receipt: attempts, retries, failover, money, and what is given back on every way out."""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass

import structlog

from router_service.admission import Admission
from router_service.billing import charges, check_record, plan_spending, subjects
from router_service.catalog.catalog import Snapshot
from router_service.core.caller import Holdings
from router_service.core.faults import Fault, Reason
from router_service.core.outcome import AttemptFailed, Output, ResponseEnded, ResponseStarted
from router_service.core.receipt import Receipt, ReceiptState
from router_service.core.resolution import SkippedCandidate, SkipReason
from router_service.core.secret import Hiding, Secret
from router_service.credentials.client import Credentials
from router_service.credentials.errors import StaleCredential
from router_service.credentials.leases import Lease
from router_service.dialects.registry import DIALECTS
from router_service.exchange import NEVER_CONNECTED, CallerGone, Exchange, Sink, drain
from router_service.framing.framer import framing_of
from router_service.ledger.ledger import Ledger, Spending
from router_service.observe.metrics import Metrics
from router_service.policy.call import Candidate, Plan
from router_service.policy.plan import plan
from router_service.policy.retry import next_candidate, next_step
from router_service.preparation import (
    Prepared,
    Request,
    build_resolution,
    build_upstream_request,
    can_count,
    choose_timeouts,
    estimate_usage,
    explain,
    is_own_timeout,
    prepare,
    use_outcome,
)
from router_service.record import AttemptRecord, CallRecord
from router_service.upstream.auth import derived_secret
from router_service.upstream.client import Upstream, UpstreamResponse

RESERVATION_SECONDS = 3600.0
SETTLE_AGAIN_SECONDS = 1.0

log = structlog.get_logger(__name__)


class CallFailed(Exception):
    """A call ended without an answer. `receipt` is None where nothing was planned."""

    def __init__(self, fault: Fault, receipt: Receipt | None) -> None:
        super().__init__(fault.reason.value)
        self.fault = fault
        self.receipt = receipt


@dataclass(frozen=True, slots=True)
class Edges:
    """What the engine reaches the world through."""

    credentials: Credentials
    ledger: Ledger
    upstream: Upstream
    metrics: Metrics
    admission: Admission
    clock: Callable[[], float]
    sleep: Callable[[float], Coroutine[object, object, None]]
    spread: Callable[[], float]  # in [0, 1)
    is_recorded_first: bool = False  # no call is sent while the ledger is away, whoever pays for it


class Engine:
    """Runs calls. Holds those in flight, and the work that outlives its call (settling, draining)."""

    def __init__(self, edges: Edges) -> None:
        self.edges = edges
        self._in_flight: dict[str, CallRecord] = {}
        self._tasks: set[asyncio.Future[None]] = set()
        self.is_closing = False

    def in_flight(self, response_id: str) -> CallRecord | None:
        """A call that runs."""
        return self._in_flight.get(response_id)

    def in_flight_by_request(self, organization: str, request_id: str) -> CallRecord | None:
        """A call that runs under a caller's id."""
        for record in self._in_flight.values():
            if record.request_id == request_id and record.organization == organization:
                return record
        return None

    def spawn(self, work: Coroutine[object, object, None]) -> None:
        """Work that must be done although the call that began it may be gone."""
        task: asyncio.Future[None] = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Waits for what outlives its call."""
        self.is_closing = True
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def run(self, request: Request, snapshot: Snapshot, response_id: str, sink: Sink) -> None:
        """Answers into the sink. Raises CallFailed; a cancel is recorded and passes through."""
        edges = self.edges
        record = CallRecord(
            response_id,
            request.organization.id,
            request.principal,
            request.request_id,
            edges.clock(),
            request.organization.markup_basis_points,
            application=request.application.name if len(subjects(request)) > 1 else "",
        )
        run = _Run(self, request, snapshot, record, sink)
        self._in_flight[response_id] = record
        try:
            await run.answer()
        except Fault as fault:
            record.end(ReceiptState.FAILED, edges.clock(), fault)
            raise CallFailed(fault, run.earlier_receipt or record.receipt()) from None
        except CallerGone:
            raise
        except Exception:
            record.end(ReceiptState.FAILED, edges.clock(), Fault(Reason.INTERNAL, ""))
            raise
        finally:
            if record.state is ReceiptState.IN_FLIGHT:
                record.end(ReceiptState.CANCELLED, edges.clock())
            del self._in_flight[response_id]
            run.finish()


@dataclass(slots=True)
class _Run:
    """One call."""

    engine: Engine
    request: Request
    snapshot: Snapshot
    record: CallRecord
    sink: Sink
    earlier_receipt: Receipt | None = None
    _is_claimed: bool = False
    _is_repeated: bool = False  # another call has the request's id, and the receipt
    _reservations: int = 0
    _sent: Secret | None = None  # with the latest attempt
    _receipt: Receipt | None = None  # of an answer that was delivered whole

    async def answer(self) -> None:
        """Passes the rate limits, claims the request's id, plans, and tries the candidates."""
        async with AsyncExitStack() as taken:
            await self.engine.edges.admission.count(self.request, self.record, self.engine.spawn, taken)
            await self._answer()

    async def _answer(self) -> None:
        if self.request.request_id:
            await self._claim()
        for _ in range(3):
            made = await self._make_plan()
            try:
                await self._try_candidates(made)
            except StaleCredential as stale:
                # The credential changed after it was listed: what is there now decides.
                self.engine.edges.credentials.forget(stale.credential)
                self.record.skipped.clear()
                continue
            return
        message = "The keys of this call kept changing while it was planned; try again."
        metadata = {"model": self.request.call.model}
        raise Fault(Reason.NO_USABLE_CREDENTIAL, message, metadata=metadata)

    async def _claim(self) -> None:
        ledger, record = self.engine.edges.ledger, self.record
        # Set before the wait: a call that is cancelled meanwhile may have its claim, and must give it back.
        self._is_claimed = True
        earlier = await ledger.claim(record.organization, record.request_id, record.response_id, record.create_time)
        if earlier is None:
            return
        self._is_claimed = False
        self._is_repeated = True
        running = self.engine.in_flight(earlier)
        self.earlier_receipt = running.receipt() if running is not None else await ledger.get_receipt(earlier)
        message = "A call with this request id runs or has ended; its receipt says what became of it."
        metadata = {"requestId": record.request_id}
        raise Fault(Reason.REQUEST_ID_REUSED, message, metadata=metadata)

    async def _make_plan(self) -> Plan:
        edges, request = self.engine.edges, self.request
        holdings: Holdings = await edges.credentials.holdings(request.caller, request.user)
        made = plan(request.call, self.snapshot, holdings, edges.clock(), edges.spread())
        made = await edges.admission.keep_plan(made)
        self.record.skip(made.skipped)
        if made.failure is not None:
            raise made.failure
        return made

    async def _try_candidates(self, made: Plan) -> None:
        """Attempt after attempt, until one answers or none may follow."""
        current, tries_here = 0, 1
        refetched = False
        failed: Fault | None = None
        while True:
            candidate = made.candidates[current]
            number = len(self.record.attempts) + 1
            try:
                async with AsyncExitStack() as taken:
                    await self._attempt(current, number, made, taken)
                return
            except StaleCredential as stale:
                if failed is None:
                    raise
                # A key of this call has failed already: planning anew could now move the bill to somebody else.
                self.engine.edges.credentials.forget(stale.credential)
                raise failed from None
            except Fault as fault:
                failed = fault
                attempt = self.record.attempts[-1] if len(self.record.attempts) == number else None
                is_committed = bool(fault.metadata.get("committed"))
                may_refetch = not refetched and not is_committed and number < self.request.call.policy.max_attempts
                if attempt is not None and may_refetch and await self._is_rotated(fault, candidate, attempt):
                    refetched = True
                    await self._tell(attempt, fault, 0.0)
                    continue
                if fault.reason is Reason.CONCURRENCY_LIMITED:
                    self.record.skipped.append(_skipped(candidate, SkipReason.SLOTS_TAKEN, fault.message))
                step = self._next(fault, made, current, tries_here)
                if attempt is not None and not is_committed:
                    await self._tell(attempt, fault, step[1] if step is not None else None)
                if step is None:
                    raise
            tries_here = tries_here + 1 if step[0] == current else 1
            current = step[0]
            if step[1] > 0:
                await self.engine.edges.sleep(step[1])

    def _next(self, fault: Fault, made: Plan, current: int, tries_here: int) -> tuple[int, float] | None:
        if fault.metadata.get("committed"):
            return None
        spread = self.engine.edges.spread()
        step = next_step(fault, made.candidates, current, tries_here, made.failover_causes, spread)
        if step is None:
            return None
        if len(self.record.attempts) >= self.request.call.policy.max_attempts:
            for candidate in made.candidates[current + 1 :]:
                message = "The call's attempts were used up before its turn."
                self.record.skipped.append(_skipped(candidate, SkipReason.ATTEMPTS_EXHAUSTED, message))
            return None
        return step.candidate, step.delay_seconds

    async def _is_rotated(self, fault: Fault, candidate: Candidate, attempt: AttemptRecord) -> bool:
        """After a rejected key: whether there is another one by now, of a new version or fetched anew. Asked once."""
        if fault.reason is not Reason.UPSTREAM_CREDENTIAL_REJECTED or candidate.credential is None:
            return False
        credentials = self.engine.edges.credentials
        origin = candidate.provider.base_url.origin
        held = credentials.leases.held(candidate.credential.name, origin)
        if held is not None and held.id == attempt.lease_id:
            credentials.leases.forget(held)
        try:
            lease = await self._lease(candidate, attempt.lease_id)
        except (Fault, StaleCredential):
            return False  # what the caller is to hear of is the rejection
        return lease is not None and lease.secret != self._sent

    async def _tell(self, attempt: AttemptRecord, fault: Fault, delay_seconds: float | None) -> None:
        candidate = attempt.candidate
        failed = AttemptFailed(
            attempt.number,
            candidate.model.id,
            candidate.provider.name,
            candidate.payer,
            fault.reason,
            delay_seconds,
            attempt.usage,
        )
        await self.sink.send((failed,))

    async def _lease(self, candidate: Candidate, rejected_lease_id: str = "") -> Lease | None:
        if candidate.credential is None:
            return None
        return await self.engine.edges.credentials.lease(
            candidate.credential.name,
            origin=candidate.provider.base_url.origin,
            caller=self.request.caller,
            principal=self.request.principal,
            request_id=self.record.response_id,
            rejected_lease_id=rejected_lease_id,
        )

    async def _take_slot(self, made: Plan, current: int, ticket: str, taken: AsyncExitStack) -> None:
        """Waits for a slot: briefly where another candidate could answer instead."""
        full = Fault(Reason.CONCURRENCY_LIMITED, "")
        may_spill = next_candidate(full, made.candidates, current, made.failover_causes) is not None
        candidate = made.candidates[current]
        await self.engine.edges.admission.take_slot(candidate, self.request, ticket, taken, may_spill=may_spill)

    async def _attempt(self, current: int, number: int, made: Plan, taken: AsyncExitStack) -> None:
        """Encodes, reserves, takes a slot, leases, sends; settles and reports whatever happens."""
        candidate = made.candidates[current]
        if self.request.is_count and not can_count(candidate):
            await self._estimate(candidate, made)
            return
        prepared = prepare(self.request, candidate)
        edges = self.engine.edges
        attempt = AttemptRecord(
            number, candidate, "", "", edges.clock(), markup_basis_points=self.record.markup_basis_points
        )
        attempt.input_bytes, attempt.is_unbilled = prepared.input_bytes, self.request.is_count
        is_reserved = False
        self._reservations += 1
        reservation = self._reservations
        detach: Callable[[], None] | None = None
        fault: Fault | None = None
        try:
            # Set before the wait: a call that is cancelled meanwhile may have its reservation, and must give it back.
            spending = self._plan_spending(prepared, attempt)
            is_reserved = spending is not None
            if spending is None:
                check_record(edges.ledger, is_recorded_first=edges.is_recorded_first)
            else:
                try:
                    await self._reserve(spending, reservation)
                except Fault as refusal:
                    # A ledger that did not answer in time may have it all the same.
                    is_reserved = refusal.reason is Reason.LEDGER_UNAVAILABLE
                    raise
            await self._take_slot(made, current, f"{self.record.response_id}:{reservation}", taken)
            lease = await self._lease(candidate)
            if lease is not None:
                self._sent = lease.secret
                attempt.lease_id, attempt.credential_version = lease.id, lease.credential_version
            self.record.attempts.append(attempt)
            exchange = self._exchange(prepared, attempt, lease, made)
            if lease is not None:
                cut = _cut(exchange, lease)
                detach = edges.credentials.leases.attach(lease.credential_version, cut)
            await self._exchange_all(exchange, attempt)
        except Fault as found:
            fault = found
            explain(found, candidate)
            attempt.failure = found.reason
            if attempt.was_sent or found.metadata.get("cause") in NEVER_CONNECTED:
                is_own = is_own_timeout(self.request, found)
                await edges.admission.board.failed(candidate, found, is_own_timeout=is_own)
            raise
        finally:
            if detach is not None:
                detach()
            attempt.end_time = edges.clock()
            attempt.complete_usage()
            if is_reserved:
                self.engine.spawn(self._settle(attempt, reservation))
            if attempt.number == len(self.record.attempts):
                self._report(attempt, fault)
        await self._end(exchange, attempt)

    async def _exchange_all(self, exchange: Exchange, attempt: AttemptRecord) -> None:
        try:
            await exchange.run()
        except Fault as fault:
            if exchange.is_committed:
                fault.metadata["committed"] = "true"
            raise

    async def _end(self, exchange: Exchange, attempt: AttemptRecord) -> None:
        """The answer is whole: the last events travel with the receipt."""
        finished = exchange.finished
        if finished is None:
            raise AssertionError("an exchange that returns has finished")
        self.record.end(ReceiptState.SUCCEEDED, self.engine.edges.clock())
        receipt = self._receipt = self.record.receipt()
        outputs: list[Output] = [*exchange.tail, ResponseEnded(finished.reason, finished.provider_reason, receipt)]
        try:
            await self.sink.send(outputs)
        except BaseException:
            self.record.state = ReceiptState.CANCELLED
            self._receipt = None
            raise

    async def _estimate(self, candidate: Candidate, made: Plan) -> None:
        """Counts the tokens of a prompt without asking anybody."""
        usage = estimate_usage(self.request)
        resolution = build_resolution(made, candidate, None)
        started = ResponseStarted(self.record.response_id, resolution, (), candidate.dialect)
        self.record.end(ReceiptState.SUCCEEDED, self.engine.edges.clock())
        await self.sink.send((started, usage))

    def _plan_spending(self, prepared: Prepared, attempt: AttemptRecord) -> Spending | None:
        if attempt.is_unbilled:
            return None
        return plan_spending(self.request, prepared, attempt.markup_basis_points, self.engine.edges.ledger)

    async def _reserve(self, spending: Spending, reservation: int) -> None:
        edges = self.engine.edges
        expire_time = edges.clock() + RESERVATION_SECONDS
        await edges.ledger.reserve(self.record.response_id, reservation, spending, expire_time)

    async def _settle(self, attempt: AttemptRecord, reservation: int) -> None:
        """Charges what the attempt cost. Tried until the reservation itself would have expired."""
        edges, response_id = self.engine.edges, self.record.response_id
        costs = charges(attempt)
        give_up = edges.clock() + RESERVATION_SECONDS
        while True:
            try:
                if costs is not None:
                    await edges.ledger.settle(response_id, reservation, costs[0], response_id, costs[1])
                else:
                    await edges.ledger.cancel_reservation(response_id, reservation)
            except Fault as fault:
                log.error("settle_failed", response_id=response_id, attempt=attempt.number, reason=fault.reason.value)
                if edges.clock() >= give_up or self.engine.is_closing:
                    return
                await edges.sleep(SETTLE_AGAIN_SECONDS)
                continue
            return

    def _exchange(self, prepared: Prepared, attempt: AttemptRecord, lease: Lease | None, made: Plan) -> Exchange:
        candidate, engine = prepared.candidate, self.engine
        streams = self.request.asked.stream

        def commit() -> ResponseStarted:
            board = engine.edges.admission.board
            if board.needs_wake(candidate):
                engine.spawn(board.answered(candidate, attempt.first_content_seconds if streams else 0.0))
            resolution = build_resolution(made, candidate, attempt)
            return ResponseStarted(self.record.response_id, resolution, prepared.warnings, candidate.dialect)

        def drain_later(response: UpstreamResponse) -> None:
            engine.spawn(drain(response))

        upstream_request = build_upstream_request(self.request, prepared, lease, engine.edges.clock())
        return Exchange(
            upstream=engine.edges.upstream,
            dialect=DIALECTS[candidate.dialect],
            framing=framing_of(DIALECTS[candidate.dialect], candidate.endpoint.quirks),
            decoder=prepared.make_decoder(),
            request=upstream_request,
            record=attempt,
            timeouts=choose_timeouts(self.request, candidate),
            sink=self.sink,
            commit=commit,
            clock=engine.edges.clock,
            spawn=drain_later,
            hide=Hiding(lease.secret if lease is not None else None, derived_secret(upstream_request)),
            errors=candidate.provider.errors,
            min_flush_seconds=self.request.min_flush_seconds,
        )

    def _report(self, attempt: AttemptRecord, fault: Fault | None) -> None:
        """Puts the use of the secret on its way into the audit log, and counts the attempt."""
        edges = self.engine.edges
        edges.metrics.attempt(attempt, fault)
        if not attempt.lease_id or not attempt.was_sent:
            return
        edges.credentials.uses.add(
            lease_id=attempt.lease_id,
            request_id=self.record.response_id,
            attempt=attempt.number,
            principal=self.request.principal,
            outcome=use_outcome(fault, is_finished=attempt.is_finished),
            use_time=attempt.start_time,
        )

    def finish(self) -> None:
        """Keeps the receipt, and frees the request's id where nothing was sent under it."""
        edges, record = self.engine.edges, self.record
        edges.metrics.call(record)
        if self._is_repeated or self.request.is_count:
            return
        if self._is_claimed and not record.was_sent and record.state is not ReceiptState.SUCCEEDED:
            release = edges.ledger.release_claim(record.organization, record.request_id, record.response_id)
            self.engine.spawn(_quietly(release))
        if not edges.ledger.record_soon(self._receipt or record.receipt()):
            log.error("receipt_lost", response_id=record.response_id)


def _cut(exchange: Exchange, lease: Lease) -> Callable[[], None]:
    def cut() -> None:
        message = f"The key {lease.credential} was revoked, and the revocation cuts the streams that use it."
        exchange.watchdog.cut(Fault(Reason.CREDENTIAL_REVOKED, message))

    return cut


def _skipped(candidate: Candidate, reason: SkipReason, message: str) -> SkippedCandidate:
    return SkippedCandidate(candidate.model.id, candidate.provider.name, candidate.payer, reason, message)


async def _quietly(work: Coroutine[object, object, None]) -> None:
    try:
        await work
    except Fault:
        log.error("release_claim_failed")
