"""Tokens of callers: what proves an identity, until when, and what is asked of the credential service for it."""

import base64
from collections.abc import Mapping

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from google.protobuf import duration_pb2
from keyswitch.vault.v1 import token_service_pb2

from router_service.core.faults import Fault, Reason
from router_service.transport.interceptors.tokens import KEYS_AGAIN_SECONDS, Verifier

NOW = 1_000_000.0
ORGANIZATION = "organizations/acme"
USER = "organizations/acme/users/ada"


class World:
    """A clock, the credential service's keys, and how often they were asked for."""

    def __init__(self) -> None:
        self.now = NOW
        self.keys = {"one": Ed25519PrivateKey.generate()}
        self.fetched = 0
        self.verifier = Verifier(lambda: "keyswitch", self.fetch, lambda: self.now)

    async def fetch(self) -> token_service_pb2.GetSigningKeysResponse:
        self.fetched += 1
        purpose = token_service_pb2.SIGNING_KEY_PURPOSE_TOKEN
        keys = [
            token_service_pb2.SigningKey(key_id=name, public_key=key.public_key().public_bytes_raw(), purpose=purpose)
            for name, key in self.keys.items()
        ]
        return token_service_pb2.GetSigningKeysResponse(signing_keys=keys, max_age=duration_pb2.Duration(seconds=300))

    def token(self, key: str = "one", leave_out: str = "", **changes: object) -> str:
        claims: Mapping[str, object] = {
            "iss": "keyswitch",
            "aud": "keyswitch",
            "sub": USER,
            "org": ORGANIZATION,
            "jti": "t1",
            "iat": int(NOW),
            "exp": int(NOW) + 60,
            "roles": ["member"],
            "scope": "complete read_usage",
            **changes,
        }
        kept = {name: value for name, value in claims.items() if name != leave_out}
        return jwt.encode(kept, self.keys[key], algorithm="EdDSA", headers={"kid": key})

    async def refuse(self, token: str) -> str:
        with pytest.raises(Fault) as raised:
            await self.verifier.verify(token)
        assert raised.value.reason is Reason.CALLER_UNKNOWN
        return raised.value.metadata["cause"]


@pytest.fixture
def world() -> World:
    return World()


async def test_a_token_says_who_its_bearer_is(world: World) -> None:
    caller = await world.verifier.verify(world.token())
    assert (caller.organization, caller.user, caller.token_id) == (ORGANIZATION, USER, "t1")
    assert caller.roles == {"member"}
    assert caller.allows("complete")


async def test_a_user_of_another_organization_is_no_user(world: World) -> None:
    caller = await world.verifier.verify(world.token(sub="organizations/other/users/eve"))
    assert caller.user == ""


async def test_a_token_is_verified_once(world: World) -> None:
    token = world.token()
    assert await world.verifier.verify(token) is await world.verifier.verify(token)
    assert world.fetched == 1


@pytest.mark.parametrize("at", [60.0, 61.0])
async def test_a_token_ends_with_its_time_also_when_it_was_verified_before(world: World, at: float) -> None:
    token = world.token()
    await world.verifier.verify(token)
    world.now = NOW + at
    assert await world.refuse(token) == "token_expired"


async def test_a_revoked_token_is_refused_whenever_it_was_seen(world: World) -> None:
    seen, unseen = world.token(), world.token(jti="t2")
    await world.verifier.verify(seen)
    for name in ("t1", "t2"):
        world.verifier.revoke(name, NOW + 60)
    assert await world.refuse(seen) == "token_revoked"
    assert await world.refuse(unseen) == "token_revoked"
    assert (await world.verifier.verify(world.token(jti="t3"))).token_id == "t3"


async def test_revocations_are_kept_as_long_as_their_tokens_could_live(world: World) -> None:
    world.verifier.revoke("t1", NOW + 60)
    world.now = NOW + 59
    world.verifier.revoke("t2", NOW + 100)
    assert await world.refuse(world.token()) == "token_revoked"


@pytest.mark.parametrize("changes", [{"iss": "other"}, {"aud": "other"}, {"leave_out": "jti"}, {"leave_out": "exp"}])
async def test_claims_that_are_not_ours_are_refused(world: World, changes: dict[str, str]) -> None:
    assert await world.refuse(world.token(**changes)) == "token_invalid"


async def test_an_unknown_key_is_looked_up_but_not_for_every_token(world: World) -> None:
    stranger = World()
    stranger.keys["other"] = Ed25519PrivateKey.generate()
    await world.verifier.verify(world.token())
    world.now += KEYS_AGAIN_SECONDS + 0.1
    assert await world.refuse(stranger.token("other")) == "token_invalid"
    fetched = world.fetched
    for _ in range(100):
        assert await world.refuse(stranger.token("other")) == "token_invalid"
    assert world.fetched == fetched


async def test_a_new_key_is_found(world: World) -> None:
    await world.verifier.verify(world.token())
    world.keys["two"] = Ed25519PrivateKey.generate()
    world.now += KEYS_AGAIN_SECONDS + 0.1
    assert (await world.verifier.verify(world.token("two"))).user == USER


async def test_a_key_that_is_withdrawn_verifies_nothing_new(world: World) -> None:
    await world.verifier.verify(world.token())
    old = world.keys.pop("one")
    world.keys["two"] = Ed25519PrivateKey.generate()
    world.now += 301
    world.keys["one"] = old
    token = world.token(jti="later", exp=int(NOW) + 9999)
    del world.keys["one"]
    assert await world.refuse(token) == "token_invalid"


async def test_a_header_that_is_nested_without_end_is_no_token(world: World) -> None:
    nested = base64.urlsafe_b64encode(b"[" * 5000).decode().rstrip("=")
    assert await world.refuse(f"{nested}.e30.eA") == "token_malformed"
