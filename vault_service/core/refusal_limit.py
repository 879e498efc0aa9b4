"""How refusals of strangers are answered when there are too many: with one same word, and a time to wait.

Only failures are limited, never callers: whoever proves an identity is served at any time and from any address, so
nobody can shut others out by failing in their neighbourhood. A guess that comes too often costs one check and learns
nothing, not even why it failed. The same file is in both services, alike to the byte.
"""

import ipaddress
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

BURST = 20.0
PER_SECOND = 1.0
TOTAL_BURST = 500.0
TOTAL_PER_SECOND = 50.0
MOST_SOURCES = 10_000
_IPV6_SITE_BITS = 64


@dataclass(slots=True)
class _Bucket:
    left: float
    time: float

    def take(self, now: float, burst: float, per_second: float) -> float:
        """Gives 0 where one was left, else the seconds until one is."""
        self.left = min(burst, self.left + (now - self.time) * per_second)
        self.time = now
        if self.left < 1:
            return (1 - self.left) / per_second
        self.left -= 1
        return 0.0


class RefusalLimit:
    """Counts refusals by where they come from, and all of them together. The longest silent sources are forgotten."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._all = _Bucket(TOTAL_BURST, monotonic())
        self._sources: OrderedDict[str, _Bucket] = OrderedDict()

    def refuse(self, source: str) -> float:
        """Notes a refusal; gives 0 where it may be answered with its cause, else how many seconds to wait."""
        now = self._monotonic()
        bucket = self._sources.pop(source, None) or _Bucket(BURST, now)
        self._sources[source] = bucket
        while len(self._sources) > MOST_SOURCES:
            self._sources.popitem(last=False)
        wait = bucket.take(now, BURST, PER_SECOND)
        return wait or self._all.take(now, TOTAL_BURST, TOTAL_PER_SECOND)

    @property
    def size(self) -> int:
        """How many sources are remembered."""
        return len(self._sources)


def source_of(address: str) -> str:
    """What counts as one source: an IPv4 address, the site of an IPv6 one, or the text itself. The port does not."""
    host = address.rpartition(":")[0].strip("[]").partition("%")[0]
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        return address
    if found.version == 6 and found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(found) if found.version == 4 else str(ipaddress.ip_network((found, _IPV6_SITE_BITS), strict=False))
