"""What the tests of the clients share."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from keyswitch.router.v1 import provider_service_pb2

from tests.unit.clients.cli_terminal import Terminal
from tests.unit.clients.scripted_router import Endpoint, ScriptedRouter, listening
from tests.unit.clients.scripted_services import ScriptedServices, serving


@pytest.fixture
async def router() -> ScriptedRouter:
    return ScriptedRouter()


@pytest.fixture
async def endpoint(router: ScriptedRouter, tmp_path: Path) -> AsyncIterator[Endpoint]:
    async with listening(router, tmp_path) as endpoint:
        yield endpoint


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    services = ScriptedServices()
    provider = provider_service_pb2.Provider(
        name="providers/practice", display_name="Practice", dialect="openai_chat", origin="http://127.0.0.1:8780"
    )
    services.answers["ListProviders"] = provider_service_pb2.ListProvidersResponse(providers=[provider])
    with serving(services, tmp_path) as target:
        yield Terminal(services, tmp_path, target)
