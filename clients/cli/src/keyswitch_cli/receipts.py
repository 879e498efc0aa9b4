"""Receipts: one line after an answer, a table when asked."""

from __future__ import annotations

from typing import Annotated

import typer
from keyswitch.router.v1 import (
    completion_service_pb2,
    embedding_service_pb2,
    error_reason_pb2,
    receipt_pb2,
    resolution_pb2,
    usage_service_pb2,
)
from rich.text import Text

from keyswitch_cli import tables, words
from keyswitch_cli.session import Json, Session, session_of


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("receipt")(receipt)


def receipt(
    context: typer.Context,
    response_id: Annotated[str, typer.Argument(help="The id at the end of an answer's receipt line.")] = "",
    request_id: Annotated[str, typer.Option(help="The caller's own id of the call instead.", show_default=False)] = "",
    is_all: Annotated[bool, typer.Option("--all", help="Also each way for which there was no key.")] = False,
    is_json: Json = False,
) -> None:
    """Show everything that a call did: attempts, keys, tokens, costs."""
    session = session_of(context, is_json=is_json)
    if bool(response_id) == bool(request_id):
        raise typer.BadParameter("give a RESPONSE_ID or --request-id, one of the two")
    request = usage_service_pb2.GetReceiptRequest(response_id=response_id, request_id=request_id)
    answer = session.client.call(session.client.usage.GetReceipt, request)
    if session.is_json:
        session.print_json(answer)
    else:
        show_receipt(session, answer.receipt, is_all=is_all)


def receipt_line(answer: completion_service_pb2.CompleteResponse | embedding_service_pb2.EmbedResponse) -> Text:
    """Model, provider, payer, key, tokens, list price, charge and time of an answer, in one line."""
    resolution, bill = answer.resolution, answer.receipt
    facts = [
        resolution.model,
        words.last(resolution.provider),
        f"paid by {words.payer(resolution.payer)}" + _key(resolution.credential_version),
        f"{words.tokens(bill.usage)} tokens",
        f"list {words.list_price(bill.cost)}",
        f"charged {words.charged(bill.cost)}",
    ]
    if bill.HasField("markup_basis_points"):
        facts[-1] += f" (markup {bill.markup_basis_points / 100:g} %)"
    if bill.HasField("end_time"):
        facts.append(f"{(bill.end_time.ToDatetime() - bill.create_time.ToDatetime()).total_seconds():.2f} s")
    if len(bill.attempts) > 1:
        facts.append(f"{len(bill.attempts)} attempts")
    return Text(" · ".join(facts) + f"\n{words.receipt_command(answer.response_id)}", style="dim")


def passed_over(bill: receipt_pb2.Receipt) -> list[str]:
    """What would have answered at another moment, a line each: a reader would take it for the one who did."""
    return [
        f"· passed over: {item.model} at {words.last(item.provider)} for {words.payer(item.payer)}, "
        + words.enum_word(resolution_pb2.SkipReason, item.reason, "SKIP_REASON_")
        for item in bill.skipped_candidates
        if item.reason in _MOMENTARY
    ]


_MOMENTARY = frozenset(
    {
        resolution_pb2.SKIP_REASON_COOLING_DOWN,
        resolution_pb2.SKIP_REASON_SLOTS_TAKEN,
        resolution_pb2.SKIP_REASON_BUDGET_EXHAUSTED,
        resolution_pb2.SKIP_REASON_CREDIT_EXHAUSTED,
    }
)


def show_receipt(session: Session, bill: receipt_pb2.Receipt, *, is_all: bool) -> None:
    """The whole receipt as tables."""
    state = words.enum_word(receipt_pb2.ReceiptState, bill.state, "RECEIPT_STATE_")
    rows = [
        ("receipt", bill.response_id),
        ("request id", bill.request_id),
        ("state", state + (f": {_failure(bill.failure_reason)}" if bill.failure_reason else "")),
        ("began", words.moment(bill.create_time) if bill.HasField("create_time") else ""),
        ("ended", words.moment(bill.end_time) if bill.HasField("end_time") else ""),
        ("tokens", words.tokens(bill.usage) if bill.HasField("usage") else ""),
        ("list price", words.list_price(bill.cost) if bill.HasField("cost") else ""),
        ("charged", _charge(bill)),
        ("provider says", words.upstream_charged(bill.cost) if bill.HasField("cost") else ""),
        ("note", "abridged: `keyswitch receipt` shows all of it" if bill.is_abridged else ""),
    ]
    rows += [row for attempt in bill.attempts for row in _attempt_rows(attempt)]
    has_answered = bill.state == receipt_pb2.RECEIPT_STATE_SUCCEEDED
    shown = [item for item in bill.skipped_candidates if is_all or not has_answered or not words.is_keyless(item)]
    rows += [("skipped" if not number else "", _skipped(item)) for number, item in enumerate(shown)]
    left = bill.skipped_candidate_count - len(bill.skipped_candidates)
    if left > 0:
        rows.append(("", f"and {left} more"))
    session.out.print(tables.sheet(rows))
    if len(shown) < len(bill.skipped_candidates):
        session.say(words.KEYLESS_LEFT_OUT, "dim")


def _attempt_rows(attempt: receipt_pb2.Attempt) -> list[tuple[str, str]]:
    outcome = _failure(attempt.failure_reason) if attempt.failure_reason else "answered"
    facts = [
        f"{words.tokens(attempt.usage)} tokens" if attempt.HasField("usage") else "",
        f"list {words.list_price(attempt.cost)}" if attempt.HasField("cost") else "",
        f"charged {words.charged(attempt.cost)}" if attempt.HasField("cost") else "",
        f"provider says {said}" if (said := words.upstream_charged(attempt.cost)) else "",
        f"first content {words.seconds(attempt.time_to_first_content)}"
        if attempt.HasField("time_to_first_content")
        else "",
        f"{words.seconds(attempt.duration)} in all" if attempt.HasField("duration") else "",
    ]
    backend = f" ({attempt.upstream_backend})" if attempt.upstream_backend else ""
    drawn = f", drawn for {attempt.weight_share:.1%} of the calls" if attempt.HasField("weight_share") else ""
    return [
        (f"attempt {attempt.number}", f"{attempt.model} at {words.last(attempt.provider)}{backend}{drawn}: {outcome}"),
        (" ", f"paid by {words.payer(attempt.payer)}{_key(attempt.credential_version)}"),
        (" ", " · ".join(fact for fact in facts if fact)),
    ]


def _skipped(item: resolution_pb2.SkippedCandidate) -> str:
    why = words.enum_word(resolution_pb2.SkipReason, item.reason, "SKIP_REASON_")
    where = f" at {words.last(item.provider)}" if item.provider else ""
    return f"{item.model}{where} for {words.payer(item.payer)}: {why}" + (f". {item.message}" if item.message else "")


def _key(version: str) -> str:
    if not version:
        return ""
    name, _, number = version.partition("/versions/")
    return f" ({name} v{number})"


def _failure(reason: error_reason_pb2.ErrorReason.ValueType) -> str:
    return words.enum_word(error_reason_pb2.ErrorReason, reason, "ERROR_REASON_")


def _charge(bill: receipt_pb2.Receipt) -> str:
    if not bill.HasField("cost"):
        return ""
    markup = f" (markup {bill.markup_basis_points / 100:g} %)" if bill.HasField("markup_basis_points") else ""
    return words.charged(bill.cost) + markup
