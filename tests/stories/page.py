"""A page of docs/stories: a test runs its commands, and compares what they write with it or writes it into it."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, field
from pathlib import Path

FENCE = "```"
# What no two runs have in common.
MASKS = (
    (re.compile(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b"), "<id>"),
    (re.compile(r"\b\d{4}-\d\d-\d\d(?: \d\d:\d\d(?::\d\d)?Z)?"), "<time>"),
    (re.compile(r"\b\d\d:\d\d(?::\d\d)?Z"), "<time>"),  # where a table folds
    (re.compile(r"(?<![\w-])(?:[0-9a-f]{32}|[\w-]{22})(?![\w-])"), "<id>"),
    (re.compile(r"\b(?:\d+\.\d\d s\b|\d+ s more)"), "<seconds>"),
    (re.compile(r"127\.0\.0\.1:\d+"), "<address>"),
    (re.compile(r"keyswitch receipt -- <id>"), "keyswitch receipt <id>"),
    (re.compile(r"Did you mean .*\?"), "<nearest names of the catalog>"),
    (re.compile(r"…[\w-]{4}"), "<ending>"),
    (re.compile(r"\b[0-9a-f]{16}\b"), "<etag>"),
    (re.compile(r"(last use +)(?:never\b|<time>)"), r"\1<time>"),  # it is told within five seconds
)


def mask(text: str) -> str:
    """The text without what changes from run to run."""
    for pattern, word in MASKS:
        text = pattern.sub(word, text)
    return "\n".join(line.rstrip() for line in text.splitlines())


@dataclass
class Command:
    """A command of the page and the lines that it wrote."""

    section: str
    text: str
    lines: list[str] = field(default_factory=list)


class Page:
    """The page, line by line, with its commands in order."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._parts: list[str | Command] = []
        self._read(path.read_text().splitlines())

    @property
    def commands(self) -> list[Command]:
        """All commands, in order."""
        return [part for part in self._parts if isinstance(part, Command)]

    def block(self, language: str) -> str:
        """The first fenced block in a language: the configuration file of the story."""
        found = re.search(rf"^{FENCE}{language}\n(.*?)^{FENCE}$", self._path.read_text(), re.MULTILINE | re.DOTALL)
        assert found is not None, f"{self._path.name} has no block in {language}"
        return found[1]

    def _read(self, lines: list[str]) -> None:
        section, is_console = "", False
        for line in lines:
            if line.startswith(FENCE):
                is_console = line == f"{FENCE}console"
                self._parts.append(line)
            elif is_console and line.startswith("$ "):
                self._parts.append(Command(section, line[2:]))
            elif is_console:
                self._take(line)
            else:
                section = line.removeprefix("## ") if line.startswith("## ") else section
                self._parts.append(line)

    def _take(self, line: str) -> None:
        command = self._parts[-1]
        assert isinstance(command, Command), f"{self._path.name}: a block begins with a command: {line}"
        if command.text.endswith("\\") and line.startswith("> "):
            command.text += "\n" + line[2:]
        else:
            command.lines.append(line)

    def compare(self, command: Command, written: str) -> str:
        """What differs between the page and what was written now; empty where nothing does."""
        shown, now = mask("\n".join(command.lines)), mask(_plain(written))
        if shown == now:
            return ""
        return "\n".join(difflib.unified_diff(shown.splitlines(), now.splitlines(), "the page", "now", lineterm=""))

    def take(self, command: Command, written: str) -> None:
        """Puts what was written now into the page."""
        command.lines = [line.rstrip() for line in _plain(written).splitlines()]

    def save(self) -> None:
        """Writes the page."""
        lines: list[str] = []
        for part in self._parts:
            if isinstance(part, Command):
                first, *others = part.text.split("\n")
                lines += [f"$ {first}", *(f"> {one}" for one in others), *part.lines]
            else:
                lines.append(part)
        self._path.write_text("\n".join(lines) + "\n")


def _plain(text: str) -> str:
    return text.strip("\n")
