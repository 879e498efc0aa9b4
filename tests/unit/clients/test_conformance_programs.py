"""The conformance programs against the scripted service, so that a client's fault shows without a deployment."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from tests.suites.conformance import Json, Service, build_go_program, check_case, load_cases, python_program
from tests.unit.clients.scripted_router import TOKEN, Endpoint, ScriptedRouter

CASES = load_cases()
SEEN_WITHIN_SECONDS = 30.0


@pytest.fixture(scope="session")
def go_program(tmp_path_factory: pytest.TempPathFactory) -> Sequence[str]:
    return build_go_program(tmp_path_factory.mktemp("go"))


async def check(program: Sequence[str], endpoint: Endpoint, router: ScriptedRouter, case: Json) -> None:
    async def receipt_state_of(response_id: str) -> str:
        async with asyncio.timeout(SEEN_WITHIN_SECONDS):
            await router.cancelled.wait()
        return router.states[response_id]

    await check_case(program, Service(endpoint.target, endpoint.ca_path, TOKEN), case, receipt_state_of)


@pytest.mark.parametrize("mode", ["async", "sync"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
async def test_python(mode: str, case: Json, endpoint: Endpoint, router: ScriptedRouter) -> None:
    await check(python_program(mode), endpoint, router, case)


@pytest.mark.timeout(400)  # the first build compiles grpc
@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
async def test_go(case: Json, endpoint: Endpoint, router: ScriptedRouter, go_program: Sequence[str]) -> None:
    await check(go_program, endpoint, router, case)


def test_the_three_cases_are_there() -> None:
    assert [case["name"] for case in CASES] == ["cancel", "error_with_receipt", "stream_with_tools"]
