"""The configuration in force, and its exchange for a newer one. A broken file changes nothing but `problems`."""

from collections.abc import Callable
from datetime import date
from pathlib import Path

from router_service.catalog.catalog import Snapshot
from router_service.catalog.loader import load_snapshot, read_text
from router_service.catalog.problems import ConfigurationError, Problem


class Configuration:
    """Holds one Snapshot. A call takes `current` once and keeps it: a later swap does not reach it."""

    def __init__(self, path: Path, today: Callable[[], date] | None = None, *, builtin: bool = True) -> None:
        """Reads the file. Raises ConfigurationError: without a first good file there is nothing to serve."""
        self._path = path
        self._today = today
        self._builtin = builtin
        self._text = read_text(path)
        self._current = self._parse(self._text)
        self._problems: tuple[Problem, ...] = ()

    @property
    def current(self) -> Snapshot:
        """The last good configuration."""
        return self._current

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What was wrong with the file when it was last read; empty when it is in force."""
        return self._problems

    def reload(self) -> bool:
        """Reads the file again. True where another revision is in force now; a broken file leaves the last good one."""
        try:
            text = read_text(self._path)
            if text == self._text and not self._problems:
                return False
            snapshot = self._parse(text)
        except ConfigurationError as error:
            self._problems = error.problems
            return False
        is_new = snapshot.revision != self._current.revision
        self._current, self._text, self._problems = snapshot, text, ()
        return is_new

    def _parse(self, text: str) -> Snapshot:
        on = self._today() if self._today is not None else None
        return load_snapshot(text, source=str(self._path), builtin=self._builtin, on=on)
