"""A change of what is stored, before it is written: reads what is in force at a path, and collects what shall be."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from hashlib import sha256

from router_service.catalog.defaults import BuiltIn
from router_service.catalog.document import Value
from router_service.catalog.problems import Path
from router_service.catalog.stored import Documents, StoredDocument, contained_in, lay_documents_over
from router_service.core.faults import Fault, Reason


class Source(Enum):
    """Where what is in force at a path comes from. Mirrors ConfigurationSource."""

    BUILT_IN = "BUILT_IN"
    FILE = "FILE"
    STORED = "STORED"
    STORED_OVER_FILE = "STORED_OVER_FILE"


@dataclass(slots=True)
class Draft:
    """Over a file and the documents at one revision. `changes` are what to write; None removes."""

    file: Mapping[str, Value]
    documents: Documents
    built_in: BuiltIn
    changes: dict[Path, Value] = field(default_factory=dict)

    def stored(self) -> dict[Path, Value]:
        """The documents with the changes in them."""
        merged = {**self.documents.bodies, **self.changes}
        return {path: body for path, body in merged.items() if body is not None}

    def result(self) -> Documents:
        """What will be stored."""
        revision = self.documents.revision + 1
        entries = {
            path: StoredDocument(body, revision) if path in self.changes else self.documents.entries[path]
            for path, body in self.stored().items()
        }
        return Documents(revision, entries)

    def find(self, path: Path) -> Value:
        """What is configured at a path, without what is stored apart from it; None where there is nothing."""
        return _own(path, _look_up(self.merged(), path))

    def merged(self) -> dict[str, Value]:
        """The file with everything stored in it."""
        return lay_documents_over(self.file, self.stored())

    def children(self, path: Path) -> list[str]:
        """The keys below a path, sorted; for providers and models those of the built-in catalog too."""
        found = _look_up(self.merged(), path)
        keys = {str(key) for key in found} if isinstance(found, dict) else set[str]()
        return sorted(keys | self._built_in_below(path).keys())

    def exists(self, path: Path) -> bool:
        """Whether there is anything at a path."""
        return self.find(path) is not None or str(path[-1]) in self._built_in_below(path[:-1])

    def source(self, path: Path) -> Source:
        """Where what is in force at a path comes from."""
        is_fixed = _look_up(self.file, path) is not None
        if path in self.stored():
            return Source.STORED_OVER_FILE if is_fixed else Source.STORED
        return Source.FILE if is_fixed else Source.BUILT_IN

    def etag(self, path: Path) -> str:
        """Changes whenever what is in force at the path does."""
        text = json.dumps([self.source(path).value, self.find(path)], sort_keys=True)
        return sha256(text.encode()).hexdigest()[:20]

    def put(self, path: Path, body: Value, name: str, *, etag: str = "", override_file: bool = False) -> None:
        """Changes what is at a path. Raises Fault where the file fixes it or somebody else changed it."""
        self.check_etag(path, name, etag)
        if self.source(path) is Source.FILE and not override_file:
            message = (
                f"The configuration file fixes {name}; change it there, or set override_file to store another one."
            )
            raise Fault(Reason.RESOURCE_FIXED, message, metadata={"name": name})
        self.changes[path] = body

    def remove(self, path: Path, name: str, *, etag: str = "") -> None:
        """Removes what is stored at a path and below. Raises Fault where only the file or the catalog has it."""
        self.check_etag(path, name, etag)
        if path not in self.stored():
            where = "configuration file" if self.source(path) is Source.FILE else "built-in catalog"
            message = f"{name} is in the {where} and not stored; it can be switched off or changed there."
            raise Fault(Reason.RESOURCE_FIXED, message, metadata={"name": name})
        for stored in self.stored():
            if stored[: len(path)] == path:
                self.changes[stored] = None

    def drop_strangers(self, path: Path) -> None:
        """Removes the personal overrides of users that the organization at a path no longer has."""
        body = self.changes[path]
        users = body.get("users", ()) if isinstance(body, dict) else ()
        for stored in self.stored():
            if stored[:3] == (*path, "personal_overrides") and stored[3] not in users:
                self.changes[stored] = None

    def check_etag(self, path: Path, name: str, etag: str) -> None:
        """Raises Fault ETAG_MISMATCH."""
        if etag and etag != self.etag(path):
            message = f"{name} has changed since you read it; read it again and repeat your change."
            raise Fault(Reason.ETAG_MISMATCH, message, metadata={"name": name})

    def _built_in_below(self, path: Path) -> Mapping[str, Value]:
        if path == ("providers",):
            return self.built_in.providers
        return self.built_in.models if path == ("models",) else {}


def _look_up(value: Value, path: Path) -> Value:
    for step in path:
        if not isinstance(value, dict) or step not in value:
            return None
        value = value[step]
    return value


def _own(path: Path, value: Value) -> Value:
    contained = contained_in(path)
    if not contained or not isinstance(value, dict):
        return value
    return {key: inner for key, inner in value.items() if key not in contained}
