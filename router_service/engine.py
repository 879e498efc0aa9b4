"""A call from its plan to its receipt: which candidate is tried, what follows when it fails, and what is kept."""

from contextlib import AsyncExitStack
from dataclasses import dataclass

import structlog

from router_service.attempt import Attempts
from router_service.billing import free_claim, keep, subjects
from router_service.catalog.catalog import Snapshot
from router_service.core.caller import Holdings
from router_service.core.faults import Fault, Reason
from router_service.core.outcome import AttemptFailed, ResponseStarted
from router_service.core.receipt import Receipt, ReceiptState
from router_service.core.resolution import SkippedCandidate, SkipReason
from router_service.credentials.errors import StaleCredential
from router_service.edges import Afterwork, Edges
from router_service.exchange import CallerGone, Sink
from router_service.policy.call import Candidate, Plan
from router_service.policy.plan import plan
from router_service.policy.retry import next_step
from router_service.preparation import Request, build_resolution, can_count, estimate_usage
from router_service.record import AttemptRecord, CallRecord

log = structlog.get_logger(__name__)


class CallFailed(Exception):
    """A call ended without an answer. `receipt` is None where nothing was planned."""

    def __init__(self, fault: Fault, receipt: Receipt | None) -> None:
        super().__init__(fault.reason.value)
        self.fault = fault
        self.receipt = receipt


class Engine:
    """Runs calls. Holds those in flight, and the work that outlives its call."""

    def __init__(self, edges: Edges) -> None:
        self.edges = edges
        self.afterwork = Afterwork()
        self._in_flight: dict[str, CallRecord] = {}

    def in_flight(self, response_id: str) -> CallRecord | None:
        """A call that runs."""
        return self._in_flight.get(response_id)

    def in_flight_by_request(self, organization: str, request_id: str) -> CallRecord | None:
        """A call that runs under a caller's id."""
        for record in self._in_flight.values():
            if record.request_id == request_id and record.organization == organization:
                return record
        return None

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
        attempts = Attempts(edges, self.afterwork, request, record, sink)
        run = _Run(self, request, snapshot, record, sink, attempts)
        self._in_flight[response_id] = record
        try:
            await run.answer()
        except Fault as fault:
            record.end(ReceiptState.FAILED, edges.clock(), fault)
            await run.keep()
            raise CallFailed(fault, run.earlier_receipt or record.receipt()) from None
        except CallerGone:
            raise
        except Exception:  # a fault of our own still leaves a receipt; the border above hides its text
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
    attempts: Attempts
    earlier_receipt: Receipt | None = None
    _is_claimed: bool = False
    _is_repeated: bool = False  # another call has the request's id, and the receipt

    async def answer(self) -> None:
        """Passes the rate limits, claims the request's id, plans, and tries the candidates."""
        async with AsyncExitStack() as taken:
            await self.engine.edges.admission.count(self.request, self.record, self.engine.afterwork.spawn, taken)
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
                if self.request.is_count and not can_count(candidate):
                    await self._estimate(candidate, made)
                    return
                async with AsyncExitStack() as taken:
                    await self.attempts.make(current, made, taken)
                return
            except StaleCredential as stale:
                if failed is None:
                    raise
                # A key of this call has failed already: planning anew could now move the bill to somebody else.
                self.engine.edges.credentials.forget(stale.credential)
                raise failed from None
            except Fault as fault:
                failed = fault.with_traceback(None)  # which holds this frame, and so all that the call has
                attempt = self.record.attempts[-1] if len(self.record.attempts) == number else None
                is_committed = bool(fault.metadata.get("committed"))
                may_refetch = not refetched and not is_committed and number < self.request.call.policy.max_attempts
                if attempt is not None and may_refetch and await self.attempts.is_rotated(fault, candidate, attempt):
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

    async def _estimate(self, candidate: Candidate, made: Plan) -> None:
        """Counts the tokens of a prompt without asking anybody."""
        usage = estimate_usage(self.request)
        resolution = build_resolution(made, candidate, None)
        started = ResponseStarted(self.record.response_id, resolution, (), candidate.dialect)
        self.record.end(ReceiptState.SUCCEEDED, self.engine.edges.clock())
        await self.sink.send((started, usage))

    def finish(self) -> None:
        """Keeps the receipt, and frees the request's id where nothing was sent under it."""
        edges, record = self.engine.edges, self.record
        edges.metrics.call(record)
        if self._is_repeated or self.request.is_count:
            return
        if self._is_claimed and not record.was_sent and record.state is not ReceiptState.SUCCEEDED:
            self.engine.afterwork.spawn(free_claim(edges, self.engine.afterwork, record))
        kept = self.attempts.kept
        is_kept = kept is not None and kept.state is record.state
        if not is_kept and not edges.ledger.record_soon(record.receipt()):
            log.error("receipt_lost", response_id=record.response_id)

    async def keep(self) -> None:
        """Keeps the receipt of a call that has failed before its caller hears of it."""
        if self._is_repeated or self.request.is_count:
            return
        receipt = self.record.receipt()
        await keep(self.engine.edges.ledger, receipt, is_charged=self.record.is_charged)
        self.attempts.kept = receipt


def _skipped(candidate: Candidate, reason: SkipReason, message: str) -> SkippedCandidate:
    return SkippedCandidate(candidate.model.id, candidate.provider.name, candidate.payer, reason, message)
