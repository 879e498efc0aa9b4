"""A second router beside the one of a stack: same credential service, same configuration, same store of limits."""

import dataclasses
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc

from router_service.app import RunningRouter, serve
from router_service.config import Address
from router_service.core.database import SqliteDatabase
from tests.service.router_harness import Caller, Stack


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
