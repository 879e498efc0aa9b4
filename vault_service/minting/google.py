"""A Google service account: its own assertion, exchanged for an access token.

Rule: https://developers.google.com/identity/protocols/oauth2/service-account#httprest.
"""

import json
from dataclasses import dataclass, field

from keyswitch.vault.v1 import credential_pb2

from vault_service.minting.assertions import load_rsa_key, sign_assertion
from vault_service.minting.egress import Egress
from vault_service.minting.tokens import Minted, read_answer

DEFAULT_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
_GRANT_TYPE = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_LIFETIME_SECONDS = 3600


@dataclass(frozen=True, slots=True)
class KeyFile:
    """What matters of the key file."""

    client_email: str
    private_key_id: str
    token_uri: str
    private_key: str = field(repr=False)


def read_key_file(text: str) -> KeyFile:
    """Reads a key file. Raises ValueError for anything that is not one, without repeating any of it."""
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict) or found.get("type") != "service_account":
        raise ValueError("must be the JSON key file of a service account")
    names = ("client_email", "private_key_id", "token_uri", "private_key")
    values = [value for name in names if isinstance(value := found.get(name), str) and value]
    if len(values) < len(names):
        raise ValueError("must hold client_email, private_key_id, token_uri and private_key")
    file = KeyFile(*values)
    load_rsa_key(file.private_key)
    return file


async def mint(account: credential_pb2.GoogleServiceAccount, egress: Egress, now: float) -> Minted:
    """Fetches a token."""
    file = read_key_file(account.key_json)
    claims = {
        "iss": file.client_email,
        "scope": " ".join(account.scopes) or DEFAULT_SCOPE,
        "aud": file.token_uri,
    }
    assertion = sign_assertion(
        load_rsa_key(file.private_key),
        claims,
        now,
        headers={"kid": file.private_key_id},
        lifetime_seconds=_LIFETIME_SECONDS,
    )
    answer = await egress.post_form(file.token_uri, {"grant_type": _GRANT_TYPE, "assertion": assertion})
    return read_answer(answer, now)
