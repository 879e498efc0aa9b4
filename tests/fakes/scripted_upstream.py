"""A provider whose behaviour a test scripts, one list of actions per request.

It speaks HTTP/1.1 by hand, because the faults that matter (a cut in a header, a reset, a body that stops) are what
an HTTP server library prevents. Requests beyond the scripts get 500, so a retry that a test did not expect shows.
"""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import struct
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import assert_never


@dataclass(frozen=True)
class Send:
    """Writes these bytes and waits until the kernel has taken them."""

    data: bytes


@dataclass(frozen=True)
class Pause:
    """Waits until the test sets the event."""

    until: asyncio.Event


@dataclass(frozen=True)
class Reached:
    """Tells the test that the script has come this far."""

    event: asyncio.Event


@dataclass(frozen=True)
class Cut:
    """Closes the connection in good order (FIN)."""


@dataclass(frozen=True)
class Reset:
    """Closes the connection with RST: unread and unsent bytes are lost."""


@dataclass(frozen=True)
class Stall:
    """Says nothing more until the other side leaves or the upstream stops."""


Action = Send | Pause | Reached | Cut | Reset | Stall
Script = Iterable[Action]


@dataclass(frozen=True)
class Received:
    """A request as it came; header names are in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> object:
        return json.loads(self.body)


def respond(body: bytes, *, status: int = 200, content_type: str = "application/json", **headers: str) -> list[Action]:
    """A whole response that keeps the connection open; `retry_after="1"` becomes the header retry-after."""
    return [Send(head(status, content_type, content_length=len(body), **headers) + body)]


def stream(*events: bytes, content_type: str = "text/event-stream") -> list[Action]:
    """A whole chunked response, one HTTP chunk per event, that keeps the connection open."""
    return [Send(head(200, content_type)), *(Send(chunk(event)) for event in events), Send(LAST_CHUNK)]


def head(status: int = 200, content_type: str = "text/event-stream", *, content_length: int = -1, **more: str) -> bytes:
    """The head of a response; without a length the body is to be sent in chunks."""
    length = f"content-length: {content_length}" if content_length >= 0 else "transfer-encoding: chunked"
    others = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in more.items())
    return f"HTTP/1.1 {status} Scripted\r\ncontent-type: {content_type}\r\n{length}\r\n{others}\r\n".encode()


def chunk(data: bytes) -> bytes:
    """One HTTP chunk."""
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


LAST_CHUNK = b"0\r\n\r\n"
UNSCRIPTED = respond(b'{"error":{"message":"no script is left for this request"}}', status=500)


@dataclass
class ScriptedUpstream:
    """What the test holds: the scripts to come, the requests that came, the connections that are open.

    `choose` takes the place of the scripts where the answer depends on the request.
    """

    port: int = 0
    scripts: deque[list[Action]] = field(default_factory=deque)
    choose: Callable[[Received], list[Action]] | None = None
    received: list[Received] = field(default_factory=list)
    open_connections: int = 0
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def script(self, *scripts: Script) -> None:
        """Appends one script per coming request, whichever connection it comes on."""
        self.scripts.extend(list(script) for script in scripts)

    async def wait_for_requests(self, count: int) -> None:
        """Returns when at least so many requests have come."""
        async with self._changed:
            await self._changed.wait_for(lambda: len(self.received) >= count)

    async def wait_for_connections(self, count: int) -> None:
        """Returns when exactly so many connections are open; 0 means that everybody has left."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.open_connections == count)

    async def _note(self, *, opened: int = 0, received: Received | None = None) -> None:
        async with self._changed:
            self.open_connections += opened
            if received is not None:
                self.received.append(received)
            self._changed.notify_all()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serves one connection until a script or the other side ends it."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        await self._note(opened=1)
        try:
            while (request := await _read_request(reader)) is not None:
                await self._note(received=request)
                if not await _play(self._next_script(request), reader, writer):
                    break
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the other side left, or the test is over: both are ends of a connection
        finally:
            writer.close()
            self._tasks.discard(task)
            await self._note(opened=-1)

    def _next_script(self, request: Received) -> list[Action]:
        if self.choose is not None:
            return self.choose(request)
        return self.scripts.popleft() if self.scripts else UNSCRIPTED

    async def stop(self) -> None:
        """Ends every connection."""
        for task in list(self._tasks):
            task.cancel()
        async with self._changed:
            await self._changed.wait_for(lambda: self.open_connections == 0)


async def _read_request(reader: asyncio.StreamReader) -> Received | None:
    try:
        lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    except asyncio.IncompleteReadError:
        return None
    method, path, _ = lines[0].split(" ", 2)
    pairs = (line.split(":", 1) for line in lines[1:] if line)
    headers = {name.lower(): value.strip() for name, value in pairs}
    return Received(method, path, headers, await reader.readexactly(int(headers.get("content-length", "0"))))


async def _play(script: Script, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    """Whether the connection may serve another request. A caller that leaves during a wait ends the script."""
    for action in script:
        match action:
            case Send(data):
                writer.write(data)
                await writer.drain()
            case Pause(until):
                if not await _wait(until, reader):
                    return False
            case Reached(event):
                event.set()
            case Cut():
                return False
            case Reset():
                _reset(writer)
                return False
            case Stall():
                await _wait(asyncio.Event(), reader)
                return False
            case _:
                assert_never(action)
    return True


def _reset(writer: asyncio.StreamWriter) -> None:
    # A linger of zero is what turns the close into RST.
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def _wait(event: asyncio.Event, reader: asyncio.StreamReader) -> bool:
    """True when the event was set, False when the other side left first."""
    left = asyncio.ensure_future(reader.read(1))
    waiting = asyncio.ensure_future(event.wait())
    try:
        await asyncio.wait({left, waiting}, return_when=asyncio.FIRST_COMPLETED)
        return waiting.done()
    finally:
        for task in (left, waiting):
            task.cancel()
        await asyncio.gather(left, waiting, return_exceptions=True)


@asynccontextmanager
async def scripted_upstream(*scripts: Script, secured: ssl.SSLContext | None = None) -> AsyncIterator[ScriptedUpstream]:
    """An upstream that listens on a free port of the loopback until the block ends."""
    upstream = ScriptedUpstream()
    upstream.script(*scripts)
    server = await asyncio.start_server(upstream.serve, "127.0.0.1", 0, ssl=secured)
    upstream.port = server.sockets[0].getsockname()[1]
    try:
        yield upstream
    finally:
        server.close()
        await upstream.stop()
        await server.wait_closed()
