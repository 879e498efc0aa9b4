"""Certificates of callers: what the file may say, whom an id stands for, and what a change of the files changes."""

import base64
import datetime as dt
import json
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from jwt.warnings import InsecureKeyLengthWarning
from keyswitch_client import ClientCertificate

from tests.fakes.caller_certificates import DOMAIN, CallerAuthority, write_workloads
from vault_service.workloads import (
    LOOK_AGAIN_SECONDS,
    MOST_PROOF_SECONDS,
    CertificateRefused,
    Workloads,
    WorkloadsError,
    read_trust,
)

CHAT: dict[str, Any] = {"spiffe_id": f"spiffe://{DOMAIN}/demo/chat", "organization": "demo", "roles": ["member"]}
ALL: dict[str, Any] = {"spiffe_id": f"spiffe://{DOMAIN}/demo/", "organization": "demo", "roles": ["auditor"]}


class World:
    """A clock that stands still, an authority, and the files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.now = dt.datetime.now(dt.UTC).timestamp()
        self.authority = CallerAuthority()
        self.path = write_workloads(folder, [CHAT, ALL], self.authority)
        self.not_replaced = 0
        self.workloads = Workloads(self.path, lambda: self.now, self.count)

    def count(self) -> None:
        self.not_replaced += 1

    def later(self) -> None:
        self.now += LOOK_AGAIN_SECONDS

    def certificate(self, path: str = "demo/chat", **changes: Any) -> ClientCertificate:
        made = self.authority.caller(path, **changes)
        return ClientCertificate(made.chain_pem, made.key_pem, clock=lambda: self.now)

    def roles(self, path: str) -> frozenset[str]:
        certificate = x509.load_pem_x509_certificate(self.certificate(path).chain_pem)
        return self.workloads.identify(certificate).caller.roles

    def cause(self, proof: str) -> str:
        with pytest.raises(CertificateRefused) as refused:
            self.workloads.verify(proof)
        return refused.value.cause


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_the_id_itself_goes_before_what_it_is_below(world: World) -> None:
    assert world.roles("demo/chat") == {"member"}
    assert world.roles("demo/chat/deeper") == {"auditor"}
    with pytest.raises(CertificateRefused, match="certificate_unmapped"):
        world.roles("demonstration")


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP256R1()),
        ec.generate_private_key(ec.SECP384R1()),
        ed25519.Ed25519PrivateKey.generate(),
        rsa.generate_private_key(public_exponent=65537, key_size=2048),
    ],
    ids=["P-256", "P-384", "Ed25519", "RSA"],
)
def test_a_proof_of_each_kind_of_key(world: World, key: Any) -> None:
    certificate = world.certificate(key=key)
    found = world.workloads.verify(certificate.proof())
    assert found.spiffe_id == certificate.spiffe_id == CHAT["spiffe_id"]
    assert (found.caller.organization, found.caller.roles) == ("demo", frozenset({"member"}))
    assert len(found.caller.token_id) == 22
    assert world.workloads.verify(certificate.proof()) is found, "verified once"


def test_a_proof_ends_with_its_time_and_with_its_certificate(world: World) -> None:
    short = world.certificate(ends=dt.timedelta(minutes=2))
    assert world.workloads.verify(short.proof()).caller.expire_time <= world.now + 120
    proof = world.certificate().proof()
    assert world.workloads.verify(proof).caller.expire_time <= world.now + MOST_PROOF_SECONDS
    world.now += MOST_PROOF_SECONDS
    assert world.cause(proof) == "proof_expired"


def test_a_client_signs_anew_in_time(world: World) -> None:
    certificate = world.certificate()
    first = certificate.proof()
    assert certificate.proof() == first
    world.now += 121
    second = certificate.proof()
    assert second != first
    assert world.workloads.verify(second).certificate_hash == world.workloads.verify(first).certificate_hash


def test_what_no_longer_stands_in_the_file_is_refused_within_a_second(world: World) -> None:
    proof = world.certificate().proof()
    assert world.workloads.verify(proof).caller.roles == {"member"}
    write_workloads(world.folder, [ALL], world.authority)
    world.later()
    assert world.workloads.verify(proof).caller.roles == {"auditor"}
    write_workloads(world.folder, [{**ALL, "spiffe_id": f"spiffe://{DOMAIN}/other/"}], world.authority)
    world.later()
    assert world.cause(proof) == "certificate_unmapped"


def test_another_authority_takes_over_beside_the_old_one(world: World) -> None:
    old, new = world.certificate().proof(), CallerAuthority("New")
    fresh = ClientCertificate(*new.issue(str(CHAT["spiffe_id"])), clock=lambda: world.now).proof()
    assert world.cause(fresh) == "certificate_chain"
    write_workloads(world.folder, [CHAT], world.authority, new)
    world.later()
    assert world.workloads.verify(old).spiffe_id == world.workloads.verify(fresh).spiffe_id
    assert world.workloads.bundle == world.authority.pem + new.pem
    (world.folder / "callers.pem").write_bytes(new.pem)  # the bundle alone
    world.later()
    assert world.cause(old) == "certificate_chain"
    world.workloads.verify(fresh)


def test_broken_files_change_nothing(world: World) -> None:
    proof = world.certificate().proof()
    world.path.write_text("{")
    world.later()
    world.workloads.verify(proof)
    world.later()
    world.workloads.verify(proof)
    assert world.not_replaced == 2
    write_workloads(world.folder, [], world.authority)
    world.later()
    assert world.cause(proof) == "certificate_unmapped"


def test_an_authority_is_no_caller(world: World) -> None:
    with pytest.raises(CertificateRefused, match="certificate_name"):
        world.workloads.identify(world.authority.certificate)


def test_a_certificate_signed_by_a_caller_is_no_callers(world: World) -> None:
    """A leaf that plays authority: the chain is signed all right, and leads nowhere."""
    leaf = world.certificate()
    rogue = CallerAuthority("A caller", key=ec.generate_private_key(ec.SECP256R1()))
    chain, key = rogue.issue(str(CHAT["spiffe_id"]))
    assert world.cause(ClientCertificate(chain + leaf.chain_pem, key).proof()) == "certificate_chain"


def test_a_small_key_and_a_foreign_algorithm_prove_nothing(world: World) -> None:
    small = world.certificate(key=rsa.generate_private_key(public_exponent=65537, key_size=1024))
    with pytest.warns(InsecureKeyLengthWarning):
        proof = small.proof()
    assert world.cause(proof) in ("certificate_chain", "certificate_key")
    good = world.certificate()
    claims = jwt.decode(good.proof(), options={"verify_signature": False})
    headers = jwt.get_unverified_header(good.proof())
    keys: dict[str, Any] = {"HS256": "x" * 32, "none": None}
    for algorithm, key in keys.items():
        forged = jwt.encode(claims, key, algorithm=algorithm, headers={**headers, "alg": algorithm})
        assert world.workloads.concerns(forged)
        assert world.cause(forged) == "proof_signature"


@pytest.mark.parametrize("time", [float("nan"), float("inf"), 10**400, True, "1", None, -float("inf")])
@pytest.mark.parametrize("claim", ["exp", "iat"])
def test_a_time_that_is_none_makes_no_proof_endless(world: World, claim: str, time: object) -> None:
    """JSON's readers take NaN, which is before and after nothing; the certificate's owner may sign it."""
    good = world.certificate()
    claims = jwt.decode(good.proof(), options={"verify_signature": False}) | {claim: time}
    headers = jwt.get_unverified_header(good.proof())
    payload = json.dumps(claims).encode()
    key = load_pem_private_key(good.key_pem, None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert world.cause(jwt.api_jws.encode(payload, key, algorithm=headers["alg"], headers=headers)) == "proof_malformed"


def test_a_header_that_is_nested_without_end_is_no_proof(world: World) -> None:
    nested = base64.urlsafe_b64encode(b"[" * 5000).decode().rstrip("=")
    assert not world.workloads.concerns(f"{nested}.e30.eA")
    assert world.cause(f"{nested}.e30.eA") == "proof_malformed"


def test_a_certificate_that_says_a_thing_twice_is_nobodys(world: World) -> None:
    good = world.certificate()
    headers = jwt.get_unverified_header(good.proof())
    der = base64.b64decode(headers["x5c"][0])
    constraints, usage = bytes.fromhex("0603551d13"), bytes.fromhex("0603551d0f")
    assert der.count(constraints) == der.count(usage) == 1
    twice = base64.b64encode(der.replace(usage, constraints)).decode()
    forged = jwt.encode({}, "x" * 32, algorithm="HS256", headers={**headers, "x5c": [twice], "alg": "HS256"})
    assert world.cause(forged) == "certificate_name"


def test_without_a_file_nobody_is_known(world: World) -> None:
    none = Workloads(None, lambda: world.now)
    assert not none.concerns(world.certificate().proof())
    assert none.bundle == b""
    with pytest.raises(CertificateRefused, match="certificate_unmapped"):
        none.verify(world.certificate().proof())


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"spiffe_id": "spiffe://elsewhere.example/x"}, "no id of the trust domain"),
        ({"spiffe_id": f"spiffe://{DOMAIN}"}, "no path"),
        ({"spiffe_id": f"spiffe://{DOMAIN}/a//b"}, "no id of the trust domain"),
        ({"organization": "Demo"}, "no id"),
        ({"user": "a/b"}, "no id"),
        ({"roles": []}, "no roles"),
        ({"roles": ["operator"]}, "Invalid enum value"),
        ({"user": "ada", "scopes": ["act_on_behalf"]}, "act_on_behalf"),
        ({"typo": 1}, "typo"),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused(world: World, change: dict[str, Any], text: str) -> None:
    path = write_workloads(world.folder, [{**CHAT, **change}], world.authority)
    with pytest.raises(WorkloadsError, match=text):
        read_trust(path)


def test_other_problems_of_the_files(world: World) -> None:
    with pytest.raises(WorkloadsError, match="same spiffe_id"):
        read_trust(write_workloads(world.folder, [CHAT, CHAT], world.authority))
    with pytest.raises(WorkloadsError, match="no file of PEM"):
        read_trust(write_workloads(world.folder, [CHAT]))
    world.path.write_text(json.dumps({"trust_domain": DOMAIN, "trust_bundle": "missing.pem", "workloads": []}))
    with pytest.raises(WorkloadsError, match="cannot be read"):
        read_trust(world.path)
    world.path.write_text(json.dumps({"trust_domain": "A b", "trust_bundle": "callers.pem", "workloads": []}))
    (world.folder / "callers.pem").write_bytes(world.authority.pem)
    with pytest.raises(WorkloadsError, match="trust_domain"):
        read_trust(world.path)
