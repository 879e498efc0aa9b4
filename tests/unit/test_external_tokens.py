"""Tokens of other issuers: what is refused, what claims mean here, and when the issuer is asked for its keys."""

import base64
import json
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from vault_service.external import (
    KEYS_AGAIN_SECONDS,
    KEYS_MAX_AGE_SECONDS,
    LEEWAY_SECONDS,
    ExternalSettingsError,
    ExternalTokenRefused,
    Issuers,
    IssuerUnavailable,
    read_settings,
)

ROOT = Path(__file__).parents[2]
NOW = 1_000_000.0
ISSUER = "https://login.example"
RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
SMALL_KEY = rsa.generate_private_key(public_exponent=65537, key_size=1024)
OTHER_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())
SETTINGS: dict[str, Any] = {
    "issuer": ISSUER,
    "audience": "keyswitch",
    "algorithms": ["RS256", "ES256"],
    "allowed_roles": ["member", "auditor"],
    "organization": "acme",
    "user_claim": "sub",
    "role_claim": "groups",
    "roles": {"engineers": "member", "revision": "auditor"},
    "scope_claim": "scope",
    "scopes": {"llm": "complete"},
}


def public(key: Any, key_id: str, **more: Any) -> dict[str, Any]:
    """A public key as the issuer shows it."""
    to_jwk = RSAAlgorithm.to_jwk if isinstance(key, rsa.RSAPrivateKey) else ECAlgorithm.to_jwk
    return {**to_jwk(key.public_key(), as_dict=True), "kid": key_id, **more}


class World:
    """An issuer whose keys and failures a test sets, and a clock."""

    def __init__(self, tmp_path: Path, **changes: Any) -> None:
        self.now = NOW
        self.keys = [public(RSA_KEY, "rsa"), public(EC_KEY, "ec"), public(SMALL_KEY, "small")]
        self.is_away = False
        self.asked: list[str] = []
        path = tmp_path / "issuers.json"
        path.write_text(json.dumps({"issuers": [{**SETTINGS, **changes}]}))
        self.issuers = Issuers(read_settings(path), lambda: self.now, self.fetch)

    async def fetch(self, url: str) -> bytes:
        self.asked.append(url)
        if self.is_away:
            raise ValueError("away")
        if url.endswith("/.well-known/openid-configuration"):
            return json.dumps({"issuer": ISSUER, "jwks_uri": f"{ISSUER}/keys"}).encode()
        return json.dumps({"keys": self.keys}).encode()

    async def refuse(self, token: str) -> str:
        assert self.issuers.concerns(token)
        with pytest.raises(ExternalTokenRefused) as caught:
            await self.issuers.verify(token)
        return caught.value.cause


def make(
    key: Any = RSA_KEY, algorithm: str = "RS256", key_id: Any = "rsa", *, leave_out: str = "", **changes: Any
) -> str:
    """A token that is right in everything but what is changed."""
    claims = {
        "iss": ISSUER,
        "aud": ["keyswitch", "other"],
        "sub": "ada",
        "jti": "one",
        "iat": int(NOW),
        "exp": int(NOW) + 600,
        "groups": ["engineers", "operators"],
        "scope": "openid llm",
        **changes,
    }
    claims.pop(leave_out, None)
    return jwt.encode(claims, key, algorithm=algorithm, headers={"kid": key_id})


def part(value: str) -> str:
    """A part of a token."""
    return base64.urlsafe_b64encode(value.encode()).rstrip(b"=").decode()


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_both_services_read_alike() -> None:
    names = ("external.py", "workloads.py", "core/refusal_limit.py", "transport/handshakes.py")
    pairs = [(f"router_service/{name}", f"vault_service/{name}") for name in names]
    for one, other in [*pairs, ("router_service/database/patience.py", "vault_service/store/patience.py")]:
        assert (ROOT / one).read_text() == (ROOT / other).read_text(), f"{one} and {other} are one text: copy it"


@pytest.mark.parametrize(("key", "algorithm", "key_id"), [(RSA_KEY, "RS256", "rsa"), (EC_KEY, "ES256", "ec")])
async def test_claims_mean_what_the_operator_says(world: World, key: Any, algorithm: str, key_id: str) -> None:
    found = await world.issuers.verify(make(key, algorithm, key_id))
    assert (found.organization, found.user, found.application) == ("acme", "ada", "")
    assert (found.roles, found.scopes) == (frozenset({"member"}), frozenset({"complete"}))
    assert found.expire_time == NOW + 600 + LEEWAY_SECONDS
    assert len(found.token_id) == 22


@pytest.mark.parametrize(
    ("token", "cause"),
    [
        (make(EC_KEY, "ES256", "rsa"), "token_key"),
        (make(RSA_KEY, "RS512", "rsa"), "token_key"),
        (make(RSA_KEY, "PS256", "rsa"), "token_key"),
        (make(RSA_KEY, "RS256", "small"), "token_key"),
        (make(OTHER_KEY, "RS256", "rsa"), "token_signature"),
        (make(RSA_KEY, "RS256", "../../etc/passwd"), "token_key"),
        (make(RSA_KEY, "RS256", ""), "token_key"),
        (make(b"x" * 64, "HS256", "rsa"), "token_key"),
        (jwt.encode({"iss": ISSUER, "aud": "keyswitch"}, "", algorithm="none"), "token_key"),
        (make(aud="other"), "token_issuer"),
        (make(aud=["other"]), "token_issuer"),
        (make(exp=int(NOW) - 31), "token_expired"),
        (make(iat=int(NOW) - 86_401, exp=int(NOW) + 10**9), "token_expired"),
        (make(nbf=int(NOW) + 31), "token_early"),
        (make(iat=int(NOW) + 31), "token_early"),
        (make(exp=True), "token_malformed"),
        (make(exp=float("nan")), "token_malformed"),
        (make(iat=float("nan")), "token_malformed"),
        (make(exp=10**400), "token_malformed"),
        (make(leave_out="exp"), "token_malformed"),
        (make(leave_out="iat"), "token_malformed"),
        (make(leave_out="sub"), "token_malformed"),
        (make(sub="Not An Id"), "token_user"),
        (make(sub="../boss"), "token_user"),
        (make(groups=["operators"]), "token_roles"),
        (make(groups={"engineers": 1}), "token_roles"),
        (make(scope="openid"), "token_scopes"),
    ],
)  # fmt: skip
async def test_what_is_refused(world: World, token: str, cause: str) -> None:
    assert await world.refuse(token) == cause


async def test_a_token_that_says_a_thing_twice_is_none_of_theirs(world: World) -> None:
    head, _, signature = make().split(".")
    twice = f'{{"iss":"{ISSUER}","iss":"{ISSUER}","aud":"keyswitch"}}'
    assert not world.issuers.concerns(f"{head}.{part(twice)}.{signature}")
    double_head = part('{"alg":"RS256","alg":"none","kid":"rsa"}')
    assert await world.refuse(f"{double_head}.{make().split('.')[1]}.{signature}") == "token_malformed"


@pytest.mark.parametrize(
    "token", ["", "a.b", "a.b.c", "....", "é.é.é", make(iss="https://evil.example"), make(x="x" * 8192)]
)
def test_what_is_not_theirs_is_left_to_others(world: World, token: str) -> None:
    assert not world.issuers.concerns(token)


async def test_two_keys_of_one_id_are_neither(world: World) -> None:
    world.keys.append(public(EC_KEY, "rsa"))
    assert await world.refuse(make()) == "token_key"


async def test_key_ids_of_strangers_ask_the_issuer_once_in_a_while(world: World) -> None:
    await world.issuers.verify(make())
    world.asked.clear()
    for number in range(20):
        assert await world.refuse(make(key_id=f"made-up-{number}")) == "token_key"
    assert world.asked == []
    world.now += KEYS_AGAIN_SECONDS
    for number in range(20):
        assert await world.refuse(make(key_id=f"made-up-{number}")) == "token_key"
    assert len(world.asked) == 2  # the discovery document and the keys


async def test_a_new_key_is_fetched_and_an_old_one_forgotten(world: World) -> None:
    await world.issuers.verify(make())
    world.keys = [public(EC_KEY, "new")]
    world.now += KEYS_AGAIN_SECONDS
    assert (await world.issuers.verify(make(EC_KEY, "ES256", "new"))).user == "ada"
    assert await world.refuse(make()) == "token_key"


async def test_an_issuer_that_is_away_is_waited_for_with_the_keys_in_hand(world: World) -> None:
    token = make(exp=int(NOW) + 80_000)
    await world.issuers.verify(token)
    world.is_away = True
    world.now += KEYS_MAX_AGE_SECONDS + 1
    assert (await world.issuers.verify(token)).user == "ada"
    with pytest.raises(IssuerUnavailable):
        await world.issuers.verify(make(key_id="perhaps-new", exp=int(NOW) + 80_000))
    world.now = NOW + 3601
    with pytest.raises(IssuerUnavailable):
        await world.issuers.verify(token)
    world.is_away = False
    world.now += KEYS_AGAIN_SECONDS
    assert (await world.issuers.verify(token)).user == "ada"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"issuer": "http://login.example"}, "https"),
        ({"jwks_url": "http://login.example/keys"}, "https"),
        ({"algorithms": ["HS256"]}, "algorithms"),
        ({"algorithms": ["none"]}, "algorithms"),
        ({"allowed_roles": ["operator"]}, "allowed_roles"),
        ({"roles": {"boss": "admin"}}, "beyond allowed_roles"),
        ({"organization": ""}, "organization"),
        ({"organization": "No"}, "no id"),
        ({"scopes": {"act": "act_on_behalf"}}, "act_on_behalf"),
        ({"typo": 1}, "typo"),
    ],
)
def test_settings_that_would_open_a_door_are_refused(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ExternalSettingsError, match=words):
        World(tmp_path, **changes)


def test_a_file_that_is_not_there_is_told_from_one_that_is_no_json(tmp_path: Path) -> None:
    path = tmp_path / "issuers.json"
    with pytest.raises(ExternalSettingsError, match="it is not there, or this user may not read it"):
        read_settings(path)
    path.write_text("{")
    with pytest.raises(ExternalSettingsError, match="it cannot be read as JSON"):
        read_settings(path)
