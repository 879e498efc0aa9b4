"""The practice provider keeps to the wires: the two vendors' own clients are the judges."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import anthropic
import openai
import pytest

from deploy.local import practice_provider
from deploy.local.practice_answers import FAILURES, MODELS, example_of

KEY = "sk-practice-test"
TOOL_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}, "unit": {"enum": ["C", "F"]}},
}


class StillClock:
    """Time stands still and waiting takes none; it is remembered."""

    def __init__(self) -> None:
        self.waits: list[float] = []

    def unix_seconds(self) -> int:
        return 1_800_000_000

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        await asyncio.sleep(0)


@pytest.fixture
def clock() -> StillClock:
    return StillClock()


@pytest.fixture
async def url(clock: StillClock) -> AsyncIterator[str]:
    running = await practice_provider.start("127.0.0.1", 0, gap_seconds=0.5, clock=clock)
    yield f"http://127.0.0.1:{running.port}"
    await running.stop()


@pytest.fixture
async def openai_client(url: str) -> AsyncIterator[openai.AsyncOpenAI]:
    http = openai.DefaultAsyncHttpxClient(trust_env=False)
    async with openai.AsyncOpenAI(api_key=KEY, base_url=f"{url}/v1", max_retries=0, http_client=http) as client:
        yield client


@pytest.fixture
async def anthropic_client(url: str) -> AsyncIterator[anthropic.AsyncAnthropic]:
    http = anthropic.DefaultAsyncHttpxClient(trust_env=False)
    async with anthropic.AsyncAnthropic(api_key=KEY, base_url=url, max_retries=0, http_client=http) as client:
        yield client


async def _post(url: str, path: str, body: object, **headers: str) -> tuple[int, dict[str, str], Any]:
    async with aiohttp.ClientSession() as session, session.post(url + path, json=body, headers=headers) as response:
        return response.status, {k.lower(): v for k, v in response.headers.items()}, json.loads(await response.read())


def _ask(model: str, text: str = "one two", **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": text}], **more}


# --- OpenAI chat --------------------------------------------------------------------


async def test_echo_streams_word_by_word_with_usage_last(openai_client: openai.AsyncOpenAI, clock: StillClock) -> None:
    stream = await openai_client.chat.completions.create(
        model="echo",
        messages=[{"role": "user", "content": "grüße  aus Köln"}],
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = [chunk async for chunk in stream]
    words = [c.choices[0].delta.content or "" for c in chunks if c.choices]
    assert '"grüße  aus Köln"' in "".join(words)
    assert all(len(word.split()) <= 1 for word in words)
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
    usage = chunks[-1].usage
    assert usage is not None
    assert not chunks[-1].choices
    assert (usage.prompt_tokens, usage.completion_tokens) == (3, len("".join(words).split()))
    assert set(clock.waits) == {0.5}


async def test_usage_is_left_out_of_a_stream_that_did_not_ask(openai_client: openai.AsyncOpenAI) -> None:
    stream = await openai_client.chat.completions.create(
        model="echo", messages=[{"role": "user", "content": "x"}], stream=True
    )
    assert all(chunk.usage is None for chunk in [chunk async for chunk in stream])


async def test_a_bound_shortens_the_answer(openai_client: openai.AsyncOpenAI) -> None:
    answer = await openai_client.chat.completions.create(
        model="echo", messages=[{"role": "user", "content": "x"}], max_completion_tokens=2
    )
    assert answer.choices[0].message.content == "Hello from"
    assert answer.choices[0].finish_reason == "length"


async def test_two_tools_are_called_with_fitting_arguments(openai_client: openai.AsyncOpenAI) -> None:
    names = ("weather", "news", "never")
    stream = await openai_client.chat.completions.create(
        model="tools",
        messages=[{"role": "user", "content": "Oslo"}],
        tools=[{"type": "function", "function": {"name": n, "parameters": TOOL_SCHEMA}} for n in names],
        stream=True,
    )
    arguments = {0: "", 1: ""}
    called: list[str] = []
    async for chunk in stream:
        for call in chunk.choices[0].delta.tool_calls or ():
            assert call.function is not None
            called.extend([call.function.name] if call.function.name else [])
            arguments[call.index] += call.function.arguments or ""
    assert called == ["weather", "news"]
    assert [json.loads(text) for text in arguments.values()] == [{"city": "Oslo", "days": 1, "unit": "C"}] * 2


async def test_tools_answers_text_after_a_result(openai_client: openai.AsyncOpenAI) -> None:
    answer = await openai_client.chat.completions.create(
        model="tools",
        messages=[
            {"role": "user", "content": "Oslo"},
            {"role": "tool", "tool_call_id": "call_1", "content": "14 degrees"},
        ],
        tools=[{"type": "function", "function": {"name": "weather", "parameters": TOOL_SCHEMA}}],
    )
    assert answer.choices[0].finish_reason == "stop"
    assert "14 degrees" in (answer.choices[0].message.content or "")


async def test_a_schema_is_obeyed(openai_client: openai.AsyncOpenAI) -> None:
    answer = await openai_client.chat.completions.create(
        model="json",
        messages=[{"role": "user", "content": "Oslo"}],
        response_format={"type": "json_schema", "json_schema": {"name": "place", "schema": TOOL_SCHEMA}},
    )
    assert json.loads(answer.choices[0].message.content or "") == {"city": "Oslo", "days": 1, "unit": "C"}


async def test_reasoning_comes_before_text_and_is_counted_apart(openai_client: openai.AsyncOpenAI) -> None:
    stream = await openai_client.chat.completions.create(
        model="thinker",
        messages=[{"role": "user", "content": "x"}],
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = [chunk async for chunk in stream]
    kinds = ["thought" if (c.choices[0].delta.model_extra or {}) else "text" for c in chunks[1:-2]]
    assert kinds == sorted(kinds, reverse=True)
    usage = chunks[-1].usage
    assert usage is not None
    assert usage.completion_tokens_details is not None
    assert usage.completion_tokens_details.reasoning_tokens == kinds.count("thought")


async def test_the_models_are_listed(openai_client: openai.AsyncOpenAI) -> None:
    assert [model.id async for model in await openai_client.models.list()] == list(MODELS)


# --- Anthropic messages -------------------------------------------------------------


async def test_anthropic_stream_folds_to_the_echo(anthropic_client: anthropic.AsyncAnthropic) -> None:
    async with anthropic_client.messages.stream(
        model="echo", max_tokens=100, messages=[{"role": "user", "content": "one two"}]
    ) as stream:
        message = await stream.get_final_message()
    block = message.content[0]
    assert block.type == "text"
    assert '"one two"' in block.text
    assert message.stop_reason == "end_turn"
    assert (message.usage.input_tokens, message.usage.output_tokens) == (2, len(block.text.split()))


async def test_anthropic_thinks_with_a_signature(anthropic_client: anthropic.AsyncAnthropic) -> None:
    async with anthropic_client.messages.stream(
        model="thinker", max_tokens=100, messages=[{"role": "user", "content": "x"}]
    ) as stream:
        thinking, text = (await stream.get_final_message()).content
    assert thinking.type == "thinking"
    assert thinking.signature
    assert text.type == "text"


@pytest.mark.parametrize("streamed", [True, False])
async def test_anthropic_calls_two_tools(anthropic_client: anthropic.AsyncAnthropic, streamed: bool) -> None:
    question: dict[str, Any] = {
        "model": "tools",
        "max_tokens": 100,
        "messages": [{"role": "user", "content": "Oslo"}],
        "tools": [{"name": name, "input_schema": TOOL_SCHEMA} for name in ("weather", "news")],
    }
    if streamed:
        async with anthropic_client.messages.stream(**question) as stream:
            message = await stream.get_final_message()
    else:
        message = await anthropic_client.messages.create(**question)
    assert message.stop_reason == "tool_use"
    calls = [(block.name, block.input) for block in message.content if block.type == "tool_use"]
    fitting = {"city": "Oslo", "days": 1, "unit": "C"}
    assert calls == [("weather", fitting), ("news", fitting)]


async def test_anthropic_models_have_their_shape(anthropic_client: anthropic.AsyncAnthropic) -> None:
    listed = [model async for model in anthropic_client.models.list()]
    assert [model.id for model in listed] == list(MODELS)
    assert listed[0].type == "model"


async def test_anthropic_overload_comes_inside_the_stream(anthropic_client: anthropic.AsyncAnthropic) -> None:
    with pytest.raises(anthropic.APIStatusError) as raised:
        async with anthropic_client.messages.stream(
            model="overloaded-in-stream", max_tokens=9, messages=[{"role": "user", "content": "x"}]
        ) as stream:
            await stream.get_final_message()
    assert raised.value.status_code == 200
    assert isinstance(raised.value.body, dict)
    assert raised.value.body["error"]["type"] == "overloaded_error"


@pytest.mark.parametrize(
    ("headers", "body"),
    [({}, _ask("echo", max_tokens=1)), ({"anthropic-version": "2023-06-01"}, _ask("echo"))],
    ids=["no version", "no bound"],
)
async def test_anthropic_refuses_what_the_real_api_refuses(
    url: str, headers: dict[str, str], body: dict[str, Any]
) -> None:
    status, _, answer = await _post(url, "/v1/messages", body, **{"x-api-key": KEY}, **headers)
    assert (status, answer["error"]["type"]) == (400, "invalid_request_error")


# --- refusals and faults ------------------------------------------------------------


@pytest.mark.parametrize("headers", [{}, {"authorization": "Bearer sk-real"}, {"x-api-key": "sk-real"}])
async def test_other_keys_are_refused_in_the_shape_of_the_wire(url: str, headers: dict[str, str]) -> None:
    status, marks, answer = await _post(url, "/v1/chat/completions", _ask("echo"), **headers)
    assert (status, answer["error"]["code"]) == (401, "invalid_api_key")
    assert marks["x-practice-provider"] == "true"
    status, _, answer = await _post(url, "/v1/messages", _ask("echo"), **headers)
    assert (status, answer["type"], answer["error"]["type"]) == (401, "error", "authentication_error")


@pytest.mark.parametrize(("model", "status"), FAILURES.items())
async def test_failing_models_fail_as_named(url: str, model: str, status: int) -> None:
    got, headers, answer = await _post(url, "/v1/chat/completions", _ask(model), authorization=f"Bearer {KEY}")
    assert got == status
    assert answer["error"]["message"]
    assert headers.get("retry-after") == ("1" if status == 429 else None)
    assert headers["x-practice-provider"] == "true"


async def test_an_unknown_model_is_named(openai_client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="gpt-nonesuch"):
        await openai_client.chat.completions.create(model="gpt-nonesuch", messages=[{"role": "user", "content": "x"}])


@pytest.mark.parametrize("body", [[], {}, {"model": "echo"}, {"model": "echo", "messages": ["x"]}])
async def test_a_body_of_another_shape_is_refused(url: str, body: object) -> None:
    status, _, answer = await _post(url, "/v1/chat/completions", body, authorization=f"Bearer {KEY}")
    assert (status, answer["error"]["type"]) == (400, "invalid_request_error")


async def test_openai_overload_comes_inside_the_stream(openai_client: openai.AsyncOpenAI) -> None:
    stream = await openai_client.chat.completions.create(
        model="overloaded-in-stream", messages=[{"role": "user", "content": "x"}], stream=True
    )
    with pytest.raises(openai.APIError, match="Overloaded"):
        [chunk async for chunk in stream]


@pytest.mark.parametrize("streamed", [True, False])
async def test_cut_ends_before_the_answer_does(url: str, streamed: bool) -> None:
    body = _ask("cut", stream=streamed)
    async with (
        aiohttp.ClientSession(headers={"authorization": f"Bearer {KEY}"}) as session,
        session.post(f"{url}/v1/chat/completions", json=body) as response,
    ):
        begun = await response.content.readuntil(b"Hello")
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.content.read()
    assert b'finish_reason":"' not in begun


async def test_stall_says_nothing_until_the_server_stops(clock: StillClock) -> None:
    running = await practice_provider.start("127.0.0.1", 0, gap_seconds=0, clock=clock)
    async with aiohttp.ClientSession(headers={"authorization": f"Bearer {KEY}"}) as session:
        address = f"http://127.0.0.1:{running.port}/v1/chat/completions"
        async with session.post(address, json=_ask("stall", stream=True)) as response:
            while b"practice" not in await response.content.readany():
                pass
            rest = asyncio.ensure_future(response.content.read())
            await running.stop()
            with pytest.raises(aiohttp.ClientPayloadError):
                await rest


async def test_slow_waits_before_its_first_byte(openai_client: openai.AsyncOpenAI, clock: StillClock) -> None:
    await openai_client.chat.completions.create(model="slow", messages=[{"role": "user", "content": "x"}])
    assert clock.waits == [3.0]


def test_examples_fit_nested_schemas() -> None:
    schema = {
        "type": "object",
        "properties": {
            "list": {"type": "array", "items": {"type": "number", "minimum": 3}},
            "on": {"type": "boolean"},
            "kind": {"const": "k"},
            "none": {"type": "null"},
        },
    }
    assert example_of(schema, "x") == {"list": [3], "on": True, "kind": "k", "none": None}
