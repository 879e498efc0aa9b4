"""Two routers whose database and whose store of limits are real servers, each behind a way that can be made bad."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import aiohttp

from router_service.app import RunningRouter
from router_service.core.budget import Basis, Budget, Period
from router_service.core.database import PostgresDatabase, parse_database
from router_service.ledger.ledger import LedgerEntry
from router_service.state.shared import WhenAway
from tests.fakes.fault_proxy import FaultProxy, Way
from tests.fakes.postgres_server import PostgresServer
from tests.fakes.redis_server import RedisServer, age
from tests.fakes.scripted_upstream import Action, Received, respond
from tests.service.router_answers import Json, answer
from tests.service.router_harness import ADA, CHAT, DEMO, Caller, Stack, running_stack
from tests.service.test_router_limits import held_answer
from tests.service.two_routers import second_router

BOB = f"{DEMO}/users/bob"
LIMITED = f"{DEMO}/applications/limited"
CREDITS_NANOS = 10**13
SLOTS = 2
RESTING = "test/claude"  # whose provider always refuses


@dataclass
class StateSite:
    """`stack` refuses what it cannot count while the limits are away, `local` counts its share."""

    stack: Stack
    local: RunningRouter
    local_caller: Caller
    database: Way
    limits: Way
    redis: RedisServer
    release: asyncio.Event = field(default_factory=asyncio.Event)
    throttled: int = 0  # requests that reached the provider that always refuses
    capped: Caller = field(init=False)
    limited: Caller = field(init=False)
    admin: Caller = field(init=False)

    @property
    def limited_there(self) -> Caller:
        """The caller of the application with limits, at the other router."""
        return Caller(self.local_caller.channel, self.limited.token)

    def answers(self, received: Received) -> list[Action]:
        """An answer; one that stands still until it is released, where the prompt asks for that."""
        return list(held_answer(self.release)) if b"wait" in received.body else answer()

    def refuses(self, received: Received) -> list[Action]:
        """Throttles the one model, answers the others."""
        if b"claude-1" not in received.body:
            return answer()
        self.throttled += 1
        return respond(b"{}", status=429, retry_after="300")

    async def ready(self) -> str:
        """What the router says of itself."""
        url = f"http://127.0.0.1:{self.stack.router.http_port}/readyz"
        async with aiohttp.ClientSession() as session, session.get(url) as found:
            assert found.status == 200  # what needs no store is served
            return await found.text()

    async def wait_until_said(self, *away: str) -> None:
        """Returns when health names these stores, and no others."""
        expected = "".join(f"; the store of {store} is out of reach" for store in away)
        said = ""
        try:
            async with asyncio.timeout(60):
                while (said := await self.ready()) != f"ready{expected}\n":
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError(f"it says {said}, and not {away}") from None

    async def check_books(self, charged: Counter[str]) -> None:
        """Every call was charged once, as its caller was told; nothing is reserved, owed or held any longer."""
        ledger: Any = self.stack.router.ledger
        await self.stack.rest()
        entries: list[LedgerEntry] = []
        while page := await ledger.list_entries("demo", entries[-1].entry_id if entries else None, 1000):
            entries += page
        booked: Counter[str] = Counter()
        for entry in entries:
            booked[entry.note] -= entry.amount_nanos
        assert booked.pop("test") == -CREDITS_NANOS
        assert booked == charged
        balance = await ledger.balance("demo")
        assert balance.balance_nanos == CREDITS_NANOS - charged.total()
        assert balance.reserved_nanos == 0
        assert (await ledger.verify()).is_right
        assert len(ledger._outbox._journal) == 0

    async def check_slots(self) -> None:
        """What a router could not give back has ended by itself."""
        await age(self.redis, 16.0)
        for name in ("first", "second"):
            for owner in (DEMO, "deployment"):
                key = f"{owner}/credentials/{name}"
                assert await self.stack.router.limits.count_slots(key) == (0, 0)


def configure(made: Json) -> None:
    demo = made["organizations"]["demo"]
    demo["applications"]["limited"] = {**demo["applications"]["chat"], "limits": {"requests_per_minute": 1_000_000}}
    made["providers"]["second"]["max_concurrent_requests"] = SLOTS
    for provider in made["providers"].values():
        provider["breaker_failures"] = 0


@asynccontextmanager
async def running_state_site(
    postgres: PostgresServer, redis: RedisServer, proxy: FaultProxy, home: Path
) -> AsyncIterator[StateSite]:
    """Both routers, with keys, credits and a budget."""
    database = await asyncio.to_thread(proxy.way_to, postgres.port)
    limits = await asyncio.to_thread(proxy.way_to, redis.port)
    direct = parse_database(postgres.url(postgres.create_database()), postgres.password_file)
    assert isinstance(direct, PostgresDatabase)
    place = replace(direct, port=database.port)
    shared: dict[str, Any] = {
        "database": place,
        "configuration_store": place,
        "limits": f"redis://127.0.0.1:{limits.port}/0",
        "routers": 2,
        "ledger_sweep_seconds": 0.5,
    }
    async with AsyncExitStack() as exits:
        stack = await exits.enter_async_context(running_stack(home, configuration=configure, **shared))
        stack.router.engine.edges = replace(stack.router.engine.edges, sleep=asyncio.sleep)
        for name in ("first", "second", "claude"):
            await stack.save_key(f"{DEMO}/credentials/{name}", provider=name)
        await stack.save_key("deployment/credentials/first", "sk-ours-0123456789")
        await stack.add_credits(CREDITS_NANOS)
        now = stack.router.engine.edges.clock()
        cap = Budget("demo", "cap", "cap", BOB, Period.TOTAL, Basis.LIST_PRICE, CREDITS_NANOS, None, now, now, 1)
        await stack.router.ledger.create_budget(cap)
        other = {**shared, "limits_when_away": WhenAway.LOCAL, "outbox": home / "other-outbox"}
        caller, local = await exits.enter_async_context(second_router(stack, home, **other))
        site = StateSite(stack, local, caller, database, limits, redis)
        site.capped = await stack.issue("MEMBER", user=BOB, application=CHAT)
        site.limited = await stack.issue("MEMBER", user=ADA, application=LIMITED)
        site.admin = await stack.issue("ADMIN", parent=DEMO)
        stack.first.choose, stack.second.choose = site.answers, site.refuses
        exits.push_async_callback(limits.heal)
        exits.push_async_callback(database.heal)
        yield site
