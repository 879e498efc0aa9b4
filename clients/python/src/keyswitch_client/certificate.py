"""A caller's certificate: what the connection shows, and the proof that is signed with its key for every few minutes.

The connection proves the caller to the service that it ends at. For a key that is somebody's own the router asks the
credential service in the caller's name, and to that one only something signed proves the caller.
"""

from __future__ import annotations

import base64
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

PROOF_TYPE = "keyswitch-proof+jwt"
AUDIENCE = "keyswitch"
LIFETIME_SECONDS = 300
RENEW_SECONDS = 120.0


class ClientCertificate:
    """A certificate with its chain, leaf first, and its private key, both PEM. Needs `cryptography` and `PyJWT`."""

    def __init__(self, chain_pem: bytes, key_pem: bytes, *, clock: Callable[[], float] = time.time) -> None:
        from cryptography import x509
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

        chain = x509.load_pem_x509_certificates(chain_pem)
        key = load_pem_private_key(key_pem, password=None)
        encoding = Encoding.DER, PublicFormat.SubjectPublicKeyInfo
        if key.public_key().public_bytes(*encoding) != chain[0].public_key().public_bytes(*encoding):
            raise ValueError("the private key is not the certificate's")
        names = chain[0].extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
        if len(uris) != 1 or not uris[0].startswith("spiffe://"):
            raise ValueError("the certificate needs exactly one URI name, which is a SPIFFE id")
        self.chain_pem = chain_pem
        self.key_pem = key_pem
        self.spiffe_id = uris[0]
        self._key = key
        self._algorithm = _algorithm(key)
        self._x5c = [base64.b64encode(one.public_bytes(Encoding.DER)).decode() for one in chain]
        self._clock = clock
        self._proof = ""
        self._sign_time = float("-inf")
        self._lock = threading.Lock()

    @classmethod
    def read(cls, certificate_path: Path | str, key_path: Path | str) -> ClientCertificate:
        """From two files of PEM."""
        return cls(Path(certificate_path).read_bytes(), Path(key_path).read_bytes())

    def proof(self) -> str:
        """A proof that is good for three minutes at least."""
        with self._lock:
            now = self._clock()
            if not 0 <= now - self._sign_time < RENEW_SECONDS:
                self._proof, self._sign_time = self._sign(now), now
            return self._proof

    def _sign(self, now: float) -> str:
        import jwt

        claims = {
            "aud": AUDIENCE,
            "sub": self.spiffe_id,
            "iat": int(now),
            "exp": int(now) + LIFETIME_SECONDS,
            "jti": str(uuid.uuid4()),
        }
        headers = {"typ": PROOF_TYPE, "x5c": self._x5c}
        return jwt.encode(claims, self._key, algorithm=self._algorithm, headers=headers)  # type: ignore[arg-type] # see _algorithm


def _algorithm(key: PrivateKeyTypes) -> str:
    from cryptography.hazmat.primitives.asymmetric import ec, rsa
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    match key:
        case Ed25519PrivateKey():
            return "EdDSA"
        case ec.EllipticCurvePrivateKey(curve=ec.SECP256R1()):
            return "ES256"
        case ec.EllipticCurvePrivateKey(curve=ec.SECP384R1()):
            return "ES384"
        case rsa.RSAPrivateKey():
            return "PS256"
        case _:
            raise ValueError("the private key must be of P-256, P-384, Ed25519 or RSA")
