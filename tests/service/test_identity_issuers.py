"""Callers with tokens of a real OpenID Connect server: both services know them, and the credential service as proof."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
import requests
from cryptography.hazmat.primitives.asymmetric import rsa
from grpc import StatusCode
from jwt.algorithms import RSAAlgorithm
from keyswitch.vault.v1 import audit_pb2, audit_service_pb2, credential_service_pb2

from tests.fakes.oauth_server import OauthServer, running_oauth_server
from tests.service.router_answers import Json, answer
from tests.service.router_harness import ADA, CHAT, DEMO, Caller, Refused, Stack, make_call, running_stack
from tests.service.vault_harness import Refused as VaultRefused
from vault_service.external import KEYS_AGAIN_SECONDS, Issuers, fetch_document, read_settings

AUDIENCE = "https://keyswitch.example"
MAIN = f"{DEMO}/credentials/main"
CLAIMS: dict[str, Json] = {
    "person": {"email": "ada@demo.example", "groups": ["engineers"]},
    "stranger": {"email": "ada@elsewhere.example", "groups": ["engineers"]},
    "boss": {"email": "ada@demo.example", "groups": ["operators"]},
}


def signing_key(key_id: str) -> Json:
    """A private key as a JWK."""
    made = RSAAlgorithm.to_jwk(rsa.generate_private_key(public_exponent=65537, key_size=2048), as_dict=True)
    del made["key_ops"]  # says what "use" says
    return {**made, "kid": key_id, "use": "sig", "alg": "RS256"}


def settings(*keys: Json, port: int = 0) -> Json:
    """The server's settings: its clients stand for people, for whose sign-in a test has no browser."""
    clients = [
        {
            "client_id": name,
            "client_secret": "a secret of the tests",
            "token_endpoint_auth_method": "client_secret_post",
            "grant_types": ["client_credentials"],
            "redirect_uris": [],
            "response_types": [],
        }
        for name in CLAIMS
    ]
    return {"clients": clients, "jwks": {"keys": list(keys)}, "claims": CLAIMS, "scopes": ["use"], "port": port}


def sign_in(server: OauthServer, name: str = "person", audience: str = AUDIENCE) -> str:
    """An access token of the server."""
    form = {
        "grant_type": "client_credentials",
        "client_id": name,
        "client_secret": "a secret of the tests",
        "resource": audience,
        "scope": "use",
    }
    return str(requests.post(f"{server.url}/token", data=form, timeout=10).json()["access_token"])


def write_issuers(path: Path, url: str) -> Path:
    """The file that both services read."""
    issuer: dict[str, Any] = {
        "issuer": url,
        "audience": AUDIENCE,
        "algorithms": ["RS256"],
        "allowed_roles": ["member"],
        "organization": "demo",
        "user_claim": "email",
        "user_suffix": "@demo.example",
        "role_claim": "groups",
        "roles": {"engineers": "member"},
    }
    path.write_text(json.dumps({"issuers": [issuer]}))
    return path


@pytest.fixture
def server() -> Iterator[OauthServer]:
    with running_oauth_server(**settings(signing_key("first"))) as running:
        yield running


def stack_with(tmp_path: Path, server: OauthServer) -> Any:
    """Both services, told of the issuer."""
    issuers = write_issuers(tmp_path / "issuers.json", server.url)
    return running_stack(tmp_path, vault_changes={"issuers_file": issuers}, issuers_file=issuers)


async def refused(caller: Caller) -> Refused:
    """The refusal of a call."""
    with pytest.raises(Refused) as caught:
        await caller.complete()
    return caught.value


async def records(stack: Stack) -> list[audit_pb2.AuditRecord]:
    """The audit log."""
    client = stack.vault.operator
    request = audit_service_pb2.ListAuditRecordsRequest(parent="chains/-", page_size=1000)
    return list((await client.call(client.audit.ListAuditRecords, request)).audit_records)


async def test_a_person_of_another_issuer_is_served_on_the_organizations_key(
    tmp_path: Path, server: OauthServer
) -> None:
    async with stack_with(tmp_path, server) as stack:
        await stack.save_key(MAIN)
        stack.first.script(answer())
        token = sign_in(server)
        assert (await stack.caller(token).stream(make_call(application=CHAT))).text == "Hello world"
        assert stack.first.received[0].headers["authorization"] == "Bearer sk-main-0123456789"
        client = stack.vault.operator.with_token(token)
        seen = await client.call(
            client.credentials.GetCredential, credential_service_pb2.GetCredentialRequest(name=MAIN)
        )
        assert seen.credential.name == MAIN
        proofs = {one.identity.proof for one in await records(stack) if one.identity.subject == ADA}
        assert proofs == {audit_pb2.AUDIT_IDENTITY_PROOF_EXTERNAL_TOKEN}


@pytest.mark.parametrize(
    ("name", "audience", "cause"),
    [
        ("stranger", AUDIENCE, "token_user"),
        ("boss", AUDIENCE, "token_roles"),
        ("person", "https://other.example", "token_issuer"),
    ],
)
async def test_what_is_not_mapped_proves_nothing_at_either_service(
    tmp_path: Path, server: OauthServer, name: str, audience: str, cause: str
) -> None:
    async with stack_with(tmp_path, server) as stack:
        token = sign_in(server, name, audience)
        found = await refused(stack.caller(token))
        assert (found.code, found.metadata) == (StatusCode.UNAUTHENTICATED, {"cause": cause})
        client = stack.vault.operator.with_token(token)
        with pytest.raises(VaultRefused) as caught:
            await client.call(client.credentials.GetCredential, credential_service_pb2.GetCredentialRequest(name=MAIN))
        assert (caught.value.code, caught.value.metadata) == (StatusCode.UNAUTHENTICATED, {"cause": cause})


async def test_an_issuer_may_change_its_keys(tmp_path: Path) -> None:
    first, second = signing_key("first"), signing_key("second")
    with running_oauth_server(**settings(first)) as server:
        old = sign_in(server)
        now = float(jwt.decode(old, options={"verify_signature": False})["iat"])
        issuers = Issuers(
            read_settings(write_issuers(tmp_path / "issuers.json", server.url)), lambda: now, fetch_document
        )
        assert (await issuers.verify(old)).user == "ada"
        port = int(server.url.rpartition(":")[2])
    with running_oauth_server(**settings(second, first, port=port)) as again:
        new = sign_in(again)
        assert jwt.get_unverified_header(new)["kid"] == "second"
        now += KEYS_AGAIN_SECONDS
        assert (await issuers.verify(new)).user == "ada"
        assert (await issuers.verify(old)).user == "ada"
    assert (await issuers.verify(new)).user == "ada", "keys in hand serve on"


async def test_an_issuer_that_is_away_is_not_the_callers_fault(tmp_path: Path, server: OauthServer) -> None:
    token = sign_in(server)
    server.process.terminate()
    server.process.wait(10)
    async with stack_with(tmp_path, server) as stack:
        found = await refused(stack.caller(token))
        assert (found.code, found.reason) == (StatusCode.UNAVAILABLE, "ISSUER_UNAVAILABLE")
        assert found.metadata == {"cause": "issuer_keys"}
        assert found.retry_seconds == 5.0
