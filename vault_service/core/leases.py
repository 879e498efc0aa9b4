"""What this instance remembers of leases and uses: bounded, in memory, gone with the process.

The audit log is the record; this is only what later reports are compared with.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from vault_service.core.names import VersionName

REMEMBER_AFTER_EXPIRY_SECONDS = 3600.0
MAX_LEASES = 100_000
MAX_USES = 200_000
MAX_LAST_USES = 50_000
PERSIST_USE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Lease:
    """A lease that was given."""

    lease_id: str
    version: VersionName
    is_test: bool
    expire_time: float
    give_time: float = 0.0


class Leases:
    """The leases of the last hour or so."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._leases: OrderedDict[str, Lease] = OrderedDict()

    def add(self, lease: Lease) -> None:
        """Remembers a lease, and forgets those that no report can be about any longer."""
        oldest_seconds = self._clock() - REMEMBER_AFTER_EXPIRY_SECONDS
        while self._leases:
            first = next(iter(self._leases.values()))
            if first.expire_time > oldest_seconds and len(self._leases) < MAX_LEASES:
                break
            del self._leases[first.lease_id]
        self._leases[lease.lease_id] = lease

    def find(self, lease_id: str) -> Lease | None:
        """Gives a lease that this instance gave; another instance's is not known here."""
        return self._leases.get(lease_id)


UseKey = tuple[str, str, int]


class ReportedUses:
    """Which uses were reported, so that a repeated report does no harm. Lease, request and attempt identify one."""

    def __init__(self, max_uses: int = MAX_USES) -> None:
        self._max_uses = max_uses
        self._keys: OrderedDict[UseKey, None] = OrderedDict()

    def take(self, key: UseKey) -> bool:
        """Whether the use is new; it is not from now on."""
        if key in self._keys:
            return False
        while len(self._keys) >= self._max_uses:
            self._keys.popitem(last=False)
        self._keys[key] = None
        return True

    def give_back(self, key: UseKey) -> None:
        """Forgets a use that could not be recorded, so that its next report is."""
        self._keys.pop(key, None)


class LastUses:
    """When versions were used last, between the times it is written to the store."""

    def __init__(self) -> None:
        self._times: OrderedDict[str, float] = OrderedDict()
        self._written: dict[str, float] = {}

    def note(self, version: VersionName, time_seconds: float) -> bool:
        """Notes a use; whether the store should be told now."""
        for name in (str(version), str(version.credential)):
            self._times[name] = max(time_seconds, self._times.get(name, 0.0))
            self._times.move_to_end(name)
        while len(self._times) > MAX_LAST_USES:
            name, _ = self._times.popitem(last=False)
            self._written.pop(name, None)
        if time_seconds - self._written.get(str(version), 0.0) < PERSIST_USE_SECONDS:
            return False
        self._written[str(version)] = time_seconds
        return True

    def get(self, name: str) -> float | None:
        """Gives the last use of a credential or version that was noted here."""
        return self._times.get(name)
