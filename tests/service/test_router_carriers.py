"""The Anthropic wire over both services, on Bedrock's InvokeModel and on Vertex: streamed and whole."""

import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from router_service.catalog.defaults import load_built_in
from tests.fakes.scripted_upstream import Action, respond, stream
from tests.service.router_answers import PRICE, Json
from tests.service.router_harness import DEMO, Stack, make_call, running_stack
from tests.suites.aws_messages import event

KEY = "carried-key-0123456789"
MODEL = "claude-test@20260101"
USAGE = {"input_tokens": 100, "output_tokens": 50}
CARRIERS = ["bedrock-anthropic", "vertex-anthropic"]
PATHS = {
    ("bedrock-anthropic", True): "/model/claude-test%4020260101/invoke-with-response-stream",
    ("bedrock-anthropic", False): "/model/claude-test%4020260101/invoke",
    ("vertex-anthropic", True): "/claude-test@20260101:streamRawPredict",
    ("vertex-anthropic", False): "/claude-test@20260101:rawPredict",
}
VERSIONS = {"bedrock-anthropic": "bedrock-2023-05-31", "vertex-anthropic": "vertex-2023-10-16"}


@pytest.fixture(params=CARRIERS)
async def carried(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[tuple[str, Stack]]:
    """The built-in entry of a carrier, but for its address."""
    entry = load_built_in().providers[request.param]

    def use_carrier(configuration: Json) -> None:
        first = configuration["providers"]["first"]
        first.update({name: entry[name] for name in ("dialect", "auth", "key_test_path", "quirks")})
        first["base_url"] = first["base_url"].removesuffix("/v1")
        endpoint = {"provider": "first", "upstream_model": MODEL}
        configuration["models"]["test/echo"] = {"aliases": ["echo"], "endpoints": [endpoint], "price": PRICE}

    async with running_stack(tmp_path, configuration=use_carrier) as running:
        await running.save_key(f"{DEMO}/credentials/first", KEY)
        yield request.param, running


def answer(carrier: str) -> list[Action]:
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": MODEL, "content": [], "usage": USAGE}
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": message},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hello"}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 50}},
        {"type": "message_stop"},
    ]
    written = [(one["type"], json.dumps(one).encode()) for one in events]
    if carrier == "vertex-anthropic":
        return stream(*(b"event: " + kind.encode() + b"\ndata: " + data + b"\n\n" for kind, data in written))
    chunks = (json.dumps({"bytes": base64.b64encode(data).decode()}).encode() for _, data in written)
    return stream(*(event("chunk", chunk) for chunk in chunks), content_type="application/vnd.amazon.eventstream")


def check_sent(carrier: str, stack: Stack, *, streamed: bool) -> None:
    (received,) = stack.first.received
    assert received.path == PATHS[carrier, streamed]
    assert received.headers["authorization"] == f"Bearer {KEY}"
    assert "anthropic-version" not in received.headers
    body = json.loads(received.body)
    assert body["anthropic_version"] == VERSIONS[carrier]
    assert "model" not in body


async def test_a_carried_stream_is_read(carried: tuple[str, Stack]) -> None:
    carrier, stack = carried
    stack.first.script(answer(carrier))
    found = await stack.member.stream()
    assert found.text == "Hello"
    assert found.receipt.attempts[0].usage.output_tokens == 50
    check_sent(carrier, stack, streamed=True)


async def test_a_carried_answer_is_read_whole(carried: tuple[str, Stack]) -> None:
    carrier, stack = carried
    content = [{"type": "text", "text": "Hello"}]
    body = {"id": "msg_1", "type": "message", "role": "assistant", "model": MODEL, "content": content}
    stack.first.script(respond(json.dumps(body | {"stop_reason": "end_turn", "usage": USAGE}).encode()))
    found = await stack.member.complete(make_call())
    assert "Hello" in str(found)
    check_sent(carrier, stack, streamed=False)
