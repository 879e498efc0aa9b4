"""How a credential is put on a request: one pure function per scheme. The last step before sending."""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final
from urllib.parse import urlsplit

from router_service.core.endpoint import AuthScheme
from router_service.core.faults import Fault, Reason
from router_service.core.secret import AwsKeyPair, BearerToken, Secret
from router_service.upstream.client import UpstreamRequest
from router_service.upstream.sigv4 import sign

Headers = tuple[tuple[str, str], ...]

_BEDROCK = "bedrock"  # what both its planes are called in a signature
_BEDROCK_HOST = re.compile(r"(?:^|\.)bedrock(?:-runtime)?(?:-fips)?\.([a-z0-9-]+)\.")


def authorize(request: UpstreamRequest, scheme: AuthScheme, secret: Secret | None, time: float) -> UpstreamRequest:
    """The request with its credential. `time` is in seconds since 1970. Raises Fault for a key that cannot travel."""
    if scheme is AuthScheme.AWS and isinstance(secret, AwsKeyPair):
        added = _signed(request, secret, time)
    else:
        added = apply(scheme, secret)
    return replace(request, headers=(*request.headers, *added))


def apply(scheme: AuthScheme, secret: Secret | None) -> Headers:
    """The headers that carry the credential. Keys never go into a URL. Raises Fault for a key that cannot travel."""
    if scheme is AuthScheme.NONE:
        return ()
    key = secret.reveal() if secret is not None else ""
    if not key:
        raise Fault(Reason.NO_USABLE_CREDENTIAL, "The provider needs a key and there is none. Add one for it.")
    if isinstance(secret, AwsKeyPair):
        raise Fault(
            Reason.NO_USABLE_CREDENTIAL,
            "The stored key is an AWS key pair, and this provider takes an API key. Add one.",
        )
    if not all("!" <= character <= "~" for character in key):
        raise Fault(
            Reason.NO_USABLE_CREDENTIAL,
            "The stored key holds a space, a line break or another character that no key has. Add a new version of it.",
        )
    return _bearer(key) if isinstance(secret, BearerToken) else _SCHEMES[scheme](key)


def derived_secret(request: UpstreamRequest) -> Secret | None:
    """What was made of a key pair for this request alone: nobody should see it while it holds."""
    value = next((value for name, value in request.headers if name == "authorization"), "")
    _, found, signature = value.partition("Signature=")
    return Secret(signature) if found else None


def _signed(request: UpstreamRequest, pair: AwsKeyPair, time: float) -> Headers:
    """The region is the host's own: a signature for another one is refused. A private host has none in its name."""
    found = _BEDROCK_HOST.search(urlsplit(request.url).hostname or "")
    region = found.group(1) if found else pair.region
    content_type = next((value for name, value in request.headers if name.lower() == "content-type"), "")
    return sign(
        pair, request.method, request.url, content_type, request.body, region=region, service=_BEDROCK, time=time
    )


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
    AuthScheme.AWS: _bearer,  # an API key of Bedrock; a key pair signs instead
    AuthScheme.NONE: _none,
}
