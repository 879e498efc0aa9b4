"""A verified token of another issuer, or a certificate, as a caller of this service."""

from dataclasses import replace

from cryptography import x509

from vault_service.core.access import Caller, Role, Scope
from vault_service.core.faults import Fault, Reason
from vault_service.core.names import Owner, TokenName
from vault_service.core.tokens import ReadExternal, unknown_caller
from vault_service.external import ExternalCaller, ExternalTokenRefused, Issuers, IssuerUnavailable
from vault_service.workloads import CertificateRefused, Workload, Workloads


def make_reader(issuers: Issuers, workloads: Workloads) -> ReadExternal:
    """Gives what reads a token of one of the issuers or a certificate's proof, and None for what is neither."""

    async def read(token: str) -> Caller | None:
        if workloads.concerns(token):
            return read_proof(workloads, token)
        if not issuers.concerns(token):
            return None
        try:
            return replace(_caller(await issuers.verify(token)), is_external=True)
        except ExternalTokenRefused as refused:
            raise unknown_caller(refused.cause) from None
        except IssuerUnavailable:
            raise Fault(Reason.ISSUER_UNAVAILABLE, {"cause": "issuer_keys"}) from None

    return read


def read_proof(workloads: Workloads, proof: str) -> Caller:
    """Gives whom a proof stands for. Raises CALLER_UNKNOWN."""
    try:
        return _workload(workloads.verify(proof))
    except CertificateRefused as refused:
        raise unknown_caller(refused.cause) from None


def read_certificate(workloads: Workloads, certificate: x509.Certificate) -> Caller:
    """Gives whom a connection's certificate stands for. Raises CALLER_UNKNOWN."""
    try:
        return _workload(workloads.identify(certificate))
    except CertificateRefused as refused:
        raise unknown_caller(refused.cause) from None


def _workload(found: Workload) -> Caller:
    return replace(_caller(found.caller), spiffe_id=found.spiffe_id, certificate_hash=found.certificate_hash)


def _caller(found: ExternalCaller) -> Caller:
    owner = Owner(found.organization)
    user = Owner(found.organization, found.user) if found.user else None
    return Caller(
        token_id=found.token_id,
        subject=str(user or TokenName(owner, found.token_id)),
        owner=owner,
        roles=frozenset(Role(role) for role in found.roles),
        expire_time=found.expire_time,
        user=user,
        application=f"{owner}/applications/{found.application}" if found.application else "",
        scopes=frozenset(Scope(scope) for scope in found.scopes),
    )
