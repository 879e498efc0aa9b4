"""Caller tokens: JWTs signed with Ed25519 inside the store, verified with its public keys, stored nowhere.

The claims are those of IssueTokenResponse.bearer_token. Time comes from the injected clock, so PyJWT's own check of
`exp` is off and done here.
"""

import base64
import hashlib
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from vault_service.core.access import Caller, Role, Scope
from vault_service.core.changes import ChangeLog
from vault_service.core.faults import Fault, Reason
from vault_service.core.names import Owner, TokenName, parse_tenant, parse_user
from vault_service.store.store import SigningKey, Store

AUDIENCE = "keyswitch"
KEYS_MAX_AGE_SECONDS = 300.0
_KEYS_MIN_AGE_SECONDS = 1.0
_MAX_CACHED = 10_000
_MAX_TOKEN_CHARACTERS = 8192


ReadExternal = Callable[[str], Awaitable[Caller | None]]


async def _no_external(_: str) -> None:
    return None


async def sign_token(store: Store, caller: Caller, *, issuer: str, create_time: float) -> str:
    """Gives the text of a token that says what the caller is. It is not kept."""
    claims = _claims(caller, issuer, create_time)
    key_id = (await store.signing_keys())[0].key_id
    while True:
        header = {"alg": "EdDSA", "typ": "JWT", "kid": key_id}
        signed = f"{_encode(header)}.{_encode(claims)}"
        used_key_id, signature = await store.sign(signed.encode())
        if used_key_id == key_id:
            return f"{signed}.{_base64url(signature)}"
        key_id = used_key_id  # the key was rotated in between


class Verifier:
    """Tells who a token's bearer is. What was verified is remembered by digest until it expires or is revoked."""

    def __init__(
        self,
        store: Store,
        changes: ChangeLog,
        *,
        issuer: str,
        clock: Callable[[], float],
        read_external: ReadExternal = _no_external,
    ) -> None:
        self._store = store
        self._changes = changes
        self._issuer = issuer
        self._clock = clock
        self._read_external = read_external
        self._keys: Mapping[str, Ed25519PublicKey] = {}
        self._keys_time = float("-inf")
        self._verified: dict[bytes, Caller] = {}

    async def verify(self, token: str) -> Caller:
        """Raises CALLER_UNKNOWN with the cause."""
        digest = hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
        caller = self._verified.get(digest)
        if not self._changes.is_loaded:
            await self._changes.refresh()
        if caller is None:
            caller = await self._verify(token)
            if (
                not caller.certificate_hash
            ):  # whom certificates stand for may change, and is remembered where it is read
                self._remember(digest, caller)
        if caller.expire_time <= self._clock():
            self._verified.pop(digest, None)
            raise unknown_caller("token_expired")
        if self._changes.is_revoked(caller.token_id):
            self._verified.pop(digest, None)
            raise unknown_caller("token_revoked")
        return caller

    async def _verify(self, token: str) -> Caller:
        if not token:
            raise unknown_caller("token_missing")
        if len(token) > _MAX_TOKEN_CHARACTERS:
            raise unknown_caller("token_malformed")
        external = await self._read_external(token)
        if external is not None:
            return external
        try:
            key_id = jwt.get_unverified_header(token).get("kid")
            key = await self._key(key_id if isinstance(key_id, str) else "")
            if key is None:
                raise unknown_caller("token_key")
            claims = jwt.decode(
                token,
                key,
                algorithms=["EdDSA"],
                audience=AUDIENCE,
                issuer=self._issuer,
                options={
                    "require": ["exp", "iat", "jti", "sub", "iss", "aud", "roles"],
                    "verify_exp": False,
                    "verify_iat": False,
                    "verify_nbf": False,
                },
            )
        except jwt.InvalidSignatureError:
            raise unknown_caller("token_signature") from None
        except (jwt.InvalidIssuerError, jwt.InvalidAudienceError):
            raise unknown_caller("token_issuer") from None
        except (jwt.PyJWTError, ValueError, RecursionError):
            raise unknown_caller("token_malformed") from None
        return read_claims(claims)

    async def _key(self, key_id: str) -> Ed25519PublicKey | None:
        age_seconds = self._clock() - self._keys_time
        is_new = key_id not in self._keys and age_seconds >= _KEYS_MIN_AGE_SECONDS
        if is_new or age_seconds >= KEYS_MAX_AGE_SECONDS:
            self._keys = _public_keys(await self._store.signing_keys())
            self._keys_time = self._clock()
        return self._keys.get(key_id)

    def _remember(self, digest: bytes, caller: Caller) -> None:
        while len(self._verified) >= _MAX_CACHED:
            del self._verified[next(iter(self._verified))]
        self._verified[digest] = caller


def read_claims(claims: Mapping[str, Any]) -> Caller:
    """Gives the caller that verified claims describe; unknown roles and scopes grant nothing."""
    try:
        owner = parse_tenant(claims["org"]) if claims.get("org") else Owner()
        subject = str(claims["sub"])
        roles = frozenset(role for role in Role if role.value in claims["roles"])
        named_scopes = str(claims.get("scope", "")).split()
        scopes = frozenset(scope for scope in Scope if scope.value in named_scopes)
        if not roles or (named_scopes and not scopes):
            raise unknown_caller("token_roles")
        return Caller(
            token_id=str(claims["jti"]),
            subject=subject,
            owner=owner,
            roles=roles,
            expire_time=float(claims["exp"]),
            user=parse_user(subject, "sub") if "/users/" in subject else None,
            application=str(claims.get("app", "")),
            scopes=scopes,
        )
    except (KeyError, TypeError, ValueError):
        raise unknown_caller("token_malformed") from None
    except Fault as fault:
        cause = "token_malformed" if fault.reason is Reason.INVALID_REQUEST else fault.metadata["cause"]
        raise unknown_caller(cause) from None


def unknown_caller(cause: str) -> Fault:
    """Makes the fault of a caller that proved nothing."""
    return Fault(Reason.CALLER_UNKNOWN, {"cause": cause})


def _claims(caller: Caller, issuer: str, create_time: float) -> dict[str, Any]:
    name = TokenName(caller.owner, caller.token_id)
    claims: dict[str, Any] = {
        "iss": issuer,
        "aud": AUDIENCE,
        "jti": caller.token_id,
        "iat": int(create_time),
        "exp": int(caller.expire_time),
        "sub": str(caller.user) if caller.user else str(name),
        "roles": sorted(role.value for role in caller.roles),
    }
    if not caller.owner.is_deployment:
        claims["org"] = str(caller.owner)
    if caller.application:
        claims["app"] = caller.application
    if caller.scopes:
        claims["scope"] = " ".join(sorted(scope.value for scope in caller.scopes))
    return claims


def _public_keys(keys: Sequence[SigningKey]) -> dict[str, Ed25519PublicKey]:
    return {key.key_id: Ed25519PublicKey.from_public_bytes(key.public_key) for key in keys}


def _encode(value: Mapping[str, Any]) -> str:
    return _base64url(json.dumps(value, separators=(",", ":")).encode())


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
