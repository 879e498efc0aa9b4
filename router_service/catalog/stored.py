"""Documents that were stored over gRPC, laid over the configuration file.

A document stands at a path of the file, such as ("providers", "acme"), and takes the place of what the file has there.
What an organization or an application contains besides its own keys has documents of its own.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from router_service.catalog.document import Value
from router_service.catalog.problems import Path, Problem, show_path

CONTAINED = {
    "organizations": frozenset({"applications", "overrides", "personal_overrides", "providers", "models"}),
    "applications": frozenset({"overrides"}),
    "deployment": frozenset({"name"}),
}
"""What lies in an entry but is stored apart from it: the deployment's name, which tokens bear, only in the file."""


@dataclass(frozen=True, slots=True)
class StoredDocument:
    """What stands at a path. `revision` is that of the whole store when it was written."""

    body: Value
    revision: int


@dataclass(frozen=True, slots=True)
class Documents:
    """Everything stored, at one revision. 0 is an empty store."""

    revision: int = 0
    entries: Mapping[Path, StoredDocument] = field(default_factory=dict)

    @property
    def bodies(self) -> dict[Path, Value]:
        """The documents without their revisions."""
        return {path: document.body for path, document in self.entries.items()}


def contained_in(path: Path) -> frozenset[str]:
    """What lies in the entry at a path but is stored apart from it."""
    kind = str(path[-2]) if len(path) > 1 else str(path[0]) if path == ("deployment",) else ""
    return CONTAINED.get(kind, frozenset())


def lay_documents_over(value: Mapping[str, Value], stored: Mapping[Path, Value]) -> dict[str, Value]:
    """The file's value with the documents in it. One whose organization or application is gone has no place."""
    merged = dict(value)
    for path in sorted(stored, key=lambda one: (len(one), one)):
        _place(merged, path, stored[path])
    return merged


def _place(root: dict[str, Value], path: Path, body: Value) -> None:
    here: dict[str, Value] = root
    for depth, step in enumerate(path[:-1]):
        is_container = path[0] == "organizations" and (depth == 1 or (depth == 3 and path[2] == "applications"))
        if is_container and step not in here:
            return
        # What is changed is copied: the parsed file is laid under other documents again.
        inner = dict(here.get(str(step)) or {})
        here[str(step)] = inner
        here = inner
    key = str(path[-1])
    below = here.get(key)
    contained = contained_in(path)
    if contained and isinstance(body, dict):
        kept = below if isinstance(below, dict) else {}
        body = {**{name: kept[name] for name in contained if name in kept}, **body}
    here[key] = body


def find_faulty(problems: tuple[Problem, ...], stored: Mapping[Path, Value]) -> frozenset[Path]:
    """The documents that problems lie in."""
    return frozenset(
        path
        for path in stored
        for problem in problems
        if problem.path == show_path(path) or problem.path.startswith((f"{show_path(path)}.", f"{show_path(path)}["))
    )
