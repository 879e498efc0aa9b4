"""One row per scheme, and keys that cannot travel."""

import pytest

from router_service.core.endpoint import AuthScheme
from router_service.core.faults import Fault, Reason
from router_service.core.secret import Secret
from router_service.upstream.auth import apply


@pytest.mark.parametrize(
    ("scheme", "headers"),
    [
        (AuthScheme.BEARER, (("authorization", "Bearer sk-1"),)),
        (AuthScheme.X_API_KEY, (("x-api-key", "sk-1"),)),
        (AuthScheme.API_KEY, (("api-key", "sk-1"),)),
        (AuthScheme.X_GOOG_API_KEY, (("x-goog-api-key", "sk-1"),)),
        (AuthScheme.NONE, ()),
    ],
)
def test_each_scheme(scheme: AuthScheme, headers: object) -> None:
    assert apply(scheme, Secret("sk-1")) == headers


def test_every_scheme_is_covered() -> None:
    for scheme in AuthScheme:
        assert isinstance(apply(scheme, Secret("sk-1")), tuple)


def test_no_key_is_needed_where_there_is_no_scheme() -> None:
    assert apply(AuthScheme.NONE, None) == ()


@pytest.mark.parametrize("key", ["sk 1", "sk-1\n", "sk\r\nx: 1", "sk-\x00", "schlüssel", "\ud800"])
@pytest.mark.parametrize("scheme", [scheme for scheme in AuthScheme if scheme is not AuthScheme.NONE])
def test_a_key_that_cannot_travel_is_refused_without_showing_it(scheme: AuthScheme, key: str) -> None:
    with pytest.raises(Fault) as caught:
        apply(scheme, Secret(key))
    assert caught.value.reason is Reason.NO_USABLE_CREDENTIAL
    assert key not in str(caught.value)


@pytest.mark.parametrize("secret", [None, Secret("")])
def test_a_missing_key_is_refused(secret: Secret | None) -> None:
    with pytest.raises(Fault) as caught:
        apply(AuthScheme.BEARER, secret)
    assert caught.value.reason is Reason.NO_USABLE_CREDENTIAL
