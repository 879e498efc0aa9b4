"""Tokens: what they say, who can make them, and when they prove nothing any longer."""

import base64
import json
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from vault_service.core.access import Caller, Role, Scope
from vault_service.core.changes import ChangeLog, TokenRevoked
from vault_service.core.faults import Fault, Reason
from vault_service.core.issuance import Issuance
from vault_service.core.names import Owner
from vault_service.core.tokens import Verifier, sign_token
from vault_service.store.memory import MemoryStore

ADA = Owner("acme", "ada")


class World:
    """A store, a clock that stands still, and what signs and verifies."""

    def __init__(self) -> None:
        self.now = 1_795_000_000.0
        self.store = MemoryStore(clock=self.clock)
        self.changes = ChangeLog(self.store, clock=self.clock, monotonic=self.clock, fresh_seconds=1)
        self.verifier = Verifier(self.store, self.changes, issuer="keyswitch", clock=self.clock)
        ids = iter(range(1000))
        self.issuance = Issuance(
            self.store,
            self.changes,
            issuer="keyswitch",
            clock=self.clock,
            new_id=lambda: base64.urlsafe_b64encode(next(ids).to_bytes(16, "big")).rstrip(b"=").decode(),
        )

    def clock(self) -> float:
        return self.now

    async def refusal(self, token: str) -> str:
        with pytest.raises(Fault) as caught:
            await self.verifier.verify(token)
        assert caught.value.reason is Reason.CALLER_UNKNOWN
        return caught.value.metadata["cause"]


def caller(world: World, **changes: Any) -> Caller:
    fields: dict[str, Any] = {
        "token_id": "AAAAAAAAAAAAAAAAAAAAAA",
        "subject": str(ADA),
        "owner": Owner("acme"),
        "roles": frozenset({Role.MEMBER}),
        "expire_time": world.now + 3600,
        "user": ADA,
        "application": "organizations/acme/applications/chat",
        "scopes": frozenset({Scope.COMPLETE, Scope.TEST_CREDENTIALS}),
    }
    return Caller(**{**fields, **changes})


async def test_the_claims_are_the_contracts() -> None:
    world = World()
    token = await sign_token(world.store, caller(world), issuer="keyswitch", create_time=world.now)
    assert jwt.get_unverified_header(token)["kid"] == (await world.store.signing_keys())[0].key_id
    assert jwt.decode(token, options={"verify_signature": False}) == {
        "iss": "keyswitch",
        "aud": "keyswitch",
        "jti": "AAAAAAAAAAAAAAAAAAAAAA",
        "iat": 1_795_000_000,
        "exp": 1_795_003_600,
        "sub": "organizations/acme/users/ada",
        "org": "organizations/acme",
        "app": "organizations/acme/applications/chat",
        "roles": ["member"],
        "scope": "complete test_credentials",
    }


async def test_what_was_signed_is_verified() -> None:
    world = World()
    for wanted in (
        caller(world),
        caller(world, user=None, subject="organizations/acme/tokens/AAAAAAAAAAAAAAAAAAAAAA", scopes=frozenset()),
        caller(
            world,
            owner=Owner(),
            user=None,
            subject="deployment/tokens/AAAAAAAAAAAAAAAAAAAAAA",
            application="",
            roles=frozenset({Role.OPERATOR, Role.AUDITOR}),
        ),
    ):
        token = await sign_token(world.store, wanted, issuer="keyswitch", create_time=world.now)
        assert await world.verifier.verify(token) == wanted
        assert await world.verifier.verify(token) == wanted


async def test_time_and_revocation_end_a_token_also_when_it_was_verified_before() -> None:
    world = World()
    token = await sign_token(world.store, caller(world), issuer="keyswitch", create_time=world.now)
    await world.verifier.verify(token)
    await world.changes.append([TokenRevoked("AAAAAAAAAAAAAAAAAAAAAA", world.now + 3600)])
    assert await world.refusal(token) == "token_revoked"
    world = World()
    token = await sign_token(world.store, caller(world), issuer="keyswitch", create_time=world.now)
    await world.verifier.verify(token)
    world.now += 3600
    assert await world.refusal(token) == "token_expired"


async def test_forgeries_are_refused() -> None:
    world = World()
    token = await sign_token(world.store, caller(world), issuer="keyswitch", create_time=world.now)
    header, claims, signature = token.split(".")
    widened = json.loads(base64.urlsafe_b64decode(claims + "=="))
    widened["roles"] = ["operator"]
    forged_claims = base64.urlsafe_b64encode(json.dumps(widened).encode()).rstrip(b"=").decode()
    assert await world.refusal(f"{header}.{forged_claims}.{signature}") == "token_signature"
    assert await world.refusal(f"{header}.{claims}.") == "token_signature"
    other_key = Ed25519PrivateKey.generate()
    payload = jwt.decode(token, options={"verify_signature": False})
    kid = jwt.get_unverified_header(token)["kid"]
    assert await world.refusal(jwt.encode(payload, other_key, "EdDSA", headers={"kid": kid})) == "token_signature"
    assert await world.refusal(jwt.encode(payload, other_key, "EdDSA", headers={"kid": "x"})) == "token_key"
    public = (await world.store.signing_keys())[0].public_key
    symmetric = jwt.encode(payload, public.ljust(32, b"x"), "HS256", headers={"kid": kid})
    assert await world.refusal(symmetric) == "token_malformed"
    assert await world.refusal(jwt.encode(payload, "", "none", headers={"kid": kid})) == "token_malformed"
    assert await world.refusal("x" * 9000) == "token_malformed"
    nested = base64.urlsafe_b64encode(b"[" * 5000).decode()
    assert await world.refusal(f"{nested}.e30.eA") == "token_malformed"
    assert await world.refusal("") == "token_missing"


async def test_tokens_of_another_deployment_are_refused() -> None:
    world = World()
    token = await sign_token(world.store, caller(world), issuer="elsewhere", create_time=world.now)
    assert await world.refusal(token) == "token_issuer"


async def test_a_token_is_listed_without_its_text_and_revoked_once() -> None:
    world = World()
    acme = Owner("acme")
    older = world.issuance.draft(acme, "older", frozenset({Role.MEMBER}), 60, user=ADA)
    text = await world.issuance.issue(older)
    world.now += 1
    newer = world.issuance.draft(acme, "newer", frozenset({Role.ADMIN}), 3600)
    await world.issuance.issue(newer)
    listed = await world.issuance.list_issued(acme, show_inactive=False)
    assert [token.display_name for token in listed] == ["newer", "older"]
    assert text not in repr(world.store._documents)
    revoked = await world.issuance.revoke(newer.name)
    assert revoked.revoke_time == world.now
    world.now += 5
    assert (await world.issuance.revoke(newer.name)).revoke_time == revoked.revoke_time
    assert [token.name for token in await world.issuance.list_issued(acme, show_inactive=False)] == [older.name]
    world.now += 60
    assert not await world.issuance.list_issued(acme, show_inactive=False)
    assert len(await world.issuance.list_issued(acme, show_inactive=True)) == 2
    assert not await world.issuance.list_issued(Owner("other"), show_inactive=True)


async def test_a_request_id_issues_once_a_day() -> None:
    world = World()
    request_id = "4f7c1a52-1d0e-4b8e-9a77-0c2f8f0f7d11"

    async def issue() -> None:
        await world.issuance.issue(world.issuance.draft(Owner(), "t", frozenset({Role.AUDITOR}), 60), request_id)

    await issue()
    with pytest.raises(Fault) as caught:
        await issue()
    assert caught.value.reason is Reason.REQUEST_ID_REUSED
    assert caught.value.metadata == {"requestId": request_id}
    world.now += 86_400
    await issue()


async def test_revoking_the_unknown_is_refused() -> None:
    world = World()
    never_issued = world.issuance.draft(Owner("acme"), "t", frozenset({Role.MEMBER}), 60)
    with pytest.raises(Fault) as caught:
        await world.issuance.revoke(never_issued.name)
    assert caught.value.reason is Reason.TOKEN_UNKNOWN
