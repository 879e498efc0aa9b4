"""The names of chains: an instance's is given by the operator, else made once and kept beside the chains.

Each instance writes a chain of its own, and so does maintenance over each home. A name that all of them had by default
would meet itself in a store that they share, where it looks like a chain that was cut.
"""

import os
from collections.abc import Callable
from pathlib import Path

from vault_service.audit.chain import ChainBroken
from vault_service.core.names import is_chain_id

FILE = "chain"
MAINTENANCE_FILE = "maintenance-chain"
MAINTENANCE = "maintenance"
"""How the names of maintenance's chains begin."""


def keep_chain_name(root: Path, make: Callable[[], str]) -> str:
    """Gives the name that is kept; else that of the one instance's chain that is there; else makes one. Keeps it."""
    return _keep(root, FILE, make, lambda name: not name.startswith(MAINTENANCE))


def keep_maintenance_name(root: Path, make: Callable[[], str]) -> str:
    """The same for the chain of maintenance; `make` gives what follows `MAINTENANCE`."""
    return _keep(root, MAINTENANCE_FILE, lambda: f"{MAINTENANCE}-{make()}", lambda name: name.startswith(MAINTENANCE))


def _keep(root: Path, file_name: str, make: Callable[[], str], is_own: Callable[[str], bool]) -> str:
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = root / file_name
    if path.exists():
        name = path.read_text(encoding="ascii", errors="replace").strip()
        if not is_chain_id(name):
            raise ChainBroken(f"{path} holds no name of an audit chain; restore it, or name the chain in the settings")
        return name
    present = [each.name for each in root.iterdir() if each.is_dir() and is_chain_id(each.name) and is_own(each.name)]
    name = present[0] if len(present) == 1 else make()
    draft = root / f".{file_name}.{os.getpid()}"
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(name + "\n")
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    return name
