"""What can be said of a key anew. Where it may go cannot: who wants that creates another one."""

from __future__ import annotations

from typing import Annotated

import typer
from google.protobuf.field_mask_pb2 import FieldMask
from keyswitch.vault.v1 import credential_pb2, credential_service_pb2

from keyswitch_cli import key_views, words
from keyswitch_cli.entries import Etag, demand_any
from keyswitch_cli.key_versions import list_versions
from keyswitch_cli.session import Json, OverrideEnvironment, Owner, session_of


def update(
    context: typer.Context,
    key: Annotated[str, typer.Argument(help="A key's id, or its whole name as `keyswitch keys list` shows it.")],
    at_once: Annotated[
        int | None,
        typer.Option(min=0, help="The most calls at once with it, over all routers; 0: as its provider or plan says."),
    ] = None,
    expires: Annotated[
        str | None,
        typer.Option(help="When it is used no more, like 2027-03-01; empty: never.", show_default=False),
    ] = None,
    display_name: Annotated[str | None, typer.Option(help="For people.", show_default=False)] = None,
    owner: Owner = None,
    etag: Etag = "",
    override_environment: OverrideEnvironment = False,
    is_json: Json = False,
) -> None:
    """Change what is named, and nothing else."""
    session = session_of(context, is_json=is_json)
    given = credential_pb2.Credential(name=session.settings.credential(key, owner), etag=etag)
    paths = []
    if at_once is not None:
        paths.append("max_concurrent_requests")
        if at_once:
            given.max_concurrent_requests = at_once
    if expires is not None:
        paths.append("expire_time")
        if expires:
            given.expire_time.CopyFrom(words.timestamp_of(expires))
    if display_name is not None:
        paths.append("display_name")
        given.display_name = display_name
    demand_any(paths, "keys update")
    request = credential_service_pb2.UpdateCredentialRequest(
        credential=given, update_mask=FieldMask(paths=paths), override_environment=override_environment
    )
    answer = session.client.call(session.client.credentials.UpdateCredential, request)
    if session.is_json:
        session.print_json(answer)
    else:
        key_views.show_one(session, answer.credential, list_versions(session, answer.credential.name))
