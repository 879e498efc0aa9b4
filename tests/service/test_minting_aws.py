"""Sessions of AWS roles from a server that checks signatures, policies and trust as STS does (moto), over TLS.

It stands at loopback under STS's own name: what is asked, signed and checked is what would go to AWS.
"""

import ssl
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from botocore.exceptions import ClientError
from keyswitch.vault.v1 import credential_pb2, credential_service_pb2, lease_pb2

from tests.fakes.aws_server import REGION, STS_HOST, AwsServer, User, running_aws
from tests.fakes.caller_certificates import CallerAuthority
from tests.security.canary import Canary, Scanner
from tests.security.promises import tried
from tests.service.test_minting import ACTIVE, Clock, keep
from tests.service.vault_harness import ACME, ADA, MAIN, Client, Refused, Vault, refused, running_vault
from vault_service.minting.aws import SESSION_SECONDS
from vault_service.minting.egress import Egress
from vault_service.minting.endpoints import TokenEndpoints
from vault_service.store.memory import MemoryStore

ORIGIN = f"https://{STS_HOST}"
EXTERNAL_ID = "acme-42"


class AtLoopback(httpx.AsyncHTTPTransport):
    """Connects to this machine in place of the host that a request names, and checks that host's certificate."""

    def __init__(self, port: int, authority_file: Path) -> None:
        super().__init__(verify=ssl.create_default_context(cafile=str(authority_file)))
        self.hosts: list[str] = []
        self.signatures: list[str] = []
        self._port = port

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.hosts.append(request.url.host)
        self.signatures.append(request.headers["authorization"].partition("Signature=")[2])
        request.extensions = {**request.extensions, "sni_hostname": request.url.host}
        request.url = request.url.copy_with(host="127.0.0.1", port=self._port)
        return await super().handle_async_request(request)


@dataclass(frozen=True)
class Account:
    """What there is in the account."""

    server: AwsServer
    user: User
    stranger: User
    role: str

    def material(self, user: User | None = None, role: str = "", external_id: str = EXTERNAL_ID) -> Any:
        """A key pair that is right in everything but what is changed."""
        user = user or self.user
        pair = credential_pb2.AwsKeyPair(
            access_key_id=user.access_key_id,
            secret_access_key=user.secret_access_key,
            region=REGION,
            role_arn=role or self.role,
            external_id=external_id,
        )
        return credential_pb2.SecretMaterial(aws=pair)


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    with running_aws(tmp_path_factory.mktemp("aws")) as server:
        user, stranger = server.make_user("keyswitch"), server.make_user("stranger")
        role = server.make_role("models", user, EXTERNAL_ID)
        server.check_everything()
        yield Account(server, user, stranger, role)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def way(account: Account, monkeypatch: pytest.MonkeyPatch) -> AtLoopback:
    return make_way(account, account.server.authority_file, monkeypatch)


def make_way(account: Account, authority_file: Path, monkeypatch: pytest.MonkeyPatch) -> AtLoopback:
    made = AtLoopback(account.server.port, authority_file)

    def make_egress(endpoints: TokenEndpoints) -> Egress:
        return Egress(endpoints, made)

    monkeypatch.setattr("vault_service.app.Egress", make_egress)
    return made


@pytest.fixture
async def vault(tmp_path: Path, clock: Clock, way: AtLoopback) -> AsyncIterator[Vault]:
    async with running_vault(tmp_path, clock=clock, token_endpoints=frozenset({ORIGIN})) as running:
        yield running


@pytest.fixture
async def callers(vault: Vault) -> tuple[Client, Client]:
    return await vault.issue(ACME, "ADMIN"), await vault.issue(ACME, "MEMBER", user=ADA)


async def take(vault: Vault, token: str) -> tuple[Any, Any]:
    """Takes a lease; gives the session in it, and the lease."""
    lease = await vault.take(ACTIVE, token)
    return vault.router.open(lease).aws_credentials, lease


async def test_a_role_is_leased_as_a_session_and_renewed_before_it_ends(
    vault: Vault,
    account: Account,
    clock: Clock,
    callers: tuple[Client, Client],
    way: AtLoopback,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    admin, ada = callers
    await keep(admin, vault, account.material())
    session, _ = await take(vault, ada.token)
    keys = (session.access_key_id, session.secret_access_key, session.session_token)
    assert keys[0] != account.user.access_key_id
    assert session.region == REGION
    named = account.server.client("sts", *keys).get_caller_identity()["Arn"]  # signed with the session, and checked
    assert named.partition("assumed-role/models/")[2].startswith("keyswitch-")
    with pytest.raises(ClientError, match="AccessDenied"):
        account.server.client("iam", *keys).list_users()
    clock.offset_seconds = SESSION_SECONDS - 200
    again, lease = await take(vault, ada.token)
    assert again == session
    assert 0 < lease.expire_time.seconds - clock() <= 200, "a lease ends with its session"
    assert way.hosts == [STS_HOST]
    clock.offset_seconds = SESSION_SECONDS - 50
    renewed, _ = await take(vault, ada.token)
    assert renewed.access_key_id != session.access_key_id
    assert way.hosts == [STS_HOST] * 2
    assert vault.audit_bytes().count(b"AUDIT_ACTION_MINT") == 4  # an intent and an outcome of each
    await refused(vault.take(ACTIVE, ada.token, origin="https://elsewhere.example"))  # which is logged
    check_canaries(tmp_path, capfd, way, account.user, session, renewed)


def check_canaries(
    home: Path, capfd: pytest.CaptureFixture[str], way: AtLoopback, user: User, *sessions: lease_pb2.AwsCredentials
) -> None:
    """What must not be known is in no file of the service and in nothing that it printed."""
    scanner = Scanner()
    values = {"the pair's secret": user.secret_access_key}
    for number, session in enumerate(sessions):
        values[f"secret {number}"], values[f"token {number}"] = session.secret_access_key, session.session_token
    values |= {f"signature {number}": signature for number, signature in enumerate(way.signatures)}
    scanner.add(*(Canary(name, value, (value,)) for name, value in values.items()))
    scanner.scan_files("files", home, {})
    printed = "".join(capfd.readouterr())
    scanner.scan("output", "output", printed.encode())
    assert "ORIGIN_NOT_ALLOWED" in printed
    assert len(way.signatures) == len(way.hosts)
    assert not scanner.hits, "\n".join(sorted({str(hit) for hit in scanner.hits}))
    tried(1, "canaries of roles of AWS, with a server that checks signatures", secrets=len(values), hits=0)


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("another_secret", "SignatureDoesNotMatch"),
        ("unknown_pair", "InvalidClientTokenId"),
        ("not_trusted", "AccessDenied"),
        ("another_external_id", "AccessDenied"),
    ],
)
async def test_a_refusal_says_whose_fault_it_is_and_each_lease_asks_once(
    vault: Vault, account: Account, callers: tuple[Client, Client], way: AtLoopback, name: str, cause: str
) -> None:
    admin, ada = callers
    secret = "CANARYwJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPL"
    materials = {
        "another_secret": account.material(replace(account.user, secret_access_key=secret)),
        "unknown_pair": account.material(User("", "", "AKIANOBODYHASTHIS000", secret)),
        "not_trusted": account.material(account.stranger),
        "another_external_id": account.material(external_id="acme-43"),
    }
    await keep(admin, vault, materials[name])
    for asked in (1, 2):
        fault = await refused(vault.take(ACTIVE, ada.token))
        assert fault.reason == "ERROR_REASON_MINT_REFUSED"
        assert fault.metadata == {"name": f"{MAIN}/versions/1", "cause": cause}
        assert not fault.has_retry
        assert len(way.hosts) == asked
    assert b"CANARY" not in vault.audit_bytes()


async def test_a_server_that_is_not_sts_is_told_nothing(
    tmp_path: Path, clock: Clock, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other.pem"
    other.write_bytes(CallerAuthority("Somebody else").pem)
    make_way(account, other, monkeypatch)
    async with running_vault(tmp_path, clock=clock, token_endpoints=frozenset({ORIGIN})) as vault:
        admin, ada = await vault.issue(ACME, "ADMIN"), await vault.issue(ACME, "MEMBER", user=ADA)
        await keep(admin, vault, account.material())
        fault = await refused(vault.take(ACTIVE, ada.token))
        assert (fault.reason, fault.metadata["cause"]) == ("ERROR_REASON_MINT_UNAVAILABLE", "unreachable")
        assert fault.has_retry


async def test_only_a_listed_sts_is_asked(tmp_path: Path, clock: Clock, account: Account, way: AtLoopback) -> None:
    store = MemoryStore()
    async with running_vault(tmp_path, store=store, clock=clock, token_endpoints=frozenset({ORIGIN})) as vault:
        admin, ada = await vault.issue(ACME, "ADMIN"), await vault.issue(ACME, "MEMBER", user=ADA)
        await keep(admin, vault, account.material())
        elsewhere = account.material()
        elsewhere.aws.region = "eu-west-1"
        add = credential_service_pb2.AddCredentialVersionRequest(parent=MAIN, secret_material=elsewhere)
        with pytest.raises(Refused) as caught:
            await admin.call(admin.credentials.AddCredentialVersion, add)
        assert caught.value.fields == ("secret_material.aws.role_arn",)
    async with running_vault(tmp_path, store=store, clock=clock) as vault:  # the operator took it off the list
        fault = await refused(vault.take(ACTIVE, ada.token))
        assert (fault.reason, fault.metadata["cause"]) == ("ERROR_REASON_MINT_REFUSED", "endpoint_not_allowed")
    assert way.hosts == []
