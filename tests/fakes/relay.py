"""A way to a port on which connections can fall silent while new ones work, or lose an answer, which a proxy cannot."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field


@dataclass
class Relay:
    """Passes bytes on. What fell silent, as after a failover that told nobody, stays open until the relay ends."""

    target: int
    port: int = 0
    count: int = 0  # of connections, ever
    is_losing: bool = False  # the next answer is lost with its connection
    _passing: set[asyncio.Task[None]] = field(default_factory=set)
    _writers: list[asyncio.StreamWriter] = field(default_factory=list)

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, there and back."""
        self.count += 1
        there, back = await asyncio.open_connection("127.0.0.1", self.target)
        self._writers += [writer, back]
        for task in (asyncio.create_task(_pass_on(reader, back)), asyncio.create_task(self._answer(there, writer))):
            self._passing.add(task)
            task.add_done_callback(self._passing.discard)

    async def _answer(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while (data := await source.read(65536)) and not self.is_losing:
                sink.write(data)
                await sink.drain()
            self.is_losing = False
            sink.close()

    def silence(self) -> None:
        """From now on nothing passes on the connections that there are."""
        for task in self._passing:
            task.cancel()

    def close(self) -> None:
        """Ends everything."""
        self.silence()
        for writer in self._writers:
            writer.transport.abort()


async def _pass_on(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await source.read(65536):
            sink.write(data)
            await sink.drain()
        sink.close()


@asynccontextmanager
async def running_relay(target: int) -> AsyncIterator[Relay]:
    """A relay to a port of this machine."""
    relay = Relay(target)
    server = await asyncio.start_server(relay.accept, "127.0.0.1", 0)
    relay.port = int(server.sockets[0].getsockname()[1])
    try:
        yield relay
    finally:
        server.close()
        relay.close()
        await server.wait_closed()
