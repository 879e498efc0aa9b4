"""What clouds have instead of keys, from the command line to the provider: service accounts and roles.

The endpoints that give tokens and sessions are fakes; what is sent to them is checked with the vendors' own libraries.
"""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import jwt
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from keyswitch.router.v1 import payer_pb2

from tests.fakes.scripted_upstream import Action, Received, ScriptedUpstream, respond, scripted_upstream, stream
from tests.service.router_answers import PRICE, Json, anthropic_events
from tests.service.router_harness import Stack, make_call, running_stack
from tests.service.test_router_bedrock import answer as converse_answer
from tests.service.test_router_embeddings import count, embed

PATH = "/v1/projects/acme-ai/locations/global/publishers"
ACCOUNT = "router@acme-ai.iam.gserviceaccount.com"
USAGE = {"promptTokenCount": 100, "candidatesTokenCount": 50}
ROLE = "arn:aws:iam::123456789012:role/models"
PAIR = ("AKIDLONGLIVED1234567", "wJalrXUtnFEMIK7MDENGbPxRfiCYLONGLIVEDKEY")
SESSION = ("ASIASESSION123456789", "kT9sessionsecretk7MDENGbPxRfiCYEXAMPLEKEY", "IQoJsessiontokenEXAMPLE0123456789==")


class TokenServer:
    """Where a service account's assertion becomes a token: each one is checked and answered with a new token."""

    def __init__(self, upstream: ScriptedUpstream, key: rsa.RSAPrivateKey) -> None:
        self.url = f"http://127.0.0.1:{upstream.port}/token"
        self.claims: list[dict[str, Any]] = []
        self._key = key
        upstream.choose = self._answer

    @property
    def tokens(self) -> list[str]:
        """All that were given."""
        return [f"ya29.access-token-{number}" for number in range(1, len(self.claims) + 1)]

    def _answer(self, request: Received) -> list[Action]:
        form = parse_qs(request.body.decode())
        assert form["grant_type"] == ["urn:ietf:params:oauth:grant-type:jwt-bearer"]
        assert jwt.get_unverified_header(form["assertion"][0])["kid"] == "key-0001"
        self.claims.append(
            jwt.decode(form["assertion"][0], self._key.public_key(), algorithms=["RS256"], audience=self.url)
        )
        given = {"access_token": self.tokens[-1], "expires_in": 3599, "token_type": "Bearer"}
        return respond(json.dumps(given).encode())


def key_file(key: rsa.RSAPrivateKey, token_uri: str) -> str:
    """The file that Google's console gives for a service account."""
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    return json.dumps(
        {
            "type": "service_account",
            "project_id": "acme-ai",
            "private_key_id": "key-0001",
            "private_key": pem,
            "client_email": ACCOUNT,
            "client_id": "1234567890",
            "token_uri": token_uri,
        }
    )


def use_vertex(made: Json) -> None:
    """The built-in entries for Vertex AI, but for their address, and models of each kind."""
    port = made["providers"]["first"]["base_url"].removesuffix("/v1")
    networks = ["127.0.0.1/32"]
    made["providers"] = {
        "first": {
            "template": "vertex-project",
            "base_url": f"{port}{PATH}/google",
            "allowed_private_networks": networks,
        },
        "claude": {
            "template": "vertex-anthropic",
            "base_url": f"{port}{PATH}/anthropic/models",
            "allowed_private_networks": networks,
        },
    }
    predict = {"provider": "first", "upstream_model": "text-embedding-005", "quirks": {"embedding_api": "predict"}}
    made["models"] = {
        "test/echo": {"endpoints": [{"provider": "first", "upstream_model": "gemini-1"}], "price": PRICE},
        "test/claude": {"endpoints": [{"provider": "claude", "upstream_model": "claude-1@20260101"}], "price": PRICE},
        "test/embed": {"endpoints": [predict], "price": PRICE, "embedding": {"dimensions": 2}},
    }
    made["deployment_credentials"] = {}


@pytest.fixture
async def google(tmp_path: Path) -> AsyncIterator[tuple[Stack, TokenServer]]:
    async with AsyncExitStack() as exits:
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        tokens = TokenServer(await exits.enter_async_context(scripted_upstream()), key)
        home = tmp_path / "home"
        home.mkdir(mode=0o700)
        (tmp_path / "account.json").write_text(key_file(key, tokens.url))
        changes = {"token_endpoints": frozenset({tokens.url})}
        running = await exits.enter_async_context(running_stack(home, configuration=use_vertex, vault_changes=changes))
        yield running, tokens


async def keyswitch(stack: Stack, *arguments: str) -> tuple[int, str]:
    """Runs the command as an administrator of the organization."""
    environment = {
        **os.environ,
        "KEYSWITCH_HOME": str(stack.home),
        "KEYSWITCH_ROUTER": f"localhost:{stack.router.port}",
        "KEYSWITCH_VAULT": f"localhost:{stack.vault.service.management_port}",
        "KEYSWITCH_TOKEN": stack.admin.token,
        "COLUMNS": "200",
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "keyswitch_cli", "-o", "demo", *arguments),
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await process.communicate()
    await stack.settle()
    return process.returncode or 0, out.decode()


def gemini(*texts: str) -> list[Action]:
    chunks: list[Json] = [{"candidates": [{"content": {"parts": [{"text": text}]}}]} for text in texts]
    chunks[-1]["candidates"][0]["finishReason"] = "STOP"
    chunks[-1]["usageMetadata"] = USAGE
    return stream(*(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks))


async def save_account(stack: Stack, provider: str, model: str, home: Path) -> str:
    code, said = await keyswitch(
        stack, "keys", "add", provider, "--from-file", str(home / "account.json"), "--model", model
    )
    assert code == 0, said
    assert "PRIVATE KEY" not in said
    return said


async def test_a_service_account_serves_every_wire_of_vertex(
    google: tuple[Stack, TokenServer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vault_service.minting.minter.FORCED_RENEWAL_PAUSE_SECONDS", 0.0)
    stack, tokens = google
    tested = {"candidates": [{"content": {"parts": [{"text": "ok"}]}, "finishReason": "STOP"}], "usageMetadata": USAGE}
    stack.first.script(respond(json.dumps(tested).encode()))
    assert "activated" in await save_account(stack, "first", "test/echo", tmp_path)
    assert tokens.claims[0]["iss"] == ACCOUNT
    assert tokens.claims[0]["scope"] == "https://www.googleapis.com/auth/cloud-platform"
    assert tokens.claims[0]["exp"] - tokens.claims[0]["iat"] == 3600

    stack.first.script(gemini("Hello", " Vertex"))
    found = await stack.member.stream()
    assert (found.text, found.receipt.attempts[0].payer) == ("Hello Vertex", payer_pb2.PAYER_ORGANIZATION_KEY)
    stack.first.script(respond(b'{"totalTokens": 7}'))
    assert (await count(stack, model="test/echo")).input_tokens == 7
    prediction = {"embeddings": {"values": [0.5, 1.0], "statistics": {"token_count": 3}}}
    stack.first.script(respond(json.dumps({"predictions": [prediction]}).encode()))
    vectors = await embed(stack, "one", model="test/embed")
    assert list(vectors.embeddings[0].values) == [0.5, 1.0]
    assert [one.path.removeprefix(f"{PATH}/google/models/") for one in stack.first.received] == [
        "gemini-1:generateContent",
        "gemini-1:streamGenerateContent?alt=sse",
        "gemini-1:countTokens",
        "text-embedding-005:predict",
    ]
    assert {one.headers["authorization"] for one in stack.first.received} == {f"Bearer {tokens.tokens[0]}"}

    # A token that Google takes back is fetched anew, and the caller does not see it.
    expired = b'{"error": {"code": 401, "message": "expired", "status": "UNAUTHENTICATED"}}'
    stack.first.script(respond(expired, status=401), gemini("again"))
    found = await stack.member.stream()
    assert found.text == "again"
    assert stack.first.received[-1].headers["authorization"] == f"Bearer {tokens.tokens[1]}"
    told = str(found.messages) + (await keyswitch(stack, "keys", "list", "--json"))[1]
    assert not [one for one in (*tokens.tokens, "PRIVATE KEY") if one in told]


async def test_a_service_account_serves_claude_on_vertex(google: tuple[Stack, TokenServer], tmp_path: Path) -> None:
    stack, tokens = google
    content = [{"type": "text", "text": "ok"}]
    message = {"id": "1", "type": "message", "role": "assistant", "model": "claude-1", "stop_reason": "end_turn"}
    tested = {**message, "content": content, "usage": {"input_tokens": 1, "output_tokens": 1}}
    stack.first.script(respond(json.dumps(tested).encode()))
    await save_account(stack, "claude", "test/claude", tmp_path)
    stack.first.script(stream(*anthropic_events("Hello", " Claude")), respond(b'{"input_tokens": 5}'))
    assert (await stack.member.stream(make_call(model="test/claude"))).text == "Hello Claude"
    counted = await count(stack, model="test/claude")
    assert (counted.input_tokens, counted.is_estimate) == (5, False)
    assert [one.path.removeprefix(f"{PATH}/anthropic/models/") for one in stack.first.received[1:]] == [
        "claude-1@20260101:streamRawPredict",
        "count-tokens:rawPredict",
    ]
    assert json.loads(stack.first.received[2].body)["model"] == "claude-1@20260101"
    assert {one.headers["authorization"] for one in stack.first.received} == {f"Bearer {tokens.tokens[0]}"}


async def test_an_account_of_an_endpoint_that_is_not_listed_is_refused_and_nothing_is_kept(
    google: tuple[Stack, TokenServer], tmp_path: Path
) -> None:
    stack, tokens = google
    account = json.loads((tmp_path / "account.json").read_text())
    (tmp_path / "account.json").write_text(json.dumps({**account, "token_uri": "https://elsewhere.example/token"}))
    code, said = await keyswitch(stack, "keys", "add", "first", "--from-file", str(tmp_path / "account.json"))
    assert code != 0
    assert "token endpoints" in said
    assert "PRIVATE KEY" not in said
    assert tokens.claims == []
    assert "credentials/first" not in (await keyswitch(stack, "keys", "list"))[1]


# -- AWS ---------------------------------------------------------------------------------------------------------------


def sts_answer() -> bytes:
    """What STS answers, as its documentation shows it."""
    keys = "".join(
        f"<{name}>{value}</{name}>"
        for name, value in (
            *zip(("AccessKeyId", "SecretAccessKey", "SessionToken"), SESSION, strict=True),
            ("Expiration", "2099-01-01T00:00:00Z"),
        )
    )
    namespace = "https://sts.amazonaws.com/doc/2011-06-15/"
    return (
        f'<AssumeRoleResponse xmlns="{namespace}"><AssumeRoleResult><Credentials>{keys}</Credentials>'
        "</AssumeRoleResult></AssumeRoleResponse>"
    ).encode()


def signature_of(received: Received, url: str, keys: Credentials, service: str, region: str) -> str:
    """What botocore would sign a request with that came at the time which it names."""
    names = dict(part.strip().split("=", 1) for part in received.headers["authorization"].split(" ", 1)[1].split(","))
    signed = {name: received.headers[name] for name in names["SignedHeaders"].split(";") if name != "host"}
    request = AWSRequest(received.method, url, data=received.body, headers=signed)
    request.context["timestamp"] = received.headers["x-amz-date"]
    signer: Any = SigV4Auth(keys, service, region)
    request.headers["host"] = received.headers["host"]
    return str(signer.signature(signer.string_to_sign(request, signer.canonical_request(request)), request))


def use_bedrock(made: Json) -> None:
    base_url = made["providers"]["first"]["base_url"].removesuffix("/v1")
    made["providers"]["first"] = {
        "template": "bedrock",
        "base_url": base_url,
        "allowed_private_networks": ["127.0.0.1/32"],
    }
    quirks = {"counts_tokens": True, "count_model": "anthropic.claude-1"}
    titan = {
        "provider": "first",
        "upstream_model": "amazon.titan-embed-text-v2:0",
        "quirks": {"embedding_api": "titan"},
    }
    chat = {"provider": "first", "upstream_model": "eu.anthropic.claude-1", "quirks": quirks}
    made["models"]["test/echo"] = {"aliases": ["echo"], "endpoints": [chat], "price": PRICE}
    made["models"]["test/embed"] = {"endpoints": [titan], "price": PRICE, "embedding": {"dimensions": 2}}


async def test_a_role_is_assumed_and_its_session_signs(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    lines = (f"aws_access_key_id = {PAIR[0]}", f"aws_secret_access_key = {PAIR[1]}", f"role_arn = {ROLE}")
    (tmp_path / "pair").write_text("\n".join(lines))
    async with AsyncExitStack() as exits:
        sts = await exits.enter_async_context(scripted_upstream())
        url = f"http://127.0.0.1:{sts.port}/"
        changes = {"token_endpoints": frozenset({url, "https://sts.eu-west-1.amazonaws.com"})}
        stack = await exits.enter_async_context(running_stack(home, configuration=use_bedrock, vault_changes=changes))
        minter: Any = stack.vault.service._parts.minter
        minter._sts_endpoint = lambda region: url
        sts.script(respond(sts_answer(), content_type="text/xml"))
        tested = {
            "output": {"message": {"role": "assistant", "content": [{"text": "ok"}]}},
            "stopReason": "end_turn",
            "usage": {"inputTokens": 1, "outputTokens": 1, "totalTokens": 2},
        }
        stack.first.script(respond(json.dumps(tested).encode()), converse_answer("Hello", " Bedrock"))
        add = ("keys", "add", "first", "--from-file", str(tmp_path / "pair"), "--aws-region", "eu-west-1")
        code, said = await keyswitch(stack, *add, "--model", "test/echo")
        assert code == 0, said

        (asked,) = sts.received
        form = parse_qs(asked.body.decode())
        assert (form["Action"], form["RoleArn"]) == (["AssumeRole"], [ROLE])
        expected = signature_of(asked, url, Credentials(*PAIR), "sts", "eu-west-1")
        assert asked.headers["authorization"].endswith(f"Signature={expected}")

        found = await stack.member.stream()
        assert (found.text, found.receipt.attempts[0].payer) == ("Hello Bedrock", payer_pb2.PAYER_ORGANIZATION_KEY)
        stack.first.script(respond(b'{"inputTokens": 9}'), respond(b'{"embedding":[0.5,1],"inputTextTokenCount":3}'))
        assert (await count(stack, model="test/echo")).input_tokens == 9
        assert list((await embed(stack, "one", model="test/embed")).embeddings[0].values) == [0.5, 1.0]
        assert [one.path for one in stack.first.received] == [
            "/model/eu.anthropic.claude-1/converse",
            "/model/eu.anthropic.claude-1/converse-stream",
            "/model/anthropic.claude-1/count-tokens",
            "/model/amazon.titan-embed-text-v2%3A0/invoke",
        ]
        for received in stack.first.received:
            assert received.headers["x-amz-security-token"] == SESSION[2]
            sent_to = f"http://{received.headers['host']}{received.path}"
            expected = signature_of(received, sent_to, Credentials(*SESSION), "bedrock", "eu-west-1")
            assert received.headers["authorization"].endswith(f"Signature={expected}")
            assert SESSION[1].encode() not in received.body
        assert len(sts.received) == 1, "one session serves until it ends"
        told = str(found.messages) + said
        assert not [one for one in (*PAIR[1:], *SESSION[1:]) if one in told]
