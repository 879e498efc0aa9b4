"""What may import what in the credential service."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3] / "vault_service"
FILES = sorted(ROOT.rglob("*.py"))
EDGES = ("grpc", "google", "keyswitch", "structlog", "aiohttp", "hvac", "sqlite3", "os", "time", "logging", "random")


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_of_the_router_is_imported(path: Path) -> None:
    assert not [name for name in imports(path) if name.partition(".")[0] == "router_service"]


@pytest.mark.parametrize("path", sorted((ROOT / "core").glob("*.py")), ids=lambda path: path.name)
def test_the_core_touches_no_edge(path: Path) -> None:
    found = list(imports(path))
    assert not [name for name in found if name.partition(".")[0] in EDGES]
    own = [name for name in found if name.startswith("vault_service.")]
    assert not [
        name for name in own if not (name + ".").startswith(("vault_service.core.", "vault_service.store.store."))
    ]


@pytest.mark.parametrize("path", sorted((ROOT / "audit").glob("*.py")), ids=lambda path: path.name)
def test_the_audit_log_knows_no_transport(path: Path) -> None:
    assert not [name for name in imports(path) if name.startswith(("grpc", "vault_service.transport"))]
