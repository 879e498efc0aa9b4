"""A fake Vault in front of a real one: it passes everything on, until it is told what to answer in its place.

`ANSWERS` holds what a real server answers in states that it can be brought into here; a test compares them with it.
States that only Vault Enterprise or a cluster has are in it as its documentation gives them.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

SEALED = (503, ("Vault is sealed",))
RATE_LIMITED = (429, ('request path "keyswitch/data/changes/log": rate limit quota exceeded',))
DENIED = (403, ("1 error occurred:\n\t* permission denied\n\n",))
ANSWERS: Mapping[str, tuple[int, Sequence[str]]] = {
    "sealed": SEALED,
    "rate limited": RATE_LIMITED,
    "policy denies": DENIED,
    "standby, not caught up": (412, ()),
    "disaster recovery secondary": (472, ()),
    "performance standby": (473, ()),
    "standby without its leader": (474, ()),
    "failing, and naming its audit devices": (
        500,
        ("1 error occurred:\n\t* no audit backend succeeded in logging the request",),
    ),
    "failing, as when no audit device can write": (500, ("internal error",)),
    "never initialised": SEALED,  # and its seal's status says which of both
    "gateway, no backend": (502, ()),
    "gateway, overloaded": (503, ()),
    "gateway, time-out": (504, ()),
    "removed from its cluster": (530, ()),
}


@dataclass
class VaultFront:
    """Where it listens, and what it answers; None passes on. Logins always pass."""

    server_port: int
    port: int = 0
    answer: tuple[int, Sequence[str]] | None = None
    is_initialised: bool = True
    answered: int = 0
    _serving: "dict[asyncio.Task[None], asyncio.StreamWriter]" = field(default_factory=dict)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        task = asyncio.current_task()
        assert task is not None
        self._serving[task] = writer
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                body = await reader.readexactly(_length(head))
                writer.write(await self._reply(head, body))
                await writer.drain()
        del self._serving[task]
        writer.close()

    async def _reply(self, head: bytes, body: bytes) -> bytes:
        if self.answer is None or b" /v1/auth/" in head.partition(b"\r\n")[0]:
            return await self._pass_on(head, body)
        self.answered += 1
        if not self.is_initialised and b" /v1/sys/seal-status " in head.partition(b"\r\n")[0]:
            return _answer(200, {"initialized": False, "sealed": True})
        status, errors = self.answer
        return _answer(status, {"errors": list(errors)})

    async def _pass_on(self, head: bytes, body: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.server_port)
        try:
            writer.write(head + body)
            answer = await reader.readuntil(b"\r\n\r\n")
            return answer + await reader.readexactly(_length(answer))
        finally:
            writer.close()

    async def cut(self) -> None:
        """Closes what is open."""
        serving = dict(self._serving)
        for writer in serving.values():
            writer.close()
        await asyncio.gather(*serving)


def _answer(status: int, body: Mapping[str, object]) -> bytes:
    text = json.dumps(body).encode()
    return b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%s" % (status, len(text), text)


def _length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0


@asynccontextmanager
async def running_front(server_port: int) -> AsyncIterator[VaultFront]:
    """A front before a server of this machine."""
    front = VaultFront(server_port)
    server = await asyncio.start_server(front.serve, "127.0.0.1", 0)
    front.port = server.sockets[0].getsockname()[1]
    try:
        yield front
    finally:
        server.close()
        await front.cut()
