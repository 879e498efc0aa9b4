"""What a router says of a credential service that stays away."""

from typing import Any

import pytest
from structlog.testing import CapturingLogger

from router_service.credentials import client


def test_a_service_that_stays_away_is_told_once_for_each_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    log = CapturingLogger()
    monkeypatch.setattr(client, "log", log)
    credentials: Any = object.__new__(client.Credentials)
    credentials._told_lost = ""
    for code in ("UNAVAILABLE", "UNAVAILABLE", "UNAUTHENTICATED", "UNAVAILABLE", "UNAVAILABLE"):
        credentials._tell_lost(code)
    assert [call.kwargs["code"] for call in log.calls] == ["UNAVAILABLE", "UNAUTHENTICATED", "UNAVAILABLE"]
