"""Sealing: the binding's bytes, what opens, and who may receive."""

import datetime as dt
import hashlib
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes, hpke
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from vault_service.core.faults import Fault, Reason
from vault_service.core.sealing import (
    LeaseBinding,
    check_recipient,
    parse_chain,
    recipient_key_statement,
    seal,
    spiffe_id,
)
from vault_service.core.secret import Secret

NOW = dt.datetime(2026, 11, 21, tzinfo=dt.UTC)
ROUTER = "spiffe://keyswitch/router"
Key = Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


def binding(public_key: bytes = bytes(range(32))) -> LeaseBinding:
    return LeaseBinding(
        lease_id="AAECAwQFBgcICQoLDA0ODw",
        credential_version="organizations/acme/credentials/main/versions/3",
        provider="providers/openai",
        origin="https://api.openai.com",
        expire_time_seconds=1_785_000_000,
        recipient_public_key=public_key,
    )


def test_the_binding_of_the_contracts_example() -> None:
    encoded = binding().encode()
    assert len(encoded) == 201
    expected = "2fa87a8694c25d11e583b2c1a6c3ca10e1385b7a123a650f1972082b55573882"
    assert hashlib.sha256(encoded).hexdigest() == expected


def test_sealed_material_is_the_encapsulated_key_and_then_the_ciphertext() -> None:
    private_key = X25519PrivateKey.generate()
    bound = binding(private_key.public_key().public_bytes_raw())
    sealed = seal(Secret(b"secret"), bound)
    assert len(sealed) == 32 + len(b"secret") + 16
    suite = hpke.Suite(hpke.KEM.X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)
    assert suite.decrypt(sealed, private_key, info=bound.encode()) == b"secret"
    assert seal(Secret(b"secret"), bound) != sealed
    with pytest.raises(InvalidTag):
        suite.decrypt(sealed, private_key, info=bound.encode() + b"x")


def test_a_key_of_low_order_is_refused() -> None:
    with pytest.raises(Fault) as caught:
        seal(Secret(b"secret"), binding(bytes(32)))
    assert caught.value.metadata == {"cause": "key"}


class Authority:
    """Issues certificates for tests."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
        self.certificate = self._sign(self.name, self.key, [], is_authority=True)

    def issue(self, key: Key, *uris: str, expired: bool = False) -> x509.Certificate:
        return self._sign(x509.Name([]), key, list(uris), is_authority=False, expired=expired)

    def _sign(
        self, subject: x509.Name, key: Key, uris: list[str], *, is_authority: bool, expired: bool = False
    ) -> x509.Certificate:
        end = NOW - dt.timedelta(days=1) if expired else NOW + dt.timedelta(days=1)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOW - dt.timedelta(days=2))
            .not_valid_after(end)
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
            .add_extension(
                x509.KeyUsage(not is_authority, False, False, False, False, is_authority, is_authority, False, False),
                critical=True,
            )
        )
        if not is_authority:
            names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(uri) for uri in uris]
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=True).add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
            )
        return builder.sign(self.key, hashes.SHA256())


AUTHORITY = Authority()
PUBLIC = bytes(range(32))


def sign(key: Key, statement: bytes) -> bytes:
    match key:
        case Ed25519PrivateKey():
            return key.sign(statement)
        case ec.EllipticCurvePrivateKey():
            return key.sign(statement, ec.ECDSA(hashes.SHA256()))
        case _:
            scheme = padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=32)
            return key.sign(statement, scheme, hashes.SHA256())


def check(chain: list[x509.Certificate], signature: bytes, public_key: bytes = PUBLIC) -> str:
    return check_recipient(
        public_key,
        signature,
        chain,
        authorities=[AUTHORITY.certificate],
        allowed_identities={ROUTER},
        time_seconds=NOW.timestamp(),
    )


def test_the_statement_is_label_and_key() -> None:
    label = b"keyswitch.vault.v1.RecipientKey"
    assert recipient_key_statement(PUBLIC) == len(label).to_bytes(4, "big") + label + (32).to_bytes(4, "big") + PUBLIC


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP256R1()),
        ec.generate_private_key(ec.SECP384R1()),
        rsa.generate_private_key(public_exponent=65537, key_size=2048),
        Ed25519PrivateKey.generate(),
    ],
    ids=["p256", "p384", "rsa", "ed25519"],
)
def test_the_certificates_key_vouches(key: Key) -> None:
    certificate = AUTHORITY.issue(key, ROUTER)
    assert check([certificate], sign(key, recipient_key_statement(PUBLIC))) == ROUTER
    for signature in (b"", sign(key, recipient_key_statement(bytes(32))), sign(key, PUBLIC)):
        with pytest.raises(Fault) as caught:
            check([certificate], signature)
        assert caught.value.reason is Reason.RECIPIENT_KEY_REJECTED
        assert caught.value.metadata == {"cause": "signature"}


def test_another_authority_another_identity_and_the_past_are_refused() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    signature = sign(key, recipient_key_statement(PUBLIC))
    for chain, cause in (
        ([Authority().issue(key, ROUTER)], "chain"),
        ([AUTHORITY.issue(key, ROUTER, expired=True)], "chain"),
        ([AUTHORITY.issue(key, "spiffe://keyswitch/vault")], "identity"),
        ([AUTHORITY.issue(key, "spiffe://keyswitch/router/x")], "identity"),
        ([AUTHORITY.issue(key, ROUTER, "spiffe://keyswitch/other")], "identity"),
        ([], "chain"),
        ([AUTHORITY.issue(key, ROUTER)] * 6, "chain"),
    ):
        with pytest.raises(Fault) as caught:
            check(chain, signature)
        assert caught.value.metadata == {"cause": cause}
    with pytest.raises(Fault) as caught:
        check([AUTHORITY.issue(key, ROUTER)], signature, public_key=b"short")
    assert caught.value.metadata == {"cause": "key"}


def test_chains_are_read_from_der() -> None:
    certificate = AUTHORITY.issue(ec.generate_private_key(ec.SECP256R1()), ROUTER)
    der = certificate.public_bytes(Encoding.DER)
    assert parse_chain([der]) == [certificate]
    assert spiffe_id(certificate) == ROUTER
    for ders in ([b"no certificate"], [der] * 6):
        with pytest.raises(Fault) as caught:
            parse_chain(ders)
        assert caught.value.metadata == {"cause": "chain"}


def test_a_certificate_without_names_has_no_identity() -> None:
    assert spiffe_id(AUTHORITY.certificate) == ""


def test_development_certificates_pass(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    from vault_service.devca import make_development_certificates

    make_development_certificates(tmp_path, NOW)
    key = load_pem_private_key((tmp_path / "router-key.pem").read_bytes(), password=None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    identity = check_recipient(
        PUBLIC,
        sign(key, recipient_key_statement(PUBLIC)),
        x509.load_pem_x509_certificates((tmp_path / "router.pem").read_bytes()),
        authorities=x509.load_pem_x509_certificates((tmp_path / "ca.pem").read_bytes()),
        allowed_identities={ROUTER},
        time_seconds=NOW.timestamp(),
    )
    assert identity == ROUTER
