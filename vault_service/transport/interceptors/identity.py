"""Who calls: proven by a token or a client certificate to the management plane, by a certificate on the lease listener.

What is refused here is recorded by the interceptor around this one.
"""

import hashlib
from collections.abc import Collection
from functools import lru_cache
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from keyswitch.vault.v1 import audit_pb2

from vault_service.audit.recorder import Actor
from vault_service.core.access import Caller
from vault_service.core.faults import Fault, Reason
from vault_service.core.sealing import spiffe_id
from vault_service.core.tokens import Verifier, unknown_caller
from vault_service.external_callers import read_certificate
from vault_service.transport.calls import peer_address, set_actor, set_caller, set_certificate
from vault_service.transport.interceptors.wrap import AroundInterceptor, Behaviour, Context, is_infrastructure
from vault_service.workloads import Workloads

OPEN_METHODS = frozenset({"/keyswitch.vault.v1.TokenService/GetSigningKeys"})


class CallerIdentityInterceptor(AroundInterceptor):
    """Lets only bearers of valid tokens, and holders of certificates that are mapped, pass."""

    def __init__(self, verifier: Verifier, workloads: Workloads) -> None:
        self._verifier = verifier
        self._workloads = workloads

    def around(self, method: str, behaviour: Behaviour) -> Behaviour:
        if method in OPEN_METHODS or is_infrastructure(method):
            return behaviour

        async def run(request: Any, context: Context) -> Any:
            peer = peer_address(context)
            set_actor(Actor(peer=peer))
            caller = await self._identify(context, peer)
            set_caller(caller)
            set_actor(caller_actor(caller, peer))
            return await behaviour(request, context)

        return run

    async def _identify(self, context: Context, peer: str) -> Caller:
        certificate, token = peer_certificate(context), _bearer_token(context)
        if certificate is None:
            caller = await self._verifier.verify(token)
            if caller.certificate_hash:  # a proof is of no use to whoever has read it on its way
                raise unknown_caller("certificate_missing")
            return caller
        set_actor(Actor(certificate_hash=_hash(certificate), peer=peer))
        shown = read_certificate(self._workloads, certificate)
        set_actor(caller_actor(shown, peer))
        if not token:
            return shown
        caller = await self._verifier.verify(token)
        if not _agrees(caller, shown):
            raise unknown_caller("certificate_mismatch")
        return caller


class CertificateIdentityInterceptor(AroundInterceptor):
    """Lets only allow-listed client certificates pass. The handshake has proven the certificate."""

    def __init__(self, allowed_identities: Collection[str]) -> None:
        self._allowed_identities = allowed_identities

    def around(self, method: str, behaviour: Behaviour) -> Behaviour:
        if method in OPEN_METHODS or is_infrastructure(method):
            return behaviour

        async def run(request: Any, context: Context) -> Any:
            certificate = peer_certificate(context)
            set_certificate(certificate)
            identity = spiffe_id(certificate) if certificate else ""
            actor = Actor(
                subject=identity,
                proof=audit_pb2.AUDIT_IDENTITY_PROOF_CERTIFICATE,
                certificate_hash=_hash(certificate) if certificate else b"",
                peer=peer_address(context),
            )
            set_actor(actor)
            if identity not in self._allowed_identities:
                raise Fault(Reason.CALLER_NOT_ALLOWED, {"cause": "identity"})
            return await behaviour(request, context)

        return run


def caller_actor(caller: Caller, peer: str) -> Actor:
    """Gives how a caller stands in the audit log."""
    if caller.certificate_hash:
        proof = audit_pb2.AUDIT_IDENTITY_PROOF_CERTIFICATE
        return Actor(caller.spiffe_id, proof, certificate_hash=caller.certificate_hash, peer=peer)
    is_external = caller.is_external
    proof = audit_pb2.AUDIT_IDENTITY_PROOF_EXTERNAL_TOKEN if is_external else audit_pb2.AUDIT_IDENTITY_PROOF_TOKEN
    return Actor(subject=caller.subject, proof=proof, token_id=caller.token_id, peer=peer)


def peer_certificate(context: Context) -> x509.Certificate | None:
    """Gives the client certificate of the connection."""
    values = context.auth_context().get("x509_pem_cert", ())
    return _parse(bytes(next(iter(values)))) if values else None


@lru_cache(maxsize=64)
def _parse(pem: bytes) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pem)


@lru_cache(maxsize=64)
def _hash(certificate: x509.Certificate) -> bytes:
    return hashlib.sha256(certificate.public_bytes(Encoding.DER)).digest()


def _agrees(caller: Caller, shown: Caller) -> bool:
    """Whether a token or a proof is of whom the connection's certificate stands for."""
    if caller.certificate_hash:
        return caller.certificate_hash == shown.certificate_hash
    is_same = caller.owner == shown.owner and caller.user == shown.user
    return is_same and shown.application in ("", caller.application)


def _bearer_token(context: Context) -> str:
    """Gives the token's text; empty where none was sent."""
    values = [value for key, value in context.invocation_metadata() or () if key == "authorization"]
    if not values:
        return ""
    scheme, _, token = str(values[0]).partition(" ")
    if len(values) > 1 or scheme.lower() != "bearer" or not token.strip():
        raise unknown_caller("token_malformed")
    return token.strip()
