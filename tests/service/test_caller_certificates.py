"""Callers with certificates: both services know them, leases need what they sign, and every forgery is refused."""

import datetime as dt
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import jwt
import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from grpc import StatusCode
from keyswitch.router.v1 import (
    model_service_pb2,
    model_service_pb2_grpc,
    provider_service_pb2,
    provider_service_pb2_grpc,
)
from keyswitch.vault.v1 import audit_pb2, credential_service_pb2
from keyswitch_client import AsyncClient, ClientCertificate, KeyswitchError

from tests.fakes.caller_certificates import DOMAIN, HOUR, CallerAuthority
from tests.service.callers_harness import Callers, running_callers
from tests.service.router_answers import answer
from tests.service.router_harness import ADA, CHAT, DEMO
from tests.service.vault_harness import Client
from tests.service.vault_harness import Refused as VaultRefused

MAIN = f"{DEMO}/credentials/main"
OWN = f"{ADA}/credentials/own"


@pytest.fixture
async def callers(tmp_path: Path) -> AsyncIterator[Callers]:
    async with running_callers(tmp_path) as running:
        yield running


async def refusal(call: Any) -> tuple[StatusCode, str, dict[str, str]]:
    """How a call was refused."""
    with pytest.raises(KeyswitchError) as caught:
        await call
    return caught.value.code, caught.value.reason.removeprefix("ERROR_REASON_"), dict(caught.value.metadata)


def list_models(client: AsyncClient) -> Any:
    return client.call(client.models.ListModels, model_service_pb2.ListModelsRequest())


def get_main(client: AsyncClient) -> Any:
    return client.call(client.credentials.GetCredential, credential_service_pb2.GetCredentialRequest(name=MAIN))


async def test_a_workload_is_served_on_its_organizations_key_without_any_token(callers: Callers) -> None:
    await callers.stack.save_key(MAIN)
    callers.stack.first.script(answer())
    certificate = callers.authority.caller("demo/chat")
    async with callers.client(certificate) as client:
        found = await client.complete("hi")
        assert found.resolution.credential_version == f"{MAIN}/versions/1"
        assert callers.stack.first.received[0].headers["authorization"] == "Bearer sk-main-0123456789"
        assert (await get_main(client)).credential.name == MAIN
    leased = [one for one in await callers.records() if one.action == audit_pb2.AUDIT_ACTION_LEASE]
    assert {one.principal for one in leased} == {CHAT}
    proven = [one.identity for one in await callers.records() if one.identity.subject == certificate.spiffe_id]
    assert {one.proof for one in proven} == {audit_pb2.AUDIT_IDENTITY_PROOF_CERTIFICATE}
    assert all(len(one.certificate_hash) == 32 for one in proven)


async def test_a_person_with_a_certificate_uses_their_own_key(callers: Callers) -> None:
    ada = await callers.stack.vault.issue(DEMO, "MEMBER", user=ADA)
    callers.stack.admin, admin = ada, callers.stack.admin
    await callers.stack.save_key(OWN)
    callers.stack.admin = admin
    callers.stack.first.script(answer())
    async with callers.client(callers.authority.caller("people/ada")) as client:
        assert (await client.complete("hi", application=CHAT)).resolution.credential_version == f"{OWN}/versions/1"


async def test_without_a_proof_a_certificate_gets_no_key_leased(callers: Callers) -> None:
    """The connection proves the caller to the router alone; a router that is captured has nothing else of it."""
    await callers.stack.save_key(MAIN)
    made = callers.authority.caller("demo/chat")
    async with connected(callers, made.chain_pem, made.key_pem) as channel:
        stub: Any = provider_service_pb2_grpc.ProviderServiceStub(channel)
        assert (await stub.ListProviders(provider_service_pb2.ListProvidersRequest())).providers
    async with callers.client(made) as client:
        made.proof = lambda: ""  # type: ignore[method-assign] # a client that makes none
        code, reason, metadata = await refusal(client.complete("hi"))
    assert (code, reason) == (StatusCode.UNAUTHENTICATED, "CALLER_UNKNOWN")
    assert metadata == {"cause": "proof_missing"}
    assert not callers.stack.first.received


async def test_a_proof_is_of_no_use_to_whoever_reads_it(callers: Callers) -> None:
    """What a captured router sees of its callers does for leases in their names, and nowhere else."""
    made, other = callers.authority.caller("demo/chat"), callers.authority.caller("demo/other")
    proof = made.proof()
    expected = (StatusCode.UNAUTHENTICATED, {"cause": "certificate_missing"})
    vault = callers.stack.vault.operator.with_token(proof)
    with pytest.raises(VaultRefused) as caught:
        await vault.call(vault.credentials.GetCredential, credential_service_pb2.GetCredentialRequest(name=MAIN))
    assert (caught.value.code, caught.value.metadata) == expected
    authority = callers.stack.home / "ca.pem"
    plain = f"localhost:{callers.stack.router.port}"
    async with AsyncClient(plain, proof, ca_path=authority) as client:
        code, _, metadata = await refusal(list_models(client))
        assert (code, metadata) == expected
    async with callers.client(other, proof) as client:
        for call in (list_models(client), get_main(client)):
            code, _, metadata = await refusal(call)
            assert (code, metadata) == (StatusCode.UNAUTHENTICATED, {"cause": "certificate_mismatch"})
        with_key = callers.client(callers.authority.caller("demo/chat"), proof)
        async with with_key:
            assert (await refusal(list_models(with_key)))[2] == {"cause": "certificate_mismatch"}


async def test_a_token_beside_a_certificate_must_be_of_the_same(callers: Callers) -> None:
    await callers.stack.save_key(MAIN)
    ada = (await callers.stack.vault.issue(DEMO, "MEMBER", user=ADA)).token
    async with callers.client(callers.authority.caller("people/ada"), ada) as client:
        assert (await get_main(client)).credential.name == MAIN
        assert (await list_models(client)).models
    for path in ("demo/chat", "other/x"):
        async with callers.client(callers.authority.caller(path), ada) as client:
            for call in (get_main(client), list_models(client)):
                code, reason, metadata = await refusal(call)
                assert (code, reason) == (StatusCode.UNAUTHENTICATED, "CALLER_UNKNOWN")
                assert metadata == {"cause": "certificate_mismatch"}
    refused = [one for one in await callers.records() if one.action == audit_pb2.AUDIT_ACTION_AUTHENTICATE]
    assert len([one for one in refused if one.identity.certificate_hash]) == 2


BAD: dict[str, tuple[str, Callable[[CallerAuthority], tuple[bytes, bytes]]]] = {
    "no name": ("certificate_name", lambda by: by.issue()),
    "two names": ("certificate_name", lambda by: by.issue(f"spiffe://{DOMAIN}/demo/a", f"spiffe://{DOMAIN}/demo/b")),
    "no SPIFFE id": ("certificate_name", lambda by: by.issue(f"https://{DOMAIN}/demo/chat")),
    "a query": ("certificate_name", lambda by: by.issue(f"spiffe://{DOMAIN}/demo/chat?as=admin")),
    "dots": ("certificate_name", lambda by: by.issue(f"spiffe://{DOMAIN}/demo/../people/ada")),
    "another domain": ("certificate_domain", lambda by: by.issue("spiffe://elsewhere.example/demo/chat")),
    "mapped to nobody": ("certificate_unmapped", lambda by: by.issue(f"spiffe://{DOMAIN}/people/eve")),
    "only the prefix": ("certificate_unmapped", lambda by: by.issue(f"spiffe://{DOMAIN}/demo")),
}
AT_THE_HANDSHAKE: dict[str, tuple[str, Callable[[CallerAuthority], tuple[bytes, bytes]]]] = {
    "another authority": ("certificate_chain", lambda _: CallerAuthority().issue(f"spiffe://{DOMAIN}/demo/chat")),
    "expired": (
        "certificate_expired",
        lambda by: by.issue(f"spiffe://{DOMAIN}/demo/chat", starts=-2 * HOUR, ends=-dt.timedelta(minutes=1)),
    ),
    "not yet": ("certificate_expired", lambda by: by.issue(f"spiffe://{DOMAIN}/demo/chat", starts=HOUR, ends=2 * HOUR)),
}


@asynccontextmanager
async def connected(callers: Callers, chain: bytes, key: bytes, *, to_vault: bool = False) -> AsyncIterator[Any]:
    """A connection with a certificate that the client library would not even take."""
    secured = grpc.ssl_channel_credentials((callers.stack.home / "ca.pem").read_bytes(), key, chain)
    target = callers.vault_target if to_vault else callers.router_target
    async with grpc.aio.secure_channel(target, secured) as channel:
        yield channel


@pytest.mark.parametrize("name", BAD)
async def test_a_bad_certificate_is_refused_by_both_and_recorded(callers: Callers, name: str) -> None:
    cause, make = BAD[name]
    chain, key = make(callers.authority)
    async with connected(callers, chain, key, to_vault=True) as channel:
        client = Client(channel)
        with pytest.raises(VaultRefused) as caught:
            await client.call(client.credentials.GetCredential, credential_service_pb2.GetCredentialRequest(name=MAIN))
    assert (caught.value.code, caught.value.metadata) == (StatusCode.UNAUTHENTICATED, {"cause": cause})
    record = (await callers.records())[0]
    assert record.action == audit_pb2.AUDIT_ACTION_AUTHENTICATE
    assert record.identity.certificate_hash
    async with connected(callers, chain, key) as channel:
        stub: Any = model_service_pb2_grpc.ModelServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.ListModels(model_service_pb2.ListModelsRequest())
        assert refused.value.code() is StatusCode.UNAUTHENTICATED
        assert KeyswitchError.from_rpc_error(refused.value).metadata == {"cause": cause}


@pytest.mark.parametrize("name", AT_THE_HANDSHAKE)
async def test_what_no_handshake_lets_in_proves_nothing_as_a_proof_either(callers: Callers, name: str) -> None:
    cause, make = AT_THE_HANDSHAKE[name]
    chain, key = make(callers.authority)
    for to_vault in (False, True):
        async with connected(callers, chain, key, to_vault=to_vault) as channel:
            stub: Any = model_service_pb2_grpc.ModelServiceStub(channel)
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await stub.ListModels(model_service_pb2.ListModelsRequest(), timeout=60)
            assert refused.value.code() is StatusCode.UNAVAILABLE, "there is no connection to be refused on"
    proof = ClientCertificate(chain, key).proof()
    async with callers.client(callers.authority.caller("demo/chat"), proof) as client:
        for call in (list_models(client), get_main(client)):
            code, _, metadata = await refusal(call)
            assert (code, metadata) == (StatusCode.UNAUTHENTICATED, {"cause": cause})
    vault = callers.stack.vault
    with pytest.raises(VaultRefused) as caught:
        await vault.lease.call(
            vault.lease.leases.LeaseCredential, vault.router.request(f"{MAIN}/versions/active", proof, principal=CHAT)
        )
    assert caught.value.metadata == {"cause": cause}
    record = (await callers.records())[0]
    assert (record.action, record.outcome) == (audit_pb2.AUDIT_ACTION_LEASE, audit_pb2.AUDIT_OUTCOME_DENIED)


FORGED: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "another's name": ("proof_subject", {"sub": f"spiffe://{DOMAIN}/people/ada"}, {}),
    "another audience": ("proof_malformed", {"aud": "elsewhere"}, {}),
    "made tomorrow": ("proof_early", {"iat": 1 << 32, "exp": 1 << 33}, {}),
    "over": ("proof_expired", {"iat": 1_000_000, "exp": 1_000_300}, {}),
    "good for ever": ("proof_expired", {"iat": 1_000_000, "exp": 1 << 33}, {}),
    "good for longer than there are years": ("proof_malformed", {"exp": 1 << 60}, {}),
    "no chain": ("certificate_chain", {}, {"x5c": []}),
    "a critical header": ("token_malformed", {}, {"crit": ["b64"]}),
}


@pytest.mark.parametrize("name", [*FORGED, "another key"])
async def test_a_forged_proof_is_refused(callers: Callers, name: str) -> None:
    made, other = callers.authority.caller("demo/chat"), callers.authority.caller("demo/chat")
    claims = jwt.decode(made.proof(), options={"verify_signature": False})
    headers = jwt.get_unverified_header(made.proof())
    cause, changed_claims, changed_headers = FORGED.get(name, ("proof_signature", {}, {}))
    key: Any = load_pem_private_key((other if name == "another key" else made).key_pem, password=None)
    forged = jwt.encode({**claims, **changed_claims}, key, algorithm="ES256", headers={**headers, **changed_headers})
    async with callers.client(made, forged) as client:
        for call in (list_models(client), get_main(client)):
            code, reason, metadata = await refusal(call)
            assert (code, reason) == (StatusCode.UNAUTHENTICATED, "CALLER_UNKNOWN")
            assert metadata == {"cause": cause}
