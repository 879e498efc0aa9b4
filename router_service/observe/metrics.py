"""Every metric of the router, by name. Labels are few and bounded: no user, credential or request ever is one."""

from collections import Counter as Tally
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from router_service.core.faults import Fault
from router_service.core.receipt import ReceiptState
from router_service.policy.cooldown import RestCause
from router_service.record import AttemptRecord, CallRecord

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)

_Metric = TypeVar("_Metric", Counter, Histogram)


class Metrics:
    """Counts calls and attempts."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self._children: dict[tuple[Counter | Histogram, tuple[str, ...]], Counter | Histogram] = {}
        self._calls = Counter("keyswitch_calls", "Calls by how they ended.", ("state", "reason"), registry=registry)
        self._attempts = Counter(
            "keyswitch_attempts", "Attempts at providers.", ("provider", "payer", "reason"), registry=registry
        )
        self._tokens = Counter(
            "keyswitch_tokens", "Tokens as providers reported them.", ("provider", "direction"), registry=registry
        )
        self._seconds = Histogram(
            "keyswitch_call_seconds",
            "From a call's arrival to its end.",
            ("state",),
            buckets=_SECONDS,
            registry=registry,
        )
        self._first_content = Histogram(
            "keyswitch_first_content_seconds",
            "From sending to a provider to its first content.",
            ("provider",),
            buckets=_SECONDS,
            registry=registry,
        )
        self._add_limits(registry)
        self._low_balances = Gauge(
            "keyswitch_low_balances", "Organizations whose credits are below their threshold.", registry=registry
        )
        self._ledger_available = Gauge(
            "keyswitch_ledger_available", "1 while the ledger's database answers.", registry=registry
        )
        self._expired = Counter(
            "keyswitch_expired_reservations", "Reservations that nobody settled in time.", registry=registry
        )

    def _add_limits(self, registry: CollectorRegistry) -> None:
        self._rate_refusals = Counter(
            "keyswitch_rate_refusals", "Calls beyond a rate limit.", ("tier", "unit"), registry=registry
        )
        self._slot_refusals = Counter(
            "keyswitch_slot_refusals", "Waits for a slot that ended without one.", ("then",), registry=registry
        )
        self._slot_waiting = Gauge("keyswitch_slot_waiting", "Calls of this router that wait.", registry=registry)
        self._slot_wait = Histogram(
            "keyswitch_slot_wait_seconds", "Waits that got a slot.", buckets=_SECONDS, registry=registry
        )
        self._slots_lost = Counter(
            "keyswitch_slots_lost", "Slots that the store forgot while they were held.", registry=registry
        )
        self._rests = Counter(
            "keyswitch_cooldowns", "What this router let rest.", ("cause", "provider"), registry=registry
        )
        self._resting = Gauge("keyswitch_cooling_down", "What rests now.", ("cause",), registry=registry)
        self._configuration_away = Gauge(
            "keyswitch_configuration_away",
            "1 while the store of the configuration is out of reach, and the last one it gave is in force.",
            registry=registry,
        )
        self._limits_away = Gauge(
            "keyswitch_limits_away", "1 while the store of limits is out of reach.", registry=registry
        )

    def rate_refused(self, tier: str, unit: str) -> None:
        """A call was beyond a rate limit."""
        self._rate_refusals.labels(tier, unit).inc()

    def slot_refused(self, *, is_spilled: bool) -> None:
        """A call got no slot in time."""
        self._slot_refusals.labels("spilled" if is_spilled else "failed").inc()

    @contextmanager
    def waiting_for_slot(self) -> Iterator[Callable[[float], None]]:
        """A call waits within the block; what it gives notes how long a wait was that ended well."""
        self._slot_waiting.inc()
        try:
            yield self._slot_wait.observe
        finally:
            self._slot_waiting.dec()

    def slots_lost(self, count: int) -> None:
        """The store forgot slots that are held."""
        self._slots_lost.inc(count)

    def rested(self, cause: RestCause, provider: str) -> None:
        """Something is to rest."""
        self._rests.labels(cause.value, provider).inc()

    def resting(self, causes: Iterable[RestCause]) -> None:
        """Everything that rests now."""
        counts = Tally(causes)
        for cause in RestCause:
            self._resting.labels(cause.value).set(counts[cause])

    def configuration_away(self, *, is_away: bool) -> None:
        """The store of the configuration was looked at."""
        self._configuration_away.set(is_away)

    def limits_away(self, is_away: bool) -> None:  # a listener has one argument
        """The store of limits went away or came back."""
        self._limits_away.set(is_away)

    def ledger(self, *, is_available: bool, low_count: int | None = None, expired_count: int = 0) -> None:
        """A round through the books ended. What it could not see stays as it was."""
        self._ledger_available.set(1 if is_available else 0)
        self._expired.inc(expired_count)
        if low_count is not None:
            self._low_balances.set(low_count)

    def _child(self, metric: _Metric, *labels: str) -> _Metric:
        """A metric with its labels. Looking one up costs more than counting, so the few that there are are kept."""
        key = (metric, labels)
        found = self._children.get(key)
        if found is None:
            found = self._children[key] = metric.labels(*labels)
        return found  # type: ignore[return-value] # a metric's child is of its metric's type

    def call(self, record: CallRecord) -> None:
        """A call ended."""
        reason = record.failure.value if record.failure is not None else ""
        self._child(self._calls, record.state.value, reason).inc()
        if record.end_time is not None and record.state is not ReceiptState.IN_FLIGHT:
            self._child(self._seconds, record.state.value).observe(record.end_time - record.create_time)

    def attempt(self, attempt: AttemptRecord, fault: Fault | None) -> None:
        """An attempt ended."""
        provider = attempt.candidate.provider.id
        reason = fault.reason.value if fault is not None else ""
        self._child(self._attempts, provider, attempt.candidate.payer.value, reason).inc()
        if attempt.first_content_time is not None:
            self._child(self._first_content, provider).observe(attempt.first_content_time - attempt.start_time)
        usage = attempt.usage
        if usage is not None:
            self._child(self._tokens, provider, "input").inc(usage.input_tokens or 0)
            self._child(self._tokens, provider, "output").inc(usage.output_tokens or 0)
