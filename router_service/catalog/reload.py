"""The configuration in force: a file and the documents stored over it. A broken file changes nothing but `problems`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path as FilePath

from router_service.catalog.catalog import Snapshot
from router_service.catalog.document import Value, parse_document
from router_service.catalog.loader import load_snapshot, read_text
from router_service.catalog.problems import ConfigurationError, Path, Problem
from router_service.catalog.stored import Documents, find_faulty


@dataclass(frozen=True, slots=True)
class _Built:
    """What one reading gave: swapped as a whole."""

    text: str
    file: Mapping[str, Value]
    documents: Documents
    snapshot: Snapshot
    left_out: tuple[Problem, ...] = ()


class Configuration:
    """Holds one Snapshot. A call takes `current` once and keeps it: a later swap does not reach it."""

    def __init__(self, path: FilePath, today: Callable[[], date] | None = None, *, builtin: bool = True) -> None:
        """Reads the file. Raises ConfigurationError: without a first good file there is nothing to serve."""
        self._path = path
        self._today = today
        self._builtin = builtin
        text = read_text(path)
        snapshot = self.build(Documents(), text)
        self._built = _Built(text, self._parse(text), Documents(), snapshot)
        self._problems: tuple[Problem, ...] = ()

    @property
    def current(self) -> Snapshot:
        """The last good configuration."""
        return self._built.snapshot

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What was wrong with the file when it was last read; empty when it is in force."""
        return self._problems

    @property
    def documents(self) -> Documents:
        """What is stored over the file, as far as it is known here."""
        return self._built.documents

    @property
    def left_out(self) -> tuple[Problem, ...]:
        """Why stored documents are not in force: they no longer fit what the file says."""
        return self._built.left_out

    @property
    def file(self) -> Mapping[str, Value]:
        """What the file itself says."""
        return self._built.file

    def reload(self) -> bool:
        """Reads the file again. True where another revision is in force now; a broken file leaves the last good one."""
        try:
            text = read_text(self._path)
            if text == self._built.text and not self._problems:
                return False
            built = self._build_around(text, self._built.documents)
        except ConfigurationError as error:
            self._problems = error.problems
            return False
        self._problems = ()
        return self._put_in_force(built)

    def take(self, documents: Documents) -> bool:
        """Puts what is stored now in force. True where another revision is in force now. Raises ConfigurationError."""
        if documents.revision == self._built.documents.revision:
            return False
        return self._put_in_force(self._build_around(self._built.text, documents))

    def check(self, documents: Documents, changed: frozenset[Path]) -> None:
        """Raises ConfigurationError where changed documents bring problems that are not there already."""
        new = set(self._build_around(self._built.text, documents, changed).left_out)
        if new:
            new -= set(self._build_around(self._built.text, self._built.documents, changed).left_out)
        if new:
            raise ConfigurationError(new)

    def build(self, documents: Documents, text: str | None = None, strict: frozenset[Path] = frozenset()) -> Snapshot:
        """What would be in force. Raises ConfigurationError for anything that does not fit."""
        on = self._today() if self._today is not None else None
        return load_snapshot(
            self._built.text if text is None else text,
            source=str(self._path),
            builtin=self._builtin,
            on=on,
            stored=documents.bodies,
            strict=strict,
        )

    def _put_in_force(self, built: _Built) -> bool:
        is_new = built.snapshot.revision != self._built.snapshot.revision
        self._built = built
        return is_new

    def _build_around(self, text: str, documents: Documents, strict: frozenset[Path] = frozenset()) -> _Built:
        """As much of what is stored as fits the file: what does not must not keep the router from starting."""
        fitting, left_out = dict(documents.entries), list[Problem]()
        while True:
            try:
                snapshot = self.build(Documents(documents.revision, fitting), text, strict)
            except ConfigurationError as error:
                faulty: frozenset[Path] = find_faulty(error.problems, {key: one.body for key, one in fitting.items()})
                if not faulty:
                    raise
                left_out += error.problems
                fitting = {path: one for path, one in fitting.items() if path not in faulty}
                continue
            file = self._built.file if text == self._built.text else self._parse(text)
            return _Built(text, file, documents, snapshot, tuple(left_out))

    def _parse(self, text: str) -> Mapping[str, Value]:
        return parse_document(text, str(self._path)).value
