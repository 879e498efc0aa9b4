"""Keyswitch under measurement where calls cost credits: the ledger in PostgreSQL, the limits in Redis.

Every call is reserved and settled, and asks for the organization's rate. The CPU that counts is the router's alone.
"""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from keyswitch.router.v1 import budget_service_pb2
from keyswitch.router.v1.budget_service_pb2_grpc import BudgetServiceStub

from tests.bench import upstream
from tests.bench.keyswitch_peer import KeyswitchPeer, bearer, make_configuration
from tests.bench.names import CREDITS
from tests.bench.processes import WORK
from tests.fakes import postgres_server, redis_server

if TYPE_CHECKING:  # this class is only in the stubs' type information
    from keyswitch.router.v1.budget_service_pb2_grpc import BudgetServiceAsyncStub

HOME = WORK / "credits-home"
CREDITS_NANOS = 10**15
CALL_NANOS = upstream.USAGE["prompt_tokens"] * 100 + upstream.USAGE["completion_tokens"] * 400  # at the run's price
RATES = {"limits": {"requests_per_minute": 1_000_000}}  # reached by nobody, but asked for


class NotBooked(Exception):
    """The books do not say what was called: a cost measured meanwhile must not be reported."""


class CreditsPeer(KeyswitchPeer):
    """The router with two servers that many routers would share."""

    def __init__(self) -> None:
        super().__init__(HOME)
        self.name = CREDITS
        self._servers = ExitStack()
        self._environment: dict[str, str] = {}
        self._budgets: BudgetServiceAsyncStub

    async def start(self, upstream_port: int) -> None:
        await asyncio.to_thread(self._start_servers)
        await super().start(upstream_port)

    def _start_servers(self) -> None:
        try:
            programs, program = postgres_server.find_programs(), redis_server.find_program()
        except pytest.skip.Exception as reason:
            raise FileNotFoundError(f"{reason.msg} Pass --without keyswitch-credits to go on.") from reason
        database = self._servers.enter_context(postgres_server.running_postgres(programs, is_durable=True))
        limits = self._servers.enter_context(redis_server.running_redis(program))
        self._environment = {
            "KEYSWITCH_DATABASE_URL": database.url(database.create_database()),
            "KEYSWITCH_DATABASE_PASSWORD_FILE": str(database.password_file),
            "KEYSWITCH_LIMITS": f"unix://{limits.socket}",
        }

    def _configuration(self, upstream_port: int) -> dict[str, object]:
        made = make_configuration(upstream_port, "CREDITS", RATES)
        return {**made, "deployment_credentials": {"bench": {"provider": "bench", "payers": ["CREDITS"]}}}

    def _router_environment(self) -> dict[str, str]:
        return self._environment

    def _place_of_key(self, operator: str, admin: str) -> tuple[str, str]:
        del admin
        return "deployment", operator

    async def _connect(self) -> None:
        await super()._connect()
        assert self._channel is not None
        self._budgets = BudgetServiceStub(self._channel)
        request = budget_service_pb2.AddCreditsRequest(
            organization="organizations/demo",
            amount_usd_nanos=CREDITS_NANOS,
            request_id="4f5f7b0e-7f0a-4b43-8b7d-2f3a52b1c001",
        )
        await self._budgets.AddCredits(request, metadata=bearer(self._operator), wait_for_ready=True)

    async def stop(self) -> None:
        await super().stop()
        await asyncio.to_thread(self._servers.close)

    async def settle(self) -> int:
        """What has been charged in all, when nothing is reserved any more."""
        request = budget_service_pb2.GetBalanceRequest(organization="organizations/demo")
        while True:
            answer = await self._budgets.GetBalance(request, metadata=self._metadata)
            if not answer.balance.reserved_usd_nanos:
                return CREDITS_NANOS - answer.balance.balance_usd_nanos
            await asyncio.sleep(0.01)

    async def check_booked(self, charged_before: int, calls: int) -> None:
        """Raises unless each of the calls was charged, once, and the books add up."""
        charged = await self.settle() - charged_before
        if charged != calls * CALL_NANOS:
            raise NotBooked(f"{calls} calls of {CALL_NANOS} nano-USD were charged {charged}")
        request = budget_service_pb2.VerifyLedgerRequest()
        if not (await self._budgets.VerifyLedger(request, metadata=bearer(self._operator))).is_right:
            raise NotBooked("the ledger's sums are not those of its rows")
