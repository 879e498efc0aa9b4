"""The audit log as files: export it, keep its public keys and checkpoints, verify it offline."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import typer
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key
from google.protobuf import json_format
from keyswitch.vault.v1 import audit_pb2, audit_service_pb2, token_service_pb2

from keyswitch_cli import tables, words
from keyswitch_cli.audit_verification import Verdict, key_id_of, read_lines, verify
from keyswitch_cli.problem import EXIT_FAULT, Problem
from keyswitch_cli.session import Json, Session, session_of

_END = "-----END PUBLIC KEY-----"
Chain = Annotated[str, typer.Option(help="One instance's chain, as `keyswitch audit list` shows it.")]


def register(app: typer.Typer) -> None:
    """Adds the commands to `keyswitch audit`."""
    app.command("export")(export)
    app.command("checkpoints")(list_checkpoints)
    app.command("keys")(show_keys)
    app.command("verify")(verify_files)


def export(
    context: typer.Context,
    chain: Chain,
    to: Annotated[Path | None, typer.Option(help="The file to write. Default: standard output.")] = None,
    first: Annotated[int, typer.Option(help="The first record.", min=0, show_default=False)] = 0,
    last: Annotated[int, typer.Option(help="The last record.", min=0, show_default=False)] = 0,
) -> None:
    """Write a chain and its checkpoints as lines of JSON, to be verified offline."""
    session = session_of(context)
    request = audit_service_pb2.ExportAuditRecordsRequest(
        parent=f"chains/{chain}", first_record=first, last_record=last
    )
    if to is None:
        _export(session, request, sys.stdout.buffer)
        return
    draft = to.with_name(f".{to.name}.part")
    with draft.open("wb") as file:
        records = _export(session, request, file)
    draft.replace(to)
    session.say(f"{records} records of {chain} are in {to}.")


def list_checkpoints(
    context: typer.Context,
    chain: Chain,
    limit: Annotated[int, typer.Option(help="The newest so many.", min=1, max=1000)] = 20,
    is_lines: Annotated[
        bool, typer.Option("--lines", help="As lines of JSON, to be kept for `verify --checkpoint`.")
    ] = False,
    is_json: Json = False,
) -> None:
    """List a chain's signed checkpoints, the newest first. One that you keep proves later that nothing was cut."""
    session = session_of(context, is_json=is_json)
    request = audit_service_pb2.ListAuditCheckpointsRequest(parent=f"chains/{chain}", page_size=limit)
    answer = session.client.call(session.client.audit.ListAuditCheckpoints, request)
    if session.is_json:
        session.print_json(answer)
        return
    if is_lines:
        for checkpoint in answer.checkpoints:
            sys.stdout.buffer.write(_checkpoint_line(checkpoint))
        return
    table = tables.listing("record", "signed", "key", "hash", long=("hash",))
    for checkpoint in answer.checkpoints:
        table.add_row(
            str(checkpoint.last_record),
            words.moment(checkpoint.sign_time),
            checkpoint.key_id,
            checkpoint.last_hash.hex(),
        )
    session.show(table, "No checkpoint was signed yet.")


def show_keys(context: typer.Context) -> None:
    """Print the public keys of checkpoints as PEM. Keep them apart from the log that they are to vouch for."""
    session = session_of(context)
    answer = session.client.call(session.client.tokens.GetSigningKeys, token_service_pb2.GetSigningKeysRequest())
    for key in answer.signing_keys:
        if key.purpose == token_service_pb2.SIGNING_KEY_PURPOSE_AUDIT_CHECKPOINT:
            public = Ed25519PublicKey.from_public_bytes(key.public_key)
            pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
            sys.stdout.write(f"# {key_id_of(public)} since {words.moment(key.create_time)}\n{pem}")


def verify_files(
    context: typer.Context,
    path: Annotated[Path, typer.Argument(help="The folder of a chain, or a file that `audit export` wrote.")],
    key: Annotated[list[Path], typer.Option(help="PEM file with public keys: `audit keys`. May be repeated.")],
    checkpoint: Annotated[
        list[Path] | None,
        typer.Option(help="Checkpoints that were kept elsewhere: `audit checkpoints --lines`.", show_default=False),
    ] = None,
    first: Annotated[
        int | None, typer.Option(help="The record that the export was asked to begin with.", min=1, show_default=False)
    ] = None,
    require_covered: Annotated[
        bool, typer.Option("--require-covered", help="Records after the newest checkpoint are a finding, too.")
    ] = False,
    is_json: Json = False,
) -> None:
    """Verify a log offline. Exit code 0: nothing was changed; 1: something was, and where; 2: it cannot be read."""
    session = session_of(context, is_json=is_json)
    try:
        keys = {key_id_of(one): one for file in key for one in _read_keys(file)}
        known = [line for file in checkpoint or () for line in read_lines(file)]
        verdict = verify(path, keys, known=known, first_record=first)
    except OSError as error:
        raise Problem(f"{error.filename} cannot be read ({error.strerror}).") from None
    if require_covered and verdict.covered_record < verdict.last_record:
        verdict.find("end", f"no checkpoint covers the records after {verdict.covered_record}")
    _show(session, verdict)
    if not verdict.is_intact:
        raise typer.Exit(EXIT_FAULT)


def _export(session: Session, request: audit_service_pb2.ExportAuditRecordsRequest, file: BinaryIO) -> int:
    records = 0
    for answer in session.client.call_stream(session.client.audit.ExportAuditRecords, request):
        if answer.WhichOneof("content") == "lines":
            records += answer.lines.count(b"\n")
            file.write(answer.lines)
        else:
            file.write(_checkpoint_line(answer.checkpoint))
    file.flush()
    return records


def _checkpoint_line(checkpoint: audit_pb2.AuditCheckpoint) -> bytes:
    return json.dumps(json_format.MessageToDict(checkpoint), separators=(",", ":")).encode() + b"\n"


def _read_keys(file: Path) -> list[Ed25519PublicKey]:
    keys: list[Ed25519PublicKey] = []
    for block in file.read_text(encoding="utf-8", errors="replace").split(_END)[:-1]:
        start = block.find("-----BEGIN PUBLIC KEY-----")
        try:
            key = load_pem_public_key((block[max(start, 0) :] + _END + "\n").encode())
        except (ValueError, UnsupportedAlgorithm):
            raise Problem(f"{file} holds something that is no public key.") from None
        if not isinstance(key, Ed25519PublicKey):
            raise Problem(f"{file} holds a key that is no Ed25519 key.")
        keys.append(key)
    if not keys:
        raise Problem(f"{file} holds no public key.", advice="`keyswitch audit keys` prints them as PEM.")
    return keys


def _show(session: Session, verdict: Verdict) -> None:
    if session.is_json:
        findings: list[Any] = [{"where": one.where, "what": one.what} for one in verdict.findings]
        session.print_json(
            {
                "chain": verdict.chain,
                "firstRecord": verdict.first_record,
                "lastRecord": verdict.last_record,
                "records": verdict.records,
                "checkpoints": verdict.checkpoints,
                "coveredRecord": verdict.covered_record,
                "intact": verdict.is_intact,
                "findings": findings,
            }
        )
        return
    for finding in verdict.findings:
        session.out.print(f"{finding.where}: {finding.what}", markup=False, soft_wrap=True)
    span = f"records {verdict.first_record} to {verdict.last_record} of {words.harmless(verdict.chain) or 'no chain'}"
    session.out.print(
        f"{'Intact' if verdict.is_intact else 'CHANGED'}: {span}, {verdict.checkpoints} checkpoints.",
        markup=False,
        soft_wrap=True,
    )
    if 0 < verdict.covered_record < verdict.last_record:
        session.say(
            f"What comes after record {verdict.covered_record} is chained and not signed yet: "
            "a change of the very last records could not be seen."
        )
