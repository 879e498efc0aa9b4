"""docs/configuration.md says what the code does."""

import re
from pathlib import Path
from typing import Any

import pytest

from router_service.catalog.loader import ConfigurationError, load_snapshot
from router_service.catalog.schema import load_schema
from router_service.config import load_config
from tests.unit.catalog.example import EXAMPLE

_TEXT = (Path(__file__).parents[3] / "docs" / "configuration.md").read_text(encoding="utf-8")
_BROKEN = re.findall(r"```yaml\n((?:(?!```).)*)```\n```text\n(.*?)\n```", _TEXT, re.DOTALL)


class _Recorder(dict[str, str]):
    """An environment that remembers what was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: set[str] = set()

    def get(self, key: str, default: Any = None) -> Any:
        self.asked.add(key)
        return default


def test_the_example_is_the_one_that_loads() -> None:
    assert f"```yaml\n{EXAMPLE}```" in _TEXT


def test_there_are_three_broken_examples() -> None:
    assert len(_BROKEN) == 3


@pytest.mark.parametrize(("text", "message"), _BROKEN)
def test_a_broken_example_gives_its_message(text: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_snapshot(text, source="keyswitch.yaml")
    assert str(caught.value) == message


def test_every_key_is_documented() -> None:
    schema = load_schema()
    parts = [schema, *schema["$defs"].values(), *schema["$defs"]["settings"]["properties"].values()]
    keys = {key for part in parts for key in part.get("properties", {})}
    sections = {"organizations", "providers", "models", "deployment", "deployment_credentials"}
    assert {key for key in keys - sections if f"`{key}`" not in _TEXT} == set()
    assert {section for section in sections if f"### {section}" not in _TEXT} == set()


def test_every_variable_is_documented() -> None:
    environ = _Recorder()
    load_config(environ)
    assert environ.asked == set(re.findall(r"^\| `(KEYSWITCH_[A-Z_]+)` \|", _TEXT, re.MULTILINE))
