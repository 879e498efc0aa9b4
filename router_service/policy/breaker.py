"""The breaker of an endpoint as a table: closed, open, half open, and what moves it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum

OPEN_SECONDS = 15.0
"""How long an endpoint rests the first time; twice as long each further time."""


class State(Enum):
    """Where a breaker stands."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Happening(Enum):
    """What a breaker hears of. `FAILED` is one failure more than it bears; `TRIED` a first call after the rest."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TRIED = "tried"


TABLE: Mapping[tuple[State, Happening], State] = {
    (State.CLOSED, Happening.SUCCEEDED): State.CLOSED,
    (State.CLOSED, Happening.FAILED): State.OPEN,
    (State.CLOSED, Happening.TRIED): State.CLOSED,
    (State.OPEN, Happening.SUCCEEDED): State.CLOSED,  # an answer that was under way when it opened
    (State.OPEN, Happening.FAILED): State.OPEN,
    (State.OPEN, Happening.TRIED): State.HALF_OPEN,
    (State.HALF_OPEN, Happening.SUCCEEDED): State.CLOSED,
    (State.HALF_OPEN, Happening.FAILED): State.OPEN,
    (State.HALF_OPEN, Happening.TRIED): State.HALF_OPEN,
}
"""Total: every happening has its place in every state. docs/limits.md draws it."""


@dataclass(frozen=True, slots=True)
class Rules:
    """When an endpoint is thought to be broken: after so many failures in a row. 0 switches its breaker off."""

    failures: int = 5


@dataclass(frozen=True, slots=True)
class Breaker:
    """One endpoint. `failures` are those since the last success."""

    state: State = State.CLOSED
    failures: int = 0

    def hear(self, happening: Happening, rules: Rules) -> "Breaker":
        """The breaker after something happened."""
        if happening is Happening.FAILED and self.state is State.CLOSED:
            failures = self.failures + 1
            if not rules.failures or failures < rules.failures:
                return replace(self, failures=failures)
        state = TABLE[self.state, happening]
        return Breaker(state, 0 if happening is Happening.SUCCEEDED else self.failures)

    def opens(self, after: "Breaker") -> bool:
        """Whether the endpoint is to rest from now on."""
        return after.state is State.OPEN and self.state is not State.OPEN
