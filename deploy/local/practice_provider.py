"""A practice provider: a local server that speaks three provider wires and runs no model.

It shares no code with the router on purpose: what the router reads here was written by someone else's
understanding of the wires. Every answer carries `x-practice-provider: true` and says so in its text.
The failing models fail the same way each time: `overloaded-in-stream` before the first content, `cut` and
`stall` after it.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Protocol

from aiohttp import web

from deploy.local.practice_answers import MODELS, Answer, Disturbed, Ending, Refusal, find_answer, read_question
from deploy.local.practice_embeddings import EMBEDDING_MODEL, answer_embeddings
from deploy.local.practice_responses import ResponsesWire
from deploy.local.practice_wires import AnthropicWire, OpenAIWire, Wire

DEFAULT_HOST: Final = "127.0.0.1"
DEFAULT_PORT: Final = 8780
DEFAULT_GAP_SECONDS: Final = 0.03
KEY_PREFIX: Final = "sk-practice-"
MAX_BODY_BYTES: Final = 32 * 1024 * 1024
MARK: Final = {"x-practice-provider": "true"}


class Clock(Protocol):
    """What tells the time and waits."""

    def unix_seconds(self) -> int: ...

    async def sleep(self, seconds: float) -> None: ...


class SystemClock:
    """The machine's clock."""

    def unix_seconds(self) -> int:
        return int(time.time())

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class PracticeProvider:
    """The HTTP server's handlers; one per server, because answer ids are counted."""

    def __init__(self, gap_seconds: float, clock: Clock) -> None:
        self._gap_seconds = gap_seconds
        self._clock = clock
        self._counter = itertools.count(1)
        self.stopping = asyncio.Event()

    def application(self) -> web.Application:
        app = web.Application(client_max_size=MAX_BODY_BYTES)
        app.on_response_prepare.append(_mark)
        app.router.add_post("/v1/chat/completions", self._guarded(OpenAIWire(), self._complete))
        app.router.add_post("/v1/responses", self._guarded(ResponsesWire(), self._complete))
        app.router.add_post("/v1/responses/input_tokens", self._guarded(ResponsesWire(), _count))
        app.router.add_post("/v1/messages", self._guarded(AnthropicWire(), self._complete))
        app.router.add_post("/v1/messages/count_tokens", self._guarded(AnthropicWire(), _count))
        app.router.add_post("/v1/embeddings", self._guarded(OpenAIWire(), _embed))
        app.router.add_get("/v1/models", self._models)
        return app

    def _guarded(
        self, wire: Wire, handler: Callable[[web.Request, Wire], Awaitable[web.StreamResponse]]
    ) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def handle(request: web.Request) -> web.StreamResponse:
            try:
                _check_key(request)
                return await handler(request, wire)
            except Refusal as refusal:
                headers = {"retry-after": "1"} if refusal.status == 429 else {}
                return web.json_response(wire.error(refusal), status=refusal.status, headers=headers)

        return handle

    async def _models(self, request: web.Request) -> web.StreamResponse:
        wire: Wire = AnthropicWire() if "anthropic-version" in request.headers else OpenAIWire()
        return await self._guarded(wire, _list_models)(request)

    async def _complete(self, request: web.Request, wire: Wire) -> web.StreamResponse:
        body = await _read_body(request)
        question = read_question(wire.read(body))
        wire.check(request.headers, body)
        answer = find_answer(question, f"practice{next(self._counter):06d}", self._clock.unix_seconds())
        if answer.start_after_seconds:
            await self._clock.sleep(answer.start_after_seconds)
        if question.stream:
            return await self._stream(request, wire.events(answer, question.include_usage))
        return await self._whole(request, wire, answer)

    async def _stream(self, request: web.Request, events: Iterator[bytes]) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream", "cache-control": "no-cache"})
        await response.prepare(request)
        try:
            async for event in self._paced(events):
                await response.write(event)
        except Disturbed as disturbed:
            await self._break_off(request, disturbed.ending)
        except ConnectionResetError:
            return response  # the caller left; nobody is there to be told
        return response

    async def _paced(self, events: Iterator[bytes]) -> AsyncIterator[bytes]:
        for event in events:
            yield event
            if self._gap_seconds:
                await self._clock.sleep(self._gap_seconds)

    async def _whole(self, request: web.Request, wire: Wire, answer: Answer) -> web.StreamResponse:
        body = json.dumps(wire.whole(answer)).encode()
        if answer.ending is Ending.COMPLETE:
            return web.Response(body=body, content_type="application/json")
        if answer.ending is Ending.OVERLOADED:
            raise wire.overloaded()
        response = web.StreamResponse(headers={"content-type": "application/json", "content-length": str(len(body))})
        await response.prepare(request)
        await response.write(body[: len(body) // 2])
        await self._break_off(request, answer.ending)
        return response

    async def _break_off(self, request: web.Request, ending: Ending) -> None:
        if ending is Ending.STALL:
            await self.stopping.wait()
        if request.transport is not None:
            request.transport.close()


async def _read_body(request: web.Request) -> Any:
    try:
        return json.loads(await request.read())
    except ValueError as error:
        raise Refusal(400, "The body is not JSON.", "invalid_json") from error


async def _count(request: web.Request, wire: Wire) -> web.StreamResponse:
    return web.json_response({"input_tokens": read_question(wire.read(await _read_body(request))).input_words})


async def _embed(request: web.Request, wire: Wire) -> web.StreamResponse:
    del wire
    return web.json_response(answer_embeddings(await _read_body(request)))


def _check_key(request: web.Request) -> None:
    scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
    key = request.headers.get("x-api-key", bearer if scheme.lower() == "bearer" else "")
    if not key.startswith(KEY_PREFIX):
        raise Refusal(401, f"The practice provider takes any key that begins with {KEY_PREFIX}.", "invalid_api_key")


async def _mark(request: web.Request, response: web.StreamResponse) -> None:
    del request
    response.headers.update(MARK)


async def _list_models(request: web.Request, wire: Wire) -> web.StreamResponse:
    del request
    return web.json_response(wire.models())


@dataclass(frozen=True)
class RunningPractice:
    """A practice provider that is listening."""

    port: int
    _provider: PracticeProvider
    _runner: web.AppRunner

    async def stop(self) -> None:
        """Ends it; answers that stall are cut."""
        self._provider.stopping.set()
        await self._runner.cleanup()


async def start(
    host: str = DEFAULT_HOST,
    port: int = DEFAULT_PORT,
    *,
    gap_seconds: float = DEFAULT_GAP_SECONDS,
    clock: Clock,
) -> RunningPractice:
    """A server that listens; port 0 takes a free one, which `port` then names."""
    provider = PracticeProvider(gap_seconds, clock)
    runner = web.AppRunner(provider.application(), handler_cancellation=True, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    site = web.TCPSite(runner, host, port, reuse_port=False)
    await site.start()
    bound: int = runner.addresses[0][1]
    return RunningPractice(bound, provider, runner)


async def serve(host: str, port: int, gap_seconds: float) -> None:
    """Serves until the process is asked to end."""
    ended = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    running = await start(host, port, gap_seconds=gap_seconds, clock=SystemClock())
    print(f"PRACTICE PROVIDER (no model runs here) on http://{host}:{running.port}/v1", flush=True)
    print(f"keys: anything that begins with {KEY_PREFIX}; models: {', '.join((*MODELS, EMBEDDING_MODEL))}", flush=True)
    await ended.wait()
    await running.stop()


def main() -> None:
    """Reads the command line and serves."""
    parser = argparse.ArgumentParser(description="A practice provider: it speaks the wires and runs no model.")
    parser.add_argument("--host", default=DEFAULT_HOST)
    parser.add_argument("--port", type=int, default=DEFAULT_PORT)
    parser.add_argument("--gap", type=float, default=DEFAULT_GAP_SECONDS, help="seconds between two words")
    chosen = parser.parse_args()
    asyncio.run(serve(chosen.host, chosen.port, chosen.gap))


if __name__ == "__main__":
    main()
