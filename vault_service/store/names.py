"""The names that every store takes: paths, folders and tenants.

They are checked here, before any store sees them, so that a path means one place everywhere: no store has to escape
anything, and none can be led out of its mount by `..`, by a query mark or by an empty step.
"""

import re

_STEP = r"[A-Za-z0-9_-][A-Za-z0-9_.-]*"
_PATH = re.compile(rf"{_STEP}(?:/{_STEP})*")
_TENANT = re.compile(r"deployment|organizations/[a-z][a-z0-9-]*[a-z0-9]")

MAX_PATH_CHARACTERS = 400
"""Below what Vault's storage takes (each step is one file name there), and beyond any resource name."""


def check_path(path: str) -> str:
    """Gives the path back; a malformed one is a fault of the calling code, so ValueError."""
    if len(path) > MAX_PATH_CHARACTERS or _PATH.fullmatch(path) is None:
        raise ValueError("a document's path is steps of letters, digits, '_', '.' and '-', parted by single slashes")
    return path


def check_folder(prefix: str) -> str:
    """Gives the folder without its last slash; the empty one is the root."""
    folder = prefix.removesuffix("/")
    return check_path(folder) if folder else ""


def check_tenant(tenant: str) -> str:
    """Gives the tenant back. Two tenants never share a key name because an organization's id holds no slash."""
    if len(tenant) > MAX_PATH_CHARACTERS or _TENANT.fullmatch(tenant) is None:
        raise ValueError("a tenant is 'deployment' or 'organizations/<id>'")
    return tenant


def children(folder: str, paths: list[str]) -> tuple[str, ...]:
    """Gives the sorted names directly below the folder, those of further folders with a slash at the end."""
    start = f"{folder}/" if folder else ""
    names = set()
    for path in paths:
        if path.startswith(start):
            name, slash, _ = path[len(start) :].partition("/")
            names.add(name + slash)
    return tuple(sorted(names))
