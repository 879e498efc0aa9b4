"""The report of the promises itself."""

import ast
from pathlib import Path

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


def test_every_promise_has_a_test_that_counts() -> None:
    """What `make security` would print as silence is found here first."""
    counted: set[object] = set()
    for path in Path(__file__).parents[1].rglob("test_*.py"):
        if path != Path(__file__):
            calls = (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call))
            counted |= {_first(node) for node in calls if isinstance(node.func, ast.Name) and node.func.id == "tried"}
    assert [number for number in promises.PROMISES if number not in counted] == []


def _first(call: ast.Call) -> object:
    return call.args[0].value if call.args and isinstance(call.args[0], ast.Constant) else None
