"""Tokens that the credential service fetches, from a real OAuth server: renewed in time, once, and never lost."""

import asyncio
import datetime as dt
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm
from keyswitch.vault.v1 import credential_pb2, credential_service_pb2

from tests.fakes.oauth_server import OauthServer, running_oauth_server
from tests.service.vault_harness import ACME, ADA, MAIN, ORIGIN, Client, Refused, Vault, refused, running_vault
from vault_service.store.embedded import EmbeddedStore
from vault_service.store.memory import MemoryStore
from vault_service.store.store import Unavailable

APP_SECRET = "app-secret-CANARY-0123456789"
TENANT = "11111111-2222-3333-4444-555555555555"
LIFETIME_SECONDS = 600
ACTIVE = f"{MAIN}/versions/active"


class Clock:
    """The service's time, which the tests move. The OAuth server keeps the real one."""

    def __init__(self) -> None:
        self.offset_seconds = 0.0

    def __call__(self) -> float:
        return dt.datetime.now(dt.UTC).timestamp() + self.offset_seconds


def make_certificate() -> tuple[str, rsa.RSAPrivateKey]:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return (certificate.public_bytes(serialization.Encoding.PEM) + private).decode(), key


@pytest.fixture(scope="module")
def certificate() -> tuple[str, rsa.RSAPrivateKey]:
    return make_certificate()


@pytest.fixture(scope="module")
def oauth(certificate: tuple[str, rsa.RSAPrivateKey]) -> Iterator[OauthServer]:
    jwk = RSAAlgorithm.to_jwk(certificate[1].public_key(), as_dict=True)
    clients: list[dict[str, Any]] = [
        {
            "client_id": "subscription",
            "token_endpoint_auth_method": "none",
            "grant_types": ["authorization_code", "refresh_token"],
            "redirect_uris": ["http://127.0.0.1/callback"],
            "application_type": "native",
        },
        {
            "client_id": "app",
            "client_secret": APP_SECRET,
            "token_endpoint_auth_method": "client_secret_post",
            "grant_types": ["client_credentials"],
            "redirect_uris": [],
            "response_types": [],
        },
        {
            "client_id": "app-with-certificate",
            "token_endpoint_auth_method": "private_key_jwt",
            "token_endpoint_auth_signing_alg": "PS256",
            "jwks": {"keys": [{**jwk, "use": "sig", "alg": "PS256"}]},
            "grant_types": ["client_credentials"],
            "redirect_uris": [],
            "response_types": [],
        },
    ]
    with running_oauth_server(
        clients=clients,
        token_path=f"/{TENANT}/oauth2/v2.0/token",
        access_token_seconds=LIFETIME_SECONDS,
        scopes=["models.read"],
    ) as server:
        yield server


def grant_of(oauth: OauthServer, refresh_token: str = "", **fields: Any) -> credential_pb2.SecretMaterial:
    grant = credential_pb2.OauthGrant(
        refresh_token=refresh_token or oauth.grant("subscription"),
        token_endpoint=f"{oauth.url}/{TENANT}/oauth2/v2.0/token",
        client_id="subscription",
        **fields,
    )
    return credential_pb2.SecretMaterial(oauth=grant)


def application_of(oauth: OauthServer, **proof: str) -> credential_pb2.SecretMaterial:
    client = "app" if "client_secret" in proof else "app-with-certificate"
    entra = credential_pb2.EntraApplication(
        tenant_id=TENANT, client_id=client, authority=oauth.url, scopes=["models.read"], **proof
    )
    return credential_pb2.SecretMaterial(entra=entra)


async def keep(client: Client, vault: Vault, material: credential_pb2.SecretMaterial, name: str = MAIN) -> None:
    """Makes a credential of the material's kind with an active version."""
    kinds = {
        "oauth": credential_pb2.CREDENTIAL_KIND_OAUTH,
        "entra": credential_pb2.CREDENTIAL_KIND_AZURE_ENTRA,
        "aws": credential_pb2.CREDENTIAL_KIND_AWS,
    }
    parent, _, credential_id = name.rpartition("/credentials/")
    made = credential_pb2.Credential(
        provider="providers/openai", kind=kinds[material.WhichOneof("material") or ""], allowed_origins=[ORIGIN]
    )
    create = credential_service_pb2.CreateCredentialRequest(parent=parent, credential_id=credential_id, credential=made)
    await client.call(client.credentials.CreateCredential, create)
    add = credential_service_pb2.AddCredentialVersionRequest(parent=name, secret_material=material)
    version = (await client.call(client.credentials.AddCredentialVersion, add)).credential_version
    await vault.activate(client, version.name)


async def take(vault: Vault, token: str, **changes: Any) -> tuple[str, Any]:
    """Takes a lease; gives the bearer token in it, and the lease."""
    lease = await vault.take(ACTIVE, token, **changes)
    return vault.router.open(lease).bearer_token, lease


def refreshes(oauth: OauthServer) -> int:
    return sum(count for key, count in oauth.counts().items() if key.startswith("refresh_token"))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def vault(tmp_path: Path, oauth: OauthServer, clock: Clock) -> AsyncIterator[Vault]:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    async with running_vault(home, clock=clock, token_endpoints=frozenset({oauth.url})) as running:
        yield running


@pytest.fixture
async def callers(vault: Vault) -> tuple[Client, Client]:
    return await vault.issue(ACME, "ADMIN"), await vault.issue(ACME, "MEMBER", user=ADA)


async def test_a_grant_is_leased_as_an_access_token_and_renewed_before_it_ends(
    vault: Vault, oauth: OauthServer, clock: Clock, callers: tuple[Client, Client]
) -> None:
    admin, ada = callers
    await keep(admin, vault, grant_of(oauth))
    before = refreshes(oauth)
    first, lease = await take(vault, ada.token)
    again, _ = await take(vault, ada.token)
    assert first
    assert again == first
    assert refreshes(oauth) - before == 1
    assert oauth.is_active("app", APP_SECRET, first)
    clock.offset_seconds = LIFETIME_SECONDS - 200
    assert (await take(vault, ada.token))[0] == first
    lease = (await take(vault, ada.token))[1]
    assert 0 < lease.expire_time.seconds - clock() <= 200, "a lease ends with its token"
    clock.offset_seconds = LIFETIME_SECONDS - 50
    renewed, _ = await take(vault, ada.token)
    assert renewed != first
    assert refreshes(oauth) - before == 2
    log = vault.audit_bytes()
    assert log.count(b"AUDIT_ACTION_MINT") == 4  # an intent and an outcome of each
    assert not [one for one in (first, renewed) if one.encode() in log]


async def test_what_a_grant_becomes_survives_the_service(tmp_path: Path, oauth: OauthServer, clock: Clock) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    settings: dict[str, Any] = {"clock": clock, "token_endpoints": frozenset({oauth.url})}
    async with running_vault(home, store=await EmbeddedStore.open(home / "vault"), **settings) as vault:
        admin = await vault.issue(ACME, "ADMIN")
        ada = await vault.issue(ACME, "MEMBER", user=ADA)
        await keep(admin, vault, grant_of(oauth))
        first, _ = await take(vault, ada.token)
    before = refreshes(oauth)
    async with running_vault(home, store=await EmbeddedStore.open(home / "vault"), **settings) as vault:
        assert (await take(vault, ada.token))[0] == first
        assert refreshes(oauth) == before
        clock.offset_seconds = LIFETIME_SECONDS
        second, _ = await take(vault, ada.token)  # with the refresh token of the first renewal: the first one is spent
        assert second != first


async def test_many_leases_at_once_make_one_renewal(
    vault: Vault, oauth: OauthServer, callers: tuple[Client, Client]
) -> None:
    admin, ada = callers
    await keep(admin, vault, grant_of(oauth))
    before = refreshes(oauth)
    found = await asyncio.gather(*(take(vault, ada.token) for _ in range(24)))
    assert len({token for token, _ in found}) == 1
    assert refreshes(oauth) - before == 1


async def test_two_instances_spend_a_refresh_token_once(tmp_path: Path, oauth: OauthServer, clock: Clock) -> None:
    store = MemoryStore()
    homes = [tmp_path / "one", tmp_path / "two"]
    for home in homes:
        home.mkdir(mode=0o700)
    settings: dict[str, Any] = {"store": store, "clock": clock, "token_endpoints": frozenset({oauth.url})}
    async with running_vault(homes[0], **settings) as one:
        (homes[1] / "operator.token").write_bytes((homes[0] / "operator.token").read_bytes())
        async with running_vault(homes[1], **settings) as two:
            admin = await one.issue(ACME, "ADMIN")
            ada = await one.issue(ACME, "MEMBER", user=ADA)
            await keep(admin, one, grant_of(oauth))
            for _ in range(3):
                before = refreshes(oauth)
                found = await asyncio.gather(*(take(vault, ada.token) for vault in (one, two) for _ in range(4)))
                assert len({token for token, _ in found}) == 1
                assert refreshes(oauth) - before == 1
                clock.offset_seconds += LIFETIME_SECONDS


async def test_an_endpoint_that_fails_is_unavailable_and_nothing_is_lost(
    vault: Vault, oauth: OauthServer, callers: tuple[Client, Client]
) -> None:
    admin, ada = callers
    await keep(admin, vault, grant_of(oauth))
    for status in (500, 503, 429):
        oauth.fail(status, 1)
        fault = await refused(vault.take(ACTIVE, ada.token))
        assert (fault.reason, fault.has_retry) == ("ERROR_REASON_MINT_UNAVAILABLE", True)
        assert fault.metadata["cause"] == f"status_{status}"
    assert (await take(vault, ada.token))[0]


async def test_a_grant_that_is_no_more_is_refused(
    vault: Vault, oauth: OauthServer, callers: tuple[Client, Client]
) -> None:
    admin, ada = callers
    await keep(admin, vault, grant_of(oauth, refresh_token="made-up-refresh-token-CANARY"))
    fault = await refused(vault.take(ACTIVE, ada.token))
    assert fault.reason == "ERROR_REASON_MINT_REFUSED"
    assert fault.metadata == {"name": f"{MAIN}/versions/1", "cause": "invalid_grant"}
    assert b"CANARY" not in vault.audit_bytes()


async def test_a_renewal_goes_on_when_its_caller_leaves(
    vault: Vault, oauth: OauthServer, callers: tuple[Client, Client]
) -> None:
    admin, ada = callers
    await keep(admin, vault, grant_of(oauth))
    before = refreshes(oauth)
    for deadline_seconds in (0.001, 0.005, 0.01, 0.02, 0.04):  # some end before, some in, some after the renewal
        with suppress(grpc.aio.AioRpcError):
            await vault.lease.leases.LeaseCredential(vault.router.request(ACTIVE, ada.token), timeout=deadline_seconds)
    token, _ = await take(vault, ada.token)
    assert oauth.is_active("app", APP_SECRET, token)
    assert refreshes(oauth) - before == 1


class FailingStore(MemoryStore):
    """A store that is away for the next writes of values."""

    def __init__(self) -> None:
        super().__init__()
        self.failures = 0

    async def write(self, path: str, value: bytes, *, expected_revision: int, request_id: str = "") -> int:
        if path.endswith("/material") and expected_revision and self.failures:
            self.failures -= 1
            raise Unavailable("away")
        return await super().write(path, value, expected_revision=expected_revision, request_id=request_id)


async def test_a_token_is_given_out_only_when_its_grant_is_kept(
    tmp_path: Path, oauth: OauthServer, clock: Clock
) -> None:
    store = FailingStore()
    async with running_vault(tmp_path, store=store, clock=clock, token_endpoints=frozenset({oauth.url})) as vault:
        admin = await vault.issue(ACME, "ADMIN")
        ada = await vault.issue(ACME, "MEMBER", user=ADA)
        await keep(admin, vault, grant_of(oauth))
        before = refreshes(oauth)
        store.failures = 3
        for _ in range(3):
            assert (await refused(vault.take(ACTIVE, ada.token))).reason == "ERROR_REASON_VAULT_NOT_READY"
        token, _ = await take(vault, ada.token)
        assert refreshes(oauth) - before == 1, "the refresh token is spent once, whatever the store does"
        assert oauth.is_active("app", APP_SECRET, token)
        clock.offset_seconds = LIFETIME_SECONDS
        assert (await take(vault, ada.token))[0] != token


async def test_a_rejected_token_is_renewed_once(
    vault: Vault, oauth: OauthServer, clock: Clock, callers: tuple[Client, Client]
) -> None:
    admin, ada = callers
    await keep(admin, vault, grant_of(oauth))
    first, lease = await take(vault, ada.token)
    clock.offset_seconds = 10
    second, _ = await take(vault, ada.token, rejected_lease_id=lease.lease_id)
    assert second != first
    # Another router had the old one, too: it gets the new one, and no third is made.
    assert (await take(vault, ada.token, rejected_lease_id=lease.lease_id))[0] == second
    fault = await refused(vault.take(ACTIVE, ada.token, rejected_lease_id="no lease id"))
    assert fault.reason == "ERROR_REASON_INVALID_REQUEST"


async def test_an_application_gets_its_tokens_by_secret_and_by_certificate(
    vault: Vault, oauth: OauthServer, callers: tuple[Client, Client], certificate: tuple[str, rsa.RSAPrivateKey]
) -> None:
    admin, ada = callers
    for name, proof in (
        ("by-secret", {"client_secret": APP_SECRET}),
        ("by-key", {"client_certificate_pem": certificate[0]}),
    ):
        await keep(admin, vault, application_of(oauth, **proof), f"{ACME}/credentials/{name}")
        lease = await vault.take(f"{ACME}/credentials/{name}/versions/active", ada.token)
        token = vault.router.open(lease).bearer_token
        assert oauth.is_active("app", APP_SECRET, token)
        again = await vault.take(f"{ACME}/credentials/{name}/versions/active", ada.token)
        assert vault.router.open(again).bearer_token == token
    await keep(admin, vault, application_of(oauth, client_secret="wrong-secret-CANARY"), f"{ACME}/credentials/wrong")
    fault = await refused(vault.take(f"{ACME}/credentials/wrong/versions/active", ada.token))
    assert (fault.reason, fault.metadata["cause"]) == ("ERROR_REASON_MINT_REFUSED", "invalid_client")


async def test_only_listed_endpoints_are_taken(tmp_path: Path, oauth: OauthServer, clock: Clock) -> None:
    store = MemoryStore()
    async with running_vault(tmp_path, store=store, clock=clock, token_endpoints=frozenset({oauth.url})) as vault:
        admin = await vault.issue(ACME, "ADMIN")
        ada = await vault.issue(ACME, "MEMBER", user=ADA)
        await keep(admin, vault, grant_of(oauth))
        other = grant_of(oauth)
        other.oauth.token_endpoint = "https://elsewhere.example/token"
        add = credential_service_pb2.AddCredentialVersionRequest(parent=MAIN, secret_material=other)
        with pytest.raises(Refused) as caught:
            await admin.call(admin.credentials.AddCredentialVersion, add)
        assert caught.value.fields == ("secret_material.oauth.token_endpoint",)
    async with running_vault(tmp_path, store=store, clock=clock) as vault:  # the operator took it off the list
        fault = await refused(vault.take(ACTIVE, ada.token))
        assert (fault.reason, fault.metadata["cause"]) == ("ERROR_REASON_MINT_REFUSED", "endpoint_not_allowed")
