"""The process's own key: what secrets are sealed to. Made at start, never written down, gone with the process."""

import struct
from collections.abc import Sequence

from cryptography import x509
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes, hpke, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from google.protobuf.message import DecodeError
from keyswitch.vault.v1 import lease_pb2, lease_service_pb2

from router_service.core.faults import Fault, Reason
from router_service.core.secret import AwsKeyPair, BearerToken, Secret

_SUITE = hpke.Suite(hpke.KEM.X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)


class Recipient:
    """An X25519 key pair, with the client certificate's signature over its public half (LeaseCredentialRequest)."""

    def __init__(self, certificate_chain_pem: bytes, private_key_pem: bytes) -> None:
        self._private_key = X25519PrivateKey.generate()
        self.public_key = self._private_key.public_key().public_bytes_raw()
        signed = _prefixed(b"keyswitch.vault.v1.RecipientKey") + _prefixed(self.public_key)
        self.signature = _sign(private_key_pem, signed)
        self.certificate_chain: Sequence[bytes] = tuple(
            certificate.public_bytes(serialization.Encoding.DER)
            for certificate in x509.load_pem_x509_certificates(certificate_chain_pem)
        )

    def open(self, lease: lease_service_pb2.LeaseCredentialResponse, name: str, origin: str) -> Secret:
        """The material of a lease. Opens only what was sealed to this process for this origin, and is of the version
        that was asked for by `name`: an answer to another question is as well sealed as this one's."""
        if not _answers(lease.credential_version, name):
            message = "The credential service's answer is to another question; it was not used."
            raise Fault(Reason.CREDENTIALS_UNAVAILABLE, message, metadata={"cause": "other_version"})
        binding = encode_binding(
            lease.lease_id,
            lease.credential_version,
            lease.provider,
            origin,
            lease.expire_time.seconds,
            self.public_key,
        )
        try:
            opened = _SUITE.decrypt(lease.sealed_material, self._private_key, info=binding)
        except (InvalidTag, ValueError):
            message = "The credential service's answer is not sealed to this process for this use; it was not used."
            metadata = {"cause": "seal_broken"}
            raise Fault(Reason.CREDENTIALS_UNAVAILABLE, message, metadata=metadata) from None
        try:
            material = lease_pb2.LeasedMaterial.FromString(opened)
        except DecodeError:
            material = lease_pb2.LeasedMaterial()
        match material.WhichOneof("material"):
            case "api_key":
                return Secret(material.api_key)
            case "bearer_token":
                return BearerToken(material.bearer_token)
            case "aws_credentials" if material.aws_credentials.access_key_id:
                pair = material.aws_credentials
                return AwsKeyPair(pair.access_key_id, pair.secret_access_key, pair.session_token, pair.region)
            case _:
                message = "The credential is of a kind that this router cannot use; upgrade the router."
                metadata = {"cause": "material_kind"}
                raise Fault(Reason.CREDENTIALS_UNAVAILABLE, message, metadata=metadata)


def _answers(version: str, name: str) -> bool:
    """Whether this version is what was asked for: by its number, or as the active one of its credential."""
    credential, _, wanted = name.rpartition("/")
    return version == name or (wanted == "active" and version.rpartition("/")[0] == credential)


def encode_binding(
    lease_id: str, credential_version: str, provider: str, origin: str, expire_seconds: int, recipient: bytes
) -> bytes:
    """The encoding that LeaseBinding in lease.proto defines."""
    texts = ("keyswitch.vault.v1.LeaseBinding", lease_id, credential_version, provider, origin)
    encoded = b"".join(_prefixed(text.encode()) for text in texts)
    return encoded + struct.pack(">Q", expire_seconds) + _prefixed(recipient)


def _prefixed(value: bytes) -> bytes:
    return struct.pack(">I", len(value)) + value


def _sign(private_key_pem: bytes, payload: bytes) -> bytes:
    key = serialization.load_pem_private_key(private_key_pem, password=None)
    match key:
        case ed25519.Ed25519PrivateKey():
            return key.sign(payload)
        case ec.EllipticCurvePrivateKey():
            return key.sign(payload, ec.ECDSA(hashes.SHA256()))
        case rsa.RSAPrivateKey():
            return key.sign(payload, padding.PSS(padding.MGF1(hashes.SHA256()), 32), hashes.SHA256())
        case _:
            raise ValueError("the client certificate's key must be Ed25519, ECDSA or RSA")
