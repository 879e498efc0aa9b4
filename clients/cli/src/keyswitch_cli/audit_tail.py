"""`keyswitch audit tail`: records as they are written."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from google.protobuf import json_format
from keyswitch.vault.v1 import audit_pb2, audit_service_pb2

from keyswitch_cli import words
from keyswitch_cli.session import session_of


def register(app: typer.Typer) -> None:
    """Adds the command to `keyswitch audit`."""
    app.command("tail")(tail)


def tail(
    context: typer.Context,
    chain: Annotated[str, typer.Option(help="One instance's chain; - merges all.")] = "-",
    resource: Annotated[str, typer.Option(help="This resource and what is below it.", show_default=False)] = "",
    resume: Annotated[
        str, typer.Option(help="Go on without a gap: the token that an earlier tail ended with.", show_default=False)
    ] = "",
    limit: Annotated[int, typer.Option(help="End after so many records; 0 is never.", min=0)] = 0,
) -> None:
    """Print records as they are written, one JSON object a line, until Ctrl-C."""
    session = session_of(context)
    request = audit_service_pb2.TailAuditRecordsRequest(
        parent=f"chains/{chain}",
        filter=audit_service_pb2.AuditFilter(resource=resource),
        resume_token=resume,
    )
    shown = 0
    token = resume
    try:
        for answer in session.client.call_stream(session.client.audit.TailAuditRecords, request):
            for record in answer.audit_records:
                sys.stdout.write(_line(record) + "\n")
                shown += 1
            sys.stdout.flush()
            token = answer.resume_token
            if limit and shown >= limit:
                break
    finally:
        if token:
            session.say(f"Go on with --resume {token}", "dim")


def _line(record: audit_pb2.AuditRecord) -> str:
    return words.harmless(json_format.MessageToJson(record, indent=None, ensure_ascii=False))
