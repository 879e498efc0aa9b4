"""The name of this instance's chain: given by the operator, else made once and kept beside the chains.

Each instance writes a chain of its own. A name that all of them had by default would meet itself in a store that they
share, where it looks like a chain that was cut.
"""

import os
from collections.abc import Callable
from pathlib import Path

from vault_service.audit.chain import ChainBroken
from vault_service.core.names import is_chain_id

FILE = "chain"


def keep_chain_name(root: Path, make: Callable[[], str]) -> str:
    """Gives the name that is kept; else that of the one chain that is there; else makes one. Keeps it."""
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = root / FILE
    if path.exists():
        name = path.read_text(encoding="ascii", errors="replace").strip()
        if not is_chain_id(name):
            raise ChainBroken(f"{path} holds no name of an audit chain; restore it, or name the chain in the settings")
        return name
    present = [each.name for each in root.iterdir() if each.is_dir() and is_chain_id(each.name)]
    name = present[0] if len(present) == 1 else make()
    draft = root / f".{FILE}.{os.getpid()}"
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(name + "\n")
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    return name
