"""Bedrock over both services: a key pair that signs what is sent, a binary stream that comes back, nothing told."""

import json
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from botocore import auth as botocore_auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from keyswitch.router.v1 import credential_test_service_pb2, credential_test_service_pb2_grpc
from keyswitch.vault.v1 import credential_pb2, credential_service_pb2, credential_test_pb2

from tests.fakes.scripted_upstream import Action, Received, respond, stream
from tests.service.router_answers import PRICE, Json
from tests.service.router_harness import DEMO, Stack, make_call, running_stack
from tests.suites.aws_messages import event

MAIN = f"{DEMO}/credentials/first"
ID = "AKIDEXAMPLE123456789"
SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
TOKEN = "IQoJb3JpZ2luX2VjEXAMPLETOKEN//////////8BEXAMPLE=="
REGION = "eu-west-1"
MODEL = "eu.anthropic.claude-test-v1:0"
CONTENT_TYPE = "application/vnd.amazon.eventstream"


def use_bedrock(configuration: Json) -> None:
    first = configuration["providers"]["first"]
    first.update({"dialect": "bedrock_converse", "auth": "aws", "key_test_path": ""})
    first["base_url"] = first["base_url"].removesuffix("/v1")
    endpoint = {"provider": "first", "upstream_model": MODEL}
    configuration["models"]["test/echo"] = {"aliases": ["echo"], "endpoints": [endpoint], "price": PRICE}


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[Stack]:
    async with running_stack(tmp_path, configuration=use_bedrock) as running:
        yield running


async def save_pair(stack: Stack, token: str = TOKEN, *, activate: bool = True) -> str:
    client = stack.admin
    origin = stack.router.configuration.current.providers["first"].base_url.origin
    credential = credential_pb2.Credential(
        provider="providers/first", kind=credential_pb2.CREDENTIAL_KIND_AWS, allowed_origins=[origin]
    )
    create = credential_service_pb2.CreateCredentialRequest(parent=DEMO, credential_id="first", credential=credential)
    await client.call(client.credentials.CreateCredential, create)
    pair = credential_pb2.AwsKeyPair(access_key_id=ID, secret_access_key=SECRET, session_token=token, region=REGION)
    add = credential_service_pb2.AddCredentialVersionRequest(
        parent=MAIN, secret_material=credential_pb2.SecretMaterial(aws=pair)
    )
    version = (await client.call(client.credentials.AddCredentialVersion, add)).credential_version
    assert version.fingerprint == "AKID…6789"
    if activate:
        await stack.vault.activate(client, version.name)
    await stack.settle()
    return str(version.name)


def events(*texts: str) -> list[bytes]:
    def one(name: str, **payload: Any) -> bytes:
        return event(name, json.dumps(payload).encode())

    usage = {"inputTokens": 100, "outputTokens": 50, "totalTokens": 150}
    return [
        one("messageStart", role="assistant"),
        *(one("contentBlockDelta", contentBlockIndex=0, delta={"text": text}) for text in texts),
        one("contentBlockStop", contentBlockIndex=0),
        one("messageStop", stopReason="end_turn"),
        one("metadata", usage=usage, metrics={"latencyMs": 1}),
    ]


def answer(*texts: str) -> list[Action]:
    return stream(*events(*texts), content_type=CONTENT_TYPE)


def check_signature(monkeypatch: pytest.MonkeyPatch, stack: Stack, received: Received, token: str = TOKEN) -> None:
    """Computes the signature anew with botocore, from what the provider saw."""
    moment = datetime.strptime(received.headers["x-amz-date"], "%Y%m%dT%H%M%SZ")  # noqa: DTZ007 - botocore's are naive
    monkeypatch.setattr(botocore_auth, "get_current_datetime", lambda *_: moment)
    url = f"http://{received.headers['host']}{received.path}"
    headers = {"content-type": received.headers["content-type"]}
    made: Any = AWSRequest(received.method, url, headers=headers, data=received.body)
    signer: Any = botocore_auth.SigV4Auth(Credentials(ID, SECRET, token or None), "bedrock", REGION)
    signer.add_auth(made)
    assert received.headers["authorization"] == made.headers["Authorization"]
    assert received.headers.get("x-amz-security-token", "") == token


@pytest.mark.parametrize("token", ["", TOKEN])
async def test_a_call_is_signed_and_its_binary_stream_is_read(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    await save_pair(stack, token)
    stack.first.script(answer("Hello", " world"))
    found = await stack.member.stream()
    assert found.text == "Hello world"
    (received,) = stack.first.received
    assert received.path == "/model/eu.anthropic.claude-test-v1%3A0/converse-stream"
    assert received.headers["accept"] == CONTENT_TYPE
    check_signature(monkeypatch, stack, received, token)
    assert found.receipt.attempts[0].usage.input_tokens == 100


async def test_a_call_that_is_not_streamed_is_signed_too(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    await save_pair(stack)
    message = {"role": "assistant", "content": [{"text": "Hello"}]}
    usage = {"inputTokens": 1, "outputTokens": 2, "totalTokens": 3}
    body = {"output": {"message": message}, "stopReason": "end_turn", "usage": usage}
    stack.first.script(respond(json.dumps(body).encode()))
    await stack.member.complete(make_call())
    (received,) = stack.first.received
    assert received.path.endswith("/converse")
    check_signature(monkeypatch, stack, received)


async def test_an_api_key_of_bedrock_travels_as_a_bearer_token(stack: Stack) -> None:
    await stack.save_key(MAIN, "bedrock-api-key-0123456789")
    stack.first.script(answer("Hello"))
    assert (await stack.member.stream()).text == "Hello"
    assert stack.first.received[0].headers["authorization"] == "Bearer bedrock-api-key-0123456789"


async def test_a_throttled_stream_is_a_fault_that_says_so(stack: Stack) -> None:
    await save_pair(stack)
    thrown = event("throttlingException", b'{"message":"Too many tokens"}', "exception")
    stack.first.script(stream(events()[0], thrown, content_type=CONTENT_TYPE))
    refused = (await stack.member.stream()).refused
    assert refused.reason == "UPSTREAM_RATE_LIMITED"


async def test_a_pair_is_tested_on_its_own_origin_with_a_model(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    version = await save_pair(stack, activate=False)
    body = {"output": {"message": {"role": "assistant", "content": [{"text": "OK"}]}}, "stopReason": "end_turn"}
    stack.first.script(respond(json.dumps(body).encode()))
    tester = await stack.issue("ADMIN")
    request = credential_test_service_pb2.TestCredentialRequest(credential_version=version, model="test/echo")
    stub: Any = credential_test_service_pb2_grpc.CredentialTestServiceStub(stack.channel)
    tested = await tester.call(stub.TestCredential, request)
    assert tested.outcome == credential_test_pb2.CREDENTIAL_TEST_OUTCOME_PASSED
    check_signature(monkeypatch, stack, stack.first.received[0])


async def test_what_the_provider_repeats_of_a_pair_is_told_to_nobody(stack: Stack) -> None:
    await save_pair(stack)
    repeated = [f"it was {SECRET} and {TOKEN}"]
    stack.first.script(answer(*repeated), respond(json.dumps({"message": SECRET + TOKEN}).encode(), status=403))
    found = await stack.member.stream()
    assert "it was" in found.text
    refused = (await stack.member.stream()).refused
    for told in (found.text, repr(found.events), repr(refused), *map(repr, stack.receipts)):
        assert SECRET[:16] not in told
        assert TOKEN[:16] not in told
    assert SECRET not in str(stack.first.received[0].headers)
