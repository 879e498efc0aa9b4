"""The development authority: certificates for one machine, so that every listener speaks TLS from the first start.

`python -m vault_service.devca --home DIR` makes what is missing, renews what ends within a day, and touches nothing
else. Not for production: whoever can read the authority's key can be any service.
"""

import argparse
import datetime as dt
import ipaddress
import os
import sys
from collections.abc import Callable
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LIFETIME = dt.timedelta(days=30)
RENEW_WITHIN = dt.timedelta(days=1)
SERVICES = ("vault", "router")

Clock = Callable[[], dt.datetime]


def make_development_certificates(home: Path, now: dt.datetime) -> list[Path]:
    """Makes and renews the files; gives those that were written. Idempotent."""
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    written: list[Path] = []
    ca_files = home / "ca.pem", home / "ca-key.pem"
    is_new_ca = not _is_good(*ca_files, now, None)
    if is_new_ca:
        _write(home, "ca", *_make_authority(now), written)
    ca, ca_key = _load(*ca_files)
    for service in SERVICES:
        files = home / f"{service}.pem", home / f"{service}-key.pem"
        if is_new_ca or not _is_good(*files, now, ca):
            _write(home, service, *_make_leaf(service, ca, ca_key, now), written)
    return written


def main(arguments: list[str] | None = None) -> int:
    """Runs from the command line."""
    parser = argparse.ArgumentParser(prog="python -m vault_service.devca", description=__doc__.splitlines()[0])
    parser.add_argument("--home", type=Path, default=Path("./.keyswitch"))
    home = parser.parse_args(arguments).home
    now = dt.datetime.now(dt.UTC)  # noqa: TID251 - the edge: here the time comes in
    written = make_development_certificates(home, now)
    done = ", ".join(path.name for path in written) or "nothing: all are good for more than a day"
    sys.stdout.write(f"development certificates in {home}: wrote {done}\n")
    return 0


def _make_authority(now: dt.datetime) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Keyswitch development authority")])
    usage = _key_usage(is_authority=True)
    certificate = (
        _builder(name, name, key, now)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return certificate, key


def _make_leaf(
    service: str, ca: x509.Certificate, ca_key: ec.EllipticCurvePrivateKey, now: dt.datetime
) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Keyswitch {service}")])
    names = x509.SubjectAlternativeName(
        [
            x509.DNSName("localhost"),
            x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
            x509.UniformResourceIdentifier(f"spiffe://keyswitch/{service}"),
        ]
    )
    purposes = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
    certificate = (
        _builder(name, ca.subject, key, now)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(is_authority=False), critical=True)
        .add_extension(purposes, critical=False)
        .add_extension(names, critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    return certificate, key


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, now: dt.datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(minutes=5))
        .not_valid_after(now + LIFETIME)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _key_usage(*, is_authority: bool) -> x509.KeyUsage:
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


def _is_good(certificate_file: Path, key_file: Path, now: dt.datetime, ca: x509.Certificate | None) -> bool:
    if not (certificate_file.exists() and key_file.exists()):
        return False
    try:
        certificate, key = _load(certificate_file, key_file)
        certificate.verify_directly_issued_by(ca or certificate)
    except Exception:  # noqa: BLE001 - whatever is wrong with a development file, a new one mends it
        return False
    return certificate.public_key() == key.public_key() and certificate.not_valid_after_utc - now > RENEW_WITHIN


def _load(certificate_file: Path, key_file: Path) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = load_pem_private_key(key_file.read_bytes(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TypeError(f"{key_file} is not one of this program's keys")
    return x509.load_pem_x509_certificate(certificate_file.read_bytes()), key


def _write(
    home: Path, name: str, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey, written: list[Path]
) -> None:
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    for path, data, mode in (
        (home / f"{name}-key.pem", pem, 0o600),
        (home / f"{name}.pem", certificate.public_bytes(Encoding.PEM), 0o644),
    ):
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        draft.unlink(missing_ok=True)
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        draft.replace(path)
        written.append(path)


if __name__ == "__main__":
    sys.exit(main())
