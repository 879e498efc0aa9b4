"""A router that starts while its stores are still starting: a database is waited for, for so long and not longer."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from router_service.__main__ import _unless
from router_service.core.database import Database, SqliteDatabase, parse_database
from router_service.core.faults import Fault, Reason
from router_service.ledger.sql_ledger import open_ledger
from router_service.patient_start import RETRY_SECONDS, Opened, open_patiently
from router_service.state.limits import LimitsAway
from router_service.state.open_documents import open_documents
from router_service.state.redis_store import RedisLimits
from tests.fakes.postgres_server import PostgresServer

STARTING = b"SFATAL\0VFATAL\0C57P03\0Mthe database system is starting up\0\0"
LOADING = b"-LOADING Redis is loading the dataset in memory\r\n"


class Time:
    """A clock that only waiting moves."""

    def __init__(self, on_sleep: Callable[[], None] = lambda: None) -> None:
        self.now = 0.0
        self._on_sleep = on_sleep

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        await asyncio.to_thread(self._on_sleep)

    async def open(
        self, opens: Callable[[], Awaitable[Opened]], database: Database, wait_seconds: float = 60.0
    ) -> Opened:
        return await open_patiently(opens, database, wait_seconds, lambda: self.now, self.sleep)


@asynccontextmanager
async def saying(answer: bytes, *, preface: int) -> AsyncIterator[int]:
    """The port of a server that gives one answer to everything, and `N` to the first so many messages."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(preface):
            await reader.read(65536)
            writer.write(b"N")
        while await reader.read(65536):
            writer.write(answer)
            if preface:
                break
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        server.close()


async def test_a_server_that_comes_up_is_waited_for(own_postgres_server: PostgresServer, tmp_path: Path) -> None:
    server = own_postgres_server
    place = parse_database(server.url(server.create_database()), server.password_file)
    server.stop()
    time = Time(server.start)
    ledger = await time.open(partial(open_ledger, place, lambda: 0.0, outbox=tmp_path / "outbox"), place)
    assert (time.now, ledger.is_available) == (RETRY_SECONDS, True)
    await ledger.close()
    documents = await time.open(partial(open_documents, place), place)
    assert await documents.load() is not None
    await documents.close()


async def test_a_server_that_still_recovers_is_given_up_in_time(tmp_path: Path) -> None:
    message = b"E" + (len(STARTING) + 4).to_bytes(4, "big") + STARTING
    (tmp_path / "password").write_text("only-for-tests")
    time = Time()
    async with saying(message, preface=1) as port:
        url = f"postgresql://keyswitch@127.0.0.1:{port}/books"
        place = parse_database(url, tmp_path / "password")
        with pytest.raises(Fault) as given_up:
            await time.open(partial(open_ledger, place, lambda: 0.0), place, wait_seconds=3 * RETRY_SECONDS)
    assert time.now == 3 * RETRY_SECONDS
    assert given_up.value.reason is Reason.LEDGER_UNAVAILABLE
    assert url in given_up.value.message
    assert "KEYSWITCH_DATABASE_WAIT_SECONDS" in given_up.value.message
    assert "only-for-tests" not in given_up.value.message


async def test_what_no_waiting_mends_is_said_at_once(tmp_path: Path) -> None:
    time, server = Time(), parse_database("postgresql://keyswitch@127.0.0.1/books")
    (tmp_path / "folder").mkdir()
    file = SqliteDatabase(tmp_path / "folder")
    with pytest.raises(Fault, match="cannot be read or written"):
        await time.open(partial(open_ledger, file, lambda: 0.0), file)

    async def is_too_new() -> None:
        raise Fault(Reason.LEDGER_UNAVAILABLE, "The tables are too new.")

    with pytest.raises(Fault, match="too new"):
        await time.open(is_too_new, server)
    assert time.now == 0


async def test_a_signal_ends_a_start_that_waits() -> None:
    stop, is_left = asyncio.Event(), asyncio.Event()

    async def start() -> None:
        stop.set()
        try:
            await asyncio.Event().wait()
        finally:
            is_left.set()

    assert await _unless(stop, start()) is None  # type: ignore[arg-type] # starts nothing
    assert is_left.is_set()


async def test_a_redis_that_still_loads_is_away() -> None:
    async with saying(LOADING, preface=0) as port:
        limits = RedisLimits(f"redis://127.0.0.1:{port}/0")
        with pytest.raises(LimitsAway):
            await limits.rests()
        await limits.close()
