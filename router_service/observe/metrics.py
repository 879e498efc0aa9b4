"""Every metric of the router, by name. Labels are few and bounded: no user, credential or request ever is one."""

from typing import TypeVar

from prometheus_client import CollectorRegistry, Counter, Histogram

from router_service.core.faults import Fault
from router_service.core.receipt import ReceiptState
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
