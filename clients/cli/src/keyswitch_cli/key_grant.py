"""What is no key but lets the service fetch tokens: a Google key file as it was downloaded, or a grant as JSON."""

from __future__ import annotations

import json

from google.protobuf.json_format import ParseDict, ParseError
from keyswitch.vault.v1 import credential_pb2

from keyswitch_cli.problem import Problem

_ADVICE = (
    "Give a Google service account's key file, or JSON as SecretMaterial in the contract has it, for example "
    '{"oauth": {"refresh_token": "…", "token_endpoint": "https://…", "client_id": "…"}}.'
)


def parse(text: str) -> credential_pb2.SecretMaterial:
    """Reads it. Raises Problem without repeating any of it."""
    try:
        found = json.loads(text)
        if found.get("type") == "service_account":
            account = credential_pb2.GoogleServiceAccount(key_json=text)
            return credential_pb2.SecretMaterial(google_service_account=account)
        return ParseDict(found, credential_pb2.SecretMaterial())
    except (ValueError, ParseError):
        raise Problem("This JSON is no secret that is known here.", advice=_ADVICE) from None
