"""Callers with client certificates: whom the connection's certificate stands for, and the proof that comes beside it.

The certificate proves the caller to this router and to nobody else, so without a proof no key is leased for it. A proof
counts only on a connection with its own certificate: who has read it on its way can do nothing with it.
"""

from functools import lru_cache
from typing import Any

from cryptography import x509

from router_service.core.caller import Caller
from router_service.core.faults import Fault
from router_service.transport.interceptors.tokens import Verifier, as_caller, unknown
from router_service.workloads import CertificateRefused, Workload, Workloads

_ADVICE = {
    "certificate_chain": "Your certificate does not come from an authority that is trusted for callers here.",
    "certificate_domain": "Your certificate's SPIFFE id is of another trust domain.",
    "certificate_expired": "Your certificate is not valid now; get a new one.",
    "certificate_name": "Your certificate must have exactly one URI name, which is a SPIFFE id.",
    "certificate_unmapped": "The operator has mapped your certificate's SPIFFE id to nobody.",
}
_PROOF_ADVICE = "Your proof does not do: sign a new one with your certificate's key."


class Callers:
    """Tells who calls, by token, by certificate, or by both where they agree."""

    def __init__(self, verifier: Verifier, workloads: Workloads) -> None:
        self._verifier = verifier
        self._workloads = workloads

    async def identify(self, token: str, certificate: x509.Certificate | None) -> Caller:
        """Raises Fault CALLER_UNKNOWN. `token` is empty where none was sent."""
        if certificate is None:
            if self._workloads.concerns(token):
                self._prove(token)
                raise unknown("certificate_missing", "A proof counts only on a connection with its certificate.")
            return await self._verifier.verify(token)
        shown = self._show(certificate)
        if not token:
            return as_caller(shown.caller, "")
        if self._workloads.concerns(token):
            if self._prove(token).certificate_hash != shown.certificate_hash:
                raise _mismatch()
            return as_caller(self._prove(token).caller, token)
        found = await self._verifier.verify(token)
        if not _agrees(found, as_caller(shown.caller, "")):
            raise _mismatch()
        return found

    def _prove(self, proof: str) -> Workload:
        try:
            return self._workloads.verify(proof)
        except CertificateRefused as refused:
            raise _refused(refused) from None

    def _show(self, certificate: x509.Certificate) -> Workload:
        try:
            return self._workloads.identify(certificate)
        except CertificateRefused as refused:
            raise _refused(refused) from None


def peer_certificate(context: Any) -> x509.Certificate | None:
    """The client certificate of the connection, which its handshake has proven."""
    values = context.auth_context().get("x509_pem_cert", ())
    return _parse(bytes(next(iter(values)))) if values else None


@lru_cache(maxsize=256)
def _parse(pem: bytes) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pem)


def _agrees(found: Caller, shown: Caller) -> bool:
    is_same = found.organization == shown.organization and found.user == shown.user
    return is_same and shown.application in ("", found.application)


def _mismatch() -> Fault:
    message = (
        "Your token or proof is of somebody else than your connection's certificate; send one of the two, or your own."
    )
    return unknown("certificate_mismatch", message)


def _refused(refused: CertificateRefused) -> Fault:
    return unknown(refused.cause, _ADVICE.get(refused.cause, _PROOF_ADVICE))
