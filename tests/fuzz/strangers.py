"""`python -m tests.fuzz.strangers SECONDS`: atheris drives what strangers prove themselves with.

Tokens, proofs with their certificates, key sets of issuers, sealed leases, page tokens, the change log and audit logs.
Where a signature stands before the decoder, the bytes are signed: the owner of a key may be hostile too.
"""

import asyncio
import base64
import contextlib
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import atheris

with atheris.instrument_imports(
    include=[
        "vault_service.core",
        "vault_service.external",
        "vault_service.workloads",
        "router_service",
        "keyswitch_cli",
    ]
):
    from keyswitch_cli import audit_verification

    from router_service.core import faults as router_faults
    from router_service.credentials.recipient import _SUITE, Recipient, encode_binding
    from router_service.transport import pages
    from router_service.transport.interceptors.tokens import Verifier
    from vault_service import external, workloads
    from vault_service.core import changes

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509 import load_pem_x509_certificate
from keyswitch.vault.v1 import lease_service_pb2, token_service_pb2

from tests.fakes.caller_certificates import DOMAIN, CallerAuthority, write_workloads
from tests.fuzz.dispatch import Targets, fuzz
from vault_service.store.store import StoreError

NOW = 1_795_000_000.0
ISSUER = "https://issuer.example"
LOOP = asyncio.new_event_loop()


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class World:
    """Keys, certificates and those who verify them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        authority = CallerAuthority()
        path = f"spiffe://{DOMAIN}/work"
        chain, key = authority.issue(path)
        self.key = load_pem_private_key(key, None)
        self.leaf = load_pem_x509_certificate(chain).public_bytes(Encoding.DER)
        entry = {"spiffe_id": path, "organization": "acme", "user": "ada", "roles": ["member"]}
        self.workloads = workloads.Workloads(write_workloads(folder, [entry], authority), time.time)
        self.issuer_key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.key_set = json.dumps({"keys": [self._public_key()]}).encode()
        settings = external.IssuerSettings(
            issuer=ISSUER, audience="keyswitch", algorithms=("RS256",), jwks_url=f"{ISSUER}/keys", organization="acme",
            user_claim="sub", role_claim="roles", roles={"member": "member"}, allowed_roles=("member",),
        )  # fmt: skip
        self.settings = settings
        self.issuers = external.Issuers([settings], lambda: NOW, self._fetch)
        self.recipient = Recipient(chain, key)
        self.signing_key = Ed25519PrivateKey.generate()
        self.verifier = Verifier(lambda: "keyswitch", self._signing_keys, lambda: NOW)
        self.audit_keys = {"k": self.signing_key.public_key()}

    def _public_key(self) -> dict[str, Any]:
        return {**json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(self.issuer_key.public_key())), "kid": "k"}

    async def _fetch(self, _: str) -> bytes:
        return self.key_set

    async def _signing_keys(self) -> token_service_pb2.GetSigningKeysResponse:
        answer = token_service_pb2.GetSigningKeysResponse()
        answer.max_age.seconds = 10**6
        purpose = token_service_pb2.SIGNING_KEY_PURPOSE_TOKEN
        answer.signing_keys.add(
            key_id="k", public_key=self.signing_key.public_key().public_bytes_raw(), purpose=purpose
        )
        return answer


WORLD = World(Path(tempfile.mkdtemp()))


def _halves(data: bytes) -> tuple[bytes, bytes]:
    """Two parts, which the first byte divides."""
    at = 1 + (data[0] if data else 0)
    return data[1:at], data[at:]


def _bare_token(data: bytes) -> None:
    header, payload = _halves(data)
    token = f"{_base64url(header)}.{_base64url(payload)}.{_base64url(b'x' * 64)}"
    with contextlib.suppress(workloads.CertificateRefused):
        WORLD.workloads.concerns(token)
        WORLD.workloads.verify(token)
    with contextlib.suppress(external.ExternalTokenRefused, external.IssuerUnavailable):
        WORLD.issuers.concerns(token)
        LOOP.run_until_complete(WORLD.issuers.verify(token))
    LOOP.run_until_complete(WORLD.verifier.verify(token))


def _signed_claims(data: bytes) -> None:
    """Of an issuer."""
    token = jwt.api_jws.encode(data, WORLD.issuer_key, algorithm="RS256", headers={"kid": "k"})
    found = LOOP.run_until_complete(WORLD.issuers.verify(token))
    assert NOW < found.expire_time <= NOW + 10 * 86_400


def _signed_proof(data: bytes) -> None:
    """Of a certificate's owner: whatever it says, it ends in time."""
    headers = {"typ": workloads.PROOF_TYPE, "x5c": [base64.b64encode(WORLD.leaf).decode()]}
    token = jwt.api_jws.encode(data, WORLD.key, algorithm="ES256", headers=headers)  # type: ignore[arg-type] # its own
    WORLD.workloads._verified.clear()
    found = WORLD.workloads.verify(token)
    assert found.caller.expire_time <= time.time() + 3700


def _certificate(data: bytes) -> None:
    """One that was never signed, or whose bytes were changed: first where, then to what."""
    leaf = bytearray(WORLD.leaf)
    for place in range(0, min(len(data) - 2, 24), 3):
        leaf[int.from_bytes(data[place : place + 2], "big") % len(leaf)] = data[place + 2]
    for der in (bytes(leaf), data):
        headers = {"typ": workloads.PROOF_TYPE, "alg": "ES256", "x5c": [base64.b64encode(der).decode()]}
        token = f"{_base64url(json.dumps(headers).encode())}.{_base64url(b'{}')}.{_base64url(b'x' * 64)}"
        WORLD.workloads._verified.clear()
        with contextlib.suppress(workloads.CertificateRefused):
            WORLD.workloads.verify(token)


def _key_set(data: bytes) -> None:
    async def fetch(_: str) -> bytes:
        return data

    issuers = external.Issuers([WORLD.settings], lambda: NOW, fetch)
    token = jwt.api_jws.encode(b"{}", WORLD.issuer_key, algorithm="RS256", headers={"kid": "k"})
    claims = _base64url(json.dumps({"iss": ISSUER, "aud": "keyswitch"}).encode())
    LOOP.run_until_complete(issuers.verify(f"{token.split('.')[0]}.{claims}.{token.split('.')[2]}"))


def _lease(data: bytes) -> None:
    """The bytes as they came, and the same sealed rightly by a credential service that lies."""
    lease = lease_service_pb2.LeaseCredentialResponse(lease_id="l", credential_version="v", provider="p")
    key = X25519PublicKey.from_public_bytes(WORLD.recipient.public_key)
    binding = encode_binding("l", "v", "p", "https://o", 0, WORLD.recipient.public_key)
    for lease.sealed_material in (data, _SUITE.encrypt(data, key, info=binding)):
        with contextlib.suppress(router_faults.Fault):
            WORLD.recipient.open(lease, lease.credential_version, "https://o")


def _page_token(data: bytes) -> None:
    pages.read_cursor(data.decode("utf-8", "replace"), ("list",))
    pages.read_cursor(_base64url(data), ("list",))


def _changes(data: bytes) -> None:
    log = changes._decode(data)
    log.since(0, NOW, is_first=True)
    log.appended([changes.OwnerRevoked("o")], NOW)
    changes._encode(log)


def _audit_log(data: bytes) -> None:
    folder = WORLD.folder / "chain"
    folder.mkdir(exist_ok=True)
    records, checkpoints = _halves(data)
    (folder / f"{1:020}.jsonl").write_bytes(records)
    (folder / audit_verification.CHECKPOINTS_FILE).write_bytes(checkpoints)
    (folder.parent / "export").write_bytes(data[1:])
    for path in (folder, folder.parent / "export"):
        verdict = audit_verification.verify(path, WORLD.audit_keys)
        assert not verdict.is_intact
        for finding in verdict.findings:
            finding.what.encode()


REFUSALS = (workloads.CertificateRefused, external.ExternalTokenRefused, external.IssuerUnavailable)
TARGETS: Targets = {
    _bare_token: (router_faults.Fault,),
    _signed_claims: REFUSALS,
    _signed_proof: REFUSALS,
    _certificate: (),
    _key_set: REFUSALS,
    _lease: (),
    _page_token: (router_faults.Fault,),
    _changes: (StoreError,),
    _audit_log: (),
}


def _seeds() -> Iterator[bytes]:
    times = b'"exp":1795000600,"iat":1795000000'
    yield b'%c{"typ":"JWT","alg":"EdDSA","kid":"k"}{"iss":"https://issuer.example","aud":"keyswitch"}' % 37
    yield b'{"iss":"https://issuer.example","aud":"keyswitch","sub":"ada","roles":"member",' + times + b"}"
    yield b'{"sub":"spiffe://%s/work","aud":"%s","exp":NaN,"iat":1e3}' % (
        DOMAIN.encode(),
        workloads.PROOF_AUDIENCE.encode(),
    )
    yield WORLD.key_set
    yield WORLD.leaf
    yield b"\x0a\x05sk-12"
    yield b"W" * 40
    log = changes.Log().appended([changes.OwnerRevoked("o"), changes.TokenRevoked("t", NOW * 2)], NOW)
    yield changes._encode(log)
    record = b'{"name":"chains/a/records/1","previousHash":"' + base64.b64encode(bytes(32)) + b'"}\n'
    checkpoint = b'{"chain":"a","lastRecord":"1","lastHash":"AA==",'
    checkpoint += b'"signTime":"2026-11-27T00:00:00Z","keyId":"k","signature":""}\n'
    yield bytes([len(record)]) + record + checkpoint
    yield b"\x05" + b"[" * 3000
    yield b"[" * 3000


if __name__ == "__main__":
    fuzz(TARGETS, _seeds(), most_bytes=8192)
