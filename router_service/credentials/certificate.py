"""The router's certificate and key, read anew where their files have changed."""

from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key


@dataclass(frozen=True, slots=True)
class Certificate:
    """What the files held: PEM."""

    authority: bytes
    chain: bytes
    key: bytes = field(repr=False)


def read_certificate(authority: Path, chain: Path, key: Path) -> Certificate:
    """Reads the files. Raises OSError, and ValueError where they are none or do not fit together."""
    found = Certificate(authority.read_bytes(), chain.read_bytes(), key.read_bytes())
    x509.load_pem_x509_certificates(found.authority)
    leaf = x509.load_pem_x509_certificates(found.chain)[0]
    try:
        public_key = load_pem_private_key(found.key, password=None).public_key()
    except TypeError:
        raise ValueError("the key is encrypted") from None
    encoding = Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    if public_key.public_bytes(*encoding) != leaf.public_key().public_bytes(*encoding):
        raise ValueError("the key is not the certificate's")
    return found
