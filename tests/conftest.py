"""Fixtures that several kinds of tests share."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import structlog
from hypothesis import HealthCheck, settings
from keyswitch.vault.v1 import token_service_pb2

from deploy.local.stack import APPLICATION, KEY_PREFIX, USER, Ports, Stack
from tests.fakes.free_ports import free_ports
from tests.fakes.postgres_server import own_postgres_server, postgres_programs, postgres_server
from tests.fakes.redis_server import own_redis_server, redis_program, redis_server

__all__ = [
    "own_postgres_server",
    "own_redis_server",
    "postgres_programs",
    "postgres_server",
    "redis_program",
    "redis_server",
]


# How long an example takes says nothing but how busy the machine is.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

# The default renderer prints the locals of every frame: tens of seconds where one of them is a whole service.
structlog.configure(
    processors=[
        structlog.processors.add_log_level,
        structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback),
    ]
)


@dataclass(frozen=True)
class Deployment:
    """Both services and the practice provider, as processes."""

    stack: Stack
    router_target: str
    vault_target: str
    ca_path: Path
    operator_token: str
    admin_token: str
    member_token: str
    practice_key: str


@pytest.fixture(scope="session")
async def deployment(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Deployment]:
    """A local deployment on free ports, shared by the whole run."""
    stack = Stack(tmp_path_factory.mktemp("home"), Ports(*free_ports(6)), gap_seconds=0.002)
    try:
        await stack.start()
        await stack.furnish()
        operator_token = stack.operator_token()
        async with stack.client(operator_token) as client:
            admin_token = await stack.issue_token(client, "tests", [token_service_pb2.CALLER_ROLE_ADMIN])
            member_token = await stack.issue_token(
                client, "tests", [token_service_pb2.CALLER_ROLE_MEMBER], user=USER, application=APPLICATION
            )
        yield Deployment(
            stack,
            stack.router_target,
            stack.vault_target,
            stack.ca_path,
            operator_token,
            admin_token,
            member_token,
            KEY_PREFIX + "0" * 24,
        )
    finally:
        await stack.stop()
