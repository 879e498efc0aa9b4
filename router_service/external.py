"""Tokens of other issuers (OpenID Connect, JWT): who their bearer is here, as the deployment's operator has mapped it.

Both services verify the same token by themselves, and share no code: this file is in both, alike to the byte.
"""

import asyncio
import base64
import hashlib
import json
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import httpx
import jwt
import msgspec

LEEWAY_SECONDS = 30.0
KEYS_MAX_AGE_SECONDS = 300.0
KEYS_AGAIN_SECONDS = 5.0
MOST_DOCUMENT_BYTES = 256 * 1024
MOST_KEYS = 64
FETCH_SECONDS = 5.0
MOST_TOKEN_CHARACTERS = 8192
_MOST_SECONDS = 1e12
_LEAST_RSA_BITS = 2048
_ID = re.compile(r"[a-z][a-z0-9-]{1,61}[a-z0-9]")

Algorithm = Literal[
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"
]  # none that is symmetric, and not "none"
RoleName = Literal["admin", "member", "auditor"]
ScopeName = Literal[
    "complete",
    "act_on_behalf",
    "test_credentials",
    "manage_credentials",
    "manage_routing",
    "manage_budgets",
    "read_usage",
    "read_audit",
    "manage_tokens",
]
Fetch = Callable[[str], Awaitable[bytes]]


class ExternalSettingsError(Exception):
    """The file of issuers cannot be used; the text says why."""


class ExternalTokenRefused(Exception):
    """The token proves nothing here; `cause` says why, in a word."""

    def __init__(self, cause: str) -> None:
        super().__init__(cause)
        self.cause = cause


class IssuerUnavailable(Exception):
    """The issuer's keys cannot be had, so nothing can be said about its token."""


class IssuerSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One issuer for one audience, and what its claims mean here. `roles` is the ceiling: no other is ever granted."""

    issuer: str
    audience: str
    algorithms: tuple[Algorithm, ...]
    allowed_roles: tuple[RoleName, ...]
    jwks_url: str = ""
    organization: str = ""
    organization_claim: str = ""
    organizations: dict[str, str] = {}
    user_claim: str = ""
    user_suffix: str = ""
    users: dict[str, str] = {}
    role_claim: str = ""
    roles: dict[str, RoleName] = {}
    default_roles: tuple[RoleName, ...] = ()
    application: str = ""
    scope_claim: str = ""
    scopes: dict[str, ScopeName] = {}
    default_scopes: tuple[ScopeName, ...] = ()
    max_lifetime_seconds: float = 86_400.0
    keys_kept_seconds: float = 3_600.0


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    issuers: tuple[IssuerSettings, ...]


class ExternalCaller(msgspec.Struct, frozen=True):
    """Whom a token of another issuer stands for. `organization`, `user` and `application` are ids or empty."""

    token_id: str
    organization: str
    user: str
    application: str
    roles: frozenset[str]
    scopes: frozenset[str]
    expire_time: float


def read_settings(path: Path | None) -> tuple[IssuerSettings, ...]:
    """The issuers that a file of JSON names. Raises ExternalSettingsError."""
    if path is None:
        return ()
    try:
        found = msgspec.json.decode(path.read_bytes(), type=_File).issuers
    except OSError:
        raise ExternalSettingsError(f"{path}: it is not there, or this user may not read it") from None
    except msgspec.MsgspecError as error:
        why = str(error) if isinstance(error, msgspec.ValidationError) else "it cannot be read as JSON"
        raise ExternalSettingsError(f"{path}: {why}") from None
    for number, one in enumerate(found):
        problem = _problem(one)
        if problem:
            raise ExternalSettingsError(f"{path}: issuers[{number}] {problem}")
    pairs = [(one.issuer, one.audience) for one in found]
    if len(set(pairs)) != len(pairs):
        raise ExternalSettingsError(f"{path}: two issuers have the same issuer and audience")
    return found


def _problem(one: IssuerSettings) -> str:
    ids = (one.organization, one.application, *one.organizations.values(), *one.users.values())
    urls = (one.issuer, one.jwks_url) if one.jwks_url else (one.issuer,)
    if not all(_is_safe_url(url) for url in urls):
        return "needs https URLs; http is for this machine only"
    if not one.audience or not one.algorithms or not one.allowed_roles:
        return "needs an audience, algorithms and allowed_roles"
    if bool(one.organization) == bool(one.organization_claim and one.organizations):
        return "needs either organization, or organization_claim with organizations"
    if any(text and not _ID.fullmatch(text) for text in ids):
        return "maps to something that is no id"
    if not {*one.default_roles, *one.roles.values()} <= set(one.allowed_roles):
        return "grants roles beyond allowed_roles"
    if "act_on_behalf" in {*one.default_scopes, *one.scopes.values()} and one.user_claim:
        return "gives users the scope act_on_behalf, which is for services"
    return ""


def _is_safe_url(url: str) -> bool:
    parts = urlsplit(url)
    is_local = parts.scheme == "http" and parts.hostname in ("127.0.0.1", "::1", "localhost")
    return bool(parts.hostname) and not parts.username and (parts.scheme == "https" or is_local)


class Issuers:
    """Every issuer that the deployment trusts, with the keys it is known by."""

    def __init__(self, settings: Sequence[IssuerSettings], clock: Callable[[], float], fetch: Fetch) -> None:
        self._settings = settings
        self._clock = clock
        self._keys = {(one.issuer, one.jwks_url): _Keys(one, clock, fetch) for one in settings}

    def concerns(self, token: str) -> bool:
        """Whether the token says that it comes from one of them. Nothing is proven by that."""
        if not self._settings or len(token) > MOST_TOKEN_CHARACTERS or token.count(".") != 2:
            return False
        try:
            issuer = _read_part(token.split(".")[1]).get("iss")
        except ExternalTokenRefused:
            return False
        return any(one.issuer == issuer for one in self._settings)

    async def verify(self, token: str) -> ExternalCaller:
        """Raises ExternalTokenRefused and IssuerUnavailable."""
        header, unproven = (_read_part(part) for part in token.split(".")[:2])
        one = self._choose(unproven)
        algorithm, key_id = header.get("alg"), header.get("kid")
        if algorithm not in one.algorithms or "crit" in header or not isinstance(key_id, str) or not key_id:
            raise ExternalTokenRefused("token_key")
        key = await self._keys[one.issuer, one.jwks_url].find(key_id, algorithm)
        try:
            claims = jwt.decode(
                token,
                key,
                algorithms=[algorithm],
                audience=one.audience,
                issuer=one.issuer,
                options={
                    "require": ["exp", "iat", "sub", "iss", "aud"],
                    "verify_exp": False,
                    "verify_iat": False,
                    "verify_nbf": False,
                },
            )
        except jwt.InvalidSignatureError:
            raise ExternalTokenRefused("token_signature") from None
        except (jwt.InvalidIssuerError, jwt.InvalidAudienceError):
            raise ExternalTokenRefused("token_issuer") from None
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
            raise ExternalTokenRefused("token_malformed") from None
        return read_claims(claims, one, token, self._clock())

    def _choose(self, unproven: Mapping[str, Any]) -> IssuerSettings:
        audience = unproven.get("aud")
        audiences = audience if isinstance(audience, list) else [audience]
        for one in self._settings:
            if one.issuer == unproven.get("iss") and one.audience in audiences:
                return one
        raise ExternalTokenRefused("token_issuer")


def read_claims(claims: Mapping[str, Any], one: IssuerSettings, token: str, now: float) -> ExternalCaller:
    """Whom proven claims stand for. Raises ExternalTokenRefused."""
    expire_time = _check_times(claims, one, now)
    roles = (set(one.default_roles) | _mapped(claims, one.role_claim, one.roles)) & set(one.allowed_roles)
    if not roles:
        raise ExternalTokenRefused("token_roles")
    scopes = set(one.default_scopes) | _mapped(claims, one.scope_claim, one.scopes)
    if one.scope_claim and not scopes:  # no scopes at all would mean: every scope
        raise ExternalTokenRefused("token_scopes")
    organization = one.organization or one.organizations.get(_text(claims, one.organization_claim), "")
    if not organization:
        raise ExternalTokenRefused("token_organization")
    said = claims.get("jti")
    identity = f"{one.issuer}\0{said}" if isinstance(said, str) and said else f"{one.issuer}\0\0{token}"
    digest = hashlib.sha256(identity.encode("utf-8", "surrogatepass")).digest()[:16]
    return ExternalCaller(
        token_id=base64.urlsafe_b64encode(digest).rstrip(b"=").decode(),
        organization=organization,
        user=_user(claims, one) if one.user_claim else "",
        application=one.application,
        roles=frozenset(roles),
        scopes=frozenset(scopes),
        expire_time=expire_time,
    )


def _check_times(claims: Mapping[str, Any], one: IssuerSettings, now: float) -> float:
    times = [claims["exp"], claims["iat"], claims.get("nbf", claims["iat"])]
    if not all(_is_moment(time) for time in times):
        raise ExternalTokenRefused("token_malformed")
    expires, issued, begins = (float(time) for time in times)
    if max(issued, begins) > now + LEEWAY_SECONDS:
        raise ExternalTokenRefused("token_early")
    expire_time = min(expires + LEEWAY_SECONDS, issued + one.max_lifetime_seconds)
    if not expire_time > now:
        raise ExternalTokenRefused("token_expired")
    return expire_time


def _is_moment(value: object) -> bool:
    """A number that is one: NaN, which JSON's readers take, is before and after nothing, and would never end."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _MOST_SECONDS


def _mapped(claims: Mapping[str, Any], claim: str, meanings: Mapping[str, Any]) -> set[Any]:
    found = claims.get(claim) if claim else None
    words = found.split() if isinstance(found, str) else found if isinstance(found, list) else []
    return {meanings[word] for word in words if isinstance(word, str) and word in meanings}


def _user(claims: Mapping[str, Any], one: IssuerSettings) -> str:
    text = _text(claims, one.user_claim)
    if one.users:
        user = one.users.get(text, "")
    else:
        user = text.removesuffix(one.user_suffix) if text.endswith(one.user_suffix) else ""
    if not _ID.fullmatch(user):
        raise ExternalTokenRefused("token_user")
    return user


def _text(claims: Mapping[str, Any], claim: str) -> str:
    found = claims.get(claim)
    return found if isinstance(found, str) else ""


class _Keys:
    """The public keys of one issuer: kept, refreshed beside the calls, and served for a while when it is away."""

    def __init__(self, settings: IssuerSettings, clock: Callable[[], float], fetch: Fetch) -> None:
        self._settings = settings
        self._clock = clock
        self._fetch = fetch
        self._known: dict[str, dict[str, Any]] = {}
        self._usable: dict[tuple[str, str], jwt.PyJWK] = {}
        self._read_time = float("-inf")
        self._try_time = float("-inf")
        self._lock = asyncio.Lock()
        self._refresh: asyncio.Task[None] | None = None

    async def find(self, key_id: str, algorithm: str) -> jwt.PyJWK:
        """The key of a token's header. Raises ExternalTokenRefused and IssuerUnavailable."""
        age = self._clock() - self._read_time
        if age > self._settings.keys_kept_seconds or key_id not in self._known:
            await self._read_again()
        elif age > KEYS_MAX_AGE_SECONDS and (self._refresh is None or self._refresh.done()):
            self._refresh = asyncio.ensure_future(self._read_again())
        if self._clock() - self._read_time > self._settings.keys_kept_seconds:
            raise IssuerUnavailable
        if key_id not in self._known:
            if self._read_time < self._try_time:
                raise IssuerUnavailable  # it may be a new key of an issuer that cannot be asked
            raise ExternalTokenRefused("token_key")
        return self._key(key_id, algorithm)

    def _key(self, key_id: str, algorithm: str) -> jwt.PyJWK:
        found = self._usable.get((key_id, algorithm))
        if found is not None:
            return found
        data = self._known[key_id]
        if data.get("alg", algorithm) != algorithm or data.get("use", "sig") != "sig" or data.get("kty") == "oct":
            raise ExternalTokenRefused("token_key")
        try:
            key = jwt.PyJWK(data, algorithm)
        except (jwt.PyJWTError, ValueError, TypeError, KeyError):
            raise ExternalTokenRefused("token_key") from None
        if data.get("kty") == "RSA" and key.key.key_size < _LEAST_RSA_BITS:
            raise ExternalTokenRefused("token_key")
        self._usable[key_id, algorithm] = key
        return key

    async def _read_again(self) -> None:
        """Asks the issuer, at most once in a while whoever wants it: strangers choose key ids freely."""
        async with self._lock:
            now = self._clock()
            if now - self._try_time < KEYS_AGAIN_SECONDS:
                return
            self._try_time = now
            try:
                self._known = _read_keys(await self._fetch(await self._url()))
            except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, ValueError, TypeError, KeyError, RecursionError):
                return
            self._usable.clear()
            self._read_time = now

    async def _url(self) -> str:
        if self._settings.jwks_url:
            return self._settings.jwks_url
        base = self._settings.issuer.rstrip("/")
        document = json.loads(await self._fetch(f"{base}/.well-known/openid-configuration"))
        url = document["jwks_uri"]
        if document["issuer"] != self._settings.issuer or not isinstance(url, str) or not _is_safe_url(url):
            raise ValueError("the discovery document is another issuer's")
        return url


def _read_keys(data: bytes) -> dict[str, dict[str, Any]]:
    keys = json.loads(data)["keys"]
    if not isinstance(keys, list) or len(keys) > MOST_KEYS:
        raise ValueError("no list of keys")
    named = [key for key in keys if isinstance(key, dict) and isinstance(key.get("kid"), str)]
    ids = [key["kid"] for key in named]
    return {key["kid"]: key for key in named if ids.count(key["kid"]) == 1}  # of two with one id neither is meant


def _read_part(part: str) -> dict[str, Any]:
    """A part of a token; one that says the same thing twice means different things to different readers."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ExternalTokenRefused("token_malformed")
        return found

    try:
        raw = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
        value = json.loads(raw, object_pairs_hook=unique)
    except (ValueError, RecursionError):
        raise ExternalTokenRefused("token_malformed") from None
    if not isinstance(value, dict):
        raise ExternalTokenRefused("token_malformed")
    return value


async def fetch_document(url: str) -> bytes:
    """Gets a small document. No redirect is followed, and no proxy of the environment is used."""
    async with (
        httpx.AsyncClient(trust_env=False, follow_redirects=False, timeout=FETCH_SECONDS) as client,
        asyncio.timeout(2 * FETCH_SECONDS),
        client.stream("GET", url, headers={"accept": "application/json"}) as answer,
    ):
        answer.raise_for_status()
        found = b""
        async for chunk in answer.aiter_bytes():
            found += chunk
            if len(found) > MOST_DOCUMENT_BYTES:
                raise ValueError("the document is too large")
        return found
