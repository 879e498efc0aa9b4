"""A provider that is new here is one file of data: it answers, fails and is tested as that file says."""

import json
from pathlib import Path
from typing import Any

import pytest
from keyswitch.router.v1 import credential_test_service_pb2, credential_test_service_pb2_grpc
from keyswitch.vault.v1 import credential_test_pb2

from router_service.catalog.document import parse_document
from tests.fakes.scripted_upstream import respond, stream
from tests.service.router_answers import Json
from tests.service.router_harness import DEMO, make_call, make_policy, running_stack

FIXTURE = Path(__file__).resolve().parents[1] / "fixtures/providers/newcomer"
KEY = f"{DEMO}/credentials/newcomer"


EXCHANGE: Json = json.loads((FIXTURE / "exchange.json").read_text())


def add(configuration: Json) -> None:
    """The fixture's file into the configuration, pointed at the scripted provider."""
    data = parse_document((FIXTURE / "provider.yaml").read_text(), "provider.yaml").value
    port = configuration["providers"]["first"]["base_url"].rpartition(":")[2].partition("/")[0]
    provider: Any = data["providers"]["newcomer"]
    provider["base_url"] = provider["base_url"].replace("https://{host}", f"http://127.0.0.1:{port}")
    provider["allowed_private_networks"] = ["127.0.0.1/32"]
    configuration["providers"] |= data["providers"]
    configuration["models"] |= data["models"]
    configuration["organizations"]["demo"]["applications"]["chat"]["allowed_models"] = ["*"]


async def test_a_new_provider_is_one_file_and_no_code(tmp_path: Path) -> None:
    async with running_stack(tmp_path, configuration=add) as stack:
        version = await stack.save_key(KEY, provider="newcomer")
        chunks = [b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in EXCHANGE["response"]]
        stack.first.script(stream(*chunks, b"data: [DONE]\n\n"))
        found = await stack.member.stream(make_call(model="newcomer/big"))
        assert found.text == "Woof"
        assert list(found.events[0].response_started.warnings) == []
        assert found.receipt.attempts[0].usage.output_tokens == 2
        sent = stack.first.received[0]
        assert sent.path == "/api/v9/chat/completions"
        assert sent.headers["api-key"].startswith("sk-newcomer")
        assert isinstance(sent.json, dict)
        assert {name: sent.json[name] for name in EXCHANGE["request"]} == EXCHANGE["request"]

        stack.first.script(*(respond(json.dumps(body).encode()) for body in EXCHANGE["key_test"].values()))
        stub: Any = credential_test_service_pb2_grpc.CredentialTestServiceStub(stack.channel)
        request = credential_test_service_pb2.TestCredentialRequest(credential_version=version)
        answer = await stack.member.call(stub.TestCredential, request)
        assert answer.outcome == credential_test_pb2.CREDENTIAL_TEST_OUTCOME_PASSED
        assert [model.model for model in answer.models] == ["newcomer/big"]
        assert [asked.path for asked in stack.first.received[1:]] == list(EXCHANGE["key_test"])


@pytest.mark.parametrize("failure", EXCHANGE["failures"], ids=lambda failure: str(failure["reason"]))
async def test_its_errors_mean_what_its_file_says(tmp_path: Path, failure: Json) -> None:
    async with running_stack(tmp_path, configuration=add) as stack:
        await stack.save_key(KEY, provider="newcomer")
        body = json.dumps(failure["body"]).encode()
        stack.first.script(respond(body, status=failure["status"], **failure.get("headers", {})))
        found = await stack.member.stream(make_call(model="newcomer/big", route_policy=make_policy(max_attempts=1)))
    assert found.refused.reason == failure["reason"]
    assert found.refused.metadata["upstreamCause"] == failure["cause"]
    assert found.refused.retry_seconds == failure.get("wait_seconds")
