"""A raw server on loopback that writes prepared bytes and sees when its client goes. For the suite of HTTP clients."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec


class Connection(asyncio.Protocol):
    """The server's end of one connection. `closed` is set when the client's end is gone."""

    def __init__(self, serve: Callable[["Connection"], Awaitable[None]], server: "RawServer") -> None:
        self.closed = asyncio.Event()
        self.received = bytearray()
        self._arrived = asyncio.Event()
        self._serve = serve
        self._server = server
        self._transport: asyncio.Transport | None = None

    @property
    def transport(self) -> asyncio.Transport:
        assert self._transport is not None
        return self._transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one without inheriting from it
        self._server.connections.append(self)
        self._server.start(self._serve(self))

    def data_received(self, data: bytes) -> None:
        self.received += data
        self._arrived.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed.set()
        self._arrived.set()

    async def read_request(self) -> bytes:
        """The head and the body of the next request; b"" when the client is gone."""
        while True:
            head, separator, rest = bytes(self.received).partition(b"\r\n\r\n")
            size = 0
            for line in head.lower().split(b"\r\n"):
                if line.startswith(b"content-length:"):
                    size = int(line.split(b":")[1])
            if separator and len(rest) >= size:
                del self.received[: len(head) + 4 + size]
                return head + separator + rest[:size]
            if self.closed.is_set():
                return b""
            self._arrived.clear()
            await self._arrived.wait()

    def write(self, data: bytes) -> None:
        self.transport.write(data)


Serve = Callable[[Connection], Awaitable[None]]


class RawServer:
    """A server that runs one coroutine per connection."""

    def __init__(self) -> None:
        self.connections: list[Connection] = []
        self.port = 0
        self._tasks: set[asyncio.Future[None]] = set()
        self._came = asyncio.Event()

    def start(self, serving: Awaitable[None]) -> None:
        self._tasks.add(asyncio.ensure_future(serving))
        self._came.set()

    async def connection(self) -> Connection:
        async with asyncio.timeout(10):
            await self._came.wait()
        return self.connections[0]

    async def stop(self) -> None:
        for connection in self.connections:
            connection.transport.abort()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@asynccontextmanager
async def serving(serve: Serve, context: ssl.SSLContext | None = None) -> AsyncIterator[RawServer]:
    raw = RawServer()
    server = await asyncio.get_running_loop().create_server(lambda: Connection(serve, raw), "127.0.0.1", 0, ssl=context)
    raw.port = server.sockets[0].getsockname()[1]
    try:
        yield raw
    finally:
        server.close()
        await raw.stop()


def answering(*pieces: bytes, then_close: bool = False) -> Serve:
    """Answers every request with the same bytes."""

    async def serve(connection: Connection) -> None:
        while await connection.read_request():
            for piece in pieces:
                connection.write(piece)
            if then_close:
                connection.transport.close()

    return serve


def whole(body: bytes, status: str = "200 OK", headers: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode() + body


CHUNKED_HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-Request-Id: r1\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


async def gone(connection: Connection) -> None:
    """Waits until the server has seen the client go."""
    async with asyncio.timeout(10):
        await connection.closed.wait()


def make_contexts(folder: Path, name: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's and a client's context for one self-signed name."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    chain = folder / "server.pem"
    chain.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(chain)
    return server, ssl.create_default_context(cadata=certificate.public_bytes(serialization.Encoding.PEM).decode())
