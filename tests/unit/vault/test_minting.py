"""Fetching tokens: what endpoints are talked to and how, and what is made of their answers, whatever those are."""

import datetime as dt
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs

import httpx
import jwt
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as AwsKeys
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.oauth2 import service_account
from hypothesis import given
from hypothesis import strategies as st
from keyswitch.vault.v1 import credential_pb2

from vault_service.core.faults import Fault
from vault_service.minting import aws, google, oauth
from vault_service.minting.egress import MAX_ANSWER_BYTES, Egress, MintRefused, MintUnavailable
from vault_service.minting.endpoints import TokenEndpoints
from vault_service.minting.tokens import Minted, read_answer
from vault_service.transport.wire_secrets import read_material

ENDPOINT = "https://auth.example/token"
NOW = 1_800_000_000.0
KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
KEY_PEM = KEY.private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
).decode()
KEY_FILE = {
    "type": "service_account",
    "client_email": "router@project.iam.gserviceaccount.com",
    "private_key_id": "0123456789abcdef",
    "private_key": KEY_PEM,
    "token_uri": "https://oauth2.googleapis.com/token",
}
PAIR = credential_pb2.AwsKeyPair(
    access_key_id="AKIAIOSFODNN7EXAMPLE",
    secret_access_key="wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    region="us-east-1",
    role_arn="arn:aws:iam::123456789012:role/keyswitch",
    external_id="acme-42",
)
GRANT = credential_pb2.OauthGrant(
    refresh_token="refresh-0123456789", token_endpoint=ENDPOINT, client_id="client", scopes=["a", "b"]
)

Handler = Callable[[httpx.Request], httpx.Response]


def egress(handler: Handler, *origins: str) -> Egress:
    endpoints = TokenEndpoints(origins or ("https://auth.example", "https://oauth2.googleapis.com"))
    return Egress(endpoints, httpx.MockTransport(handler))


def answering(status: int, body: bytes = b"", **headers: str) -> Handler:
    return lambda request: httpx.Response(status, content=body, headers=headers)


# --- endpoints -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "origin",
    [
        "http://auth.example",
        "ftp://auth.example",
        "auth.example",
        "https://",
        "https://a:b@auth.example",
        "http://10.0.0.1",
    ],
)
def test_an_origin_that_must_not_be_listed(origin: str) -> None:
    with pytest.raises(ValueError, match="token endpoint"):
        TokenEndpoints([origin])


@pytest.mark.parametrize(
    ("url", "is_allowed"),
    [
        ("https://auth.example/token", True),
        ("https://AUTH.example:443/x?y", True),
        ("https://auth.example:8443/token", False),
        ("http://auth.example/token", False),
        ("https://auth.example.evil.example/token", False),
        ("https://auth.example@evil.example/token", False),
        ("https://evil.example/?https://auth.example/token", False),
        ("https://user@auth.example/token", False),
        ("https://auth.example/#x", False),
        ("https://[::1", False),
        ("", False),
    ],
)
def test_only_the_very_origin_is_allowed(url: str, is_allowed: bool) -> None:
    assert TokenEndpoints(["https://auth.example"]).allows(url) is is_allowed


def test_nothing_is_allowed_by_default() -> None:
    assert not TokenEndpoints().allows(ENDPOINT)


# --- answers ---------------------------------------------------------------------------------------------------------


async def test_a_grant_is_renewed_as_the_standard_says() -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json={"access_token": "new", "expires_in": 60, "refresh_token": "next"})

    minted = await oauth.refresh(GRANT, egress(answer), NOW)
    assert minted == Minted("new", NOW + 60, "next")
    assert parse_qs(seen[0].content.decode()) == {
        "grant_type": ["refresh_token"],
        "refresh_token": ["refresh-0123456789"],
        "client_id": ["client"],
        "scope": ["a b"],
    }
    merged = oauth.merge(GRANT, minted)
    assert oauth.current(merged) == Minted("new", NOW + 60)
    assert merged.refresh_token == "next"
    kept = oauth.merge(GRANT, Minted("new", NOW + 60))
    assert kept.refresh_token == GRANT.refresh_token, "a server that does not rotate sends none"


@pytest.mark.parametrize(
    ("handler", "error", "cause"),
    [
        (answering(400, b'{"error":"invalid_grant"}'), MintRefused, "invalid_grant"),
        (answering(400, b'{"error":"CANARY0abc"}'), MintRefused, "status_400"),
        (answering(401, b'{"error":"invalid_client","error_description":"CANARY"}'), MintRefused, "invalid_client"),
        (answering(400, b'{"error":"sk-CANARY with spaces"}'), MintRefused, "status_400"),
        (answering(403, b"<html>CANARY"), MintRefused, "status_403"),
        (answering(400, b'{"error":"temporarily_unavailable"}'), MintUnavailable, "temporarily_unavailable"),
        (answering(429, b""), MintUnavailable, "status_429"),
        (answering(500, b""), MintUnavailable, "status_500"),
        (answering(302, b"", location="https://evil.example/"), MintUnavailable, "status_302"),
        (answering(204, b""), MintUnavailable, "status_204"),
        (answering(200, b"not json"), MintUnavailable, "malformed"),
        (answering(200, b"[1]"), MintUnavailable, "malformed"),
        (answering(200, b"{}"), MintUnavailable, "malformed"),
        (answering(200, b'{"access_token":""}'), MintUnavailable, "malformed"),
        (answering(200, b'{"access_token":"a b"}'), MintUnavailable, "malformed"),
        (answering(200, b'{"access_token":"a","expires_in":-1}'), MintUnavailable, "malformed"),
        (answering(200, b'{"access_token":"a","refresh_token":7}'), MintUnavailable, "malformed"),
        (answering(200, b"x" * (MAX_ANSWER_BYTES + 1)), MintUnavailable, "answer_too_long"),
    ],
)
async def test_what_an_endpoint_answers_is_refused_or_unavailable(
    handler: Handler, error: type[MintRefused] | type[MintUnavailable], cause: str
) -> None:
    with pytest.raises(error) as caught:
        await oauth.refresh(GRANT, egress(handler), NOW)
    assert caught.value.args == (cause,)
    assert "CANARY" not in repr(caught.value)


async def test_an_endpoint_out_of_reach_is_unavailable_and_the_request_is_not_in_the_error() -> None:
    def fail(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("CANARY", request=request)

    with pytest.raises(MintUnavailable) as caught:
        await oauth.refresh(GRANT, egress(fail), NOW)
    assert caught.value.cause == "unreachable"
    assert caught.value.__context__ is None


async def test_what_is_not_listed_is_never_asked() -> None:
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(200, json={})

    with pytest.raises(MintRefused) as caught:
        await oauth.refresh(GRANT, egress(answer, "https://other.example"), NOW)
    assert caught.value.cause == "endpoint_not_allowed"
    assert asked == []


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=2),
    max_leaves=4,
)


@given(
    st.dictionaries(st.sampled_from(["access_token", "expires_in", "refresh_token", "token_type", "x"]), json_values)
)
def test_any_answer_is_a_token_or_malformed(answer: dict[str, object]) -> None:
    try:
        minted = read_answer(answer, NOW)
    except MintUnavailable:
        return
    assert minted.token == answer["access_token"]
    assert minted.expire_time > NOW


# --- Google ----------------------------------------------------------------------------------------------------------


async def test_a_service_account_asserts_what_googles_own_library_does() -> None:
    seen: list[dict[str, list[str]]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(parse_qs(request.content.decode()))
        return httpx.Response(200, json={"access_token": "ya29.token", "expires_in": 3599})

    now = dt.datetime.now(dt.UTC).timestamp()
    account = credential_pb2.GoogleServiceAccount(key_json=json.dumps(KEY_FILE))
    minted = await google.mint(account, egress(answer), now)
    assert minted == Minted("ya29.token", now + 3599)
    ours = seen[0]["assertion"][0]
    oracle: Any = service_account.Credentials.from_service_account_info(  # type: ignore[no-untyped-call] # no types there
        KEY_FILE, scopes=[google.DEFAULT_SCOPE]
    )
    theirs = oracle._make_authorization_grant_assertion()
    assert seen[0]["grant_type"] == ["urn:ietf:params:oauth:grant-type:jwt-bearer"]
    claims = [
        jwt.decode(token, KEY.public_key(), algorithms=["RS256"], audience=KEY_FILE["token_uri"])
        for token in (ours, theirs)
    ]
    for one in claims:
        assert one.pop("exp") - one.pop("iat") == 3600
    assert claims[0] == claims[1]
    assert jwt.get_unverified_header(ours) == jwt.get_unverified_header(theirs)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        '{"type":"authorized_user"}',
        json.dumps({**KEY_FILE, "private_key": "x"}),
        json.dumps({**KEY_FILE, "token_uri": 1}),
    ],
)
def test_what_is_no_key_file_is_refused_without_repeating_it(text: str) -> None:
    material = credential_pb2.SecretMaterial(google_service_account=credential_pb2.GoogleServiceAccount(key_json=text))
    with pytest.raises(Fault) as caught:
        read_material(material, TokenEndpoints(["https://oauth2.googleapis.com"]))
    assert caught.value.metadata == {"field": "secret_material.google_service_account.key_json", "cause": "format"}


# --- AWS -------------------------------------------------------------------------------------------------------------

ASSUMED = b"""<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult>
<Credentials><AccessKeyId>ASIAEXAMPLE</AccessKeyId><SecretAccessKey>secret</SecretAccessKey>
<SessionToken>session</SessionToken><Expiration>2027-01-15T09:00:00Z</Expiration></Credentials>
</AssumeRoleResult><ResponseMetadata><RequestId>1</RequestId></ResponseMetadata></AssumeRoleResponse>"""


async def test_a_role_is_assumed_with_a_signed_request() -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, content=ASSUMED)

    endpoint = aws.sts_endpoint("us-east-1")
    session = await aws.assume_role(
        PAIR, egress(answer, "https://sts.us-east-1.amazonaws.com"), endpoint, "keyswitch-1"
    )
    end = dt.datetime(2027, 1, 15, 9, tzinfo=dt.UTC).timestamp()
    assert session == aws.Session("ASIAEXAMPLE", "secret", "session", end)
    assert "secret" not in repr(session)
    request = seen[0]
    form = parse_qs(request.content.decode())
    assert form["RoleArn"] == [PAIR.role_arn]
    assert form["ExternalId"] == ["acme-42"]
    # As AWS does: the signature is made again from what arrived, and has to be the same.
    again = AWSRequest(
        "POST", str(request.url), data=request.content, headers={"content-type": request.headers["content-type"]}
    )
    again.context["timestamp"] = request.headers["x-amz-date"]
    again.headers["X-Amz-Date"] = request.headers["x-amz-date"]
    signer = SigV4Auth(AwsKeys(PAIR.access_key_id, PAIR.secret_access_key), "sts", "us-east-1")
    signature = signer.signature(signer.string_to_sign(again, signer.canonical_request(again)), again)
    assert request.headers["authorization"].endswith(f"Signature={signature}")


@pytest.mark.parametrize(
    "body",
    [b"", b"<x/>", b"not xml", ASSUMED.replace(b"SessionToken", b"Other"), b"<!DOCTYPE x [<!ENTITY a 'b'>]><x>&a;</x>"],
)
async def test_an_answer_of_sts_that_is_none_is_malformed(body: bytes) -> None:
    with pytest.raises(MintUnavailable, match="malformed"):
        await aws.assume_role(
            PAIR,
            egress(answering(200, body), "https://sts.us-east-1.amazonaws.com"),
            aws.sts_endpoint("us-east-1"),
            "s",
        )


def sts_error(code: str) -> bytes:
    """An error as STS words it, with text that may repeat what was sent."""
    namespace = "https://sts.amazonaws.com/doc/2011-06-15/"
    error = f"<Error><Type>Sender</Type><Code>{code}</Code><Message>CANARY</Message></Error>"
    return f'<ErrorResponse xmlns="{namespace}">{error}<RequestId>1</RequestId></ErrorResponse>'.encode()


@pytest.mark.parametrize(
    ("status", "body", "error", "cause"),
    [
        (403, sts_error("AccessDenied"), MintRefused, "AccessDenied"),
        (403, sts_error("ExpiredToken"), MintRefused, "ExpiredToken"),
        (400, sts_error("Throttling"), MintUnavailable, "Throttling"),
        (403, sts_error("CANARY"), MintRefused, "status_403"),
        (400, b'{"error":"invalid_grant"}', MintRefused, "status_400"),
        (400, b"<Error>CANARY</Error>", MintRefused, "status_400"),
        (400, b"\xff", MintRefused, "status_400"),
        (503, sts_error("AccessDenied"), MintUnavailable, "status_503"),
    ],
)
async def test_what_sts_says_is_refused_or_unavailable(
    status: int, body: bytes, error: type[MintRefused] | type[MintUnavailable], cause: str
) -> None:
    endpoint = aws.sts_endpoint("us-east-1")
    with pytest.raises(error) as caught:
        await aws.assume_role(PAIR, egress(answering(status, body), endpoint), endpoint, "keyswitch-1")
    assert caught.value.args == (cause,)
    assert "CANARY" not in repr(caught.value)


# --- the door --------------------------------------------------------------------------------------------------------


def changed(**fields: object) -> credential_pb2.SecretMaterial:
    grant = credential_pb2.OauthGrant()
    grant.CopyFrom(GRANT)
    for name, value in fields.items():
        if isinstance(value, list):
            getattr(grant, name)[:] = value
        else:
            setattr(grant, name, value)
    return credential_pb2.SecretMaterial(oauth=grant)


@pytest.mark.parametrize(
    ("material", "field"),
    [
        (changed(refresh_token=""), "oauth.refresh_token"),
        (changed(refresh_token="with a space"), "oauth.refresh_token"),
        (changed(access_token='quoted"token'), "oauth.access_token"),
        (changed(client_secret="line\nbreak"), "oauth.client_secret"),
        (changed(client_id=""), "oauth.client_id"),
        (changed(token_endpoint="https://evil.example/"), "oauth.token_endpoint"),
        (changed(scopes=["a b"]), "oauth.scopes"),
        (changed(scopes=["s"] * 33), "oauth.scopes"),
        (
            credential_pb2.SecretMaterial(
                entra=credential_pb2.EntraApplication(tenant_id="../x", client_id="c", client_secret="s" * 8)
            ),
            "entra.tenant_id",
        ),
        (
            credential_pb2.SecretMaterial(entra=credential_pb2.EntraApplication(tenant_id="t-1", client_id="c")),
            "entra.proof",
        ),
        (
            credential_pb2.SecretMaterial(
                entra=credential_pb2.EntraApplication(tenant_id="t-1", client_id="c", client_certificate_pem=KEY_PEM)
            ),
            "entra.client_certificate_pem",
        ),
        (
            credential_pb2.SecretMaterial(
                entra=credential_pb2.EntraApplication(tenant_id="t-1", client_id="c", client_secret="s" * 8)
            ),
            "entra.authority",
        ),
        (credential_pb2.SecretMaterial(aws=PAIR), "aws.role_arn"),
    ],
)
def test_what_does_not_fit_its_kind_is_refused_at_the_door(material: credential_pb2.SecretMaterial, field: str) -> None:
    with pytest.raises(Fault) as caught:
        read_material(material, TokenEndpoints(["https://auth.example"]))
    assert caught.value.metadata["field"] == f"secret_material.{field}"


def test_what_fits_is_taken_with_a_fingerprint() -> None:
    endpoints = TokenEndpoints(
        ["https://auth.example", "https://sts.us-east-1.amazonaws.com", "https://oauth2.googleapis.com"]
    )
    google_account = credential_pb2.GoogleServiceAccount(key_json=json.dumps(KEY_FILE))
    assert read_material(changed(refresh_token="r" * 20 + "-abcdefgh"), endpoints)[::2] == ("OAUTH", "…efgh")
    assert read_material(credential_pb2.SecretMaterial(aws=PAIR), endpoints)[::2] == ("AWS", "AKIA…MPLE")
    kind, _, fingerprint = read_material(
        credential_pb2.SecretMaterial(google_service_account=google_account), endpoints
    )
    assert (kind, fingerprint) == ("GOOGLE_SERVICE_ACCOUNT", "…cdef")
