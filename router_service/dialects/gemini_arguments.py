"""Arguments of a function call that come in pieces: each piece names its place by a JSONPath and adds to it.

The pieces do not come in the order of the finished text, so the text is written when the call is complete.
"""

import re
from collections.abc import Iterator
from itertools import pairwise

import msgspec

from router_service.core.faults import Fault, violation
from router_service.dialects.gemini_wire import PartialArgumentWire
from router_service.dialects.reading import NO_RAW

_MAX_DEPTH = 64
_STEP = re.compile(
    r"\.(?P<name>[^.\[\]]+)|\[(?P<index>\d{1,6})\]|\['(?P<single>(?:[^'\\]|\\.)*)'\]|\[\"(?P<double>(?:[^\"\\]|\\.)*)\"\]"
)
_ESCAPED = re.compile(r"\\(.)")


class _Pieces:
    """A string in the making."""

    __slots__ = ("texts",)

    def __init__(self) -> None:
        self.texts: list[str] = []


_Node = dict[str, "_Value"] | list["_Value"]
_Value = _Node | _Pieces | msgspec.Raw | bool | None


class PartialArguments:
    """The arguments of one call so far."""

    __slots__ = ("_root",)

    def __init__(self) -> None:
        self._root: dict[str, _Value] = {}

    def add(self, piece: PartialArgumentWire) -> None:
        """Takes the next piece. Raises Fault for a place that no object has."""
        steps = list(_steps_of(piece.json_path))
        if not steps or len(steps) > _MAX_DEPTH:
            raise _misplaced()
        node: _Node = self._root
        for step, following in pairwise(steps):
            below = _get(node, step)
            if below is None:
                below = {} if isinstance(following, str) else []
                _put(node, step, below)
            if not isinstance(below, dict | list):
                raise _misplaced()
            node = below
        if piece.string_value is None:
            value = piece.number_value if piece.number_value is not NO_RAW else piece.bool_value
            _put(node, steps[-1], value)
            return
        text = _get(node, steps[-1])
        if not isinstance(text, _Pieces):
            text = _Pieces()
            _put(node, steps[-1], text)
        text.texts.append(piece.string_value)

    def to_json(self) -> str:
        """The arguments as JSON text."""
        return msgspec.json.encode(self._root, enc_hook=_write).decode()


def _steps_of(path: str) -> Iterator[str | int]:
    if not path.startswith("$"):
        raise _misplaced()
    at = 1
    while at < len(path):
        step = _STEP.match(path, at)
        if step is None:
            raise _misplaced()
        at = step.end()
        if step["index"] is not None:
            yield int(step["index"])
        elif step["name"] is not None:
            yield step["name"]
        else:
            yield _ESCAPED.sub(r"\1", step["single"] if step["single"] is not None else step["double"])


def _get(node: _Node, step: str | int) -> _Value:
    if isinstance(node, dict):
        return node.get(step) if isinstance(step, str) else None
    return node[step] if isinstance(step, int) and step < len(node) else None


def _put(node: _Node, step: str | int, value: _Value) -> None:
    """Sets a member or an element. An element goes into a gap of one at most: a number is no reason to take memory."""
    if isinstance(node, dict):
        if isinstance(step, str):
            node[step] = value
            return
    elif isinstance(step, int) and step <= len(node):
        node[step : step + 1] = [value]
        return
    raise _misplaced()


def _write(value: object) -> object:
    if isinstance(value, _Pieces):
        return "".join(value.texts)
    raise TypeError("only JSON values and pieces of text are kept")


def _misplaced() -> Fault:
    return violation("malformed", "The provider sent a piece of a tool call's arguments for a place that there is not.")
