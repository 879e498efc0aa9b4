"""When a token is renewed and when it is replaced. Pure: times come in, the next step comes out.

The rule is that of Vault's own LifetimeWatcher. A token's grace is 10 to 20 % of its lifetime (with jitter, so that
fifty instances do not come at once); it sleeps two thirds of what remains and a third of the grace, then renews. When a
renewal no longer reaches past the grace (the token nears its maximum age), it is time for a new login, while the old
token still serves. A renewal that fails is tried again, each time twice as late, and gives way to a login when the
grace begins.
"""

import math
from dataclasses import dataclass, replace

_FIRST_RETRY_SECONDS = 10.0
_LONGEST_RETRY_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class Lifetime:
    """What is known of a token's time. A token without an end has no `lease_seconds`."""

    granted_at: float
    lease_seconds: float | None
    grace_seconds: float
    renewable: bool
    failures: int = 0

    def remaining_seconds(self, now: float) -> float:
        return math.inf if self.lease_seconds is None else self.granted_at + self.lease_seconds - now


@dataclass(frozen=True, slots=True)
class Renew:
    after_seconds: float


@dataclass(frozen=True, slots=True)
class LogIn:
    after_seconds: float


Step = Renew | LogIn


def new_lifetime(now: float, lease_seconds: float | None, *, renewable: bool, jitter: float) -> Lifetime:
    """`jitter` is a random number from 0 up to 1."""
    return Lifetime(now, lease_seconds, 0.1 * (lease_seconds or 0.0) * (1 + jitter), renewable)


def renewed(lifetime: Lifetime, now: float, lease_seconds: float, *, renewable: bool, jitter: float) -> Lifetime:
    """The lifetime after a renewal. A shorter lease keeps the old grace: that is how the end is noticed in time."""
    fresh = new_lifetime(now, lease_seconds, renewable=renewable, jitter=jitter)
    if lifetime.lease_seconds is not None and lease_seconds < lifetime.lease_seconds:
        return replace(fresh, grace_seconds=max(lifetime.grace_seconds, fresh.grace_seconds))
    return fresh


def failed(lifetime: Lifetime) -> Lifetime:
    return replace(lifetime, failures=lifetime.failures + 1)


def next_step(lifetime: Lifetime, now: float, *, jitter: float) -> Step | None:
    """What to do next and when; None for a token without an end (a root token)."""
    if lifetime.lease_seconds is None:
        return None
    remaining = lifetime.remaining_seconds(now)
    grace = lifetime.grace_seconds
    if lifetime.failures:
        return _after_failure(lifetime, lifetime.lease_seconds, remaining, jitter)
    if not lifetime.renewable:
        return LogIn(max(0.0, remaining - grace))
    sleep = remaining * 2 / 3 + grace / 3
    if remaining <= grace or remaining - sleep <= grace:
        return LogIn(0.0)
    return Renew(sleep)


def _after_failure(lifetime: Lifetime, lease_seconds: float, remaining: float, jitter: float) -> Step:
    first = min(_FIRST_RETRY_SECONDS, lease_seconds / 50)
    wait = min(_LONGEST_RETRY_SECONDS, first * 2 ** min(lifetime.failures - 1, 10)) * (0.5 + jitter)
    # A login may work where a renewal does not, so it is tried while the old token still serves.
    left = remaining - lifetime.grace_seconds
    return Renew(wait) if wait < left else LogIn(max(0.0, left))


LONGEST_LOGIN_PAUSE_SECONDS = 60.0
TOKEN_FILE_PAUSE_SECONDS = 1.0
"""A token out of a file is looked up, which locks nobody out; whoever keeps the file may replace it at any moment."""


def login_retry_seconds(failures: int, *, jitter: float, longest: float = LONGEST_LOGIN_PAUSE_SECONDS) -> float:
    """How long to wait after the n-th failed login in a row. Vault locks a role out after five quick refusals."""
    return float(min(longest, 1.0 * 2 ** min(failures - 1, 6)) * (0.5 + jitter))
