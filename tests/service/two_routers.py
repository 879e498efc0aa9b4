"""A second router beside the one of a stack: same credential service, same configuration, same store of limits."""

import dataclasses
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc

from router_service.app import RunningRouter, serve
from router_service.config import Address
from router_service.core.database import SqliteDatabase, parse_database
from tests.fakes.postgres_server import PostgresServer
from tests.fakes.redis_server import RedisServer
from tests.service.configuration_harness import Desk
from tests.service.router_harness import DEMO, Caller, Stack, running_stack


@dataclasses.dataclass
class Pair:
    """Both routers, an administrator at each, and a member at the second."""

    stack: Stack
    other: RunningRouter
    here: Desk
    there: Desk
    member_there: Caller
    server: PostgresServer

    async def follow(self) -> None:
        """The second router looks, as it does by itself twice a second."""
        await self.other.look_at_documents()


@asynccontextmanager
async def running_pair(home: Path, server: PostgresServer, redis_server: RedisServer) -> AsyncIterator[Pair]:
    """Runs both over one PostgreSQL, which the test may stop, and one Redis."""
    place = parse_database(server.url(server.create_database()), server.password_file)
    shared: dict[str, Any] = {
        "database": place,
        "configuration_store": place,
        "limits": redis_server.url(),
        "routers": 2,
    }
    async with running_stack(home, **shared) as stack, second_router(stack, home, **shared) as (member, other):
        admin = await stack.issue("ADMIN", parent=DEMO)
        await stack.save_key("deployment/credentials/first")
        there = Desk(Caller(member.channel, admin.token), member.channel)
        yield Pair(stack, other, Desk(admin, stack.channel), there, member, server)


@asynccontextmanager
async def second_router(stack: Stack, home: Path, **changes: Any) -> AsyncIterator[tuple[Caller, RunningRouter]]:
    """Runs it, `changes` over its configuration; gives the stack's member as its caller, and the router."""
    here = Address("127.0.0.1", 0)
    own: dict[str, Any] = {
        "listen": here,
        "http_listen": here,
        "database": SqliteDatabase(home / "second.db"),
        "reload_interval_seconds": 0.05,
    }
    config = dataclasses.replace(stack.router.config, **{**own, **changes})
    router = await serve(config)
    try:
        await router.credentials.connected.wait()
        authority = grpc.ssl_channel_credentials((home / "ca.pem").read_bytes())
        async with grpc.aio.secure_channel(f"localhost:{router.port}", authority) as channel:
            yield Caller(channel, stack.member.token), router
    finally:
        await router.stop()
