"""An authority for callers' certificates, which makes good ones and each kind of bad one."""

import datetime as dt
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from keyswitch_client import ClientCertificate

DOMAIN = "callers.example"
HOUR = dt.timedelta(hours=1)
Times = tuple[dt.timedelta, dt.timedelta]


@dataclass
class CallerAuthority:
    """Signs certificates. Each has a key of its own."""

    name: str = "Callers"
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    certificate: x509.Certificate = field(init=False)

    def __post_init__(self) -> None:
        subject = _name(self.name)
        constraints = x509.BasicConstraints(ca=True, path_length=0)
        builder = _builder(subject, subject, self.key, (-HOUR, 24 * HOUR)).add_extension(constraints, critical=True)
        self.certificate = builder.add_extension(_usage(is_authority=True), critical=True).sign(
            self.key, hashes.SHA256()
        )

    @property
    def pem(self) -> bytes:
        """What goes into a trust bundle."""
        return self.certificate.public_bytes(Encoding.PEM)

    def issue(
        self, *uris: str, starts: dt.timedelta = -HOUR, ends: dt.timedelta = HOUR, key: Any = None
    ) -> tuple[bytes, bytes]:
        """A chain and its key, PEM. Without names it has no name extension at all."""
        names = [x509.UniformResourceIdentifier(uri) for uri in uris]
        return self._sign(names, ExtendedKeyUsageOID.CLIENT_AUTH, (starts, ends), key)

    def issue_for_host(self, *hosts: str, ends: dt.timedelta = HOUR) -> tuple[bytes, bytes]:
        """The same for a server of those names."""
        names = [x509.DNSName(host) for host in hosts]
        return self._sign(names, ExtendedKeyUsageOID.SERVER_AUTH, (-24 * HOUR, ends), None)

    def _sign(
        self, names: Sequence[x509.GeneralName], usage: x509.ObjectIdentifier, times: Times, key: Any
    ) -> tuple[bytes, bytes]:
        key = key or ec.generate_private_key(ec.SECP256R1())
        builder = _builder(_name("A caller"), self.certificate.subject, key, times)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_usage(is_authority=False), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        builder = builder.add_extension(issuer, critical=False)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        certificate = builder.sign(self.key, hashes.SHA256())
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return certificate.public_bytes(Encoding.PEM), pem

    def caller(self, path: str, **changes: Any) -> ClientCertificate:
        """A good certificate for a path in the trust domain."""
        return ClientCertificate(*self.issue(f"spiffe://{DOMAIN}/{path}", **changes))


def write_workloads(folder: Path, workloads: list[dict[str, Any]], *authorities: CallerAuthority) -> Path:
    """The file that both services read, with its bundle beside it."""
    (folder / "callers.pem").write_bytes(b"".join(one.pem for one in authorities))
    path = folder / "workloads.json"
    path.write_text(json.dumps({"trust_domain": DOMAIN, "trust_bundle": "callers.pem", "workloads": workloads}))
    return path


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _builder(subject: x509.Name, issuer: x509.Name, key: Any, times: Times) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + times[0])
        .not_valid_after(now + times[1])
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _usage(*, is_authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not is_authority,
        key_cert_sign=is_authority,
        crl_sign=is_authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
