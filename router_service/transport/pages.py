"""Pages of lists: an opaque token that is bound to the arguments of the first request."""

import base64
import hashlib
import json
from collections.abc import Sequence
from typing import TypeVar

from router_service.core.faults import invalid

DEFAULT_SIZE = 50
MOST = 1000

T = TypeVar("T")


def page(items: Sequence[T], page_size: int, page_token: str, arguments: Sequence[str]) -> tuple[Sequence[T], str]:
    """A page of a list and the token of the next one, empty on the last."""
    if page_size < 0:
        raise invalid("page_size", "At least 0.")
    digest = hashlib.sha256(json.dumps(arguments).encode()).hexdigest()[:16]
    start = _start(page_token, digest)
    end = start + min(page_size or DEFAULT_SIZE, MOST)
    following = "" if end >= len(items) else base64.urlsafe_b64encode(f"{digest}:{end}".encode()).decode()
    return items[start:end], following


def _start(page_token: str, digest: str) -> int:
    if not page_token:
        return 0
    try:
        found, _, offset = base64.urlsafe_b64decode(page_token.encode()).decode().partition(":")
        start = int(offset)
    except ValueError:
        raise invalid("page_token", "This is no token of an earlier page.") from None
    if found != digest or start < 0:
        raise invalid("page_token", "The token belongs to a list with other arguments.")
    return start
