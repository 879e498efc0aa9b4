"""An AWS key pair as AWS's own tools write one: a section of its credentials file, or JSON."""

from __future__ import annotations

import json

import typer
from keyswitch.vault.v1 import credential_pb2

from keyswitch_cli.problem import Problem

_ID, _SECRET, _TOKEN = "accesskeyid", "secretaccesskey", "sessiontoken"
_ROLE, _EXTERNAL_ID = "rolearn", "externalid"


def prompt(region: str) -> credential_pb2.SecretMaterial:
    """Asks for a pair; what is secret is not shown."""
    key_id = typer.prompt("Access key id", err=True)
    secret = typer.prompt("Secret access key (not shown)", hide_input=True, err=True)
    token = typer.prompt("Session token (not shown; empty for none)", hide_input=True, default="", err=True)
    return _material({_ID: key_id, _SECRET: secret, _TOKEN: token}, region)


def parse(text: str, region: str) -> credential_pb2.SecretMaterial:
    """A pair from "aws_access_key_id = …" lines, or from what `aws iam create-access-key` and `aws sts` print.

    With a line "role_arn = …" the pair only assumes that role, as it does for AWS's own tools.
    """
    found = _json(text) if text.lstrip().startswith("{") else _lines(text)
    if not found.get(_ID) or not found.get(_SECRET):
        raise Problem(
            "This is no AWS key pair.",
            advice="Give aws_access_key_id and aws_secret_access_key, a line each, or the JSON that AWS prints.",
        )
    return _material(found, region)


def _json(text: str) -> dict[str, str]:
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    for outer in ("AccessKey", "Credentials"):
        if isinstance(value.get(outer), dict):
            value = value[outer]
    return {name.lower(): inner for name, inner in value.items() if isinstance(inner, str)}


def _lines(text: str) -> dict[str, str]:
    pairs = (line.partition("=") for line in text.splitlines() if "=" in line)
    found = [(name.strip().lower(), value.strip()) for name, _, value in pairs]
    names = [name for name, _ in found]
    if len(set(names)) < len(names):
        raise Problem("There is more than one key pair here.", advice="Give one section of the file alone.")
    return {name.removeprefix("export ").removeprefix("aws_").replace("_", ""): value for name, value in found}


def _material(found: dict[str, str], region: str) -> credential_pb2.SecretMaterial:
    pair = credential_pb2.AwsKeyPair(
        access_key_id=found[_ID],
        secret_access_key=found[_SECRET],
        session_token=found.get(_TOKEN, ""),
        region=region,
        role_arn=found.get(_ROLE, ""),
        external_id=found.get(_EXTERNAL_ID, ""),
    )
    return credential_pb2.SecretMaterial(aws=pair)
