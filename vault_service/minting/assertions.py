"""Signed assertions by which an application or a service account proves itself to its token endpoint (RFC 7523)."""

import base64
from collections.abc import Callable
from typing import Any

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

LIFETIME_SECONDS = 300


def load_rsa_key(pem: str) -> rsa.RSAPrivateKey:
    """Reads a private key. Raises ValueError."""
    try:
        key = load_pem_private_key(pem.encode("utf-8", "surrogatepass"), password=None)
    except TypeError:
        raise ValueError("the key is encrypted") from None
    if not isinstance(key, rsa.RSAPrivateKey):
        raise ValueError("the key is no RSA key")  # noqa: TRY004 - a wrong text, not a wrong call
    return key


def load_certificate(pem: str) -> x509.Certificate:
    """Reads a certificate. Raises ValueError."""
    return x509.load_pem_x509_certificate(pem.encode("utf-8", "surrogatepass"))


def sign_assertion(
    key: rsa.RSAPrivateKey,
    claims: dict[str, Any],
    now: float,
    *,
    headers: dict[str, str],
    lifetime_seconds: int = LIFETIME_SECONDS,
    algorithm: str = "RS256",
) -> str:
    """Gives the JWT."""
    times = {"iat": int(now), "exp": int(now) + lifetime_seconds}
    return jwt.encode({**claims, **times}, key, algorithm=algorithm, headers=headers)


def thumbprint(certificate: x509.Certificate) -> str:
    """Gives x5t#S256 (RFC 7515, 4.1.8)."""
    return base64.urlsafe_b64encode(certificate.fingerprint(hashes.SHA256())).rstrip(b"=").decode("ascii")


NewId = Callable[[], str]
