"""Every metric of this service, by name. None has a label that a caller can choose."""

from functools import lru_cache

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest


class Metrics:
    """The metrics of one running service, in a registry of their own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._calls = Counter(
            "keyswitch_vault_calls", "Calls served, by method and status.", ["method", "code"], registry=self._registry
        )
        self._leases = Counter(
            "keyswitch_vault_leases", "Leases given, by purpose.", ["purpose"], registry=self._registry
        )
        # A counter is looked up under a lock and by text; those of each call are kept.
        self._calls_of = lru_cache(lambda method, code: self._calls.labels(method.rpartition("/")[2], code))
        self._leases_of = lru_cache(self._leases.labels)
        self._uses = Counter(
            "keyswitch_vault_uses", "Uses that routers reported, by purpose.", ["purpose"], registry=self._registry
        )
        self._uses_of = lru_cache(self._uses.labels)
        self._mints = Counter(
            "keyswitch_vault_mints",
            "Tokens fetched, by kind and outcome.",
            ["kind", "outcome"],
            registry=self._registry,
        )
        self._watchers = Gauge("keyswitch_vault_watchers", "Open change feeds.", registry=self._registry)
        self._revision = Gauge("keyswitch_vault_change_revision", "Newest known change.", registry=self._registry)
        self._signed = Gauge(
            "keyswitch_vault_audit_signed_record", "Newest audit record under a checkpoint.", registry=self._registry
        )
        self._written = Gauge(
            "keyswitch_vault_audit_written_record", "Newest durable audit record.", registry=self._registry
        )
        self._is_serving = Gauge("keyswitch_vault_serving", "1 while it can serve, else 0.", registry=self._registry)

    def count_call(self, method: str, code: str) -> None:
        """Counts a call when it has ended."""
        self._calls_of(method, code).inc()

    def count_lease(self, purpose: str) -> None:
        """Counts a lease that is given."""
        self._leases_of(purpose).inc()

    def count_use(self, purpose: str) -> None:
        """Counts a reported use."""
        self._uses_of(purpose).inc()

    def count_mint(self, kind: str, outcome: str) -> None:
        """Counts a token that was fetched, or could not be."""
        self._mints.labels(kind, outcome).inc()

    def add_watcher(self, delta: int) -> None:
        """Counts an opened (1) or closed (-1) change feed."""
        self._watchers.inc(delta)

    def set_signed(self, record: int) -> None:
        """Sets how far the audit log is signed."""
        self._signed.set(record)

    def set_state(self, *, is_serving: bool, revision: int, audit_record: int) -> None:
        """Sets what the health check found."""
        self._written.set(audit_record)
        self._is_serving.set(1 if is_serving else 0)
        self._revision.set(revision)

    def render(self) -> bytes:
        """Gives the text format of Prometheus."""
        return generate_latest(self._registry)
