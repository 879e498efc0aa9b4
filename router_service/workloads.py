"""Callers that prove themselves by a certificate (SPIFFE): who they are here, as the operator has mapped it.

A connection's certificate proves its holder to whoever is at the other end. To the credential service, which the router
asks in the caller's name, a *proof* does: a JWT of a few minutes that the caller signs with the certificate's key, with
the chain in its header. Both services share no code: this file is in both, alike to the byte.
"""

import base64
import hashlib
import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jwt
import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import verification

from .external import LEEWAY_SECONDS, MOST_TOKEN_CHARACTERS, ExternalCaller, RoleName, ScopeName

PROOF_TYPE = "keyswitch-proof+jwt"
PROOF_AUDIENCE = "keyswitch"
MOST_PROOF_SECONDS = 600.0
MOST_CERTIFICATES = 5
LOOK_AGAIN_SECONDS = 1.0
MOST_CACHED = 10_000
_MOST_SECONDS = 1e12
_LEAST_RSA_BITS = 2048
_MOST_ID_CHARACTERS = 2048
_ID = re.compile(r"[a-z][a-z0-9-]{1,61}[a-z0-9]")
_DOMAIN = re.compile(r"[a-z0-9._-]{1,255}")
_SPIFFE_ID = re.compile(r"spiffe://([a-z0-9._-]{1,255})((?:/(?!\.{1,2}(?:/|$))[A-Za-z0-9._-]+)+)")


class WorkloadsError(Exception):
    """The file of workloads cannot be used; the text says why."""


class CertificateRefused(Exception):
    """The certificate or the proof proves nothing here; `cause` says why, in a word."""

    def __init__(self, cause: str) -> None:
        super().__init__(cause)
        self.cause = cause


class WorkloadSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Whom one SPIFFE id stands for, or every id below one that ends with a slash."""

    spiffe_id: str
    organization: str
    roles: tuple[RoleName, ...]
    user: str = ""
    application: str = ""
    scopes: tuple[ScopeName, ...] = ()


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    trust_domain: str
    trust_bundle: str
    workloads: tuple[WorkloadSettings, ...]


@dataclass(frozen=True, slots=True)
class Trust:
    """What the file and the bundle beside it say."""

    domain: str
    bundle_path: Path
    bundle: bytes
    authorities: Sequence[x509.Certificate]
    workloads: tuple[WorkloadSettings, ...]

    def find(self, spiffe_id: str) -> WorkloadSettings:
        """The entry of the id itself, else the longest of those that it is below. Raises CertificateRefused."""
        fitting = [
            one
            for one in self.workloads
            if one.spiffe_id == spiffe_id or (one.spiffe_id.endswith("/") and spiffe_id.startswith(one.spiffe_id))
        ]
        if not fitting:
            raise CertificateRefused("certificate_unmapped")
        return max(fitting, key=lambda one: len(one.spiffe_id))


class Workload(msgspec.Struct, frozen=True):
    """Whom a certificate stands for, and which certificate it was."""

    caller: ExternalCaller
    spiffe_id: str
    certificate_hash: bytes


def read_trust(path: Path) -> Trust:
    """What a file of JSON says; the bundle's path is relative to it. Raises WorkloadsError."""
    try:
        found = msgspec.json.decode(path.read_bytes(), type=_File)
        bundle_path = path.parent / found.trust_bundle
        bundle = bundle_path.read_bytes()
    except (OSError, msgspec.MsgspecError) as error:
        why = str(error) if isinstance(error, msgspec.ValidationError) else "it or its bundle cannot be read"
        raise WorkloadsError(f"{path}: {why}") from None
    try:
        authorities = x509.load_pem_x509_certificates(bundle)
    except ValueError:
        raise WorkloadsError(f"{path}: trust_bundle is no file of PEM certificates") from None
    problem = _problem(found)
    if problem:
        raise WorkloadsError(f"{path}: {problem}")
    return Trust(found.trust_domain, bundle_path, bundle, tuple(authorities), found.workloads)


def _problem(found: _File) -> str:
    if not _DOMAIN.fullmatch(found.trust_domain):
        return "trust_domain is none"
    ids = [one.spiffe_id for one in found.workloads]
    if len(set(ids)) != len(ids):
        return "two workloads have the same spiffe_id"
    for number, one in enumerate(found.workloads):
        whole = one.spiffe_id.removesuffix("/")
        match = _SPIFFE_ID.fullmatch(whole)
        if whole != f"spiffe://{found.trust_domain}" and (match is None or match[1] != found.trust_domain):
            return f"workloads[{number}].spiffe_id is no id of the trust domain"
        if whole == f"spiffe://{found.trust_domain}" and whole == one.spiffe_id:
            return f"workloads[{number}].spiffe_id has no path"
        if not _ID.fullmatch(one.organization) or any(text and not _ID.fullmatch(text) for text in _optional_ids(one)):
            return f"workloads[{number}] maps to something that is no id"
        if not one.roles:
            return f"workloads[{number}] has no roles"
        if one.user and "act_on_behalf" in one.scopes:
            return f"workloads[{number}] gives a user the scope act_on_behalf, which is for services"
    return ""


def _optional_ids(one: WorkloadSettings) -> tuple[str, str]:
    return one.user, one.application


class Workloads:
    """Whom certificates stand for. The files are read anew when they change; broken ones change nothing."""

    def __init__(
        self, path: Path | None, clock: Callable[[], float], on_not_replaced: Callable[[], None] = lambda: None
    ) -> None:
        self._path = path
        self._clock = clock
        self._on_not_replaced = on_not_replaced
        self._looking = threading.Lock()
        self._trust = read_trust(path) if path is not None else None
        self._stamp: tuple[int, ...] = ()  # the first look reads again what may have changed meanwhile
        self._look_time = clock()
        self._verified: dict[bytes, Workload] = {}

    @property
    def bundle(self) -> bytes:
        """The authorities that callers' certificates come from, PEM; empty where none are trusted."""
        trust = self._current()
        return trust.bundle if trust is not None else b""

    def concerns(self, token: str) -> bool:
        """Whether the token says that it is a proof. Nothing is proven by that."""
        if self._path is None or len(token) > MOST_TOKEN_CHARACTERS or token.count(".") != 2:
            return False
        try:
            return jwt.get_unverified_header(token).get("typ") == PROOF_TYPE
        except (jwt.InvalidTokenError, RecursionError):
            return False

    def identify(self, certificate: x509.Certificate) -> Workload:
        """Whom the certificate of a connection stands for; the handshake has proven it. Raises CertificateRefused."""
        trust = self._current()
        if trust is None:
            raise CertificateRefused("certificate_unmapped")
        return _identify(certificate, trust, self._clock())

    def verify(self, proof: str) -> Workload:
        """Whom a proof stands for. Raises CertificateRefused."""
        trust, now = self._current(), self._clock()
        if trust is None:
            raise CertificateRefused("certificate_unmapped")
        digest = hashlib.sha256(proof.encode("utf-8", "surrogatepass")).digest()
        found = self._verified.get(digest)
        if found is None:
            found = _verify(proof, trust, now)
            if len(self._verified) >= MOST_CACHED:
                self._verified.clear()
            self._verified[digest] = found
        if found.caller.expire_time <= now:
            del self._verified[digest]
            raise CertificateRefused("proof_expired")
        return found

    def _current(self) -> Trust | None:
        if self._path is None or self._clock() - self._look_time < LOOK_AGAIN_SECONDS:
            return self._trust
        with self._looking:  # handshakes ask in threads of their own
            self._look_time = self._clock()
            stamp = self._read_stamp()  # before the files: what changes while they are read is seen the next time
            if stamp != self._stamp:
                try:
                    self._trust = read_trust(self._path)
                except WorkloadsError:
                    self._on_not_replaced()
                    return self._trust
                self._stamp = stamp
                self._verified.clear()
        return self._trust

    def _read_stamp(self) -> tuple[int, ...]:
        if self._path is None or self._trust is None:
            return ()
        try:
            stats = [path.stat() for path in (self._path, self._trust.bundle_path)]
        except OSError:
            return ()
        return tuple(part for stat in stats for part in (stat.st_mtime_ns, stat.st_ino, stat.st_size))


def _identify(certificate: x509.Certificate, trust: Trust, now: float) -> Workload:
    spiffe_id = _spiffe_id(certificate, trust.domain)
    if not certificate.not_valid_before_utc.timestamp() <= now < certificate.not_valid_after_utc.timestamp():
        raise CertificateRefused("certificate_expired")
    one = trust.find(spiffe_id)
    digest = hashlib.sha256(certificate.public_bytes(Encoding.DER)).digest()
    caller = ExternalCaller(
        token_id=base64.urlsafe_b64encode(digest[:16]).rstrip(b"=").decode(),
        organization=one.organization,
        user=one.user,
        application=one.application,
        roles=frozenset(one.roles),
        scopes=frozenset(one.scopes),
        expire_time=certificate.not_valid_after_utc.timestamp(),
    )
    return Workload(caller, spiffe_id, digest)


def _spiffe_id(certificate: x509.Certificate, domain: str) -> str:
    """The one id that the standard allows a leaf to have."""
    try:
        extensions = list(certificate.extensions)
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        raise CertificateRefused("certificate_name") from None
    names = [one.value for one in extensions if isinstance(one.value, x509.SubjectAlternativeName)]
    uris = [uri for one in names for uri in one.get_values_for_type(x509.UniformResourceIdentifier)]
    is_authority = any(one.value.ca for one in extensions if isinstance(one.value, x509.BasicConstraints))
    match = _SPIFFE_ID.fullmatch(uris[0]) if len(uris) == 1 and len(uris[0]) <= _MOST_ID_CHARACTERS else None
    if match is None or is_authority:
        raise CertificateRefused("certificate_name")
    if match[1] != domain:
        raise CertificateRefused("certificate_domain")
    return uris[0]


def _verify(proof: str, trust: Trust, now: float) -> Workload:
    try:
        header = jwt.get_unverified_header(proof)
    except (jwt.InvalidTokenError, RecursionError):
        raise CertificateRefused("proof_malformed") from None
    chain = _read_chain(header)
    found = _identify(chain[0], trust, now)
    _check_chain(chain, trust, now)
    algorithm = _algorithm(chain[0])
    if header.get("alg") != algorithm or "crit" in header:
        raise CertificateRefused("proof_signature")
    try:
        claims = jwt.decode(
            proof,
            chain[0].public_key(),  # type: ignore[arg-type] # _algorithm knows the kinds that are left
            algorithms=[algorithm],
            audience=PROOF_AUDIENCE,
            options={"require": ["exp", "iat", "sub", "aud"], "verify_exp": False, "verify_iat": False},
        )
    except jwt.InvalidSignatureError:
        raise CertificateRefused("proof_signature") from None
    except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
        raise CertificateRefused("proof_malformed") from None
    if claims["sub"] != found.spiffe_id:
        raise CertificateRefused("proof_subject")
    expire_time = min(_expire_time(claims, now), found.caller.expire_time)
    return msgspec.structs.replace(found, caller=msgspec.structs.replace(found.caller, expire_time=expire_time))


def _expire_time(claims: dict[str, Any], now: float) -> float:
    expires, issued = claims["exp"], claims["iat"]
    if not (_is_moment(expires) and _is_moment(issued)):
        raise CertificateRefused("proof_malformed")
    if issued > now + LEEWAY_SECONDS:
        raise CertificateRefused("proof_early")
    return float(min(expires + LEEWAY_SECONDS, issued + MOST_PROOF_SECONDS))


def _is_moment(value: object) -> bool:
    """A number that is one: NaN, which JSON's readers take, is before and after nothing, and would never end."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _MOST_SECONDS


def _read_chain(header: dict[str, Any]) -> list[x509.Certificate]:
    texts = header.get("x5c")
    if not isinstance(texts, list) or not 1 <= len(texts) <= MOST_CERTIFICATES:
        raise CertificateRefused("certificate_chain")
    try:
        return [x509.load_der_x509_certificate(base64.b64decode(text, validate=True)) for text in texts]
    except (ValueError, TypeError):
        raise CertificateRefused("certificate_chain") from None


def _check_chain(chain: Sequence[x509.Certificate], trust: Trust, now: float) -> None:
    moment = datetime.fromtimestamp(now, UTC).replace(tzinfo=None)
    store = verification.Store(list(trust.authorities))
    verifier = verification.PolicyBuilder().store(store).time(moment).build_client_verifier()
    try:
        verifier.verify(chain[0], list(chain[1:]))
    except verification.VerificationError:
        raise CertificateRefused("certificate_chain") from None


def _algorithm(certificate: x509.Certificate) -> str:
    """What a proof is signed with follows from the key; its header has no choice."""
    match certificate.public_key():
        case Ed25519PublicKey():
            return "EdDSA"
        case ec.EllipticCurvePublicKey(curve=ec.SECP256R1()):
            return "ES256"
        case ec.EllipticCurvePublicKey(curve=ec.SECP384R1()):
            return "ES384"
        case rsa.RSAPublicKey(key_size=size) if size >= _LEAST_RSA_BITS:
            return "PS256"
        case _:
            raise CertificateRefused("certificate_key")
