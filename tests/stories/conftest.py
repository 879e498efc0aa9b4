"""One command server for all stories."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.stories.harness import command_server


@pytest.fixture(scope="session")
async def keyswitch_path() -> AsyncIterator[Path]:
    """A folder for PATH, with the keyswitch command."""
    async with command_server() as folder:
        yield folder
