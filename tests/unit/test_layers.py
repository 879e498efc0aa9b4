"""The layers: who may import whom, and what the pure part may not touch."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

ORDER = (
    ("core",),
    ("catalog",),
    ("framing", "dialects"),
    ("policy",),
    ("record",),
    ("database",),
    ("upstream", "external", "workloads", "credentials", "ledger", "observe", "state"),
    ("exchange", "prober", "ledger_watch"),
    ("preparation",),
    ("admission",),
    ("edges",),
    ("billing",),
    ("attempt",),
    ("engine",),
    ("config",),
    ("transport",),
    ("patient_start",),
    ("app",),
    ("__main__",),
)
"""router_service, lowest first; parts of one row may import one another."""

ALLOWED_UPWARDS = {
    ("catalog", "dialects"): "a provider's data holds the quirks that its dialect defines",
}

PURE = ("core", "catalog", "framing", "dialects", "policy")
FORBIDDEN = frozenset(
    {
        "aiohttp", "asyncio", "google", "grpc", "httpx", "hvac", "keyswitch", "logging", "os", "random", "requests",
        "secrets", "socket", "sqlite3", "structlog", "time", "urllib3",
    }
)  # fmt: skip

FORBIDDEN_EXCEPTIONS: dict[tuple[str, str], str] = {}


def imports(path: Path) -> Iterator[str]:
    """The modules that a file imports, at any depth."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield node.module


def files(package: str) -> list[Path]:
    """The Python files of a package."""
    return sorted((ROOT / package).rglob("*.py"))


def layer(module: str) -> str:
    """The part of router_service that a module belongs to."""
    return module.split(".")[1] if "." in module else ""


@pytest.mark.parametrize("path", files("router_service"), ids=lambda path: str(path.relative_to(ROOT)))
def test_lower_layers_import_no_higher_ones(path: Path) -> None:
    place = {name: number for number, names in enumerate(ORDER) for name in names}
    relative = path.relative_to(ROOT / "router_service")
    own = relative.parts[0].removesuffix(".py")
    if own == "__init__":
        return
    for module in imports(path):
        if module.startswith("router_service.") and (own, layer(module)) not in ALLOWED_UPWARDS:
            assert place[layer(module)] <= place[own], f"{relative} imports {module}"


@pytest.mark.parametrize(
    "path",
    [path for name in PURE for path in files(f"router_service/{name}")],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_pure_layers_touch_nothing_outside(path: Path) -> None:
    relative = str(path.relative_to(ROOT / "router_service"))
    for module in imports(path):
        top = module.split(".")[0]
        assert top not in FORBIDDEN or (relative, top) in FORBIDDEN_EXCEPTIONS, f"{relative} imports {module}"


@pytest.mark.parametrize(("one", "other"), [("router_service", "vault_service"), ("vault_service", "router_service")])
def test_services_share_only_the_contract(one: str, other: str) -> None:
    for path in files(one):
        for module in imports(path):
            assert module.split(".")[0] not in (other, "deploy", "tests", "keyswitch_client"), (
                f"{path} imports {module}"
            )


@pytest.mark.parametrize("package", ["router_service", "vault_service"])
def test_only_main_reads_the_environment(package: str) -> None:
    for path in files(package):
        if path.name == "__main__.py":
            continue
        text = path.read_text()
        assert "os.environ" not in text, path
        assert "getenv" not in text, path


LONG_FILES: dict[str, str] = {}
"""Files over 500 lines, each with its reason."""


def test_files_stay_small() -> None:
    for package in ("router_service", "vault_service", "clients/python/src", "clients/cli/src", "deploy", "tests"):
        for path in files(package):
            lines = len(path.read_text().splitlines())
            assert lines <= 500 or str(path.relative_to(ROOT)) in LONG_FILES, f"{path}: {lines} lines"


@pytest.mark.parametrize("package", ["router_service.app", "vault_service.app"])
def test_imports_open_no_connection(package: str) -> None:
    program = (
        "import socket, sys\n"
        "def refuse(*_, **__): raise SystemExit('a connection at import')\n"
        "socket.socket.connect = refuse\n"
        "socket.getaddrinfo = refuse\n"
        f"import {package}\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
