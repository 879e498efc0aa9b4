"""Sealing a secret to the process that will use it, bound to the one use it was leased for.

HPKE has no associated data in this library, so the binding is its `info`. The recipient's key counts only when the
key of an allowed client certificate has signed it: a proxy that ends TLS cannot put its own key in.
"""

import struct
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, hpke
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
from cryptography.x509 import verification

from vault_service.core.faults import Fault, Reason
from vault_service.core.secret import Secret

RECIPIENT_KEY_BYTES = 32
MAX_CHAIN_CERTIFICATES = 5
_BINDING_LABEL = "keyswitch.vault.v1.LeaseBinding"
_RECIPIENT_LABEL = "keyswitch.vault.v1.RecipientKey"
_SUITE = hpke.Suite(hpke.KEM.X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)


@dataclass(frozen=True, slots=True)
class LeaseBinding:
    """What a lease is bound to; keyswitch.vault.v1.LeaseBinding defines the encoding."""

    lease_id: str
    credential_version: str
    provider: str
    origin: str
    expire_time_seconds: int
    recipient_public_key: bytes

    def encode(self) -> bytes:
        """Gives the canonical bytes, which are not the protobuf serialization."""
        texts = (_BINDING_LABEL, self.lease_id, self.credential_version, self.provider, self.origin)
        return b"".join(
            [
                *(_prefixed(text.encode()) for text in texts),
                struct.pack(">Q", self.expire_time_seconds),
                _prefixed(self.recipient_public_key),
            ]
        )


def seal(material: Secret, binding: LeaseBinding) -> bytes:
    """Encrypts to the binding's recipient: the encapsulated key first, then the ciphertext."""
    try:
        return _SUITE.encrypt(material.reveal(), _recipient(binding.recipient_public_key), info=binding.encode())
    except ValueError:
        # A key of low order has no shared secret with anybody.
        raise _rejected("key") from None


@lru_cache(maxsize=256)
def _recipient(public_key: bytes) -> X25519PublicKey:
    return X25519PublicKey.from_public_bytes(public_key)


def recipient_key_statement(recipient_public_key: bytes) -> bytes:
    """Gives the bytes that the client certificate's key signs."""
    return _prefixed(_RECIPIENT_LABEL.encode()) + _prefixed(recipient_public_key)


def check_recipient(
    recipient_public_key: bytes,
    signature: bytes,
    chain: Sequence[x509.Certificate],
    *,
    authorities: Sequence[x509.Certificate],
    allowed_identities: Collection[str],
    time_seconds: float,
) -> str:
    """Gives the SPIFFE id that vouches for the recipient's key. Raises RECIPIENT_KEY_REJECTED.

    `chain` is the client certificate and its intermediates, leaf first.
    """
    if len(recipient_public_key) != RECIPIENT_KEY_BYTES:
        raise _rejected("key")
    if not 1 <= len(chain) <= MAX_CHAIN_CERTIFICATES:
        raise _rejected("chain")
    moment = datetime.fromtimestamp(time_seconds, UTC).replace(tzinfo=None)
    verifier = (
        verification.PolicyBuilder().store(verification.Store(list(authorities))).time(moment).build_client_verifier()
    )
    try:
        verifier.verify(chain[0], list(chain[1:]))
    except verification.VerificationError:
        raise _rejected("chain") from None
    identity = spiffe_id(chain[0])
    if identity not in allowed_identities:
        raise _rejected("identity")
    if not _verifies(chain[0], signature, recipient_key_statement(recipient_public_key)):
        raise _rejected("signature")
    return identity


@lru_cache(maxsize=256)
def spiffe_id(certificate: x509.Certificate) -> str:
    """Gives the certificate's SPIFFE id; empty where it has none or, against the SPIFFE standard, several."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ""
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    return uris[0] if len(uris) == 1 and uris[0].startswith("spiffe://") else ""


def parse_chain(ders: Sequence[bytes]) -> list[x509.Certificate]:
    """Reads the certificates of a request, DER, leaf first."""
    if len(ders) > MAX_CHAIN_CERTIFICATES:
        raise _rejected("chain")
    try:
        return [x509.load_der_x509_certificate(der) for der in ders]
    except ValueError:
        raise _rejected("chain") from None


def _verifies(certificate: x509.Certificate, signature: bytes, statement: bytes) -> bool:
    key = certificate.public_key()
    try:
        match key:
            case Ed25519PublicKey():
                key.verify(signature, statement)
            case ec.EllipticCurvePublicKey():
                key.verify(signature, statement, ec.ECDSA(hashes.SHA256()))
            case rsa.RSAPublicKey():
                scheme = padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=32)
                key.verify(signature, statement, scheme, hashes.SHA256())
            case _:
                return False
    except InvalidSignature:
        return False
    return True


def _rejected(cause: str) -> Fault:
    return Fault(Reason.RECIPIENT_KEY_REJECTED, {"cause": cause})


def _prefixed(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data
