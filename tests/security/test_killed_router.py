"""A router that is killed, again and again, while its ledger comes and goes: what it had acknowledged is kept, once.

The router is a process of its own, killed with SIGKILL. Calls are held in the middle of their answers, so that the
ledger goes away under them; calls on own keys go on while it is away.
"""

import asyncio
import contextlib
import os
import random
import re
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest

from router_service.core.database import Database, PostgresDatabase, SqliteDatabase, parse_database
from router_service.core.receipt import ReceiptState
from router_service.ledger.ledger import LedgerEntry
from router_service.ledger.sql_ledger import SqlLedger, open_ledger
from tests.bench.processes import free_port
from tests.fakes.postgres_server import PostgresServer
from tests.fakes.scripted_upstream import LAST_CHUNK, Action, Pause, Received, Send, chunk, head
from tests.service.router_answers import answer_events
from tests.service.router_harness import Answer, Caller, Stack, make_call, make_policy, running_stack

ROOT = Path(__file__).resolve().parents[2]
ROUNDS = 20 if os.environ.get("KEYSWITCH_THOROUGH") == "1" else 4
SEED = 20261127
HELD = 6  # calls of each payer in the middle of their answers when the ledger goes
WHILE_AWAY = 8
CREDITS_NANOS = 10**15
RESERVATION_SECONDS = 3600.0


@dataclass
class Place:
    """A database, and how it goes away and comes back."""

    database: Database
    leave: Callable[[], None]
    come_back: Callable[[], None]


@dataclass
class Seen:
    """What callers were told, by response id: the nanos that they were charged."""

    charged: dict[str, int] = field(default_factory=dict)
    kills: int = 0
    broken: int = 0  # calls that ended with the router

    def note(self, receipt: Any) -> None:
        if receipt is None:
            self.broken += 1
        else:
            self.charged[receipt.response_id] = receipt.cost.charged_usd_nanos


@asynccontextmanager
async def sqlite_place(home: Path) -> AsyncIterator[Place]:
    """Away: somebody else has the write lock."""
    path = home / "shared.db"
    connected = sqlite3.connect(path, isolation_level=None, timeout=30, check_same_thread=False)
    with contextlib.closing(connected) as other:

        def leave() -> None:
            other.execute("BEGIN IMMEDIATE")

        def come_back() -> None:
            other.execute("ROLLBACK")

        yield Place(SqliteDatabase(path), leave, come_back)


@asynccontextmanager
async def postgres_place(server: PostgresServer) -> AsyncIterator[Place]:
    """Away: the server has crashed."""
    found = parse_database(server.url(server.create_database()), server.password_file)
    yield Place(found, server.stop, server.start)


@asynccontextmanager
async def router_process(
    stack: Stack, place: Place, log: Path
) -> AsyncIterator[tuple[Caller, subprocess.Popen[bytes]]]:
    """A router that serves; it may be killed inside."""
    port = free_port()
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "protos/gen/python"))),
        "KEYSWITCH_HOME": str(stack.home),
        "KEYSWITCH_DATABASE_URL": str(place.database),
        "KEYSWITCH_OUTBOX": str(stack.home / "killed-outbox"),
        "KEYSWITCH_LISTEN": f"127.0.0.1:{port}",
        "KEYSWITCH_HTTP_LISTEN": f"127.0.0.1:{free_port()}",
        "KEYSWITCH_LEASE_TARGET": f"localhost:{stack.vault.service.lease_port}",
    }
    if isinstance(place.database, PostgresDatabase):
        environment["KEYSWITCH_DATABASE_PASSWORD_FILE"] = str(place.database.password_file)
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "router_service"], cwd=ROOT, env=environment, stdout=output, stderr=output
        )
    authority = grpc.ssl_channel_credentials((stack.home / "ca.pem").read_bytes())
    options = (("grpc.initial_reconnect_backoff_ms", 20), ("grpc.max_reconnect_backoff_ms", 50))
    try:
        async with grpc.aio.secure_channel(f"localhost:{port}", authority, options=options) as channel:
            caller = Caller(channel, stack.member.token)
            async with asyncio.timeout(60):
                while await follow(open_call(caller, "ORGANIZATION_KEY")) is None:
                    assert process.poll() is None, log.read_text()[-2000:]
            yield caller, process
    finally:
        if process.poll() is None:
            process.terminate()
        await asyncio.to_thread(process.wait, 30)


def open_call(caller: Caller, payer: str, text: str = "at once") -> Any:
    call = make_call(text, route_policy=make_policy(payers=[f"PAYER_{payer}"], max_attempts=1))
    call.spec.settings.max_output_tokens = 100
    return caller.open(call)


async def follow(opened: Any) -> Any:
    """The receipt at the end of an answer; None where it broke off."""
    found = Answer()
    try:
        while (message := await opened.read()) is not grpc.aio.EOF:
            found.messages.append(message)
    except grpc.aio.AioRpcError:
        return None
    return found.receipt


class Gates:
    """Where the provider holds an answer, until it may go on."""

    def __init__(self) -> None:
        self._events: dict[str, asyncio.Event] = {}

    def choose(self, received: Received) -> list[Action]:
        events = [Send(chunk(event)) for event in answer_events("Hello", " world")]
        mark = re.search(rb"gate-[0-9]+", received.body)
        middle = [Pause(self._events[mark[0].decode()])] if mark else []
        return [Send(head()), *events[:2], *middle, *events[2:], Send(LAST_CHUNK)]

    async def begin(self, caller: Caller, payer: str) -> tuple[asyncio.Event, Any]:
        """A call that is held in the middle of its answer."""
        mark, gate = f"gate-{len(self._events)}", asyncio.Event()
        self._events[mark] = gate
        opened = open_call(caller, payer, mark)
        assert await opened.read() is not grpc.aio.EOF
        return gate, opened


async def one_life(stack: Stack, place: Place, chance: random.Random, seen: Seen, gates: Gates) -> None:
    """A router from its start to its kill."""
    async with router_process(stack, place, stack.home / "router.log") as (caller, process):
        held = [await gates.begin(caller, payer) for payer in ("CREDITS", "ORGANIZATION_KEY") * HELD]
        is_away = chance.random() < 0.75
        if is_away:
            await asyncio.to_thread(place.leave)
        try:
            released = chance.sample(held, chance.randrange(HELD, 2 * HELD))
            ending = [asyncio.ensure_future(follow(call)) for _, call in held]
            ending += [asyncio.ensure_future(follow(open_call(caller, "ORGANIZATION_KEY"))) for _ in range(WHILE_AWAY)]
            for one in ending:
                one.add_done_callback(lambda done: seen.note(done.result()))
            enough = chance.randrange(HELD, len(released) + WHILE_AWAY)
            for gate, _ in released:
                gate.set()
            while sum(one.done() for one in ending) < enough:
                await asyncio.wait([one for one in ending if not one.done()], return_when=asyncio.FIRST_COMPLETED)
            process.kill()
            seen.kills += 1
            await asyncio.gather(*ending)
            await asyncio.to_thread(process.wait, 30)
        finally:
            for gate, _ in held:
                gate.set()
            if is_away:
                await asyncio.to_thread(place.come_back)


async def check(ledger: SqlLedger, seen: Seen, name: str) -> None:
    """Counts what is not as it was told."""
    entries: list[LedgerEntry] = []
    while page := await ledger.list_entries("demo", entries[-1].entry_id if entries else None, 1000):
        entries += page
    booked = Counter(entry.note for entry in entries)
    amounts = {entry.note: -entry.amount_nanos for entry in entries}
    receipts = {one: await ledger.get_receipt(one) for one in seen.charged}
    lost = sum(one is None or one.state is not ReceiptState.SUCCEEDED for one in receipts.values())
    double = sum(count - 1 for count in booked.values())
    wrong = sum(abs(amounts.get(one, 0) - nanos) for one, nanos in seen.charged.items())
    balance, verification = await ledger.balance("demo"), await ledger.verify()
    difference = balance.balance_nanos - sum(entry.amount_nanos for entry in entries)
    held = await ledger._writer.submit(
        lambda connection: connection.execute("SELECT response_id FROM reservations WHERE state = 'HELD'").fetchall()
    )
    kept = sum(row[0] in seen.charged for row in held)
    print(
        f"\nkilled router on {name}: {seen.kills} kills, {len(seen.charged)} answers acknowledged, {seen.broken} broken"
        f" off, receipts lost {lost}, charged twice {double}, nanos unexplained {wrong}, balance minus entries"
        f" {difference}, reservations left by acknowledged answers {kept}"
    )
    assert (lost, double, wrong, difference, kept) == (0, 0, 0, 0, 0)
    assert verification.is_right
    assert any(seen.charged.values())


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ["sqlite", "postgresql"])
async def test_what_a_killed_router_acknowledged_is_kept_once(
    tmp_path: Path, name: str, request: pytest.FixtureRequest
) -> None:
    gates = Gates()
    async with AsyncExitStack() as opened:
        stack = await opened.enter_async_context(running_stack(tmp_path))
        await stack.save_key("organizations/demo/credentials/first")
        await stack.save_key("deployment/credentials/first")
        stack.first.choose = gates.choose
        if name == "sqlite":
            place = await opened.enter_async_context(sqlite_place(tmp_path))
        else:
            server = request.getfixturevalue("own_postgres_server")
            place = await opened.enter_async_context(postgres_place(server))
        ledger = await open_ledger(place.database, lambda: 0.0)
        await ledger.add_credits("demo", CREDITS_NANOS, "start", "start", 0.0)
        await ledger.close()
        seen, chance = Seen(), random.Random(SEED)
        for _ in range(ROUNDS):
            await one_life(stack, place, chance, seen, gates)
        async with router_process(stack, place, tmp_path / "router.log"):
            pass  # pays what the last one left
        ledger = await open_ledger(place.database, lambda: 0.0)
        await check(ledger, seen, name)
        await ledger.close()
        assert list((tmp_path / "killed-outbox").iterdir()) == []
