"""The token of this service: how it is got, kept alive and replaced. Nothing here shows it in a repr or an error."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hvac.api.auth_methods import AppRole, Token

from vault_service.store.hvac_session import Exchange, VaultAdapter
from vault_service.store.renewal import (
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
from vault_service.store.vault_errors import Refused, TokenRefused
from vault_service.store.vault_settings import AppRoleFiles, TokenFile

_SHORTEST_PAUSE_SECONDS = 0.2
_NEW_LOGIN_AFTER_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Grant:
    """A token and its time. `lease_seconds` is None for a token without an end."""

    token: str = field(repr=False)
    lease_seconds: float | None
    renewable: bool


def log_in(adapter: VaultAdapter, login: AppRoleFiles | TokenFile) -> Grant:
    """Logs in. Blocks. Raises Denied when the credentials are missing or refused."""
    match login:
        case AppRoleFiles():
            return _log_in_by_role(adapter, login)
        case TokenFile():
            return _log_in_by_token(adapter, login)


def renew(adapter: VaultAdapter, token: str) -> Grant:
    """Renews the token. Blocks."""
    with adapter.exchanging(Exchange(token)):
        return _grant_of(Token(adapter).renew_self())


def revoke(adapter: VaultAdapter, token: str) -> None:
    """Gives the token back. Blocks."""
    with adapter.exchanging(Exchange(token)):
        Token(adapter).revoke_self()


def _log_in_by_role(adapter: VaultAdapter, login: AppRoleFiles) -> Grant:
    role_id, secret_id = _read_secret(login.role_id_file), _read_secret(login.secret_id_file)
    status = None
    with adapter.exchanging(Exchange("")):
        try:
            return _grant_of(AppRole(adapter).login(role_id, secret_id, use_token=False, mount_point=login.mount))
        except (Refused, TokenRefused) as fault:
            status = fault.status
    raise Denied("Vault refused the role id or the secret id; mount a fresh secret id", status=status)


def _log_in_by_token(adapter: VaultAdapter, login: TokenFile) -> Grant:
    token = _read_secret(login.token_file)
    status = None
    with adapter.exchanging(Exchange(token)):
        try:
            data = Token(adapter).lookup_self()["data"]
            lease_seconds = None if data.get("expire_time") is None else float(data["ttl"])
            return Grant(token, lease_seconds, bool(data.get("renewable")))
        except TokenRefused as fault:
            status = fault.status
    raise Denied(f"Vault refused the token in {login.token_file}; put a fresh one there", status=status)


def _read_secret(path: Path) -> str:
    try:
        value = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        value = ""
    if not value or not value.isprintable():
        raise Denied(f"{path} cannot be read or holds no credential; mount it readable by this user")
    return value


def _grant_of(answer: dict[str, Any]) -> Grant:
    auth = answer["auth"]
    return Grant(auth["client_token"], float(auth["lease_duration"]), bool(auth["renewable"]))


class TokenKeeper:
    """Holds the current token for all calls of one store and renews it in the background from the first login on.

    However many calls find the token missing or dead at once, there is one login; all of them get its outcome.
    """

    def __init__(
        self,
        log_in: Callable[[], Awaitable[Grant]],
        renew: Callable[[str], Awaitable[Grant]],
        *,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
        jitter: Callable[[], float],
    ) -> None:
        self._log_in = log_in
        self._renew = renew
        self._clock = clock
        self._sleep = sleep
        self._jitter = jitter
        self._token = ""
        self._logged_in_at = 0.0
        self._lifetime: Lifetime | None = None
        self._login: asyncio.Task[str] | None = None
        self._watch: asyncio.Task[None] | None = None
        self._refusals = 0
        self._refused_until = 0.0

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
            raise Denied("Vault refused this service's login a moment ago; the next try comes in a few seconds")
        try:
            grant = await self._log_in()
        except Denied:
            self._refusals += 1
            self._refused_until = self._clock() + login_retry_seconds(self._refusals, jitter=self._jitter())
            raise
        self._refusals, self._refused_until = 0, 0.0
        self._token, self._logged_in_at = grant.token, now
        self._lifetime = new_lifetime(now, grant.lease_seconds, renewable=grant.renewable, jitter=self._jitter())
        if self._watch is not None:
            self._watch.cancel()
        self._watch = asyncio.create_task(self._keep(self._lifetime))
        return self._token

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
                await self._sleep(login_retry_seconds(failures, jitter=self._jitter()))
            else:
                return
