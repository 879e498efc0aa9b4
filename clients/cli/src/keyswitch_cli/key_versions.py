"""The versions of a key, and which of them a word means."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer
from keyswitch.vault.v1 import credential_pb2, credential_service_pb2

from keyswitch_cli.problem import EXIT_REFUSED, Problem
from keyswitch_cli.session import Session

Version = Annotated[str, typer.Option("--version", help="A number, `active` or `newest`.", show_default=False)]


def list_versions(session: Session, credential: str) -> Sequence[credential_pb2.CredentialVersion]:
    """All versions, the newest first."""
    request = credential_service_pb2.ListCredentialVersionsRequest(parent=credential)
    return session.call_all(session.client.credentials.ListCredentialVersions, request).credential_versions


def find_version(session: Session, credential: str, version: str) -> str:
    """The whole name of a version; "" is the active one where there is one, else the newest."""
    if version.isdigit() or version == "active":
        return f"{credential}/versions/{version}"
    if version not in ("", "newest"):
        raise Problem(f"{version!r} is no version.", advice="Give a number, `active` or `newest`.")
    versions = list_versions(session, credential)
    if not versions:
        raise Problem(
            f"{credential} has no value yet.",
            advice=f"Put one in: keyswitch keys add-version {credential}",
            exit_code=EXIT_REFUSED,
        )
    active = [item for item in versions if item.state == credential_pb2.CREDENTIAL_VERSION_STATE_ACTIVE]
    chosen = versions[0] if version == "newest" or not active else active[0]
    return chosen.name
