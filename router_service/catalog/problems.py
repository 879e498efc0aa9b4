"""What is wrong with a configuration, said so that a person can mend it: where, what and what to do.

A text here names keys and references, never a value that could be a pasted secret.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches

Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True, order=True)
class Mark:
    """A place in a file. Both count from 1."""

    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing to mend. `path` is written with dots, list positions in brackets; empty means the whole file."""

    source: str
    mark: Mark
    path: str
    message: str

    def __str__(self) -> str:
        subject = f"{self.path}: " if self.path else ""
        return f"{self.source}:{self.mark.line}:{self.mark.column}: {subject}{self.message}"


class ConfigurationError(Exception):
    """A configuration that cannot be used, with every problem found in it."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(sorted(problems, key=lambda problem: (problem.source, problem.mark, problem.path)))
        super().__init__("\n".join(str(problem) for problem in self.problems))


def show_path(path: Path) -> str:
    """A path as people write it: organizations.demo.users[0]."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        elif "." in step or not step:
            text += f'["{step[:80]}"]'
        else:
            text += f".{step[:80]}" if text else step[:80]
    return text


def suggest(word: str, known: Iterable[str], cutoff: float = 0.5) -> str:
    """The end of a message: the nearest of the known words, or all of them where they are few."""
    words = sorted(known)
    near = get_close_matches(word[:200], words, n=3, cutoff=cutoff)
    if near:
        return f"did you mean {' or '.join(near)}?"
    if not words:
        return "there is none"
    shown = ", ".join(words[:12])
    return f"one of: {shown}{', …' if len(words) > 12 else ''}"
