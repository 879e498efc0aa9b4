"""Whole calls through the router to real servers of a real, small model: llama.cpp, and Ollama on both of its wires."""

import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from keyswitch.router.v1 import (
    completion_pb2,
    content_pb2,
    embedding_service_pb2,
    embedding_service_pb2_grpc,
    model_service_pb2,
    model_service_pb2_grpc,
    stream_pb2,
)

from router_service.core.receipt import ReceiptState
from tests.fakes.model_servers import MODEL, running_llama, running_ollama
from tests.service.router_answers import PRICE, Json
from tests.service.router_harness import Stack, make_call, running_stack

pytestmark = pytest.mark.timeout(700)

TIMEOUT_SECONDS = 180.0  # the model runs on one core, which may be busy
FEW_TOKENS = 6


@dataclass(frozen=True)
class Case:
    """A server on one of its wires, by the template of the catalog that is for it."""

    server: str
    template: str


CASES = [Case("llama", "llama-cpp"), Case("ollama", "ollama"), Case("ollama", "ollama-native")]
IDS = [f"{case.server}-{case.template}" for case in CASES]


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_llama(tmp_path_factory.mktemp("llama")) as origin:
        yield origin


@pytest.fixture(scope="module")
def ollama(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_ollama(tmp_path_factory.mktemp("ollama")) as origin:
        yield origin


@pytest.fixture(params=CASES, ids=IDS)
def case(request: pytest.FixtureRequest) -> Case:
    found: Case = request.param
    return found


@pytest.fixture
async def stack(request: pytest.FixtureRequest, case: Case, tmp_path: Path) -> AsyncIterator[Stack]:
    origin: str = request.getfixturevalue(case.server)

    def configure(made: Json) -> None:
        host = origin.removeprefix("http://")
        local = {"template": case.template, "parameters": {"host": host}}
        made["providers"]["local"] = {**local, "allowed_private_networks": ["127.0.0.1/32"]}
        kinds: list[tuple[str, Json]] = [("real", {}), ("embed", {"embedding": {}})]
        for name, facts in kinds:
            endpoint = {"provider": "local", "upstream_model": MODEL}
            made["models"][f"test/{name}"] = {"endpoints": [endpoint], "price": PRICE, **facts}
        missing = {"endpoints": [{"provider": "local", "upstream_model": "nobody-has-it"}], "price": PRICE}
        made["models"]["test/missing"] = missing

    async with running_stack(tmp_path, configuration=configure) as running:
        yield running


def ask(text: str = "Say hello.", *, most: int = FEW_TOKENS, model: str = "test/real") -> completion_pb2.CompletionCall:
    call = make_call(text, model=model)
    call.spec.settings.max_output_tokens = most
    call.spec.settings.sampling.temperature = 0
    return call


def said(message: content_pb2.Message) -> str:
    return "".join(part.text.text for part in message.parts)


def say(role: int, **kind: Any) -> content_pb2.Message:
    return content_pb2.Message(role=role, parts=[content_pb2.Part(**kind)])  # type: ignore[arg-type] # an enum's number


async def test_two_turns_are_streamed_and_counted(stack: Stack) -> None:
    call = ask()
    first = await stack.member.stream(call, timeout=TIMEOUT_SECONDS)
    usage = first.receipt.attempts[0].usage
    assert first.text
    assert first.kinds.count("part_delta") > 1
    assert first.events[-1].response_ended.finish_reason == stream_pb2.FINISH_REASON_LENGTH
    assert usage.output_tokens == FEW_TOKENS
    assert usage.input_tokens > 0
    call.spec.messages.append(say(content_pb2.ROLE_ASSISTANT, text=content_pb2.TextPart(text=first.text)))
    call.spec.messages.append(say(content_pb2.ROLE_USER, text=content_pb2.TextPart(text="And goodbye.")))
    second = await stack.member.stream(call, timeout=TIMEOUT_SECONDS)
    then = second.receipt.attempts[0].usage
    assert second.text
    assert then.input_tokens + then.cache_read_tokens > usage.input_tokens + FEW_TOKENS


async def test_an_answer_comes_whole(stack: Stack) -> None:
    found = await stack.member.complete(ask(), timeout=TIMEOUT_SECONDS)
    assert said(found.message)
    assert found.receipt.attempts[0].usage.output_tokens == FEW_TOKENS


async def test_an_answer_fits_a_schema(stack: Stack) -> None:
    call = ask("Is Paris in France?", most=60)
    wanted = {"type": "object", "properties": {"answer": {"enum": ["yes", "no"]}}, "required": ["answer"]}
    schema = call.spec.response_format.json_schema
    schema.name, schema.schema_json = "verdict", json.dumps({**wanted, "additionalProperties": False})
    found = await stack.member.complete(call, timeout=TIMEOUT_SECONDS)
    assert json.loads(said(found.message))["answer"] in {"yes", "no"}


async def test_a_call_that_is_cancelled_stops_the_model(stack: Stack) -> None:
    opened = stack.member.open(ask("Tell a long story.", most=900), timeout=TIMEOUT_SECONDS)
    while not any(event.WhichOneof("event") == "part_delta" for event in (await opened.read()).events):
        pass
    opened.cancel()
    await stack.wait_for_end(ReceiptState.CANCELLED)
    # The server works on one call at a time: 900 tokens would keep it from this one for minutes.
    assert (await stack.member.stream(ask(), timeout=TIMEOUT_SECONDS)).text


async def test_a_prompt_that_does_not_fit_is_said(stack: Stack, case: Case) -> None:
    if case.server == "ollama":
        pytest.skip("Ollama shortens such a prompt and says nothing")
    refused = (await stack.member.stream(ask("word " * 3000), timeout=TIMEOUT_SECONDS)).refused
    assert refused.reason == "CONTEXT_TOO_LONG"


async def test_a_model_that_it_does_not_have_is_said(stack: Stack, case: Case) -> None:
    if case.server == "llama":
        pytest.skip("llama.cpp's server answers under every name")
    refused = (await stack.member.stream(ask(model="test/missing"), timeout=TIMEOUT_SECONDS)).refused
    assert refused.reason == "UPSTREAM_MODEL_MISSING"


async def test_tools_that_the_model_does_not_have_are_said(stack: Stack, case: Case) -> None:
    call = ask()
    call.spec.tools.add().function.name = "weather"
    answer = await stack.member.stream(call, timeout=TIMEOUT_SECONDS)
    if case.server == "ollama":
        assert answer.refused.reason == "UPSTREAM_REJECTED_REQUEST"
    else:
        assert answer.text  # its template has no place for them


async def test_its_models_are_listed(stack: Stack) -> None:
    operator = stack.caller(stack.vault.operator.token)
    stub: Any = model_service_pb2_grpc.ModelServiceStub(stack.channel)
    request = model_service_pb2.DiscoverUpstreamModelsRequest(provider="providers/local")
    found = await operator.call(stub.DiscoverUpstreamModels, request)
    assert [one.upstream_model_id.removesuffix(":latest") for one in found.models] == [MODEL]


async def test_texts_are_embedded(stack: Stack, case: Case) -> None:
    if case.template == "ollama-native":
        pytest.skip("this dialect has no embeddings: Ollama has them on OpenAI's wire")
    spec = embedding_service_pb2.EmbeddingSpec(
        model="test/embed", inputs=[embedding_service_pb2.EmbeddingInput(text=text) for text in ("cat", "dog")]
    )
    stub: Any = embedding_service_pb2_grpc.EmbeddingServiceStub(stack.channel)
    found = await stack.member.call(stub.Embed, embedding_service_pb2.EmbedRequest(spec=spec), timeout=TIMEOUT_SECONDS)
    vectors = [list(embedding.values) for embedding in found.embeddings]
    assert [len(vector) for vector in vectors] == [576, 576]
    assert vectors[0] != vectors[1]
