"""What a key was used for: said with each use, in the audit log, and enough for the books to agree."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format
from keyswitch.router.v1 import (
    completion_service_pb2,
    credential_test_service_pb2,
    credential_test_service_pb2_grpc,
    embedding_service_pb2,
    embedding_service_pb2_grpc,
    model_service_pb2,
    model_service_pb2_grpc,
)
from keyswitch_cli.audit_reconciliation import reconcile

from tests.fakes.scripted_upstream import respond, stream
from tests.service.router_answers import PRICE, Json, anthropic_events, whole_answer
from tests.service.router_harness import DEMO, Stack, make_call, running_stack

CLAUDE = f"{DEMO}/credentials/claude"
MAIN = f"{DEMO}/credentials/first"
COUNTED = respond(b'{"input_tokens": 42}')
LIST = b'{"data":[{"id":"echo"}]}'


def configure(configuration: Json) -> None:
    configuration["providers"]["claude"]["quirks"] = {"counts_tokens": True}
    endpoint = {"provider": "first", "upstream_model": "embed-1"}
    configuration["models"]["test/embed"] = {"endpoints": [endpoint], "embedding": {"dimensions": 1}, "price": PRICE}


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[Stack]:
    async with running_stack(tmp_path, configuration=configure) as running:
        yield running


async def complete(stack: Stack) -> Json:
    """A completion whose provider counts tokens, too; gives its receipt as an export has it."""
    stack.second.script(stream(*anthropic_events("Hello")))
    found = await stack.member.stream(make_call(model="test/claude"))
    assert found.error is None
    return json_format.MessageToDict(found.receipt)


async def count(stack: Stack) -> None:
    stack.second.script(COUNTED)
    request = completion_service_pb2.CountTokensRequest(call=make_call(model="test/claude"))
    answer = await stack.member.call(stack.member.completions.CountTokens, request)
    assert (answer.input_tokens, answer.is_estimate) == (42, False)


async def read_audit(stack: Stack) -> list[Json]:
    """All records, once the router has reported its uses."""
    await stack.router.credentials.uses.flush()
    return [json.loads(line) for line in stack.vault.audit_bytes().splitlines()]


def purposes(records: list[Json], action: str) -> list[str]:
    return [
        one["purpose"].removeprefix("LEASE_PURPOSE_")
        for one in records
        if one["action"] == f"AUDIT_ACTION_{action}" and one["outcome"] == "AUDIT_OUTCOME_SUCCEEDED"
    ]


async def test_a_count_takes_the_lease_in_hand_and_says_that_it_counted(stack: Stack) -> None:
    await stack.save_key(CLAUDE, provider="claude")
    receipt = await complete(stack)
    await count(stack)
    await count(stack)
    records = await read_audit(stack)
    assert purposes(records, "LEASE") == ["COMPLETION"]
    assert purposes(records, "USE") == ["COMPLETION", "TOKEN_COUNT", "TOKEN_COUNT"]
    result = reconcile(records, receipts=[receipt])
    assert result.orphans == []
    assert result.purposes == {"completion": 1, "token_count": 2}
    assert result.without_receipt == {(f"{CLAUDE}/versions/1", "token_count"): 2}
    assert [one.kind for one in reconcile(records, receipts=[]).orphans] == ["use_without_ledger"]


async def test_a_completion_on_a_counts_lease_needs_its_receipt(stack: Stack) -> None:
    await stack.save_key(CLAUDE, provider="claude")
    await count(stack)
    receipt = await complete(stack)
    records = await read_audit(stack)
    assert purposes(records, "LEASE") == ["TOKEN_COUNT"]
    assert purposes(records, "USE") == ["TOKEN_COUNT", "COMPLETION"]
    assert reconcile(records, receipts=[receipt]).orphans == []
    assert [one.kind for one in reconcile(records, receipts=[]).orphans] == ["use_without_ledger"]


async def test_a_count_whose_key_was_rotated_takes_the_new_one_and_leaves_no_lease_unused(stack: Stack) -> None:
    await stack.save_key(CLAUDE, "sk-old-0123456789", provider="claude")
    await count(stack)
    stack.router.credentials._apply_change = lambda change: None  # type: ignore[method-assign] # still on its way
    await stack.rotate_key(CLAUDE, "sk-new-0123456789")
    refusal = b'{"type":"error","error":{"type":"authentication_error","message":"x"}}'
    stack.second.script(respond(refusal, status=401))
    await count(stack)
    assert [one.headers["x-api-key"] for one in stack.second.received][1:] == ["sk-old-0123456789", "sk-new-0123456789"]
    records = await read_audit(stack)
    assert purposes(records, "LEASE") == ["TOKEN_COUNT"] * 2
    assert reconcile(records, receipts=[]).orphans == []


async def test_vectors_are_asked_for_as_such(stack: Stack) -> None:
    await stack.save_key(MAIN)
    data = [{"object": "embedding", "index": 0, "embedding": [1.0]}]
    body = {"object": "list", "data": data, "model": "embed-1", "usage": {"prompt_tokens": 8, "total_tokens": 8}}
    stack.first.script(respond(json.dumps(body).encode()))
    spec = embedding_service_pb2.EmbeddingSpec(
        model="test/embed", inputs=[embedding_service_pb2.EmbeddingInput(text="one")]
    )
    stub: Any = embedding_service_pb2_grpc.EmbeddingServiceStub(stack.channel)
    answer = await stack.member.call(stub.Embed, embedding_service_pb2.EmbedRequest(spec=spec))
    records = await read_audit(stack)
    assert (purposes(records, "LEASE"), purposes(records, "USE")) == (["EMBEDDING"], ["EMBEDDING"])
    assert reconcile(records, receipts=[json_format.MessageToDict(answer.receipt)]).orphans == []
    assert [one.kind for one in reconcile(records, receipts=[]).orphans] == ["use_without_ledger"]


async def test_a_key_that_is_not_active_is_asked_for_its_models_and_tested_each_under_its_name(stack: Stack) -> None:
    await stack.save_key(MAIN)
    pending = await stack.rotate_key(MAIN, "sk-pending-0123456789", activate=False)
    discovery: Any = model_service_pb2_grpc.ModelServiceStub(stack.channel)
    stack.first.script(respond(LIST), respond(LIST), respond(whole_answer("OK")))
    listed = await stack.member.call(
        discovery.DiscoverUpstreamModels, model_service_pb2.DiscoverUpstreamModelsRequest(credential_version=pending)
    )
    assert [one.upstream_model_id for one in listed.models] == ["echo"]
    tests: Any = credential_test_service_pb2_grpc.CredentialTestServiceStub(stack.channel)
    await stack.member.call(
        tests.TestCredential, credential_test_service_pb2.TestCredentialRequest(credential_version=pending)
    )
    assert {one.headers["authorization"] for one in stack.first.received} == {"Bearer sk-pending-0123456789"}
    records = await read_audit(stack)
    assert purposes(records, "LEASE") == purposes(records, "USE") == ["DISCOVERY", "TEST"]
    assert reconcile(records, receipts=[]).orphans == []
