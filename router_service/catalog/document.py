"""A YAML file as plain values that remember where they were written.

A strict part of YAML 1.2: one document, text keys, no duplicate keys, no anchors, no aliases and no tags. Aliases are
left out on purpose: a short file could otherwise stand for a huge value.
"""

import math
import re
from dataclasses import dataclass, field
from typing import Any

from router_service.catalog.problems import ConfigurationError, Mark, Path, Problem, show_path

MAX_TEXT_CHARACTERS = 1 << 20
MAX_DEPTH = 32
MAX_NUMBER = 1e15

_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_BOOLEANS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_SURROGATE = re.compile("[\ud800-\udfff]")
_INTEGER = re.compile(r"[-+]?[0-9]{1,18}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")

Value = Any  # None, bool, int, float, str, list or dict of the same: what JSON knows


@dataclass(slots=True)
class Document:
    """A parsed file: its value, and the marks of every key and value by path."""

    source: str
    value: dict[str, Value] = field(default_factory=dict)
    keys: dict[Path, Mark] = field(default_factory=dict)
    values: dict[Path, Mark] = field(default_factory=dict)

    def find_mark(self, path: Path, *, of_key: bool = False) -> Mark:
        """Where a path is written; where it is not, its nearest ancestor."""
        if not of_key and path in self.values:
            return self.values[path]
        for length in range(len(path), 0, -1):
            mark = self.keys.get(path[:length]) or self.values.get(path[:length])
            if mark is not None:
                return mark
        return Mark(1, 1)

    def problem(self, path: Path, message: str, *, of_key: bool = False) -> Problem:
        """A problem at a path."""
        return Problem(self.source, self.find_mark(path, of_key=of_key), show_path(path), message)


def parse_document(text: str, source: str) -> Document:
    """Reads a file. Raises ConfigurationError with all that is wrong with its YAML."""
    if len(text) > MAX_TEXT_CHARACTERS:
        raise ConfigurationError(
            [Problem(source, Mark(1, 1), "", f"the file is longer than {MAX_TEXT_CHARACTERS} characters; split it up")]
        )
    reader = _Reader(Document(source))
    _feed(reader, text, source)
    if reader.problems:
        raise ConfigurationError(reader.problems)
    return reader.document


def _feed(reader: "_Reader", text: str, source: str) -> None:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    try:
        for event in YAML(typ="safe", pure=True).parse(text):
            reader.take(event)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = Mark(mark.line + 1, mark.column + 1) if mark is not None else Mark(1, 1)
        begun = error.context_mark.line + 1 if error.context_mark is not None else place.line
        message = f"this is not YAML: {error.problem or error.context}"
        if begun != place.line:
            message += f" (in what begins in line {begun})"
        reader.problems.append(Problem(source, place, "", message))
    except YAMLError as error:
        position = getattr(error, "position", 0)
        before = text[: position if isinstance(position, int) else 0]
        place = Mark(before.count("\n") + 1, len(before) - before.rfind("\n"))
        reader.problems.append(Problem(source, place, "", "this is not YAML: a character that may not stand here"))
    except _TooDeep:
        pass
    except (ValueError, TypeError, LookupError, ArithmeticError, AttributeError, AssertionError):
        # The parser is not ours and lets such errors out for a few malformed escapes and directives.
        message = "this is not YAML: a malformed escape, tag or directive"
        reader.problems.append(Problem(source, reader.last, "", message))


class _TooDeep(Exception):
    """Reading has stopped; the problem is recorded."""


@dataclass(slots=True)
class _Frame:
    """An open list or mapping. `key` is the mapping's pending key."""

    path: Path
    container: list[Value] | dict[str, Value]
    key: str | None = None
    is_key_due: bool = True
    is_discarded: bool = False


class _Reader:
    """Builds the value from parser events, without recursion: depth is bounded by a number, not by the stack."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.problems: list[Problem] = []
        self.last = Mark(1, 1)
        self._stack: list[_Frame] = []
        self._documents = 0

    def take(self, event: Any) -> None:
        """Takes a parser event."""
        kind = type(event).__name__
        if event.start_mark is not None:
            self.last = Mark(event.start_mark.line + 1, event.start_mark.column + 1)
        match kind:
            case "DocumentStartEvent":
                self._documents += 1
                if self._documents > 1:
                    self._complain("only one document is read; remove the '---' and what follows")
                    raise _TooDeep
            case "ScalarEvent":
                self._refuse_decoration(event)
                self._put(self._resolve(event), is_text=True)
            case "MappingStartEvent":
                self._refuse_decoration(event)
                self._open({})
            case "SequenceStartEvent":
                self._refuse_decoration(event)
                self._open([])
            case "MappingEndEvent" | "SequenceEndEvent":
                self._stack.pop()
            case "AliasEvent":
                self._complain("aliases (*name) are not read here; write the value out")
                self._put(None, is_text=False)
            case _:
                pass

    def _complain(self, message: str, path: Path | None = None) -> None:
        here = path if path is not None else (self._stack[-1].path if self._stack else ())
        self.problems.append(Problem(self.document.source, self.last, show_path(here), message))

    def _refuse_decoration(self, event: Any) -> None:
        if event.anchor is not None:
            self._complain("anchors (&name) are not read here; write the value out where it is needed")
        if event.tag is not None and str(event.tag) != "!":
            self._complain("tags (!name) are not read here; remove it")

    def _resolve(self, event: Any) -> Value:
        text: str = event.value
        if _SURROGATE.search(text):
            self._complain("an escape (\\u…) stands for half a character; write the character itself")
            return None
        if event.style is not None or not event.implicit[0]:
            return text
        if text in _NULL:
            return None
        if text in _BOOLEANS:
            return _BOOLEANS[text]
        if _INTEGER.fullmatch(text):
            return int(text)
        if _FLOAT.fullmatch(text):
            number = math.inf if text.lstrip("+-.")[:1].isalpha() else float(text)
            if abs(number) < MAX_NUMBER:
                return number
            self._complain("this number is too large; put a text in quotes")
            return None
        return text

    def _open(self, container: list[Value] | dict[str, Value]) -> None:
        path = self._put(container, is_text=False)
        if len(self._stack) >= MAX_DEPTH:
            self._complain(f"nested deeper than {MAX_DEPTH} levels")
            raise _TooDeep
        self._stack.append(_Frame(path, container))

    def _put(self, value: Value, *, is_text: bool) -> Path:
        if not self._stack:
            return self._put_root(value)
        frame = self._stack[-1]
        if isinstance(frame.container, list):
            path: Path = (*frame.path, len(frame.container))
            frame.container.append(value)
            self.document.values[path] = self.last
            return path
        if frame.is_key_due:
            self._put_key(frame, value, is_text=is_text)
            return frame.path
        frame.is_key_due = True
        if frame.key is None:
            return frame.path
        path = (*frame.path, frame.key)
        if not frame.is_discarded:
            frame.container[frame.key] = value
            self.document.values[path] = self.last
        return path

    def _put_root(self, value: Value) -> Path:
        if isinstance(value, dict):
            self.document.value = value
        elif value is not None:
            self._complain("the file is a mapping of sections; begin with 'providers:', 'models:' or 'organizations:'")
        return ()

    def _put_key(self, frame: _Frame, value: Value, *, is_text: bool) -> None:
        frame.is_key_due = False
        if not is_text or not isinstance(value, str):
            frame.key = None
            self._complain("a key is text; put it in quotes")
            return
        frame.key = value
        path = (*frame.path, value)
        frame.is_discarded = value in frame.container
        if frame.is_discarded:
            first = self.document.keys[path]
            self._complain(f"this key stands here a second time (first in line {first.line}); keep one of them", path)
        else:
            self.document.keys[path] = self.last
