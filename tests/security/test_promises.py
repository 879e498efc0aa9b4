"""The report of the promises itself."""

import pytest

from tests.security import promises


def test_counts_are_added_up_and_silence_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(promises, "_found", {})
    assert list(promises.report()) == []
    promises.tried(6, "changed", logs=2, seconds_max=0.5)
    promises.tried(6, "changed", logs=3, seconds_max=0.25)
    lines = list(promises.report())
    assert "            - changed: logs 5, seconds max 0.5" in lines
    assert sum(line.startswith("promise ") for line in lines) == len(promises.PROMISES)
    assert sum("nothing counted" in line for line in lines) == len(promises.PROMISES) - 1


def test_unknown_promises_are_refused() -> None:
    with pytest.raises(ValueError, match="21"):
        promises.tried(21, "none")
