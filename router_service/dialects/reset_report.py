"""What a provider tells about the windows of a key's plan: which are used up, and when they start anew."""

from collections.abc import Iterator
from dataclasses import dataclass

from router_service.dialects.reading import read_any
from router_service.dialects.waiting import parse_moment, seconds_until


@dataclass(frozen=True, slots=True)
class UsedUp:
    """A number by which a window tells that nothing is left of it. One bound is stated."""

    name: str
    at_most: float | None = None
    at_least: float | None = None

    def holds(self, value: object) -> bool:
        """Whether the number says so. Some providers write their numbers as text."""
        number = _number(value)
        if number is None:
            return False
        return (self.at_most is not None and number <= self.at_most) or (
            self.at_least is not None and number >= self.at_least
        )


@dataclass(frozen=True, slots=True)
class ResetReport:
    """Where the report is, and how it is read.

    `path` follows the base URL, or the origin alone with `is_from_origin`. `windows` lead to the windows, by names
    joined with dots; `*` stands for every item. `resets` are the names that a window's next start goes by.
    """

    path: str
    windows: tuple[str, ...]
    used_up: tuple[UsedUp, ...]
    resets: tuple[str, ...]
    is_from_origin: bool = False

    def read(self, body: bytes, now: float) -> float | None:
        """Seconds until the last one of the used-up windows starts anew; None where none is said to be used up."""
        answer = read_any(body)
        windows = (window for path in self.windows for window in _find(answer, path.split(".")))
        return max((wait for window in windows for wait in self._waits(window, now)), default=None)

    def _waits(self, window: object, now: float) -> Iterator[float]:
        if not isinstance(window, dict) or not any(rule.holds(window.get(rule.name)) for rule in self.used_up):
            return
        for name in self.resets:
            moment = parse_moment(window.get(name))
            if moment is not None and (wait := seconds_until(moment, now)) > 0:
                yield wait


def _find(value: object, names: list[str]) -> Iterator[object]:
    if not names:
        yield value
        return
    first, rest = names[0], names[1:]
    if isinstance(value, dict):
        inner = list(value.values()) if first == "*" else [value[first]] if first in value else []
    else:
        inner = list(value) if isinstance(value, list) and first == "*" else []
    for item in inner:
        yield from _find(item, rest)


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None
