"""Pages of lists: an opaque token that is bound to the arguments of the first request."""

import base64
import hashlib
import json
from collections.abc import Sequence
from typing import TypeVar

from router_service.core.faults import invalid

DEFAULT_SIZE = 50
MOST = 1000
MOST_DIGITS = 18  # of a cursor that is a number: any store holds it

T = TypeVar("T")


def page(items: Sequence[T], page_size: int, page_token: str, arguments: Sequence[str]) -> tuple[Sequence[T], str]:
    """A page of a list and the token of the next one, empty on the last."""
    cursor = read_cursor(page_token, arguments)
    start = number(cursor)
    end = start + size(page_size)
    following = "" if end >= len(items) else write_cursor(str(end), arguments)
    return items[start:end], following


def number(cursor: str) -> int:
    """A cursor that is a number; 0 for the first page. Raises Fault."""
    if len(cursor) > MOST_DIGITS or not ((cursor.isascii() and cursor.isdecimal()) or not cursor):
        raise invalid("page_token", "This is no token of an earlier page.")
    return int(cursor or 0)


def size(page_size: int) -> int:
    """How many a page has."""
    if page_size < 0:
        raise invalid("page_size", "At least 0.")
    return min(page_size or DEFAULT_SIZE, MOST)


def write_cursor(cursor: str, arguments: Sequence[str]) -> str:
    """A token that says where the next page begins."""
    return base64.urlsafe_b64encode(f"{_digest(arguments)}:{cursor}".encode()).decode()


def read_cursor(page_token: str, arguments: Sequence[str]) -> str:
    """Where a page begins; empty for the first one."""
    if not page_token:
        return ""
    try:
        found, colon, cursor = base64.urlsafe_b64decode(page_token.encode()).decode().partition(":")
    except ValueError:
        raise invalid("page_token", "This is no token of an earlier page.") from None
    if not colon or not cursor:
        raise invalid("page_token", "This is no token of an earlier page.")
    if found != _digest(arguments):
        raise invalid("page_token", "The token belongs to a list with other arguments.")
    return cursor


def _digest(arguments: Sequence[str]) -> str:
    return hashlib.sha256(json.dumps(arguments).encode()).hexdigest()[:16]
