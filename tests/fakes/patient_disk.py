"""In the plain run the machine's disk may be slow for a while; what a slow one closes is tried by tests of its own."""

import os
from collections.abc import Iterator

import pytest

from vault_service.audit import sink

SECONDS = 30.0


@pytest.fixture(scope="session", autouse=True)
def patient_disk() -> Iterator[None]:
    """Lets the audit log of services in this process wait longer for its disk."""
    with pytest.MonkeyPatch.context() as patch:
        if os.environ.get("KEYSWITCH_THOROUGH") != "1":
            patch.setattr(sink, "SLOW_SECONDS", SECONDS)
        yield
