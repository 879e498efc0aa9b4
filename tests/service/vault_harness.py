"""The credential service in this process on free ports, with real TLS, and clients for its two listeners."""

import asyncio
import datetime as dt
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography.hazmat.primitives import hashes, hpke
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from google.protobuf import duration_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status
from keyswitch.vault.v1 import (
    audit_service_pb2_grpc,
    credential_pb2,
    credential_service_pb2,
    credential_service_pb2_grpc,
    credential_test_pb2,
    lease_pb2,
    lease_service_pb2,
    lease_service_pb2_grpc,
    token_service_pb2,
    token_service_pb2_grpc,
)

from vault_service.app import RunningService, serve
from vault_service.config import Config, make_config
from vault_service.core.sealing import LeaseBinding, recipient_key_statement
from vault_service.devca import make_development_certificates
from vault_service.store.memory import MemoryStore
from vault_service.store.store import Store

TIMEOUT_SECONDS = 60.0
ORIGIN = "https://api.openai.com"
KEY = "sk-CANARY-0123456789abcdefghijklmnop-9f3c"
ACME = "organizations/acme"
ADA = "organizations/acme/users/ada"
MAIN = "organizations/acme/credentials/main"


@dataclass(unsafe_hash=True)
class Refused(Exception):
    """A status with what is in it, for comparison in tests."""

    code: grpc.StatusCode
    reason: str
    metadata: dict[str, str]
    message: str
    fields: tuple[str, ...] = ()
    has_retry: bool = False


def read_error(error: grpc.aio.AioRpcError) -> Refused:
    """Takes the status of a call apart."""
    status = rpc_status.from_call(error)  # type: ignore[arg-type] # takes anything with trailing metadata
    assert status is not None, f"no details: {error.code()} {error.details()}"
    return read_status(status)


def read_status(status: status_pb2.Status) -> Refused:
    """Takes a status apart, and insists on exactly one ErrorInfo of this service."""
    infos = [one for one in status.details if one.Is(error_details_pb2.ErrorInfo.DESCRIPTOR)]
    assert len(infos) == 1
    info = error_details_pb2.ErrorInfo()
    infos[0].Unpack(info)
    assert info.domain == "vault.keyswitch.dev"
    fields: list[str] = []
    has_retry = False
    for one in status.details:
        bad = error_details_pb2.BadRequest()
        if one.Is(bad.DESCRIPTOR):
            one.Unpack(bad)
            fields += [violation.field for violation in bad.field_violations]
        has_retry = has_retry or one.Is(error_details_pb2.RetryInfo.DESCRIPTOR)
    code = next(code for code in grpc.StatusCode if code.value[0] == status.code)
    return Refused(code, info.reason, dict(info.metadata), status.message, tuple(fields), has_retry)


class Client:
    """Stubs over one channel, with one caller's token."""

    def __init__(self, channel: grpc.aio.Channel, token: str = "") -> None:
        self.channel = channel
        self.token = token
        self.credentials: Any = credential_service_pb2_grpc.CredentialServiceStub(channel)
        self.tokens: Any = token_service_pb2_grpc.TokenServiceStub(channel)
        self.audit: Any = audit_service_pb2_grpc.AuditServiceStub(channel)
        self.leases: Any = lease_service_pb2_grpc.LeaseServiceStub(channel)

    def with_token(self, token: str) -> "Client":
        """Gives the same channel for another caller."""
        return Client(self.channel, token)

    async def call(self, method: Callable[..., Any], request: Any, *, timeout: float | None = TIMEOUT_SECONDS) -> Any:
        """Calls; a refusal comes as `Refused`, and of a stream the first message."""
        metadata = (("authorization", f"Bearer {self.token}"),) if self.token else ()
        try:
            made = method(request, timeout=timeout, metadata=metadata)
            return await (made.read() if isinstance(made, grpc.aio.UnaryStreamCall) else made)
        except grpc.aio.AioRpcError as error:
            raise read_error(error) from None


class Router:
    """What a router is to this service: a client certificate and a key of the process."""

    def __init__(self, home: Path, name: str = "router") -> None:
        self.private_key = X25519PrivateKey.generate()
        self.public_key = self.private_key.public_key().public_bytes_raw()
        signing_key = load_pem_private_key((home / f"{name}-key.pem").read_bytes(), password=None)
        assert isinstance(signing_key, ec.EllipticCurvePrivateKey)
        self.signature = signing_key.sign(recipient_key_statement(self.public_key), ec.ECDSA(hashes.SHA256()))
        self.certificate_chain: Sequence[bytes] = ()  # that of the connection

    def request(self, name: str, proof: str, **changes: Any) -> lease_service_pb2.LeaseCredentialRequest:
        """Makes a lease request that is right in everything but what is changed."""
        fields: dict[str, Any] = {
            "name": name,
            "purpose": lease_pb2.LEASE_PURPOSE_COMPLETION,
            "request_id": "response-1",
            "principal": ADA,
            "caller_proof": proof,
            "origin": ORIGIN,
            "recipient_public_key": self.public_key,
            "recipient_key_signature": self.signature,
        }
        return lease_service_pb2.LeaseCredentialRequest(**{**fields, **changes})

    def batch(
        self, requests: Sequence[lease_service_pb2.LeaseCredentialRequest]
    ) -> lease_service_pb2.BatchLeaseCredentialsRequest:
        """Makes one request of several, which is then what names the recipient."""
        batch = lease_service_pb2.BatchLeaseCredentialsRequest(
            recipient_public_key=self.public_key, recipient_key_signature=self.signature
        )
        for one in requests:
            added = batch.requests.add()
            added.CopyFrom(one)
            added.ClearField("recipient_public_key")
            added.ClearField("recipient_key_signature")
        return batch

    def open(self, response: Any, origin: str = ORIGIN) -> lease_pb2.LeasedMaterial:
        """Opens what was sealed to this process."""
        binding = LeaseBinding(
            lease_id=response.lease_id,
            credential_version=response.credential_version,
            provider=response.provider,
            origin=origin,
            expire_time_seconds=response.expire_time.seconds,
            recipient_public_key=self.public_key,
        )
        suite = hpke.Suite(hpke.KEM.X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)
        opened = suite.decrypt(response.sealed_material, self.private_key, info=binding.encode())
        return lease_pb2.LeasedMaterial.FromString(opened)


@dataclass
class Vault:
    """A running service and the ways to it."""

    service: RunningService
    home: Path
    operator: Client
    lease: Client
    router: Router

    async def issue(
        self, parent: str, *roles: str, issuer: Client | None = None, scopes: Sequence[str] = (), **fields: Any
    ) -> Client:
        """Issues a token and gives a client that has it."""
        request = token_service_pb2.IssueTokenRequest(
            parent=parent,
            token=token_service_pb2.Token(
                display_name="test",
                roles=[token_service_pb2.CallerRole.Value(f"CALLER_ROLE_{role}") for role in roles],
                scopes=[token_service_pb2.TokenScope.Value(f"TOKEN_SCOPE_{scope}") for scope in scopes],
                **fields,
            ),
            lifetime=duration_pb2.Duration(seconds=3600),
        )
        by = issuer or self.operator
        answer = await by.call(by.tokens.IssueToken, request)
        return self.operator.with_token(answer.bearer_token)

    async def create(self, client: Client, name: str = MAIN, **fields: Any) -> Any:
        """Creates a credential."""
        parent, _, credential_id = name.rpartition("/credentials/")
        credential = credential_pb2.Credential(
            provider="providers/openai",
            kind=credential_pb2.CREDENTIAL_KIND_API_KEY,
            allowed_origins=[ORIGIN],
            **fields,
        )
        request = credential_service_pb2.CreateCredentialRequest(
            parent=parent, credential_id=credential_id, credential=credential
        )
        return (await client.call(client.credentials.CreateCredential, request)).credential

    async def add(self, client: Client, name: str = MAIN, key: str = KEY, **fields: Any) -> Any:
        """Adds a version."""
        request = credential_service_pb2.AddCredentialVersionRequest(
            parent=name, secret_material=credential_pb2.SecretMaterial(api_key=key), **fields
        )
        return (await client.call(client.credentials.AddCredentialVersion, request)).credential_version

    async def activate(self, client: Client, version: str, *, force: bool = True) -> Any:
        """Activates a version."""
        request = credential_service_pb2.ActivateCredentialVersionRequest(name=version, force=force)
        return (await client.call(client.credentials.ActivateCredentialVersion, request)).credential_version

    async def ready(self, client: Client, name: str = MAIN, key: str = KEY, **fields: Any) -> str:
        """Makes a credential with an active version and gives the version's name."""
        await self.create(client, name, **fields)
        version = await self.add(client, name, key)
        await self.activate(client, version.name)
        return str(version.name)

    async def take(self, name: str, proof: str, **changes: Any) -> Any:
        """Takes a lease as the router."""
        return await self.lease.call(self.lease.leases.LeaseCredential, self.router.request(name, proof, **changes))

    async def report_test(self, lease: Any, outcome: str = "PASSED") -> Any:
        """Reports a test as the router."""
        test = credential_test_pb2.CredentialTest(
            credential_version=lease.credential_version,
            outcome=credential_test_pb2.CredentialTestOutcome.Value(f"CREDENTIAL_TEST_OUTCOME_{outcome}"),
        )
        request = lease_service_pb2.ReportTestRequest(lease_id=lease.lease_id, test=test)
        return (await self.lease.call(self.lease.leases.ReportTest, request)).credential_version

    def audit_bytes(self) -> bytes:
        """Gives everything that is in the audit log."""
        return b"".join(path.read_bytes() for path in sorted((self.home / "audit").rglob("[0-9]*.jsonl")))


def make_home(home: Path) -> Path:
    """Gives a home with certificates."""
    make_development_certificates(home, dt.datetime.now(dt.UTC))
    return home


def renew_leaves(home: Path) -> None:
    """New certificates of both services, from the same authority."""
    for name in ("router", "vault"):
        for path in (home / f"{name}.pem", home / f"{name}-key.pem"):
            path.unlink()
    make_home(home)


def make_test_config(home: Path, **changes: Any) -> Config:
    """Gives the configuration of a service on free ports."""
    addresses = {
        "management_address": "127.0.0.1:0",
        "lease_address": "127.0.0.1:0",
        "http_address": "127.0.0.1:0",
        "store": "memory",
        "drain_seconds": 1.0,
        "chain": "vault-0",
    }
    return make_config(home, **{**addresses, **changes})


def open_channel(home: Path, port: int, certificate: str | None = None) -> grpc.aio.Channel:
    """Opens a channel with the home's authority, and a client certificate where one is named."""
    ca = (home / "ca.pem").read_bytes()
    key = (home / f"{certificate}-key.pem").read_bytes() if certificate else None
    chain = (home / f"{certificate}.pem").read_bytes() if certificate else None
    return grpc.aio.secure_channel(
        f"localhost:{port}",
        grpc.ssl_channel_credentials(root_certificates=ca, private_key=key, certificate_chain=chain),
    )


@asynccontextmanager
async def running_vault(home: Path, *, store: Store | None = None, **changes: Any) -> AsyncIterator[Vault]:
    """Runs a service in `home`; `changes` go to the configuration and, where they are its arguments, to `serve`."""
    serve_arguments = {name: changes.pop(name) for name in ("clock", "monotonic", "files") if name in changes}
    if not (home / "ca.pem").exists():
        make_home(home)
    service = await serve(make_test_config(home, **changes), store=store or MemoryStore(), **serve_arguments)
    try:
        token = (home / "operator.token").read_text(encoding="ascii").strip()
        async with (
            open_channel(home, service.management_port) as management,
            open_channel(home, service.lease_port, "router") as lease,
        ):
            yield Vault(service, home, Client(management, token), Client(lease), Router(home))
    finally:
        await service.stop(grace_seconds=0.2)


def is_private(path: Path) -> bool:
    """Whether only the owner may read a file."""
    return path.stat().st_mode & 0o077 == 0


class Feed:
    """The change feed, read message by message."""

    def __init__(self, vault: Vault, after_revision: int = 0) -> None:
        request = lease_service_pb2.WatchCredentialChangesRequest(after_revision=after_revision)
        self._call = vault.lease.leases.WatchCredentialChanges(request)

    async def __aenter__(self) -> "Feed":
        return self

    async def __aexit__(self, *_: object) -> None:
        self._call.cancel()

    async def read(self) -> Any:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            return await self._call.read()

    async def read_changes(self) -> list[Any]:
        while True:
            message = await self.read()
            if message.changes:
                return list(message.changes)


async def refused(awaitable: Any) -> Refused:
    with pytest.raises(Refused) as caught:
        await awaitable
    return caught.value


async def read_until(call: Any, status: int) -> None:
    while (await call.read()).status != status:
        pass
