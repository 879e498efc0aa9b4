"""An OAuth grant: the access token is renewed with the refresh token (RFC 6749, 6), which may change with every use."""

from keyswitch.vault.v1 import credential_pb2

from vault_service.minting.egress import Egress
from vault_service.minting.tokens import Minted, read_answer


async def refresh(grant: credential_pb2.OauthGrant, egress: Egress, now: float) -> Minted:
    """Renews. The client authenticates with its secret in the form, or is a public one."""
    form = {"grant_type": "refresh_token", "refresh_token": grant.refresh_token, "client_id": grant.client_id}
    if grant.client_secret:
        form["client_secret"] = grant.client_secret
    if grant.scopes:
        form["scope"] = " ".join(grant.scopes)
    return read_answer(await egress.post_form(grant.token_endpoint, form), now)


def merge(grant: credential_pb2.OauthGrant, minted: Minted) -> credential_pb2.OauthGrant:
    """The grant after a renewal. A server that keeps the refresh token sends none."""
    merged = credential_pb2.OauthGrant()
    merged.CopyFrom(grant)
    merged.access_token = minted.token
    merged.access_token_expire_time.FromNanoseconds(int(minted.expire_time * 1e9))
    if minted.refresh_token:
        merged.refresh_token = minted.refresh_token
    return merged


def current(grant: credential_pb2.OauthGrant) -> Minted | None:
    """The access token that the grant holds; one without a known end counts as ended."""
    if not grant.access_token or not grant.HasField("access_token_expire_time"):
        return None
    end = grant.access_token_expire_time
    return Minted(grant.access_token, end.seconds + end.nanos / 1e9)
