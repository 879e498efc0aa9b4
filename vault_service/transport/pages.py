"""Pages of lists: sizes, and opaque tokens that belong to one set of arguments."""

import base64
import binascii
import hashlib
import json
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import TypeVar

from vault_service.core.faults import invalid

DEFAULT_PAGE_SIZE = 50
MAX_PAGE_SIZE = 1000

Item = TypeVar("Item")


def check_page_size(page_size: int) -> int:
    """Gives how many to answer with."""
    if page_size < 0:
        raise invalid("page_size", "must not be negative")
    return min(page_size or DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE)


def encode_token(arguments: Sequence[object], cursor: str) -> str:
    """Gives the token with which the list goes on after `cursor`."""
    return base64.urlsafe_b64encode(json.dumps([_digest(arguments), cursor]).encode()).decode()


def decode_token(arguments: Sequence[object], token: str) -> str:
    """Gives the cursor, empty for the first page."""
    if not token:
        return ""
    try:
        digest, cursor = json.loads(base64.urlsafe_b64decode(token.encode()))
    except (ValueError, TypeError, RecursionError, binascii.Error):  # nested too deeply, for one
        raise invalid("page_token", "is not one of this service") from None
    if digest != _digest(arguments) or not isinstance(cursor, str):
        raise invalid("page_token", "belongs to a call with other arguments")
    return cursor


def cut_page(
    items: Sequence[Item], key: Callable[[Item], str], page_size: int, token: str, arguments: Sequence[object]
) -> tuple[Sequence[Item], str]:
    """Gives the page and the next token of a list that is sorted by `key`, which may change between pages."""
    limit = check_page_size(page_size)
    cursor = decode_token(arguments, token)
    start = bisect_right(items, cursor, key=key) if cursor else 0
    page = items[start : start + limit]
    has_more = start + limit < len(items)
    return page, encode_token(arguments, key(page[-1])) if has_more else ""


def _digest(arguments: Sequence[object]) -> str:
    return hashlib.sha256(json.dumps([str(one) for one in arguments]).encode()).hexdigest()[:16]
