"""How much a minute may see, and how long a call waits, as a person writes them."""

from __future__ import annotations

import re

from google.protobuf.duration_pb2 import Duration
from keyswitch.router.v1 import configuration_pb2

from keyswitch_cli.problem import Problem

_BOUND = re.compile(r"(requests|tokens)=([0-9]{1,18})")
_SECONDS = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")


def limits_of(text: str) -> configuration_pb2.RateLimits:
    """Limits such as requests=600,tokens=2000000."""
    limits = configuration_pb2.RateLimits()
    for part in text.split(","):
        match = _BOUND.fullmatch(part.strip())
        if match is None:
            advice = "Write them like requests=600,tokens=2000000 (each for a minute), or '' for none."
            raise Problem(f"{text!r} are no limits.", advice=advice)
        setattr(limits, f"{match[1]}_per_minute", int(match[2]))
    return limits


def limits_text(limits: configuration_pb2.RateLimits) -> str:
    """The same in words; empty for none."""
    units = ("requests", "tokens")
    stated = [unit for unit in units if limits.HasField(f"{unit}_per_minute")]  # type: ignore[arg-type] # both fields
    return ", ".join(f"{getattr(limits, f'{unit}_per_minute'):,} {unit} a minute" for unit in stated)


def wait_of(text: str) -> Duration:
    """Seconds, to the nanosecond."""
    if _SECONDS.fullmatch(text) is None:
        raise Problem(f"{text!r} are no seconds.", advice="Write them like 2 or 0.5, or '' for 2.")
    whole, _, fraction = text.partition(".")
    return Duration(seconds=int(whole), nanos=int(fraction.ljust(9, "0")))
