"""The token of this service: kept alive and replaced, by one background task, for all calls of one store."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

from vault_service.store.renewal import (
    LONGEST_LOGIN_PAUSE_SECONDS,
    Lifetime,
    LogIn,
    Renew,
    failed,
    login_retry_seconds,
    new_lifetime,
    next_step,
    renewed,
)
from vault_service.store.store import Denied, StoreError, Unavailable
from vault_service.store.vault_errors import TokenRefused
from vault_service.store.vault_login import Grant

_SHORTEST_PAUSE_SECONDS = 0.2
_NEW_LOGIN_AFTER_SECONDS = 10.0
_MOST_LOGINS_AT_ONCE = 5
_SECONDS_PER_LOGIN = 1.0


class TokenKeeper:
    """Holds the current token for all calls of one store and renews it in the background from the first login on.

    However many calls find the token missing or dead at once, there is one login; all of them get its outcome. A Vault
    that calls each new token dead gets five logins at once, and one a second from then on.
    """

    def __init__(
        self,
        log_in: Callable[[], Awaitable[Grant]],
        renew: Callable[[str], Awaitable[Grant]],
        *,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
        jitter: Callable[[], float],
        longest_pause_seconds: float = LONGEST_LOGIN_PAUSE_SECONDS,
    ) -> None:
        self._log_in = log_in
        self._renew = renew
        self._clock = clock
        self._sleep = sleep
        self._jitter = jitter
        self._longest_pause_seconds = longest_pause_seconds
        self._token = ""
        self._logged_in_at = 0.0
        self._lifetime: Lifetime | None = None
        self._login: asyncio.Task[str] | None = None
        self._watch: asyncio.Task[None] | None = None
        self._refusals = 0
        self._refusal = ""
        self._refused_until = 0.0
        self._logins_left = float(_MOST_LOGINS_AT_ONCE)
        self._logins_counted_at = clock()

    async def token(self) -> str:
        """Gives a token that, by the clock, still lives."""
        if self._lifetime is None or self._lifetime.remaining_seconds(self._clock()) <= 0:
            return await self.replace(self._token)
        return self._token

    async def replace(self, stale: str) -> str:
        """Gives another token than the stale one, by a new login where nobody else has made one meanwhile."""
        if self._token != stale:
            return self._token
        if self._login is None:
            self._login = asyncio.create_task(self._replace())
            self._login.add_done_callback(self._login_done)
        # Shielded: the login is everybody's, so the first caller's deadline must not end it for the others.
        return await asyncio.shield(self._login)

    def may_help(self, refusal: TokenRefused) -> bool:
        """Whether a new login can change a refusal. A policy that says no would say so again to each fresh token."""
        return refusal.token_is_dead or self._clock() - self._logged_in_at >= _NEW_LOGIN_AFTER_SECONDS

    async def close(self) -> str:
        """Ends the background work; gives the token that is left, or ""."""
        tasks = [task for task in (self._watch, self._login) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        left, self._token, self._lifetime = self._token, "", None
        return left

    def _login_done(self, task: asyncio.Task[str]) -> None:
        self._login = None
        if not task.cancelled():
            task.exception()  # marks it as seen: every caller may have gone by now

    async def _replace(self) -> str:
        now = self._clock()
        if now < self._refused_until:
            raise Denied(self._refusal)
        self._require_login_left(now)
        try:
            grant = await self._log_in()
        except Denied as refusal:
            self._refusals += 1
            self._refusal = refusal.detail
            self._refused_until = self._clock() + self._pause_seconds(self._refusals)
            raise
        self._logins_left -= 1.0  # one that fails is no such login: a Vault out of order is asked by each call
        self._refusals, self._refused_until = 0, 0.0
        self._token, self._logged_in_at = grant.token, now
        self._lifetime = new_lifetime(now, grant.lease_seconds, renewable=grant.renewable, jitter=self._jitter())
        if self._watch is not None:
            self._watch.cancel()
        self._watch = asyncio.create_task(self._keep(self._lifetime))
        return self._token

    def _pause_seconds(self, failures: int) -> float:
        return login_retry_seconds(failures, jitter=self._jitter(), longest=self._longest_pause_seconds)

    def _require_login_left(self, now: float) -> None:
        earned = (now - self._logins_counted_at) / _SECONDS_PER_LOGIN
        left = min(float(_MOST_LOGINS_AT_ONCE), self._logins_left + earned)
        self._logins_left, self._logins_counted_at = left, now
        if left < 1.0:
            raise Unavailable("Vault refuses tokens that it gave a moment ago; the next login comes in a second")

    async def _keep(self, lifetime: Lifetime) -> None:
        """Renews the one token it was started for, and sees to a new login before that token ends."""
        token = self._token
        while (step := next_step(lifetime, self._clock(), jitter=self._jitter())) is not None:
            await self._sleep(max(step.after_seconds, _SHORTEST_PAUSE_SECONDS))
            match step:
                case Renew():
                    lifetime = self._lifetime = await self._try_renewal(token, lifetime)
                case LogIn():
                    await self._log_in_again(token)
                    return

    async def _try_renewal(self, token: str, lifetime: Lifetime) -> Lifetime:
        now = self._clock()
        try:
            grant = await self._renew(token)
        except TokenRefused as refusal:
            if refusal.token_is_dead:
                # It was revoked, or ended earlier than it said: nothing is left of it.
                return replace(lifetime, granted_at=now, lease_seconds=0.0, renewable=False, failures=0)
            return replace(lifetime, renewable=False, failures=0)
        except Unavailable:
            return failed(lifetime)
        except StoreError:
            return replace(lifetime, renewable=False, failures=0)
        lease_seconds = grant.lease_seconds or 0.0
        return renewed(lifetime, now, lease_seconds, renewable=grant.renewable, jitter=self._jitter())

    async def _log_in_again(self, token: str) -> None:
        failures = 0
        while True:
            try:
                await self.replace(token)
            except StoreError:
                failures += 1
                await self._sleep(self._pause_seconds(failures))
            else:
                return
