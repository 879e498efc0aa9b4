"""What the tests of the clients share."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.unit.clients.scripted_router import Endpoint, ScriptedRouter, listening


@pytest.fixture
async def router() -> ScriptedRouter:
    return ScriptedRouter()


@pytest.fixture
async def endpoint(router: ScriptedRouter, tmp_path: Path) -> AsyncIterator[Endpoint]:
    async with listening(router, tmp_path) as endpoint:
        yield endpoint
