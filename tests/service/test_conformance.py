"""The clients of every language against a real router and credential service."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import pytest
from keyswitch.router.v1 import receipt_pb2, usage_service_pb2
from keyswitch_client import AsyncClient

from tests.suites.conformance import Json, Service, build_go_program, check_case, load_cases, python_program

CASES = load_cases()
SETTLE_TIMEOUT_SECONDS = 60.0


class Deployment(Protocol):
    """What these tests need of the fixture `deployment`."""

    router_target: str
    ca_path: Path
    member_token: str


@pytest.fixture(scope="session")
def go_program(tmp_path_factory: pytest.TempPathFactory) -> Sequence[str]:
    return build_go_program(tmp_path_factory.mktemp("go"))


async def check(program: Sequence[str], deployment: Deployment, case: Json) -> None:
    async with AsyncClient(deployment.router_target, deployment.member_token, ca_path=deployment.ca_path) as client:

        async def receipt_state_of(response_id: str) -> str:
            """The state in which the call rests: each question is a call of its own, which is the waiting."""
            request = usage_service_pb2.GetReceiptRequest(response_id=response_id)
            state = receipt_pb2.RECEIPT_STATE_IN_FLIGHT
            async with asyncio.timeout(SETTLE_TIMEOUT_SECONDS):
                while state == receipt_pb2.RECEIPT_STATE_IN_FLIGHT:
                    state = (await client.call(client.usage.GetReceipt, request)).receipt.state
            return receipt_pb2.ReceiptState.Name(state)

        service = Service(deployment.router_target, deployment.ca_path, deployment.member_token)
        await check_case(program, service, case, receipt_state_of)


@pytest.mark.parametrize("mode", ["async", "sync"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
async def test_python(mode: str, case: Json, deployment: Deployment) -> None:
    await check(python_program(mode), deployment, case)


@pytest.mark.timeout(400)  # the first build compiles grpc
@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
async def test_go(case: Json, deployment: Deployment, go_program: Sequence[str]) -> None:
    await check(go_program, deployment, case)
