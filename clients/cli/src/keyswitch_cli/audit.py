"""The audit log: who did what to which key, why, and how it ended."""

from __future__ import annotations

from typing import Annotated

import typer
from google.protobuf.timestamp_pb2 import Timestamp
from keyswitch.vault.v1 import audit_pb2, audit_service_pb2, error_reason_pb2, lease_pb2

from keyswitch_cli import audit_files, audit_reconcile, audit_tail, tables, words
from keyswitch_cli.session import Json, session_of

app = typer.Typer(name="audit", help="The audit log of the credential service.", no_args_is_help=True)


@app.command("list")
def list_records(
    context: typer.Context,
    resource: Annotated[str, typer.Option(help="This resource and what is below it.", show_default=False)] = "",
    subject: Annotated[str, typer.Option(help="Only what this identity did.", show_default=False)] = "",
    action: Annotated[
        list[str] | None, typer.Option(help="For example lease, use, add-version. May be repeated.", show_default=False)
    ] = None,
    outcome: Annotated[
        list[str] | None, typer.Option(help="intended, succeeded, denied or failed.", show_default=False)
    ] = None,
    request_id: Annotated[str, typer.Option(help="Only this call's: a response id.", show_default=False)] = "",
    lease_id: Annotated[str, typer.Option(help="Only this lease's.", show_default=False)] = "",
    since: Annotated[str, typer.Option(help="Written at this time or later, ISO 8601.", show_default=False)] = "",
    until: Annotated[str, typer.Option(help="Written before this time.", show_default=False)] = "",
    limit: Annotated[int, typer.Option(help="The newest so many.", min=1, max=1000)] = 50,
    chain: Annotated[str, typer.Option(help="One instance's chain; - merges all.")] = "-",
    is_json: Json = False,
) -> None:
    """List records, the newest first."""
    session = session_of(context, is_json=is_json)
    chosen = audit_service_pb2.AuditFilter(
        resource=resource,
        subject=subject,
        actions=[words.enum_number(audit_pb2.AuditAction, text, "AUDIT_ACTION_") for text in action or ()],
        outcomes=[words.enum_number(audit_pb2.AuditOutcome, text, "AUDIT_OUTCOME_") for text in outcome or ()],
        request_id=request_id,
        lease_id=lease_id,
        start_time=_time(since),
        end_time=_time(until),
    )
    request = audit_service_pb2.ListAuditRecordsRequest(parent=f"chains/{chain}", page_size=limit, filter=chosen)
    answer = session.client.call(session.client.audit.ListAuditRecords, request)
    if session.is_json:
        session.print_json(answer)
        return
    table = tables.listing(
        "record", "time", "action", "outcome", "who", "resource", long=("outcome", "who", "resource")
    )
    for record in answer.audit_records:
        table.add_row(
            record.name.removeprefix("chains/").replace("/records/", " "),
            words.moment(record.record_time),
            words.enum_word(audit_pb2.AuditAction, record.action, "AUDIT_ACTION_"),
            _outcome(record, short=True),
            _who(record.identity.subject),
            record.resource.removeprefix("organizations/"),
        )
    session.show(table, "Nothing that fits was recorded.")
    if answer.next_page_token:
        session.say(f"These are the newest {limit}; --limit and --until show more.", "dim")


@app.command("get")
@app.command("show", hidden=True)
def show(
    context: typer.Context,
    record: Annotated[str, typer.Argument(help="chains/CHAIN/records/N, or CHAIN/N.")],
    is_json: Json = False,
) -> None:
    """Show one record with its hashes."""
    session = session_of(context, is_json=is_json)
    chain, _, number = record.removeprefix("chains/").replace("/records/", "/").rpartition("/")
    request = audit_service_pb2.GetAuditRecordRequest(name=f"chains/{chain}/records/{number}")
    answer = session.client.call(session.client.audit.GetAuditRecord, request)
    if session.is_json:
        session.print_json(answer)
        return
    found = answer.audit_record
    proof = words.enum_word(audit_pb2.AuditIdentityProof, found.identity.proof, "AUDIT_IDENTITY_PROOF_")
    rows = [
        ("record", found.name),
        ("time", words.moment(found.record_time)),
        ("who", f"{found.identity.subject} (by {proof})"),
        ("token", found.identity.token_id),
        ("from", found.peer),
        ("action", words.enum_word(audit_pb2.AuditAction, found.action, "AUDIT_ACTION_")),
        ("resource", found.resource),
        ("purpose", words.enum_word(lease_pb2.LeasePurpose, found.purpose, "LEASE_PURPOSE_") if found.purpose else ""),
        ("call", found.request_id + (f", attempt {found.attempt}" if found.attempt else "")),
        ("for", found.principal),
        ("lease", found.lease_id),
        ("origin", found.origin),
        ("outcome", _outcome(found)),
        ("intent", found.intent_record),
        ("vault", ", ".join(found.vault_request_ids)),
        ("note", found.note),
        ("before", found.previous_hash.hex()),
        ("hash", found.hash.hex()),
    ]
    session.out.print(tables.sheet(rows))


def _time(text: str) -> Timestamp | None:
    return words.timestamp_of(text) if text else None


def _who(subject: str) -> str:
    return words.last(subject) if subject.startswith("spiffe://") else subject.removeprefix("organizations/")


def _outcome(record: audit_pb2.AuditRecord, *, short: bool = False) -> str:
    word = words.enum_word(audit_pb2.AuditOutcome, record.outcome, "AUDIT_OUTCOME_")
    if record.reason:
        word += f": {words.enum_word(error_reason_pb2.ErrorReason, record.reason, 'ERROR_REASON_')}"
    if record.use_outcome:
        said = words.enum_word(lease_pb2.CredentialUseOutcome, record.use_outcome, "CREDENTIAL_USE_OUTCOME_")
        word = said if short else f"{word}; the provider: {said}"
    return word


audit_tail.register(app)
audit_files.register(app)
audit_reconcile.register(app)
