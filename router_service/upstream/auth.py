"""How a credential is put on a request: one pure function per scheme. The last step before sending."""

from collections.abc import Callable, Mapping
from typing import Final

from router_service.core.endpoint import AuthScheme
from router_service.core.faults import Fault, Reason
from router_service.core.secret import Secret

Headers = tuple[tuple[str, str], ...]


def apply(scheme: AuthScheme, secret: Secret | None) -> Headers:
    """The headers that carry the credential. Keys never go into a URL. Raises Fault for a key that cannot travel."""
    if scheme is AuthScheme.NONE:
        return ()
    key = secret.reveal() if secret is not None else ""
    if not key:
        raise Fault(Reason.NO_USABLE_CREDENTIAL, "The provider needs a key and there is none. Add one for it.")
    if not all("!" <= character <= "~" for character in key):
        raise Fault(
            Reason.NO_USABLE_CREDENTIAL,
            "The stored key holds a space, a line break or another character that no key has. Add a new version of it.",
        )
    return _SCHEMES[scheme](key)


def _bearer(key: str) -> Headers:
    return (("authorization", f"Bearer {key}"),)


def _x_api_key(key: str) -> Headers:
    return (("x-api-key", key),)


def _api_key(key: str) -> Headers:
    return (("api-key", key),)


def _x_goog_api_key(key: str) -> Headers:
    return (("x-goog-api-key", key),)


def _none(_: str) -> Headers:
    return ()


_SCHEMES: Final[Mapping[AuthScheme, Callable[[str], Headers]]] = {
    AuthScheme.BEARER: _bearer,
    AuthScheme.X_API_KEY: _x_api_key,
    AuthScheme.API_KEY: _api_key,
    AuthScheme.X_GOOG_API_KEY: _x_goog_api_key,
    AuthScheme.NONE: _none,
}
