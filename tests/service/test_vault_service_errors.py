"""Every reason of the contract, provoked over gRPC, with the metadata of its example."""

import asyncio
import errno
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from google.protobuf import timestamp_pb2
from keyswitch.vault.v1 import (
    audit_service_pb2,
    credential_pb2,
    error_reason_pb2,
    lease_pb2,
)
from keyswitch.vault.v1 import credential_service_pb2 as credentials_pb
from keyswitch.vault.v1 import token_service_pb2 as tokens_pb

from tests.fakes.vault_server import free_port
from tests.service.vault_harness import ACME, ADA, MAIN, ORIGIN, Client, Refused, Vault, running_vault
from tests.suites.fixed_credentials import fixing
from vault_service.audit.sink import SystemFiles
from vault_service.core.refusal_limit import BURST
from vault_service.store import store as stores
from vault_service.store.memory import MemoryStore

PROTO = Path(__file__).parents[2] / "protos" / "keyswitch" / "vault" / "v1" / "error_reason.proto"
REQUEST = "4f7c1a52-1d0e-4b8e-9a77-0c2f8f0f7d11"
ACTIVE = f"{MAIN}/versions/active"
ENDPOINT_PORT = free_port()
ENDPOINT = f"http://127.0.0.1:{ENDPOINT_PORT}"


class ArmedStore(MemoryStore):
    """Fails as it is told to."""

    error: Exception | None = None

    async def read(self, path: str, *, request_id: str = "") -> stores.Document | None:
        if self.error is not None and "/credentials/" in path:
            raise self.error
        return await super().read(path, request_id=request_id)


class ArmedFiles(SystemFiles):
    """A disk that is full when it is told to be."""

    is_full = False

    def write(self, descriptor: int, data: bytes) -> int:
        if self.is_full:
            raise OSError(errno.ENOSPC, "full")
        return super().write(descriptor, data)


class World:
    """A service with an administrator, a member and a credential with an active version."""

    def __init__(self, vault: Vault, store: ArmedStore, files: ArmedFiles, admin: Client, ada: Client) -> None:
        self.vault, self.store, self.files, self.admin, self.ada = vault, store, files, admin, ada

    async def get(self, name: str = MAIN, by: Client | None = None) -> Any:
        client = by or self.admin
        return await client.call(client.credentials.GetCredential, credentials_pb.GetCredentialRequest(name=name))

    async def manage(self, method: str, request: Any) -> Any:
        return await self.admin.call(getattr(self.admin.credentials, method), request)

    async def lease(self, name: str = ACTIVE, **changes: Any) -> Any:
        return await self.vault.take(name, self.ada.token, **changes)

    async def with_store(self, error: Exception) -> Any:
        self.store.error = error
        return await self.get()


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    store, files = ArmedStore(), ArmedFiles()
    issuer = {"issuer": ENDPOINT, "audience": "us", "algorithms": ["ES256"], "allowed_roles": ["member"]}
    issuers_file = tmp_path / "issuers.json"
    issuers_file.write_text(json.dumps({"issuers": [{**issuer, "organization": "acme", "default_roles": ["member"]}]}))
    changes: dict[str, Any] = {"token_endpoints": frozenset({ENDPOINT}), "issuers_file": issuers_file}
    async with running_vault(tmp_path, store=store, files=files, fixed=fixing("fixed"), **changes) as vault:
        admin = await vault.issue(ACME, "ADMIN")
        ada = await vault.issue(ACME, "MEMBER", user=ADA)
        await vault.ready(admin)
        yield World(vault, store, files, admin, ada)


async def invalid_request(world: World) -> Any:
    return await world.vault.create(world.admin, f"{ACME}/credentials/x", plan="No Plan")


async def caller_unknown(world: World) -> Any:
    return await world.get(by=world.admin.with_token("nonsense"))


async def issuer_unavailable(world: World) -> Any:
    key = ec.generate_private_key(ec.SECP256R1())
    token = jwt.encode({"iss": ENDPOINT, "aud": "us"}, key, algorithm="ES256", headers={"kid": "one"})
    return await world.get(by=world.admin.with_token(token))


async def caller_not_allowed(world: World) -> Any:
    return await world.vault.add(world.ada)


async def caller_proof_required(world: World) -> Any:
    stranger = await world.vault.issue("organizations/other", "ADMIN")
    return await world.vault.take(ACTIVE, stranger.token)


async def deadline_required(world: World) -> Any:
    lease = world.vault.lease
    request = world.vault.router.request(ACTIVE, world.ada.token)
    return await lease.call(lease.leases.LeaseCredential, request, timeout=None)


async def credential_unknown(world: World) -> Any:
    return await world.get(f"{ACME}/credentials/nothing")


async def credential_exists(world: World) -> Any:
    return await world.vault.create(world.admin)


async def credential_deleted(world: World) -> Any:
    await world.manage("DeleteCredential", credentials_pb.DeleteCredentialRequest(name=MAIN))
    return await world.get()


async def credential_destroyed(world: World) -> Any:
    name = f"{MAIN}/versions/1"
    await world.manage("DestroyCredentialVersion", credentials_pb.DestroyCredentialVersionRequest(name=name))
    return await world.lease(name, purpose=lease_pb2.LEASE_PURPOSE_TEST)


async def credential_disabled(world: World) -> Any:
    expired = credential_pb2.Credential(name=MAIN, expire_time=timestamp_pb2.Timestamp(seconds=1))
    await world.manage("UpdateCredential", credentials_pb.UpdateCredentialRequest(credential=expired))
    return await world.lease()


async def version_not_active(world: World) -> Any:
    version = await world.vault.add(world.admin)
    return await world.lease(version.name)


async def version_conflict(world: World) -> Any:
    return await world.manage("DisableCredential", credentials_pb.DisableCredentialRequest(name=MAIN, etag="old"))


async def untested(world: World) -> Any:
    version = await world.vault.add(world.admin)
    return await world.vault.activate(world.admin, version.name, force=False)


async def invalid_secret(world: World) -> Any:
    return await world.vault.add(world.admin, key="sk-with space-0123456789")


async def origin_not_allowed(world: World) -> Any:
    return await world.lease(origin="https://example.com")


async def recipient_key_rejected(world: World) -> Any:
    return await world.lease(recipient_key_signature=b"forged")


async def byok_disabled(world: World) -> Any:
    policy = credentials_pb.CredentialPolicy(name=f"{ACME}/credentialPolicy", user_credentials_enabled=False)
    await world.manage("SetCredentialPolicy", credentials_pb.SetCredentialPolicyRequest(credential_policy=policy))
    return await world.vault.create(world.ada, f"{ADA}/credentials/mine")


async def request_id_reused(world: World) -> Any:
    await world.vault.add(world.admin, key="sk-first-0123456789", request_id=REQUEST)
    return await world.vault.add(world.admin, key="sk-other-0123456789", request_id=REQUEST)


async def token_unknown(world: World) -> Any:
    name = f"{ACME}/tokens/{'A' * 22}"
    return await world.admin.call(world.admin.tokens.RevokeToken, tokens_pb.RevokeTokenRequest(name=name))


async def audit_record_unknown(world: World) -> Any:
    request = audit_service_pb2.GetAuditRecordRequest(name="chains/vault-0/records/9000")
    return await world.admin.call(world.admin.audit.GetAuditRecord, request)


async def audit_failed(world: World) -> Any:
    world.files.is_full = True
    return await world.lease()


async def mint(world: World, endpoint: str) -> Any:
    """Leases a grant whose token has to be fetched from there."""
    made = credential_pb2.Credential(
        provider="providers/openai", kind=credential_pb2.CREDENTIAL_KIND_OAUTH, allowed_origins=[ORIGIN]
    )
    request = credentials_pb.CreateCredentialRequest(parent=ACME, credential_id="plan", credential=made)
    await world.manage("CreateCredential", request)
    grant = credential_pb2.OauthGrant(refresh_token="refresh-CANARY", token_endpoint=endpoint, client_id="client")
    material = credential_pb2.SecretMaterial(oauth=grant)
    add = credentials_pb.AddCredentialVersionRequest(parent=f"{ACME}/credentials/plan", secret_material=material)
    version = (await world.manage("AddCredentialVersion", add)).credential_version
    await world.vault.activate(world.admin, version.name)
    return await world.lease(f"{ACME}/credentials/plan/versions/active")


async def mint_refused(world: World) -> Any:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"refresh-CANARY")
        writer.write(b"HTTP/1.1 400 X\r\ncontent-length: 25\r\n\r\n" + b'{"error":"invalid_grant"}')
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", ENDPOINT_PORT):
        return await mint(world, ENDPOINT)


async def authentication_limited(world: World) -> None:
    for _ in range(int(BURST)):
        with pytest.raises(Refused):
            await caller_unknown(world)
    await caller_unknown(world)


PROVOCATIONS: dict[str, Callable[[World], Awaitable[Any]]] = {
    "INVALID_REQUEST": invalid_request,
    "CALLER_UNKNOWN": caller_unknown,
    "CALLER_NOT_ALLOWED": caller_not_allowed,
    "CALLER_PROOF_REQUIRED": caller_proof_required,
    "DEADLINE_REQUIRED": deadline_required,
    "CREDENTIAL_UNKNOWN": credential_unknown,
    "CREDENTIAL_EXISTS": credential_exists,
    "CREDENTIAL_DELETED": credential_deleted,
    "CREDENTIAL_DESTROYED": credential_destroyed,
    "CREDENTIAL_DISABLED": credential_disabled,
    "VERSION_NOT_ACTIVE": version_not_active,
    "VERSION_CONFLICT": version_conflict,
    "TEST_REQUIRED": untested,
    "INVALID_SECRET": invalid_secret,
    "ORIGIN_NOT_ALLOWED": origin_not_allowed,
    "RECIPIENT_KEY_REJECTED": recipient_key_rejected,
    "BYOK_DISABLED": byok_disabled,
    "MINT_REFUSED": mint_refused,
    "MINT_UNAVAILABLE": lambda world: mint(world, ENDPOINT),
    "ISSUER_UNAVAILABLE": issuer_unavailable,
    "AUTHENTICATION_LIMITED": authentication_limited,
    "CREDENTIAL_FIXED": lambda world: world.vault.add(world.vault.operator, "deployment/credentials/fixed"),
    "REQUEST_ID_REUSED": request_id_reused,
    "TOKEN_UNKNOWN": token_unknown,
    "AUDIT_RECORD_UNKNOWN": audit_record_unknown,
    "AUDIT_FAILED": audit_failed,
    "VAULT_AUDIT_FAILED": lambda world: world.with_store(stores.AuditFailed("x", status=500)),
    "VAULT_NOT_READY": lambda world: world.with_store(stores.Unavailable("x", status=473)),
    "VAULT_SEALED": lambda world: world.with_store(stores.Sealed("x", status=503)),
    "VAULT_UNINITIALISED": lambda world: world.with_store(stores.Uninitialised("x", status=501)),
    "VAULT_RATE_LIMITED": lambda world: world.with_store(stores.Throttled("x", status=429)),
    "VAULT_DENIED": lambda world: world.with_store(stores.Denied("x", status=403)),
    "INTERNAL": lambda world: world.with_store(RuntimeError("sk-CANARY")),
}


def examples() -> dict[str, dict[str, Any]]:
    """Gives the example of every reason, from the contract's comments."""
    text = re.sub(r"^\s*//", "", PROTO.read_text(encoding="utf-8"), flags=re.MULTILINE)
    found = [json.loads(one) for one in re.findall(r'\{ "reason".*?\} \}', text, flags=re.DOTALL)]
    return {one["reason"].removeprefix("ERROR_REASON_"): one for one in found}


def test_every_reason_is_provoked_here() -> None:
    names = {name.removeprefix("ERROR_REASON_") for name in error_reason_pb2.ErrorReason.DESCRIPTOR.values_by_name} - {
        "UNSPECIFIED"
    }
    assert set(PROVOCATIONS) == names
    assert set(examples()) == names


@pytest.mark.parametrize("name", PROVOCATIONS)
async def test_reasons(world: World, name: str) -> None:
    with pytest.raises(Refused) as caught:
        await PROVOCATIONS[name](world)
    refusal = caught.value
    assert refusal.reason == f"ERROR_REASON_{name}"
    assert set(refusal.metadata) == set(examples()[name]["metadata"])
    assert "CANARY" not in repr(refusal)
    assert bool(refusal.fields) == (name == "INVALID_REQUEST")
