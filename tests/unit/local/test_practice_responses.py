"""The practice provider's Responses: OpenAI's own client and the router's decoder read the same."""

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import openai
import pytest

from deploy.local import practice_provider
from router_service.core.events import Event, Finished, TextDelta, UsageUpdated
from router_service.core.faults import Fault
from router_service.core.grammar import Grammar
from router_service.dialects.base import Quirks
from router_service.dialects.registry import DIALECTS
from router_service.framing.sse import SseFramer
from tests.unit.local.test_practice_provider import KEY, TOOL_SCHEMA, StillClock

QUOTED = 'Hello from the practice provider; no model ran. You said: "grüße  aus Köln"'


@pytest.fixture
async def url() -> AsyncIterator[str]:
    running = await practice_provider.start("127.0.0.1", 0, gap_seconds=0.0, clock=StillClock())
    yield f"http://127.0.0.1:{running.port}/v1"
    await running.stop()


@pytest.fixture
async def client(url: str) -> AsyncIterator[openai.AsyncOpenAI]:
    http = openai.DefaultAsyncHttpxClient(trust_env=False)
    async with openai.AsyncOpenAI(api_key=KEY, base_url=url, max_retries=0, http_client=http) as made:
        yield made


async def stream(url: str, **body: Any) -> list[Event]:
    """What the router reads of a stream."""
    decoder, framer, grammar = DIALECTS["openai_responses"].decoder(Quirks()), SseFramer(), Grammar()
    headers = {"authorization": f"Bearer {KEY}"}
    asked = {**body, "stream": True}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.post(f"{url}/responses", json=asked) as response,
    ):
        data = await response.read()
    events = [event for frame in (*framer.feed(data), *framer.close()) for event in decoder.feed(frame)]
    events += decoder.close()
    for event in events:
        grammar.check(event)
    assert grammar.is_finished
    return events


@pytest.mark.parametrize("question", ["grüße  aus Köln", [{"role": "user", "content": "grüße  aus Köln"}]])
async def test_an_echo_streamed_and_whole(client: openai.AsyncOpenAI, url: str, question: Any) -> None:
    whole = await client.responses.create(model="echo", input=question)
    assert (whole.output_text, whole.status) == (QUOTED, "completed")
    async with client.responses.stream(model="echo", input=question) as opened:
        streamed = await opened.get_final_response()
    assert (streamed.output_text, streamed.usage) == (QUOTED, whole.usage)
    read = await stream(url, model="echo", input=question)
    assert "".join(event.text for event in read if isinstance(event, TextDelta)) == QUOTED
    assert whole.usage is not None
    counted = [
        (event.usage.input_tokens, event.usage.output_tokens) for event in read if isinstance(event, UsageUpdated)
    ]
    assert counted[-1] == (whole.usage.input_tokens, whole.usage.output_tokens)
    assert isinstance(read[-1], Finished)


async def test_thoughts_are_summed_up_and_sealed(client: openai.AsyncOpenAI) -> None:
    async with client.responses.stream(model="thinker", input="one two") as opened:
        answer = await opened.get_final_response()
    thought = answer.output[0]
    assert thought.type == "reasoning"
    assert thought.summary[0].text == "They wrote 2 words. I shall quote them."
    assert thought.encrypted_content
    assert answer.usage is not None
    assert answer.usage.output_tokens_details.reasoning_tokens == 8


async def test_two_turns_with_tools(client: openai.AsyncOpenAI) -> None:
    tools: Any = [{"type": "function", "name": "weather", "parameters": TOOL_SCHEMA, "strict": False}]
    async with client.responses.stream(model="tools", input="Oslo", tools=tools) as opened:
        answer = await opened.get_final_response()
    (call,) = answer.output
    assert call.type == "function_call"
    assert call.arguments == '{"city": "Oslo", "days": 1, "unit": "C"}'
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "rain"}
    turns: Any = [{"role": "user", "content": "Oslo"}, call.model_dump(exclude_none=True), result]
    again = await client.responses.create(model="tools", input=turns, tools=tools)
    assert again.output_text.endswith('The tools answered: "rain"')


async def test_a_schema_is_kept_a_limit_cuts_and_a_prompt_is_counted(client: openai.AsyncOpenAI) -> None:
    text: Any = {"format": {"type": "json_schema", "name": "place", "schema": TOOL_SCHEMA}}
    fitting = await client.responses.create(model="json", input="Bern", text=text, instructions="In JSON.")
    assert fitting.output_text == '{"city": "Bern", "days": 1, "unit": "C"}'
    cut = await client.responses.create(model="echo", input="one two", max_output_tokens=3)
    assert (cut.status, cut.output_text) == ("incomplete", "Hello from the")
    counted = await client.responses.input_tokens.count(model="echo", input="one two", instructions="three")
    assert counted.input_tokens == 3


async def test_failures_have_the_form_of_the_wire(client: openai.AsyncOpenAI, url: str) -> None:
    with pytest.raises(openai.RateLimitError):
        await client.responses.create(model="fail-429", input="x")
    for model, reason in (("overloaded-in-stream", "UPSTREAM_UNAVAILABLE"), ("cut", "UPSTREAM_PROTOCOL_VIOLATION")):
        with pytest.raises((Fault, aiohttp.ClientError)) as raised:
            await stream(url, model=model, input="a b c d e f")
        if isinstance(raised.value, Fault):
            assert raised.value.reason.value == reason
    with pytest.raises(openai.BadRequestError):
        await client.responses.create(model="echo", input=7)  # type: ignore[call-overload] # no input is a number
