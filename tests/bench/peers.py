"""What is measured against what: a bare pipe of our stack, LiteLLM, and the upstream with nothing between."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncGenerator
from typing import Protocol

import aiohttp
import grpc.aio

from tests.bench import bare_pipe, upstream
from tests.bench.processes import ROOT, WORK, Program, free_port, start_program, wait_for_port

LITELLM_ENVIRONMENT = WORK / "litellm-venv"
# The newest version whose own pinned dependencies could all be had.
LITELLM_REQUIREMENT = "litellm[proxy]==1.106.2"


class Peer(Protocol):
    """Something that stands between a caller and the upstream."""

    @property
    def name(self) -> str: ...

    @property
    def program(self) -> Program | None:
        """The process tree whose CPU counts; None for the upstream itself."""

    async def start(self, upstream_port: int) -> None: ...

    async def stop(self) -> None: ...

    async def complete(self, model: str) -> str:
        """The text of a whole answer."""

    def stream(self, model: str, mark: str = "") -> AsyncGenerator[str, None]:
        """The text of each arrival of a streamed answer; closing the iterator early cancels the call."""


def body_of(model: str, mark: str, *, stream: bool) -> bytes:
    """The request that every peer on the OpenAI wire gets."""
    messages = [{"role": "system", "content": "You are brief."}, {"role": "user", "content": f"Say it. {mark}"}]
    body = {"model": model, "messages": messages, "stream": stream}
    if stream:
        body["stream_options"] = {"include_usage": True}
    return json.dumps(body).encode()


def text_of(event: bytes) -> str:
    """The text of one event of the OpenAI wire, found without decoding: the load generator is not to be the limit."""
    return upstream.TOKEN if b'"content":"' + upstream.TOKEN.encode() in event else ""


class HttpPeer:
    """A peer that speaks the OpenAI wire; with no program it is the upstream itself."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.program: Program | None = None
        self._url = ""
        self._session: aiohttp.ClientSession

    async def start(self, upstream_port: int) -> None:
        await self._connect(upstream_port)

    async def _connect(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}/v1/chat/completions"
        headers = {"authorization": "Bearer sk-bench", "content-type": "application/json"}
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), headers=headers)

    async def stop(self) -> None:
        await self._session.close()
        if self.program is not None:
            await self.program.stop()

    async def complete(self, model: str) -> str:
        async with self._session.post(self._url, data=body_of(model, "", stream=False)) as response:
            response.raise_for_status()
            text: str = json.loads(await response.read())["choices"][0]["message"]["content"]
            return text

    async def stream(self, model: str, mark: str = "") -> AsyncGenerator[str, None]:
        rest = b""
        async with self._session.post(self._url, data=body_of(model, mark, stream=True)) as response:
            response.raise_for_status()
            async for data in response.content.iter_any():
                *events, rest = (rest + data).split(b"\n\n")
                if text := "".join(map(text_of, events)):
                    yield text


class LiteLlmPeer(HttpPeer):
    """LiteLLM's proxy from its package, in an environment of its own, without a database and without a network."""

    def __init__(self) -> None:
        super().__init__("LiteLLM")

    async def start(self, upstream_port: int) -> None:
        install_litellm()
        settings = {
            "model_list": [
                {
                    "model_name": model,
                    "litellm_params": {
                        "model": f"openai/{model}",
                        "api_base": f"http://127.0.0.1:{upstream_port}/v1",
                        "api_key": "sk-bench-upstream",
                    },
                }
                for model in upstream.MODELS
            ],
            "litellm_settings": {"telemetry": False},
            "general_settings": {"master_key": "sk-bench"},
        }
        config = WORK / "litellm.yaml"
        config.write_text(json.dumps(settings))  # JSON is YAML
        port = free_port()
        program = str(LITELLM_ENVIRONMENT / "bin/litellm")
        command = [program, "--config", str(config), "--host", "127.0.0.1", "--port", str(port)]
        environment = {
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "LITELLM_TELEMETRY": "False",
            "LITELLM_LOG": "ERROR",
            "LITELLM_MODE": "PRODUCTION",
        }
        self.program = start_program("litellm", [*command, "--telemetry", "False"], environment)
        await wait_for_port(self.program, port, 120)
        await self._connect(port)


def install_litellm() -> None:
    """Makes the peer's environment once; it shares nothing with the project's."""
    if (LITELLM_ENVIRONMENT / "bin/litellm").exists():
        return
    uv = ROOT / ".tools/uv/bin/uv"
    if not uv.exists():
        raise FileNotFoundError(
            "LiteLLM's environment is made with uv: run `make setup` first, or pass --without litellm"
        )
    subprocess.run([uv, "venv", "-q", "--python", sys.executable, LITELLM_ENVIRONMENT], check=True)
    python = LITELLM_ENVIRONMENT / "bin/python"
    subprocess.run([uv, "pip", "install", "-q", "--python", python, LITELLM_REQUIREMENT], check=True)


class PipePeer:
    """The bare pipe."""

    def __init__(self) -> None:
        self.name = "bare pipe"
        self.program: Program | None = None
        self._channel: grpc.aio.Channel
        self._unary: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
        self._stream: grpc.aio.UnaryStreamMultiCallable[bytes, bytes]

    async def start(self, upstream_port: int) -> None:
        port = free_port()
        command = [sys.executable, "-m", "tests.bench.bare_pipe", "--port", str(port)]
        self.program = start_program("bare-pipe", [*command, "--upstream-port", str(upstream_port)])
        await wait_for_port(self.program, port)
        self._channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}")
        self._unary = self._channel.unary_unary(bare_pipe.UNARY)
        self._stream = self._channel.unary_stream(bare_pipe.STREAM)

    async def stop(self) -> None:
        await self._channel.close()
        if self.program is not None:
            await self.program.stop()

    async def complete(self, model: str) -> str:
        answer = await self._unary(body_of(model, "", stream=False))
        text: str = json.loads(answer)["choices"][0]["message"]["content"]
        return text

    async def stream(self, model: str, mark: str = "") -> AsyncGenerator[str, None]:
        call = self._stream(body_of(model, mark, stream=True))
        try:
            async for event in call:
                if text := text_of(event):
                    yield text
        finally:
            call.cancel()
