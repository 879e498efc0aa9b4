"""Origins: where a secret may be sent, in the one spelling that can be compared."""

import re
from functools import lru_cache
from urllib.parse import urlsplit

from vault_service.core.faults import invalid

_DEFAULT_PORTS = {"https": 443, "http": 80}
_HOST = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?|\[[0-9a-f:.]+\]")
_MAX_CHARACTERS = 300


def check_origin(text: str, field: str) -> str:
    """Gives back an origin "scheme://host[:port]" in lower case, without a default port and without a path."""
    if len(text) <= _MAX_CHARACTERS and is_origin(text):
        return text
    raise invalid(field, "must be scheme://host[:port] in lower case, without a default port and without a path")


@lru_cache(maxsize=1024)
def is_origin(text: str) -> bool:
    """Whether the text is an origin in its canonical spelling."""
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        return False
    if parts.scheme not in _DEFAULT_PORTS or port == _DEFAULT_PORTS[parts.scheme] or port == 0:
        return False
    host = parts.netloc.removesuffix(f":{port}") if port is not None else parts.netloc
    canonical = f"{parts.scheme}://{host}" + ("" if port is None else f":{port}")
    return _HOST.fullmatch(host) is not None and ".." not in host and text == canonical
