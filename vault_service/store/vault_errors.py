"""The one place where an answer of Vault becomes an error of the store.

Vault tells most by its status; three things only its text tells (a lost compare-and-set, a dead audit device, a token
that is no more). The text is looked at here and goes no further: it can repeat what was sent.
"""

from collections.abc import Sequence

import urllib3

from vault_service.store.store import AuditFailed, Denied, Sealed, StoreError, Throttled, Unavailable, Uninitialised


class Missing(StoreError):
    """404: nothing there, or nothing that this token may know of."""


class Refused(StoreError):
    """400: what was sent does not hold. What that means, only the calling method knows."""

    cas_mismatch = False


class TokenRefused(Denied):
    """403, before a new login was tried. `token_is_dead` when Vault says that it knows no such token."""

    token_is_dead = False


_NOT_READY = {
    412: "the Vault server has not caught up with its leader yet",
    429: "the Vault server limits the rate",
    472: "this Vault server is a disaster recovery secondary",
    473: "this Vault server is a performance standby",
    474: "this Vault server is a standby without its leader",
    502: "a proxy or plugin before Vault failed",
    504: "a proxy before Vault timed out",
    530: "this Vault server was removed from its cluster",
}


def error_of(status: int, errors: Sequence[str], vault_request_ids: Sequence[str] = ()) -> StoreError:
    """Gives the error for a status of 300 and above and what Vault listed as `errors`."""
    text = " ".join(errors).lower()
    if status == 400:
        refused = Refused("Vault refused the request as invalid", status=status, vault_request_ids=vault_request_ids)
        refused.cas_mismatch = "check-and-set parameter did not match" in text
        return refused
    if status == 403:
        denied = TokenRefused("Vault refused the token", status=status, vault_request_ids=vault_request_ids)
        denied.token_is_dead = "invalid token" in text
        return denied
    kind, detail = _kind_of(status, text)
    return kind(detail, status=status, vault_request_ids=vault_request_ids)


def _kind_of(status: int, text: str) -> tuple[type[StoreError], str]:
    match status:
        case 404 if "no handler for route" in text:
            # Never "nothing there": a mount that went missing must not look like a tenant without credentials.
            return Denied, "the Vault server has no secrets engine where this service looks; mount it"
        case 404:
            return Missing, "nothing there"
        case 429:
            return Throttled, _NOT_READY[429]
        case 500 if "no audit backend succeeded" in text:
            return AuditFailed, "no audit device of the Vault server could record the request"
        case 500 if "internal error" in text:
            # All that Vault and OpenBao say when their audit devices fail, and they say the same of other failures.
            return Unavailable, "the Vault server failed; it does so when no audit device can write: look at its log"
        case 501:
            return Uninitialised, "the Vault server was never initialised"
        case 503 if "sealed" in text:
            # A load balancer answers 503 too, and nobody should go and unseal a Vault for that.
            return Sealed, "the Vault server is sealed; unseal it"
        case _ if status in _NOT_READY:
            return Unavailable, _NOT_READY[status]
        case _ if 300 <= status < 400:
            return Unavailable, "the Vault server points elsewhere, and a token is never sent after a redirect"
        case _ if status >= 500:
            return Unavailable, f"the Vault server failed with status {status}"
        case _:
            return StoreError, f"the Vault server answered with status {status}"


def error_of_transport(fault: Exception) -> Unavailable:
    """Gives the error for a request that got no answer."""
    match fault:
        case urllib3.exceptions.SSLError():
            return Unavailable(
                "the Vault server's certificate is not trusted, or it has none; see KEYSWITCH_VAULT_HASHICORP_CA_FILE"
            )
        case urllib3.exceptions.NewConnectionError():  # one of urllib3's time-outs by name
            return Unavailable("the Vault server cannot be reached")
        case urllib3.exceptions.TimeoutError():
            return Unavailable("the Vault server did not answer in time")
        case _:
            return Unavailable("the Vault server cannot be reached")
