"""AWS's signature: byte for byte what botocore makes, and who may use which kind of key."""

from datetime import UTC, datetime
from typing import Any

import pytest
from botocore import auth as botocore_auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st

from router_service.core.endpoint import AuthScheme
from router_service.core.faults import Fault, Reason
from router_service.core.secret import AwsKeyPair, Hiding, Secret
from router_service.upstream.auth import authorize, derived_secret
from router_service.upstream.client import UpstreamRequest

NOW = 1785000000.5
ID = "AKIDEXAMPLE123456789"
SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
TOKEN = "IQoJb3JpZ2luX2VjEXAMPLETOKEN//////////8BEXAMPLE=="
HOST = "https://bedrock-runtime.us-west-2.amazonaws.com"


def pair(token: str = "", region: str = "us-east-1") -> AwsKeyPair:
    return AwsKeyPair(ID, SECRET, token, region)


def request(url: str, body: bytes = b"{}", method: str = "POST") -> UpstreamRequest:
    return UpstreamRequest(method, url, (("accept", "*/*"), ("content-type", "application/json")), body)


def oracle(monkeypatch: pytest.MonkeyPatch, asked: UpstreamRequest, token: str, region: str) -> str:
    moment = datetime.fromtimestamp(NOW, UTC)
    monkeypatch.setattr(botocore_auth, "get_current_datetime", lambda *_: moment.replace(tzinfo=None))
    made: Any = AWSRequest(asked.method, asked.url, headers={"content-type": "application/json"}, data=asked.body)
    signer: Any = botocore_auth.SigV4Auth(Credentials(ID, SECRET, token or None), "bedrock", region)
    signer.add_auth(made)
    return str(made.headers["Authorization"])


def authorization(signed: UpstreamRequest) -> str:
    return dict(signed.headers)["authorization"]


@pytest.mark.parametrize("token", ["", TOKEN])
@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/model/amazon.nova-lite-v1%3A0/converse", b"{}"),
        ("POST", "/model/amazon.nova-lite-v1:0/converse-stream", "{🌍}".encode()),
        ("POST", "/model/arn%3Aaws%3Abedrock%3Aus-west-2%3A1%3Ainference-profile%2Fa.b-v1%3A0/invoke", b"x" * 10_000),
        ("POST", "/model/a%20b~c_d/converse", b""),
        ("GET", "/foundation-models?byOutputModality=TEXT&byProvider=a%20b", b""),
        ("GET", "/", b""),
    ],
)
def test_a_signature_is_what_botocore_makes(
    monkeypatch: pytest.MonkeyPatch, method: str, path: str, body: bytes, token: str
) -> None:
    asked = request(HOST + path, body, method)
    signed = authorize(asked, AuthScheme.AWS, pair(token), NOW)
    assert authorization(signed) == oracle(monkeypatch, asked, token, "us-west-2")
    assert dict(signed.headers).get("x-amz-security-token", "") == token
    assert signed.headers[:2] == asked.headers


@given(
    st.text("abcXYZ019-._~/%: ", max_size=20).map(lambda text: text.replace("%", "%3A").replace(" ", "%20")),
    st.binary(max_size=50),
)
def test_any_path_is_signed_as_botocore_signs_it(path: str, body: bytes) -> None:
    path = "/" + "/".join(part for part in path.split("/") if part.strip("."))
    with pytest.MonkeyPatch.context() as patched:
        asked = request(HOST + path, body)
        signed = authorize(asked, AuthScheme.AWS, pair(), NOW)
        assert authorization(signed) == oracle(patched, asked, "", "us-west-2")


@pytest.mark.parametrize(
    ("host", "region"),
    [
        ("bedrock-runtime.eu-central-1.amazonaws.com", "eu-central-1"),
        ("bedrock-runtime-fips.us-gov-west-1.amazonaws.com", "us-gov-west-1"),
        ("vpce-0a1b.bedrock-runtime.ap-south-1.vpce.amazonaws.com", "ap-south-1"),
        ("bedrock.us-west-2.amazonaws.com", "us-west-2"),
        ("proxy.example.org:8443", "us-east-1"),
        ("127.0.0.1:9", "us-east-1"),
    ],
)
def test_the_region_is_the_hosts_and_else_the_keys(monkeypatch: pytest.MonkeyPatch, host: str, region: str) -> None:
    asked = request(f"https://{host}/model/m/converse")
    signed = authorize(asked, AuthScheme.AWS, pair(), NOW)
    assert f"/{region}/bedrock/aws4_request" in authorization(signed)
    assert authorization(signed) == oracle(monkeypatch, asked, "", region)


def test_an_api_key_of_bedrock_is_a_bearer_token() -> None:
    signed = authorize(request(HOST), AuthScheme.AWS, Secret("bedrock-api-key-abc"), NOW)
    assert authorization(signed) == "Bearer bedrock-api-key-abc"
    assert derived_secret(signed) is None


@pytest.mark.parametrize("scheme", [s for s in AuthScheme if s not in {AuthScheme.AWS, AuthScheme.NONE}])
def test_the_secret_half_of_a_pair_is_never_sent(scheme: AuthScheme) -> None:
    with pytest.raises(Fault) as caught:
        authorize(request(HOST), scheme, pair(), NOW)
    assert caught.value.reason is Reason.NO_USABLE_CREDENTIAL
    signed = authorize(request(HOST), AuthScheme.AWS, pair(TOKEN), NOW)
    assert SECRET not in str(signed.headers)
    for shown in (repr(pair(TOKEN)), str(pair(TOKEN)), f"{pair(TOKEN)}", repr(signed)):
        assert SECRET not in shown
        assert TOKEN not in shown


def test_what_a_provider_repeats_of_a_pair_is_hidden() -> None:
    signed = authorize(request(HOST), AuthScheme.AWS, pair(TOKEN), NOW)
    signature = authorization(signed).rpartition("=")[2]
    hide = Hiding(pair(TOKEN), derived_secret(signed))
    for secret in (SECRET, TOKEN, signature):
        said = hide(f'{{"text":"it was {secret} indeed"}}'.encode())
        assert secret[:20].encode() not in said
        assert b"indeed" in said
    assert hide(b"nothing") == b"nothing"
