"""What a secret is sealed to: this process, this lease, this origin, and nothing else."""

import hashlib
import struct
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, hpke, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, x448
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
from cryptography.x509.oid import NameOID
from keyswitch.vault.v1 import lease_pb2, lease_service_pb2

from router_service.core.faults import Fault, Reason
from router_service.core.secret import Secret
from router_service.credentials.recipient import Recipient, encode_binding

SUITE = hpke.Suite(hpke.KEM.X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)
ORIGIN = "https://api.openai.com"
EXPIRY = 1_785_000_000
LEASE_ID = "AAECAwQFBgcICQoLDA0ODw"
VERSION = "organizations/acme/credentials/main/versions/3"
PROVIDER = "providers/openai"
MATERIAL = lease_pb2.LeasedMaterial(api_key="sk-canary")

SigningKey = ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


@dataclass(frozen=True)
class Identity:
    """A client certificate."""

    key: SigningKey
    key_pem: bytes
    chain_pem: bytes


def issue(key: SigningKey) -> Identity:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "router")])
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(begin).not_valid_after(begin + timedelta(days=1))
    certificate = builder.sign(key, algorithm)
    return Identity(key, pem(key), certificate.public_bytes(serialization.Encoding.PEM))


def pem(key: SigningKey | x448.X448PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


@pytest.fixture(scope="module")
def identity() -> Identity:
    return issue(ed25519.Ed25519PrivateKey.generate())


@pytest.fixture
def recipient(identity: Identity) -> Recipient:
    return Recipient(identity.chain_pem, identity.key_pem)


def seal(
    recipient: Recipient, *, material: bytes = MATERIAL.SerializeToString(), to: bytes = b"", origin: str = ORIGIN
) -> lease_service_pb2.LeaseCredentialResponse:
    """What the credential service answers."""
    public = to or recipient.public_key
    binding = encode_binding(LEASE_ID, VERSION, PROVIDER, origin, EXPIRY, public)
    answer = lease_service_pb2.LeaseCredentialResponse(
        lease_id=LEASE_ID,
        credential_version=VERSION,
        provider=PROVIDER,
        sealed_material=SUITE.encrypt(material, X25519PublicKey.from_public_bytes(public), info=binding),
    )
    answer.expire_time.FromSeconds(EXPIRY)
    return answer


def test_the_binding_is_the_one_that_the_contract_gives_as_its_example() -> None:
    binding = encode_binding(LEASE_ID, VERSION, PROVIDER, ORIGIN, EXPIRY, bytes(range(32)))
    assert len(binding) == 201
    assert hashlib.sha256(binding).hexdigest() == "2fa87a8694c25d11e583b2c1a6c3ca10e1385b7a123a650f1972082b55573882"


def test_no_two_bindings_read_the_same() -> None:
    """The lengths keep a text from running over into the next."""
    key = bytes(32)
    assert encode_binding("a", "bc", "p", "o", 1, key) != encode_binding("ab", "c", "p", "o", 1, key)


@pytest.mark.parametrize(
    "material", [lease_pb2.LeasedMaterial(api_key="sk-canary"), lease_pb2.LeasedMaterial(bearer_token="sk-canary")]
)
def test_what_was_sealed_to_this_process_opens(recipient: Recipient, material: lease_pb2.LeasedMaterial) -> None:
    answer = seal(recipient, material=material.SerializeToString())
    assert recipient.open(answer, VERSION, ORIGIN) == Secret("sk-canary")
    assert recipient.open(answer, f"{VERSION.rpartition('/')[0]}/active", ORIGIN) == Secret("sk-canary")


def refuse(recipient: Recipient, answer: lease_service_pb2.LeaseCredentialResponse, origin: str = ORIGIN) -> Fault:
    with pytest.raises(Fault) as raised:
        recipient.open(answer, answer.credential_version, origin)
    assert raised.value.reason is Reason.CREDENTIALS_UNAVAILABLE
    assert "sk-canary" not in str(raised.value)
    assert raised.value.__cause__ is None
    return raised.value


def test_another_origin_does_not_open(recipient: Recipient) -> None:
    answer = seal(recipient, origin="https://evil.example")
    assert refuse(recipient, answer).metadata == {"cause": "seal_broken"}
    refuse(recipient, seal(recipient), "https://evil.example")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lease_id", "AAECAwQFBgcICQoLDA0ODx"),
        ("credential_version", "organizations/acme/credentials/main/versions/4"),
        ("provider", "providers/evil"),
        ("sealed_material", b""),
        ("sealed_material", b"\0" * 31),
        ("sealed_material", b"\0" * 100),
    ],
)
def test_a_changed_answer_does_not_open(recipient: Recipient, name: str, value: str | bytes) -> None:
    answer = seal(recipient)
    setattr(answer, name, value)
    refuse(recipient, answer)


@pytest.mark.parametrize(
    "name",
    [
        "organizations/acme/credentials/main/versions/4",
        "organizations/acme/credentials/other/versions/3",
        "organizations/acme/credentials/other/versions/active",
        "organizations/harbor/credentials/main/versions/active",
        "organizations/acme/users/ada/credentials/main/versions/active",
        "organizations/acme/credentials/main",
        "",
    ],
)
def test_the_answer_to_another_question_is_not_used(recipient: Recipient, name: str) -> None:
    """It is well sealed: an answer that was given before, or one of a batch, may come in another's place."""
    with pytest.raises(Fault) as raised:
        recipient.open(seal(recipient), name, ORIGIN)
    assert raised.value.reason is Reason.CREDENTIALS_UNAVAILABLE
    assert raised.value.metadata == {"cause": "other_version"}


def test_a_longer_life_does_not_open(recipient: Recipient) -> None:
    answer = seal(recipient)
    answer.expire_time.FromSeconds(EXPIRY + 1)
    refuse(recipient, answer)


def test_every_bit_of_the_sealed_material_counts(recipient: Recipient) -> None:
    answer = seal(recipient)
    sealed = answer.sealed_material
    for place in range(len(sealed)):
        broken = bytearray(sealed)
        broken[place] ^= 1
        answer.sealed_material = bytes(broken)
        refuse(recipient, answer)


def test_another_process_does_not_open(identity: Identity, recipient: Recipient) -> None:
    other = Recipient(identity.chain_pem, identity.key_pem)
    assert other.public_key != recipient.public_key
    refuse(other, seal(recipient))
    refuse(recipient, seal(recipient, to=other.public_key))


@pytest.mark.parametrize(
    "material",
    [
        b"",
        lease_pb2.LeasedMaterial(
            aws_credentials=lease_pb2.AwsCredentials(secret_access_key="sk-canary")
        ).SerializeToString(),
        b"\xff\xff\xff",
    ],
)
def test_material_that_cannot_be_used_is_refused(recipient: Recipient, material: bytes) -> None:
    assert refuse(recipient, seal(recipient, material=material)).metadata == {"cause": "material_kind"}


def statement(public_key: bytes) -> bytes:
    label = b"keyswitch.vault.v1.RecipientKey"
    return struct.pack(">I", len(label)) + label + struct.pack(">I", len(public_key)) + public_key


def test_the_certificate_vouches_for_the_key(identity: Identity, recipient: Recipient) -> None:
    assert isinstance(identity.key, ed25519.Ed25519PrivateKey)
    identity.key.public_key().verify(recipient.signature, statement(recipient.public_key))
    (der,) = recipient.certificate_chain
    assert x509.load_der_x509_certificate(der) == x509.load_pem_x509_certificate(identity.chain_pem)


def test_other_kinds_of_certificate_vouch_too() -> None:
    curve = ec.generate_private_key(ec.SECP256R1())
    made = issue(curve)
    signed = Recipient(made.chain_pem, made.key_pem)
    curve.public_key().verify(signed.signature, statement(signed.public_key), ec.ECDSA(hashes.SHA256()))
    numbers = rsa.generate_private_key(65537, 2048)
    made = issue(numbers)
    signed = Recipient(made.chain_pem, made.key_pem)
    scheme = padding.PSS(padding.MGF1(hashes.SHA256()), 32)
    numbers.public_key().verify(signed.signature, statement(signed.public_key), scheme, hashes.SHA256())


def test_a_key_that_cannot_sign_is_refused(identity: Identity) -> None:
    with pytest.raises(ValueError, match="Ed25519, ECDSA or RSA"):
        Recipient(identity.chain_pem, pem(x448.X448PrivateKey.generate()))
