"""Where a call goes: base URLs, origins and how a credential is put on a request, as values with their laws."""

from dataclasses import dataclass
from enum import Enum
from urllib.parse import urlsplit

_DEFAULT_PORTS = {"http": 80, "https": 443}


class AuthScheme(Enum):
    """How a credential travels."""

    BEARER = "bearer"
    X_API_KEY = "x-api-key"
    API_KEY = "api-key"
    X_GOOG_API_KEY = "x-goog-api-key"
    AWS = "aws"  # a key pair signs, an API key of Bedrock travels as a bearer token
    NONE = "none"


class BaseUrlError(ValueError):
    """A base URL is not one that the router may use; the text says why."""


@dataclass(frozen=True, slots=True)
class BaseUrl:
    """An absolute http(s) URL without user, query and fragment. Joining does not depend on its trailing slash."""

    origin: str  # "scheme://host[:port]", lower case, no default port
    path: str  # "" or "/v1": no trailing slash

    def join(self, suffix: str) -> str:
        """The URL of an API path such as "/chat/completions"."""
        return f"{self.origin}{self.path}/{suffix.lstrip('/')}"


def parse_base_url(text: str) -> BaseUrl:
    """Checks and normalises. Raises BaseUrlError."""
    if any(ord(character) <= 32 or ord(character) == 127 for character in text) or "\\" in text:
        raise BaseUrlError("a base URL has no spaces, control characters or backslashes")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise BaseUrlError("this is not a URL") from None
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname:
        raise BaseUrlError("a base URL is absolute and begins with https:// or http://")
    if parts.username is not None or parts.password is not None:
        raise BaseUrlError("a base URL holds no user and no password; keys go to the credential service")
    if parts.query or parts.fragment:
        raise BaseUrlError("a base URL has no query and no fragment")
    host = parts.hostname.lower()
    if ":" in host:
        host = f"[{host}]"
    suffix = "" if port is None or port == _DEFAULT_PORTS[parts.scheme] else f":{port}"
    return BaseUrl(f"{parts.scheme}://{host}{suffix}", parts.path.rstrip("/"))
