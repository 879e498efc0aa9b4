"""`keyswitch audit reconcile`: our audit log, Vault's own, and the ledger, each against the next."""

from __future__ import annotations

import datetime as dt
import json
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import grpc
import typer
from google.protobuf import json_format
from keyswitch.router.v1 import usage_service_pb2
from keyswitch.vault.v1 import credential_service_pb2, lease_pb2
from keyswitch_client import KeyswitchError

from keyswitch_cli.audit_reconciliation import KINDS, Json, Reconciliation, reconcile
from keyswitch_cli.problem import EXIT_FAULT, Problem
from keyswitch_cli.session import Json as IsJson
from keyswitch_cli.session import Session, session_of


def register(app: typer.Typer) -> None:
    """Adds the command to `keyswitch audit`."""
    app.command("reconcile")(run)


def run(
    context: typer.Context,
    records: Annotated[
        list[Path], typer.Option(help="An export or a chain's folder, one for each instance: all chains together.")
    ],
    vault_log: Annotated[
        Path | None, typer.Option(help="The file of Vault's audit device.", show_default=False)
    ] = None,
    receipts: Annotated[
        Path | None, typer.Option(help="Receipts as lines of JSON, instead of asking the router.", show_default=False)
    ] = None,
    with_receipts: Annotated[
        bool, typer.Option("--with-receipts", help="Ask the router for the receipts of the records' time.")
    ] = False,
    with_versions: Annotated[
        bool, typer.Option("--with-versions", help="Ask the credential service whether every version is still there.")
    ] = False,
    grace: Annotated[int, typer.Option(help="Seconds for which a use or receipt may be on its way.", min=0)] = 60,
    transit_mount: Annotated[str, typer.Option(help="Vault's transit mount.")] = "keyswitch-transit",
    metrics: Annotated[
        Path | None,
        typer.Option(help="Write the counts for Prometheus' textfile collector, too.", show_default=False),
    ] = None,
    is_json: IsJson = False,
) -> None:
    """List what one of the books has and another has not. Exit code 0: everything is explained; 1: something is not."""
    session = session_of(context, is_json=is_json)
    ours = [record for path in records for record in _read_records(path)]
    ledger: list[Json] | None = list(_read_lines(receipts)) if receipts else None
    if with_receipts and ledger is None:
        ledger = list(_ask_receipts(session, ours))
    now = dt.datetime.fromtimestamp(time.time(), dt.UTC) - dt.timedelta(seconds=grace)
    result = reconcile(
        ours,
        vault_entries=_read_lines(vault_log) if vault_log else None,
        receipts=ledger,
        versions=_ask_versions(session, ours) if with_versions else None,
        transit_mount=transit_mount,
        settled_before=now.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
    )
    if metrics is not None:
        _write_metrics(metrics, result)
    _show(session, result)
    if result.orphans:
        raise typer.Exit(EXIT_FAULT)


def _read_records(path: Path) -> Iterator[Json]:
    files = sorted(path.glob("[0-9]*.jsonl")) if path.is_dir() else [path]
    if not files:
        raise Problem(f"{path} holds no segments of an audit chain.")
    for file in files:
        yield from (line for line in _read_lines(file) if "name" in line)


def _read_lines(path: Path) -> Iterator[Json]:
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                try:
                    value = json.loads(line)
                except ValueError:
                    raise Problem(f"{path}:{number} is no JSON.") from None
                if isinstance(value, dict):
                    yield value
    except OSError as error:
        raise Problem(f"{path} cannot be read ({error.strerror}).") from None


def _ask_receipts(session: Session, records: list[Json]) -> Iterator[Json]:
    """All of the time that the records are of: also of calls that no use is recorded of. Besides those of uses whose
    call began before that time or has not ended."""
    pb, calls = usage_service_pb2, {str(one.get("requestId")) for one in records if _is(one, "USE")}
    begin = min((str(one.get("recordTime", "")) for one in records), default="")
    request = pb.ListReceiptsRequest()
    if begin:
        request.filter.start_time.FromJsonString(begin)
    for receipt in session.call_all(session.client.usage.ListReceipts, request).receipts:
        calls.discard(receipt.response_id)
        yield json_format.MessageToDict(receipt)
    for call in sorted(calls):
        try:
            answer = session.client.call(session.client.usage.GetReceipt, pb.GetReceiptRequest(response_id=call))
        except KeyswitchError as error:
            if error.code is not grpc.StatusCode.NOT_FOUND:
                raise
            continue  # that there is none is what is to be found
        yield json_format.MessageToDict(answer.receipt)


def _is(record: Json, action: str) -> bool:
    return bool(record.get("action") == f"AUDIT_ACTION_{action}")


def _ask_versions(session: Session, records: list[Json]) -> Iterator[str]:
    """The versions of every credential that our records speak of, page by page; destroyed ones are not there."""
    pb = credential_service_pb2
    resources = (str(one.get("resource", "")) for one in records if _is(one, "ADD_VERSION"))
    for name in sorted({resource.partition("/versions/")[0] for resource in resources}):
        request = pb.ListCredentialVersionsRequest(parent=name)
        try:
            answer = session.call_all(session.client.credentials.ListCredentialVersions, request)
            yield from (one.name for one in answer.credential_versions if not one.HasField("destroy_time"))
        except KeyswitchError as error:
            if error.code is not grpc.StatusCode.NOT_FOUND:
                raise


def _write_metrics(path: Path, result: Reconciliation) -> None:
    counts = Counter(orphan.kind for orphan in result.orphans)
    lines = [
        "# HELP keyswitch_audit_unexplained What one of audit log, Vault's log and ledger has and another has not.",
        "# TYPE keyswitch_audit_unexplained gauge",
        *(f'keyswitch_audit_unexplained{{kind="{kind}"}} {counts[kind]}' for kind in KINDS),
    ]
    known = [name.removeprefix("LEASE_PURPOSE_").lower() for name in lease_pb2.LeasePurpose.keys()[1:]]
    uses = {name: result.purposes[name] for name in known}
    uses["unknown"] = result.purposes.total() - sum(uses.values())
    lines += [
        "# HELP keyswitch_audit_uses Uses of keys in the audit log, by what routers said that they were for.",
        "# TYPE keyswitch_audit_uses gauge",
        *(f'keyswitch_audit_uses{{purpose="{name}"}} {number}' for name, number in uses.items()),
    ]
    draft = path.with_name(f".{path.name}.part")
    draft.write_text("\n".join(lines) + "\n", encoding="ascii")
    draft.replace(path)


def _show(session: Session, result: Reconciliation) -> None:
    if session.is_json:
        orphans: list[Any] = [{"kind": one.kind, "name": one.name, "detail": one.detail} for one in result.orphans]
        unpaid = [
            {"credential_version": version, "purpose": purpose, "uses": uses}
            for (version, purpose), uses in sorted(result.without_receipt.items())
        ]
        matched, purposes = dict(result.matched), dict(result.purposes)
        session.print_json(
            {"matched": matched, "uses_by_purpose": purposes, "uses_without_receipt": unpaid, "orphans": orphans}
        )
        return
    for kind, words in KINDS.items():
        found = [one for one in result.orphans if one.kind == kind]
        if found:
            session.out.print(f"{kind}: {words} ({len(found)})", markup=False, soft_wrap=True)
        for one in found:
            session.out.print(f"  {one.name}  {one.detail}", markup=False, soft_wrap=True)
    all_matched = ", ".join(f"{number} {what}" for what, number in sorted(result.matched.items()))
    all_purposes = ", ".join(f"{number} {what.replace('_', ' ')}" for what, number in sorted(result.purposes.items()))
    session.out.print(f"Uses by purpose: {all_purposes or 'none'}.", markup=False, soft_wrap=True)
    session.out.print(
        f"{len(result.orphans)} unexplained. Matched: {all_matched or 'nothing'}.", markup=False, soft_wrap=True
    )
