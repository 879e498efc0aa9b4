"""What is found wrong again at every look: said when it begins, when its cause changes, and once a minute."""

from collections.abc import Callable
from typing import Any

from vault_service.core.faults import Fault
from vault_service.store.store import StoreError

AGAIN_SECONDS = 60.0


class Complaints:
    """The problems that stand. A log with four lines a second of one of them hides all others."""

    def __init__(self, say: Callable[..., Any], *, clock: Callable[[], float]) -> None:
        self._say = say
        self._clock = clock
        self._said: dict[str, tuple[str, float]] = {}

    def note(self, event: str, problem: Exception) -> None:
        """Says the problem, unless the same was said lately."""
        cause, now = _cause_of(problem), self._clock()
        said_cause, said_time = self._said.get(event, ("", 0.0))
        if event in self._said and said_cause == cause and 0 <= now - said_time < AGAIN_SECONDS:
            return
        self._said[event] = (cause, now)
        self._say(event, cause=cause, error_type=type(problem).__name__)

    def forget(self, event: str) -> None:
        """The problem is over: the next one is a new one."""
        self._said.pop(event, None)


def _cause_of(problem: Exception) -> str:
    """Words of our own, or none: the text of any other exception may hold what was sent."""
    match problem:
        case StoreError():
            return problem.detail
        case Fault():
            return problem.reason.value
        case TimeoutError():
            return "no answer in time"
        case _:
            return ""
