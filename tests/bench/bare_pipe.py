"""The floor of this stack: a grpc.aio server that passes an upstream's bytes on and understands none of them.

No JSON, no policy, no lease, no ledger, no TLS, no authentication: what a router on the same libraries cannot beat
with one message per event. A request is the bytes of the HTTP body; an answer is the bytes of the upstream's.
"""

from __future__ import annotations

import argparse
from collections.abc import AsyncIterator

import aiohttp
import grpc
import grpc.aio
import uvloop

SERVICE = "keyswitch.bench.Pipe"
UNARY = f"/{SERVICE}/Unary"
STREAM = f"/{SERVICE}/Stream"
HEADERS = {"content-type": "application/json", "authorization": "Bearer sk-bench"}


class Pipe:
    """The two handlers."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url

    async def unary(self, body: bytes, context: object) -> bytes:
        del context
        async with self._session.post(self._url, data=body, headers=HEADERS) as response:
            return await response.read()

    async def stream(self, body: bytes, context: object) -> AsyncIterator[bytes]:
        del context
        rest = b""
        async with self._session.post(self._url, data=body, headers=HEADERS) as response:
            async for data in response.content.iter_any():
                *events, rest = (rest + data).split(b"\n\n")
                for event in events:
                    if event != b"data: [DONE]":
                        yield event


async def serve(port: int, upstream_port: int) -> None:
    """Serves until the process is ended."""
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        pipe = Pipe(session, f"http://127.0.0.1:{upstream_port}/v1/chat/completions")
        handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
            "Unary": grpc.unary_unary_rpc_method_handler(pipe.unary),
            "Stream": grpc.unary_stream_rpc_method_handler(pipe.stream),
        }
        server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
        server.add_insecure_port(f"127.0.0.1:{port}")
        await server.start()
        await server.wait_for_termination()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--upstream-port", type=int, required=True)
    chosen = parser.parse_args()
    uvloop.run(serve(chosen.port, chosen.upstream_port))
