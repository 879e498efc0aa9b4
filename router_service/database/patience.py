"""How long the call that is being served is still waited for, so that a store can be given up before its end.

A caller whose deadline passes learns no reason. So what waits for a store gives up a little before it, and says why.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

MARGIN_SECONDS = 0.25
"""Left for what is recorded of the outcome, and for the answer's way back."""

_END: ContextVar[float | None] = ContextVar("end", default=None)


@contextmanager
def waited_for(seconds: float | None) -> Iterator[None]:
    """What is inside is waited for no longer than this; None is for what goes on whoever waits."""
    margin = 0.0 if seconds is None else min(MARGIN_SECONDS, seconds / 2)
    token = _END.set(None if seconds is None else asyncio.get_running_loop().time() + seconds - margin)
    try:
        yield
    finally:
        _END.reset(token)


def left_seconds(at_most: float) -> float:
    """How long to wait from now; never more than `at_most`."""
    end = _END.get()
    return at_most if end is None else max(0.0, min(at_most, end - asyncio.get_running_loop().time()))
