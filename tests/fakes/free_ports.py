"""Ports for processes that are told where to listen."""

import random
import socket
from contextlib import ExitStack, suppress

_BELOW = 32_768
"""From here on systems give ports to connections: one that is free now may be a client's a moment later."""


def free_ports(count: int) -> list[int]:
    """Ports that nothing uses now."""
    with ExitStack() as stack:
        found: list[int] = []
        while len(found) < count:
            one, port = stack.enter_context(socket.socket()), random.randrange(10_000, _BELOW)
            with suppress(OSError):
                one.bind(("127.0.0.1", port))
                found.append(port)
        return found
