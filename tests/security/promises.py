"""What the security tests tried and found, promise by promise; `make security` prints it at its end.

A test says `tried(6, "logs changed at random, every change found", changes=10_000)` when its assertions have passed.
Counts of the same promise and text are added up.
"""

import os
from collections.abc import Iterator

THOROUGH = "KEYSWITCH_THOROUGH"

PROMISES = {
    1: "no provider key appears in clear anywhere but on its way in",
    2: "an exception never reaches a caller as text",
    3: "the router keeps no secret at rest",
    4: "no secret is released before its audit record is durable",
    5: "an audit log that cannot be written closes the door",
    6: "edits, deletions, reordering and truncation of the audit log are found offline",
    7: "every release joins to Vault's own audit log, both ways",
    8: "a tenant learns nothing of another's credentials",
    9: "identity is a proven key; what is refused is audited",
    10: "writes are linearizable for each credential",
    11: "a rotation is visible everywhere in 2 s, without a failed request",
    12: "a revocation holds on every router in 2 s",
    13: "a Vault that is sealed, away or slow gives typed answers in time",
    14: "the Vault token goes to no other host",
    15: "renewing the Vault token never leaves a gap",
    16: "certificates rotate without a dropped call",
    17: "an abandoned call frees everything",
    18: "overload is refused early, and memory is bounded",
    19: "a drain loses no request, a crash no acknowledged write",
    20: "the same on every store",
}

_found: dict[tuple[int, str], dict[str, float]] = {}


def tried(promise: int, text: str, **counts: float) -> None:
    """Adds a line to the report: what was tried for the promise, and how often. Names of counts are printed as words.

    A name that ends in `_max` keeps its greatest value; all others are summed.
    """
    if promise not in PROMISES:
        raise ValueError(f"there is no promise {promise}")
    line = _found.setdefault((promise, text), {})
    for name, count in counts.items():
        line[name] = max(line.get(name, 0), count) if name.endswith("_max") else line.get(name, 0) + count


def is_thorough() -> bool:
    """Whether this is `make security`, which tries more than `make test` has time for."""
    return os.environ.get(THOROUGH) == "1"


def count(quick: int, thorough: int) -> int:
    """Gives how often to try."""
    return thorough if is_thorough() else quick


def report() -> Iterator[str]:
    """Gives the lines to print; a promise that nothing was tried for says so."""
    if not _found:
        return
    for promise, words in PROMISES.items():
        lines = [(text, counts) for (number, text), counts in _found.items() if number == promise]
        yield f"promise {promise:>2}  {words}" + ("" if lines else ": nothing counted in this run")
        for text, counts in lines:
            figures = ", ".join(f"{name.replace('_', ' ')} {value:,.10g}" for name, value in counts.items())
            yield f"            - {text}" + (f": {figures}" if figures else "")
