"""Callers' tokens: verified with the credential service's public keys, and remembered by digest until they expire."""

import hashlib
from collections.abc import Awaitable, Callable
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from keyswitch.vault.v1 import token_service_pb2

from router_service import external
from router_service.core.caller import Caller
from router_service.core.faults import Fault, Reason
from router_service.core.secret import Secret
from router_service.external import ExternalCaller, ExternalTokenRefused, Issuers, IssuerUnavailable

AUDIENCE = "keyswitch"
LEEWAY_SECONDS = 5.0
MOST_CACHED = 10_000
KEYS_AGAIN_SECONDS = 1.0
KEYS_GRACE_SECONDS = 300.0

FetchKeys = Callable[[], Awaitable[token_service_pb2.GetSigningKeysResponse]]


class Verifier:
    """Verifies callers' tokens with the credential service's public keys. It cannot make one."""

    def __init__(
        self,
        issuer: Callable[[], str],
        fetch_keys: FetchKeys,
        clock: Callable[[], float],
        issuers: Issuers | None = None,
    ) -> None:
        self._issuer = issuer
        self._issuers = issuers
        self._fetch_keys = fetch_keys
        self._clock = clock
        self._keys: dict[str, Ed25519PublicKey] = {}
        self._keys_time = float("-inf")
        self._keys_max_age = 0.0
        self._verified: dict[bytes, Caller] = {}
        self._revoked: dict[str, float] = {}

    def revoke(self, token_id: str, expire_time: float) -> None:
        """A token was revoked: it is refused until it would have expired by itself."""
        now = self._clock()
        self._revoked = {known: until for known, until in self._revoked.items() if until + LEEWAY_SECONDS > now}
        self._revoked[token_id] = expire_time
        self._verified = {key: known for key, known in self._verified.items() if known.token_id != token_id}

    async def verify(self, token: str) -> Caller:
        """The identity that a token proves. Raises Fault CALLER_UNKNOWN."""
        if not token:
            raise unknown("token_missing", "Send your token as metadata: `authorization: Bearer <token>`.")
        digest = hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
        found = self._verified.get(digest)
        now = self._clock()
        if found is not None and found.expire_time > now:
            return found
        self._verified.pop(digest, None)
        issuers = self._issuers
        if issuers is not None and issuers.concerns(token):
            found = await _check_external(issuers, token)
        else:
            found = await self._check(token, now)
        if found.token_id in self._revoked:
            raise unknown("token_revoked", "Your token was revoked; ask an administrator for another one.")
        if len(self._verified) >= MOST_CACHED:
            self._verified.clear()
        self._verified[digest] = found
        return found

    async def _check(self, token: str, now: float) -> Caller:
        key = await self._key_of(token, now)
        try:
            claims = jwt.decode(
                token,
                key,
                algorithms=["EdDSA"],
                audience=AUDIENCE,
                issuer=self._issuer(),
                options={
                    "require": ["exp", "iat", "jti", "sub", "iss", "aud"],
                    "verify_exp": False,
                    "verify_iat": False,
                },
            )
        except jwt.InvalidTokenError:
            raise unknown("token_invalid", "Your token is not one of this deployment; get one from it.") from None
        expire_time = float(claims["exp"])
        if expire_time <= now:
            raise unknown("token_expired", "Your token has expired; ask for a new one.")
        return _caller(claims, token, expire_time)

    async def _key_of(self, token: str, now: float) -> Ed25519PublicKey:
        try:
            key_id = str(jwt.get_unverified_header(token).get("kid", ""))
        except (jwt.InvalidTokenError, RecursionError):
            raise unknown("token_malformed", "This is no token; send `authorization: Bearer <token>`.") from None
        age = now - self._keys_time
        if age > self._keys_max_age or (key_id not in self._keys and age > KEYS_AGAIN_SECONDS):
            try:
                await self._load_keys(now)
            except Fault:
                # While the keys cannot be asked for, what is known of them serves as long again as leases in hand do.
                if key_id not in self._keys or age > self._keys_max_age + KEYS_GRACE_SECONDS:
                    raise
        if key_id not in self._keys:
            raise unknown("token_invalid", "Your token is not one of this deployment; get one from it.")
        return self._keys[key_id]

    async def _load_keys(self, now: float) -> None:
        answer = await self._fetch_keys()
        self._keys = {
            key.key_id: Ed25519PublicKey.from_public_bytes(key.public_key)
            for key in answer.signing_keys
            if key.purpose == token_service_pb2.SIGNING_KEY_PURPOSE_TOKEN
        }
        self._keys_time = now
        self._keys_max_age = answer.max_age.seconds


def _caller(claims: dict[str, Any], token: str, expire_time: float) -> Caller:
    subject, organization = str(claims["sub"]), str(claims.get("org", ""))
    return Caller(
        token_id=str(claims["jti"]),
        organization=organization,
        user=subject if organization and subject.startswith(f"{organization}/users/") else "",
        application=str(claims.get("app", "")),
        roles=frozenset(map(str, claims.get("roles", ()))),
        scopes=frozenset(str(claims.get("scope", "")).split()),
        expire_time=expire_time,
        proof=Secret(token),
    )


async def _check_external(issuers: Issuers, token: str) -> Caller:
    try:
        return as_caller(await issuers.verify(token), token)
    except ExternalTokenRefused as refused:
        message = "Your issuer's token does not do here; get a new one, or ask the operator how claims are mapped."
        raise unknown(refused.cause, message) from None
    except IssuerUnavailable:
        message = "Your token's issuer cannot be asked for its keys; the token may be valid: try again soon."
        metadata = {"cause": "issuer_keys"}
        raise Fault(
            Reason.ISSUER_UNAVAILABLE, message, metadata=metadata, retry_after_seconds=external.KEYS_AGAIN_SECONDS
        ) from None


def as_caller(found: ExternalCaller, proof: str) -> Caller:
    """Somebody whom another than the deployment vouches for, by resource names."""
    organization = f"organizations/{found.organization}"
    return Caller(
        token_id=found.token_id,
        organization=organization,
        user=f"{organization}/users/{found.user}" if found.user else "",
        application=f"{organization}/applications/{found.application}" if found.application else "",
        roles=found.roles,
        scopes=found.scopes,
        expire_time=found.expire_time,
        proof=Secret(proof),
    )


def unknown(cause: str, message: str) -> Fault:
    """The fault of a caller that proved nothing."""
    return Fault(Reason.CALLER_UNKNOWN, message, metadata={"cause": cause})
