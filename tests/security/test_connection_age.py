"""Promise 16: connections that were made with an old certificate are counted, and are none after their age and grace.

gRPC gives a new certificate to new connections only. So each connection that a listener has at the moment of a change
was made with the old one, and those moments' connections are looked for until none is left.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from keyswitch.vault.v1 import audit_service_pb2, credential_service_pb2
from keyswitch_client import AsyncClient

from tests.fakes.scripted_upstream import LAST_CHUNK, Action, Pause, Received, Send, chunk, head
from tests.security.promises import count, is_thorough, tried
from tests.security.test_certificates import MAIN, certificate_hash, shown_to_callers
from tests.service.callers_harness import Callers, running_callers
from tests.service.router_answers import answer, answer_events
from tests.service.router_harness import Caller, follow, make_call
from tests.service.vault_harness import Client, renew_leaves

AGE_SECONDS, GRACE_SECONDS = 1.0, 3.0
AGE_SPREAD = 1.1  # gRPC's own
LATE_SECONDS = 1.5
ESTABLISHED = "01"

pytestmark = pytest.mark.timeout(count(300, 1700))


def connections(port: int) -> frozenset[str]:
    """The connections that a listener has, by their other ends, as the system knows them."""
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            _, local, remote, state, *_ = line.split()
            if state == ESTABLISHED and int(local.rpartition(":")[2], 16) == port:
                found.add(remote)
    return frozenset(found)


@dataclass
class Load:
    """Callers of every listener, each with a connection of its own, that call without a pause."""

    callers: Callers
    exits: AsyncExitStack
    clients: list[AsyncClient] = field(default_factory=list)
    laps: list[int] = field(default_factory=list)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    is_over: bool = False

    async def begin(self, each: int) -> None:
        stack, read = self.callers.stack, credential_service_pb2.GetCredentialRequest(name=MAIN)
        for _ in range(each):
            caller = Caller(await self.open(stack.router.port), stack.member.token)
            admin = Client(await self.open(stack.vault.service.management_port), stack.admin.token)
            client = await self.exits.enter_async_context(
                self.callers.client(self.callers.authority.caller("demo/chat"))
            )
            self.clients.append(client)
            self._go_on(lambda caller=caller: self._stream(caller))  # type: ignore[misc]
            self._go_on(lambda admin=admin: admin.call(admin.credentials.GetCredential, read))  # type: ignore[misc]
            self._go_on(lambda client=client: client.complete("hi"))  # type: ignore[misc]
            self._go_on(lambda client=client: client.call(client.credentials.GetCredential, read))  # type: ignore[misc]

    async def open(self, port: int) -> grpc.aio.Channel:
        authority = grpc.ssl_channel_credentials((self.callers.stack.home / "ca.pem").read_bytes())
        options = [("grpc.use_local_subchannel_pool", 1)]
        return await self.exits.enter_async_context(
            grpc.aio.secure_channel(f"localhost:{port}", authority, options=options)
        )

    async def _stream(self, caller: Caller) -> None:
        assert (await caller.stream()).error is None

    def _go_on(self, call: Callable[[], Awaitable[Any]]) -> None:
        number = len(self.laps)
        self.laps.append(0)

        async def keep_calling() -> None:
            while not self.is_over:
                await call()
                self.laps[number] += 1

        self.tasks.append(asyncio.create_task(keep_calling()))

    async def fetch_anew(self) -> None:
        """Drops the leases in hand, so that new ones are taken."""
        self.callers.stack.end_leases()
        await self.until_each_called()

    async def until_each_called(self) -> None:
        """A call that failed ends the test."""
        before = list(self.laps)
        while not all(now > then for now, then in zip(self.laps, before, strict=True)):
            for task in self.tasks:
                if task.done():
                    await task
            await asyncio.sleep(0.005)

    async def end(self) -> None:
        self.is_over = True
        await asyncio.gather(*self.tasks)


async def begin_tail(load: Load) -> Any:
    """A stream without an end, on a connection of its own."""
    operator = load.callers.stack.vault.operator
    admin = Client(await load.open(load.callers.stack.vault.service.management_port), operator.token)
    metadata = (("authorization", f"Bearer {operator.token}"),)
    tail = admin.audit.TailAuditRecords(
        audit_service_pb2.TailAuditRecordsRequest(parent="chains/-"), metadata=metadata, timeout=60.0
    )
    await tail.read()
    return tail


async def begin_long_stream(load: Load) -> Any:
    """One that is under way when its connection has reached its age."""
    stack = load.callers.stack
    stream = Caller(await load.open(stack.router.port), stack.member.token).open(make_call("long"), timeout=60.0)
    await stream.read()
    return stream


async def is_cut(stream: Any) -> bool:
    """Reads to its end, and gives whether the server ended it."""
    try:
        while await stream.read() is not grpc.aio.EOF:
            pass
    except grpc.aio.AioRpcError as error:
        return error.code() is grpc.StatusCode.UNAVAILABLE
    return False


async def until_each_is_connected(listeners: Sequence[int]) -> dict[int, frozenset[str]]:
    """The connections of each listener once each has some: one whose age was over may just be made anew."""
    async with asyncio.timeout(60):
        while not all((found := {port: connections(port) for port in listeners}).values()):
            await asyncio.sleep(0.005)
    return found


async def until_gone(old: dict[int, frozenset[str]]) -> float:
    began = time.monotonic()
    async with asyncio.timeout(60):
        while any(connections(port) & found for port, found in old.items()):
            await asyncio.sleep(0.01)
    return time.monotonic() - began


async def test_no_connection_of_an_old_certificate_outlives_age_and_grace(tmp_path: Path) -> None:
    rounds, seen, slowest, tails = count(2, 40), 0, 0.0, 0
    long, released = answer_events("Hello", " world"), asyncio.Event()

    def choose(received: Received) -> list[Action]:
        if b"long" not in received.body:
            return answer()
        events = [Send(chunk(event)) for event in long]
        return [Send(head()), *events[:2], Pause(released), *events[2:], Send(LAST_CHUNK)]

    limits = {"max_connection_age_seconds": AGE_SECONDS, "drain_seconds": GRACE_SECONDS}
    async with (
        AsyncExitStack() as exits,
        running_callers(tmp_path, max_connection_age_seconds=AGE_SECONDS, vault_changes=limits) as callers,
    ):
        stack, service = callers.stack, callers.stack.vault.service
        await stack.save_key(MAIN)
        stack.first.choose = choose
        load = Load(callers, exits)
        await load.begin(count(2, 6))
        listeners = (
            stack.router.port,
            stack.router.certificate_port,
            service.management_port,
            service.certificate_port,
            service.lease_port,
        )
        for _ in range(rounds):
            released.clear()
            stream, tail = await begin_long_stream(load), await begin_tail(load)
            await load.until_each_called()
            old = await until_each_is_connected(listeners)
            renew_leaves(tmp_path)
            assert await stack.router.renew_certificate()
            for client in load.clients:
                await client.renew(callers.authority.caller("demo/chat"))
            old = {port: found | connections(port) for port, found in old.items()}
            seen += sum(len(found) for found in old.values())
            ended = asyncio.create_task(until_gone(old))
            await load.fetch_anew()
            await asyncio.wait({ended}, timeout=AGE_SECONDS * AGE_SPREAD + GRACE_SECONDS / 2)
            released.set()
            slowest = max(slowest, await ended)
            assert (await follow(stream)).error is None, "what was under way ended as it should"
            tails += await is_cut(tail)
            await load.until_each_called()
            assert await shown_to_callers(stack) == certificate_hash(tmp_path)
        await load.end()
    assert tails == rounds
    if is_thorough():
        assert slowest <= AGE_SECONDS * AGE_SPREAD + GRACE_SECONDS + LATE_SECONDS
    tried(
        16,
        "connections that were made with an old certificate, at all five listeners under calls, counted until none is",
        changes=rounds,
        old_connections=seen,
        left=0,
        seconds_max=round(slowest, 2),
        age_and_grace_seconds_max=AGE_SECONDS + GRACE_SECONDS,
        calls=sum(load.laps),
        failed=0,
        streams_beyond_the_age=rounds,
        streams_without_an_end_cut=tails,
    )
