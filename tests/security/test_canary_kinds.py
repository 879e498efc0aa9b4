"""The canary search over the other kinds of secrets: grants, applications, service accounts, key pairs, TLS keys."""

import datetime as dt
import json
import secrets
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from keyswitch.router.v1 import completion_service_pb2, credential_test_service_pb2
from keyswitch.vault.v1 import credential_pb2, credential_service_pb2

from deploy.local.stack import ORGANIZATION, USER
from tests.fakes.caller_certificates import CallerAuthority
from tests.fakes.scripted_upstream import Action, Received, ScriptedUpstream, respond, scripted_upstream
from tests.security import canary_upstream as answers
from tests.security.canary import Canary, make_key, token_canary
from tests.security.canary_deployment import AWS, CHAT, Watched, watched_deployment
from tests.security.promises import is_thorough, tried
from tests.service.vault_harness import Router
from vault_service.store.embedded import EmbeddedStore
from vault_service.store.store import Purpose

STATUSES = (200, 400, 403, 500, 401) if is_thorough() else (200, 400, 401)
SECRET_FIELDS = ("client_secret", "refresh_token", "assertion", "client_assertion")
TLS_KEYS = {"router-key.pem": "the router's TLS key", "vault-key.pem": "the credential service's TLS key"}


@dataclass(frozen=True)
class Kind:
    """A kind of secret: what is saved, the canaries in it, which of them a provider is sent, and where it is used."""

    name: str
    kind: "credential_pb2.CredentialKind.ValueType"
    material: credential_pb2.SecretMaterial
    canaries: tuple[Canary, ...]
    sent: tuple[Canary, ...] = ()
    is_minted: bool = True
    provider: str = "scripted"
    model: str = CHAT


def pem_canary(name: str, pem: str) -> Canary:
    """A private key: whole lines of its middle are what is looked for."""
    lines = pem.strip().splitlines()[1:-1]
    return Canary(name, pem, (lines[1], lines[-2]) if len(lines) > 3 else (lines[1],))


def plain_canary(name: str) -> Canary:
    """A secret of letters and digits alone, which has the looks of an error's code."""
    core = secrets.token_hex(20)
    return Canary(name, f"A{core}", (core,))


def kinds(endpoint: str) -> Iterator[Kind]:
    """One of each."""
    refresh, first = (make_key(f"an OAuth {name}", "") for name in ("refresh token", "access token"))
    secret = plain_canary("an OAuth client secret")
    grant = credential_pb2.OauthGrant(
        refresh_token=refresh.value, client_id="app", client_secret=secret.value, token_endpoint=f"{endpoint}/token"
    )
    oauth = credential_pb2.CREDENTIAL_KIND_OAUTH
    yield Kind("oauth", oauth, credential_pb2.SecretMaterial(oauth=grant), (refresh, secret))
    held = credential_pb2.OauthGrant(
        access_token=first.value, refresh_token=refresh.value, client_id="app", token_endpoint=f"{endpoint}/token"
    )
    held.access_token_expire_time.FromDatetime(dt.datetime.now(dt.UTC) + dt.timedelta(hours=1))
    yield Kind("oauth with a token", oauth, credential_pb2.SecretMaterial(oauth=held), (first, refresh), (first,))
    entra_secret = plain_canary("an Entra client secret")
    entra = credential_pb2.EntraApplication(
        tenant_id="11111111-2222-3333-4444-555555555555",
        client_id="app",
        client_secret=entra_secret.value,
        authority=endpoint,
        scopes=["models.read"],
    )
    material = credential_pb2.SecretMaterial(entra=entra)
    yield Kind("entra", credential_pb2.CREDENTIAL_KIND_AZURE_ENTRA, material, (entra_secret,))
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    certificate, certified = CallerAuthority().issue("spiffe://app.example/entra", key=key)
    entra = credential_pb2.EntraApplication(
        tenant_id="11111111-2222-3333-4444-555555555555",
        client_id="app",
        client_certificate_pem=(certificate + certified).decode(),
        authority=endpoint,
        scopes=["models.read"],
    )
    canary = pem_canary("an Entra certificate's key", certified.decode())
    material = credential_pb2.SecretMaterial(entra=entra)
    yield Kind("entra certificate", credential_pb2.CREDENTIAL_KIND_AZURE_ENTRA, material, (canary,))
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    file = {
        "type": "service_account",
        "client_email": "svc@project.example",
        "private_key_id": "k1",
        "private_key": pem,
        "token_uri": f"{endpoint}/token",
    }
    account = credential_pb2.GoogleServiceAccount(key_json=json.dumps(file))
    material = credential_pb2.SecretMaterial(google_service_account=account)
    canary = pem_canary("a service account's key", pem)
    yield Kind("google", credential_pb2.CREDENTIAL_KIND_GOOGLE_SERVICE_ACCOUNT, material, (canary,))
    aws_secret, session = make_key("an AWS secret key", ""), make_key("an AWS session token", "")
    pair = credential_pb2.AwsKeyPair(
        access_key_id="AKIAIOSFODNN7EXAMPLE",
        secret_access_key=aws_secret.value,
        session_token=session.value,
        region="us-east-1",
    )
    material = credential_pb2.SecretMaterial(aws=pair)
    aws = credential_pb2.CREDENTIAL_KIND_AWS
    yield Kind("aws", aws, material, (aws_secret, session), (session,), False, "scripted-aws", AWS)


class Repeating:
    """The token endpoint and the provider of one kind: each repeats what it was sent, and nothing else.

    What is made on the way (assertions, tokens, signatures) becomes a canary when it is first seen.
    """

    def __init__(self, watched: Watched) -> None:
        self.watched = watched
        self.status = 401
        self.refuses = ""  # the shape of the endpoint's refusal; it gives tokens without one
        self.asked: list[str] = []
        self.sent: list[str] = []
        self.first = 0  # of those that the present call sent: of others a router knows nothing
        self.counts: dict[int, int] = {}

    def endpoint(self, request: Received) -> list[Action]:
        """A token, or a refusal that repeats the grant: as text, or where the error's code belongs."""
        form = urllib.parse.parse_qs(request.body.decode())
        values = [one for name in SECRET_FIELDS for one in form.get(name, [])]
        self.asked += values
        for value in form.get("assertion", []) + form.get("client_assertion", []):
            self.watched.scanner.add(token_canary("an assertion", value))
        everything = " ".join(values)
        match self.refuses:
            case "text":
                error = {"error": "invalid_grant", "error_description": everything}
                return respond(json.dumps(error).encode(), status=400, x_echo=everything)
            case "code":
                return respond(json.dumps({"error": values[0]}).encode(), status=400)
        token = make_key("a fetched token", "ya29.")
        self.watched.scanner.add(token)
        answer = {"access_token": token.value, "token_type": "Bearer", "expires_in": 3600, "note": everything}
        return respond(json.dumps(answer).encode())

    def provider(self, request: Received) -> list[Action]:
        """What the call's attempts carried in their headers so far, wherever an error or an answer has room."""
        signature = request.headers.get("authorization", "").partition("Signature=")[2]
        if signature:
            self.watched.scanner.add(Canary("a signature", signature, (signature,)))
        session = request.headers.get("x-amz-security-token", "")
        carried = (signature or request.headers.get("authorization", "").removeprefix("Bearer "), session)
        self.sent += [value for value in carried if value]
        self.counts[self.status] = self.counts.get(self.status, 0) + 1
        everything = " ".join(dict.fromkeys(self.sent[self.first :]))
        if self.status != 200:
            return answers.echo_error(self.status, everything)
        return (
            answers.openai_stream(everything) if b'"stream":true' in request.body else answers.openai_body(everything)
        )


async def test_no_secret_of_another_kind_gets_out(tmp_path: Path) -> None:
    async with scripted_upstream() as endpoint:
        origin = f"http://127.0.0.1:{endpoint.port}"
        async with watched_deployment(
            tmp_path, "info", know_the_stores_keys, KEYSWITCH_VAULT_TOKEN_ENDPOINTS=origin
        ) as watched:
            for file, name in TLS_KEYS.items():
                watched.scanner.add(pem_canary(name, (watched.stack.home / file).read_text()))
                watched.rightful[file] = name
            found = list(kinds(origin))
            for number, kind in enumerate(found):
                watched.scanner.add(*kind.canaries)
                await drive(watched, endpoint, kind, f"kind-{number}")
            await watched.search_everything()
            await watched.stack.stop()
            watched.search_files()
    scanner, calls = watched.scanner, watched.calls
    made = sum(calls.succeeded.values()) + sum(calls.failed.values())
    print(f"\nother kinds of secrets: {len(found)} kinds, {made} calls; {len(endpoint.received)} requests to the token "
          f"endpoint, {len(watched.upstream.received)} to the provider; {scanner.report()}")  # fmt: skip
    assert not scanner.hits, "\n".join(sorted({str(hit) for hit in scanner.hits}))
    tried(
        1, "canaries of the other kinds of secrets", kinds=len(found), secrets=len(scanner.canaries), calls=made, hits=0
    )


async def know_the_stores_keys(watched: Watched) -> None:
    """Makes the embedded store, whose keys are canaries: the root key, and those that sign tokens and the audit log."""
    store = await EmbeddedStore.open(watched.stack.home / "vault")
    for purpose in Purpose:
        await store.sign(b"", purpose=purpose)
        private = (await store._run(partial(store._signing_pairs, purpose)))[0][1]
        watched.scanner.add_key(f"the key that signs: {purpose.name}", private.private_bytes_raw())
    await store.close()
    root_key = next(path for path in watched.stack.home.rglob("root.key"))
    watched.scanner.add_key("the root key", root_key.read_bytes())
    watched.rightful[str(root_key.relative_to(watched.stack.home))] = "the root key"


async def drive(watched: Watched, endpoint: ScriptedUpstream, kind: Kind, name: str) -> None:
    """Saves it, uses it while everybody repeats what it was sent, and ends it."""
    repeating = Repeating(watched)
    endpoint.choose, watched.upstream.choose = repeating.endpoint, repeating.provider
    full = f"{ORGANIZATION}/credentials/{name}"
    await save(watched, kind, name)
    call = watched.call_for(kind.model, "ORGANIZATION_KEY")
    call.route_policy.max_attempts = 2  # a rejected token is fetched anew, and the call goes on with the new one
    whole = completion_service_pb2.CompleteRequest(call=call)
    streamed = completion_service_pb2.StreamCompleteRequest(call=call)
    test = credential_test_service_pb2.TestCredentialRequest(credential_version=f"{full}/versions/1", model=kind.model)
    member, admin, router = watched.tokens["member"], watched.tokens["admin"], Router(watched.stack.home)
    rounds = [("text", 401), ("code", 401)] if kind.is_minted else []
    for repeating.refuses, repeating.status in (*rounds, *(("", status) for status in STATUSES)):
        lease = router.request(test.credential_version, member, origin=watched.origin, principal=USER)
        leased = await watched.calls.call("LeaseCredential", lease)
        assert leased.reason == ("MINT_REFUSED" if repeating.refuses and not kind.sent else ""), kind.name
        for method, request, token in (
            ("Complete", whole, member),
            ("TestCredential", test, admin),
            ("StreamComplete", streamed, member),
        ):
            repeating.first = len(repeating.sent)
            await watched.calls.call(method, request, token)
        test.credential_version = await renew(watched, kind, full)  # a key rests after what was said of it
    if kind.is_minted:
        assert repeating.asked, f"{kind.name}: the endpoint was sent the grant"
    assert set(repeating.counts) == set(STATUSES), f"{kind.name}: the provider repeated it in each way"
    assert all(any(canary.value == value for value in repeating.sent) for canary in kind.sent), kind.name
    pb: Any = credential_service_pb2
    for ending in (
        pb.ListCredentialVersionsRequest(parent=full),
        pb.GetCredentialRequest(name=full),
        pb.DisableCredentialRequest(name=full, revocation=pb.Revocation(kill_in_flight=True)),
        pb.DeleteCredentialRequest(name=full),
    ):
        method = type(ending).__name__.removesuffix("Request")
        assert (await watched.calls.call(method, ending, admin)).is_ok, method


async def save(watched: Watched, kind: Kind, name: str) -> None:
    """A credential of the kind with an active version; first with a secret where an API key belongs: refused."""
    pb, admin = credential_service_pb2, watched.tokens["admin"]
    credential = credential_pb2.Credential(
        provider=f"providers/{kind.provider}", kind=kind.kind, allowed_origins=[watched.origin]
    )
    create = pb.CreateCredentialRequest(parent=ORGANIZATION, credential_id=name, credential=credential)
    assert (await watched.calls.call("CreateCredential", create, admin)).is_ok
    full = f"{ORGANIZATION}/credentials/{name}"
    for secret in kind.canaries:
        material = credential_pb2.SecretMaterial(api_key=secret.value)
        wrong = pb.AddCredentialVersionRequest(parent=full, secret_material=material)
        assert not (await watched.calls.call("AddCredentialVersion", wrong, admin)).is_ok
    await renew(watched, kind, full)


async def renew(watched: Watched, kind: Kind, full: str) -> str:
    """The same material as another version, which is active; gives its name."""
    pb, admin = credential_service_pb2, watched.tokens["admin"]
    add = pb.AddCredentialVersionRequest(parent=full, secret_material=kind.material)
    added = (await watched.calls.call("AddCredentialVersion", add, admin)).answers[0]
    assert isinstance(added, pb.AddCredentialVersionResponse)
    name = added.credential_version.name
    activate = pb.ActivateCredentialVersionRequest(name=name, force=True)
    assert (await watched.calls.call("ActivateCredentialVersion", activate, admin)).is_ok
    return name
