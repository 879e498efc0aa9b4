"""What becomes of a call that meets the end of its connection: gRPC repeats only what no service has seen."""

import asyncio
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
from keyswitch_client.connection import channel_credentials, channel_options

from tests.service.vault_harness import make_home

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADERS, SETTINGS, GOAWAY = 1, 4, 7
ACKNOWLEDGED = 1
FIRST_STREAM = 1
TIMEOUT_SECONDS = 20.0


def frame(kind: int, payload: bytes = b"", flags: int = 0) -> bytes:
    """A frame of the connection itself (RFC 9113, 4.1)."""
    return len(payload).to_bytes(3, "big") + struct.pack(">BBI", kind, flags, 0) + payload


async def read_kind(reader: asyncio.StreamReader) -> int:
    """The kind of the next frame."""
    head = await reader.readexactly(9)
    await reader.readexactly(int.from_bytes(head[:3], "big"))
    return head[3]


class Way:
    """Ends the first connection when a call has come over it; hands the others on to a service."""

    def __init__(self, service_port: int, last_seen_stream: int) -> None:
        self._service_port = service_port
        self._last_seen_stream = last_seen_stream
        self.connections = 0

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        async with closing(writer):
            if self.connections == 1:
                await self._end(reader, writer)
            else:
                await self._hand_on(reader, writer)

    async def _end(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(len(PREFACE))
        writer.write(frame(SETTINGS) + frame(SETTINGS, flags=ACKNOWLEDGED))
        while await read_kind(reader) != HEADERS:
            pass
        writer.write(frame(GOAWAY, struct.pack(">II", self._last_seen_stream, 0) + b"max_age"))
        await writer.drain()
        if self._last_seen_stream:
            writer.transport.abort()  # what was seen gets no answer

    async def _hand_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_service, to_service = await asyncio.open_connection("127.0.0.1", self._service_port)

        async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
            async with closing(target):
                while data := await source.read(65_536):
                    target.write(data)
                    await target.drain()

        await asyncio.gather(copy(reader, to_service), copy(from_service, writer))


@asynccontextmanager
async def closing(writer: asyncio.StreamWriter) -> AsyncIterator[None]:
    """Lets go of a connection, whatever its peer has done with it."""
    with suppress(ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
        try:
            yield
        finally:
            writer.close()
            await writer.wait_closed()


@asynccontextmanager
async def running_way(home: Path, last_seen_stream: int) -> AsyncIterator[tuple[Way, grpc.aio.Channel, list[bytes]]]:
    """A service behind the way, a client's channel to it, and what the service was asked."""
    make_home(home)
    asked: list[bytes] = []

    async def answer(request: bytes, _: object) -> bytes:
        asked.append(request)
        return request

    service = grpc.aio.server()
    handler: Any = grpc.unary_unary_rpc_method_handler(answer)
    service.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", {"Say": handler}),))
    port = service.add_insecure_port("127.0.0.1:0")
    await service.start()
    way = Way(port, last_seen_stream)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(home / "router.pem", home / "router-key.pem")
    tls.set_alpn_protocols(["h2"])
    listener = await asyncio.start_server(way.take, "127.0.0.1", 0, ssl=tls)
    target = f"localhost:{listener.sockets[0].getsockname()[1]}"
    credentials = channel_credentials((home / "ca.pem").read_bytes(), None)
    async with grpc.aio.secure_channel(target, credentials, options=channel_options(target)) as channel:
        yield way, channel, asked
    listener.close()
    await listener.wait_closed()
    await service.stop(None)


async def say(channel: grpc.aio.Channel, text: bytes) -> bytes:
    """One call."""
    method: Any = channel.unary_unary("/test.Echo/Say")
    answer: bytes = await method(text, timeout=TIMEOUT_SECONDS)
    return answer


async def test_a_call_that_the_service_has_never_seen_goes_over_the_next_connection(tmp_path: Path) -> None:
    async with running_way(tmp_path, last_seen_stream=0) as (way, channel, asked):
        assert await say(channel, b"hi") == b"hi"
        assert (way.connections, asked) == (2, [b"hi"])


async def test_a_call_that_the_service_may_have_seen_is_not_repeated(tmp_path: Path) -> None:
    async with running_way(tmp_path, last_seen_stream=FIRST_STREAM) as (way, channel, asked):
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await say(channel, b"hi")
        assert error.value.code() is grpc.StatusCode.UNAVAILABLE
        assert asked == []
        assert await say(channel, b"again") == b"again"
        assert (way.connections, asked) == (2, [b"again"])
