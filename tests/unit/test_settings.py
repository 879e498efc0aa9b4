"""Settings in the code and in the documents, both ways: each is told with its default, and each that is told exists."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer.main
from keyswitch_cli.main import app

import router_service.config
import vault_service.config
from tests.unit.test_docs import ROOT, documents, name

HOME = "./.keyswitch"
VARIABLE = re.compile(r"KEYSWITCH_[A-Z0-9_]*(?:<ID>[A-Z0-9_]*)?")
FIXED = re.compile(r"(KEYSWITCH_VAULT_FIXED)_[A-Z0-9_]+?_(PROVIDER|ORIGINS|PLAN|KEY|KEY_FILE|MATERIAL_FILE)")
OF_TESTS = re.compile(r'environ(?:\.get\(|\[)"(KEYSWITCH_\w+)"|\b(KEYSWITCH_\w+)(?: \?)?=')
ITS_OWN_ID = "KEYSWITCH_VAULT_FIXED_<ID>_PROVIDER"
ROW = re.compile(r"^\| (`KEYSWITCH_[^|]+) \|([^|]*)\|", re.MULTILINE)
CLI_README = ROOT / "clients" / "cli" / "README.md"


@dataclass(frozen=True)
class Setting:
    """A variable as the code reads it: what holds without it, and what a text for it means."""

    default: object
    parse: Callable[[str], object] = str

    @property
    def is_off(self) -> bool:
        """Whether there is none without the variable."""
        return self.default in (None, "", Path())


def router_settings(patch: pytest.MonkeyPatch) -> dict[str, Setting]:
    """All that the router reads."""
    found: dict[str, Setting] = {}

    class Watching(router_service.config._Reader):
        def read(self, name: str, default: Any, parse: Callable[[str], Any]) -> Any:
            found[f"KEYSWITCH_{name}"] = Setting(default, parse)
            return super().read(name, default, parse)

    patch.setattr(router_service.config, "_Reader", Watching)
    router_service.config.load_config({})
    return found


def vault_settings(patch: pytest.MonkeyPatch) -> dict[str, Setting]:
    """All that the credential service reads."""
    found = {"KEYSWITCH_HOME": Setting(HOME)}

    class Watching(vault_service.config._Reader):
        def text(self, name: str, default: str) -> str:
            told = default.replace(str(Path(HOME).absolute()), HOME)
            found[FIXED.sub(r"\1_<ID>_\2", f"KEYSWITCH_VAULT_{name}")] = Setting(told)
            return super().text(name, default)

    patch.setattr(vault_service.config, "_Reader", Watching)
    one = {"CREDENTIALS": "one", "ONE_ORIGINS": "https://api.example", "ONE_KEY": "sk-0123456789abcdefghij"}
    vault_service.config.load_config({f"KEYSWITCH_VAULT_FIXED_{name}": text for name, text in one.items()})
    return found


def command_settings(command: Any) -> dict[str, Any]:
    """All that the command and those below it read, with their defaults."""
    found = {one.envvar: one.default for one in command.params if one.envvar}
    for below in getattr(command, "commands", {}).values():
        found |= command_settings(below)
    return found


def documented(page: Path) -> Iterator[tuple[str, str]]:
    """The rows of the page's tables: a variable, and the cell with its default."""
    for variables, default in ROW.findall(page.read_text()):
        names = [one for one in VARIABLE.findall(variables) if not one.endswith("_")]
        values = re.findall("`[^`]*`", default)
        is_each = len(names) > 1 and len(values) == len(names)
        yield from zip(names, values if is_each else [default.strip()] * len(names), strict=True)


def told_default(cell: str) -> str | None:
    """The value in a cell of defaults; None for words alone."""
    values = re.findall("`([^`]*)`", cell)
    return values[-1].replace("$KEYSWITCH_HOME", HOME) if values else None


@pytest.mark.parametrize(
    ("read", "page"), [(router_settings, "configuration.md"), (vault_settings, "operating.md")], ids=["router", "vault"]
)
def test_each_setting_of_a_service_is_told_with_its_default(
    read: Callable[[pytest.MonkeyPatch], dict[str, Setting]], page: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, told = read(monkeypatch), dict(documented(ROOT / "docs" / page))
    assert sorted(told) == sorted(settings)
    wrong = {}
    for variable, setting in settings.items():
        cell = told[variable]
        value = told_default(cell)
        if setting.is_off:
            is_right = value is None or not cell.startswith("`")
        elif value is None:
            is_right = variable == ITS_OWN_ID
        else:
            is_right = setting.parse(value) == setting.default
        if not is_right:
            wrong[variable] = (cell, setting.default)
    assert wrong == {}


def test_each_setting_of_the_command_is_told_with_its_default() -> None:
    settings = command_settings(typer.main.get_command(app))
    table = [line.strip("| ").split(" | ") for line in CLI_README.read_text().splitlines() if "| `KEYSWITCH_" in line]
    told = {variable: row[3] for row in table for variable in VARIABLE.findall(row[2])}
    assert sorted(told) == sorted(settings)
    for variable, default in settings.items():
        if default is not None:
            assert Path(str(told_default(told[variable]))) == Path(str(default)), variable


def test_a_router_starts_beside_the_settings_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """A shell in which the command is set up is where somebody starts a router."""
    others = vault_settings(monkeypatch).keys() | command_settings(typer.main.get_command(app)).keys()
    mine = router_settings(monkeypatch).keys()
    router_service.config.load_config(dict.fromkeys(others - mine, "x"))


def own_of_tests() -> set[str]:
    """What the tests and the Makefile read or set for themselves."""
    found: set[str] = set()
    for path in [*(ROOT / "tests").rglob("*.py"), ROOT / "Makefile"]:
        found |= {one or other for one, other in OF_TESTS.findall(path.read_text())}
    return found


def texts() -> list[Path]:
    """Where settings are named for somebody to set them: documents, what is deployed, and what programs say."""
    found = [path for path in documents() if path.name != "CHANGELOG.md"]  # which also tells what is gone
    for folder in ("deploy", "router_service", "vault_service", "clients/cli/src", "clients/python", ".ci"):
        found += [path for path in sorted((ROOT / folder).rglob("*")) if path.suffix in {".py", ".hcl", ".sh", ".yaml"}]
    return [path for path in found if "node_modules" not in path.parts]


def test_every_setting_that_is_named_exists(monkeypatch: pytest.MonkeyPatch) -> None:
    known = router_settings(monkeypatch).keys() | vault_settings(monkeypatch).keys()
    known |= command_settings(typer.main.get_command(app)).keys() | own_of_tests()
    unknown = set()
    for path in texts():
        for found in VARIABLE.findall(path.read_text()):
            variable = FIXED.sub(r"\1_<ID>_\2", found)
            is_there = any(one.startswith(found) for one in known) if found.endswith("_") else variable in known
            if not is_there:
                unknown.add((name(path), found))
    assert sorted(unknown) == []
