"""What went wrong, said to a person: what happened, whose reason it is, what to do next, and the exit code."""

from __future__ import annotations

from collections.abc import Mapping

import grpc
from keyswitch.router.v1 import error_reason_pb2, receipt_pb2, resolution_pb2
from keyswitch_client import FieldViolation, KeyswitchError
from rich.console import Console
from rich.text import Text

from keyswitch_cli import words
from keyswitch_cli.problem import (
    EXIT_FAULT,
    EXIT_IDENTITY,
    EXIT_INTERRUPTED,
    EXIT_REFUSED,
    EXIT_UNAVAILABLE,
    EXIT_USAGE,
    Problem,
)

_EXIT_CODES: Mapping[grpc.StatusCode, int] = {
    grpc.StatusCode.INVALID_ARGUMENT: EXIT_USAGE,
    grpc.StatusCode.UNAUTHENTICATED: EXIT_IDENTITY,
    grpc.StatusCode.PERMISSION_DENIED: EXIT_REFUSED,
    grpc.StatusCode.NOT_FOUND: EXIT_REFUSED,
    grpc.StatusCode.ALREADY_EXISTS: EXIT_REFUSED,
    grpc.StatusCode.FAILED_PRECONDITION: EXIT_REFUSED,
    grpc.StatusCode.RESOURCE_EXHAUSTED: EXIT_REFUSED,
    grpc.StatusCode.ABORTED: EXIT_REFUSED,
    grpc.StatusCode.UNAVAILABLE: EXIT_UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED: EXIT_UNAVAILABLE,
    grpc.StatusCode.CANCELLED: EXIT_INTERRUPTED,
}

# What a person at this terminal can do next. The service's message says what happened and, often, who can mend it.
_ADVICE: Mapping[str, str] = {
    "CALLER_UNKNOWN": "Give a token that is valid: --token-file FILE, KEYSWITCH_TOKEN, or a new one from `keyswitch "
    "tokens issue`.",
    "CALLER_NOT_ALLOWED": "Ask for a token with the role or scope named above.",
    "MODEL_NOT_FOUND": "`keyswitch models` lists what this token can use.",
    "MODEL_NOT_ALLOWED": "`keyswitch models --application APPLICATION` lists what the application may use.",
    "MODEL_NOT_ALLOWED_WITH_OWN_KEY": "`keyswitch models --application APPLICATION` lists what the own key serves.",
    "NO_USABLE_CREDENTIAL": "Add a key with `keyswitch keys add PROVIDER`, or look at `keyswitch keys status`.",
    "BYOK_DISABLED": "An operator or administrator can allow own keys: `keyswitch policy byok set on`.",
    "PRICE_UNKNOWN": "Use an own key for this model, or ask the operator to give it a price.",
    "BUDGET_EXHAUSTED": "See it with `keyswitch budgets list`; an administrator can raise it: `keyswitch budgets set`.",
    "CREDIT_EXHAUSTED": "The operator can add credits: `keyswitch credits add AMOUNT`.",
    "UPSTREAM_CREDENTIAL_REJECTED": "Test the key with `keyswitch keys test KEY`; put a new value in with "
    "`keyswitch keys add-version KEY`.",
    "UPSTREAM_BALANCE_EXHAUSTED": "Top up the account at the provider, or use another payer with --payer.",
    "UPSTREAM_UNAVAILABLE": "Try again in a moment, or name another model with --model.",
    "UPSTREAM_TIMEOUT": "Try again in a moment, or name another model with --model.",
    "CREDENTIALS_UNAVAILABLE": "Check that the credential service runs.",
    "CREDENTIAL_REVOKED": "Add or activate another key: `keyswitch keys list`.",
    "CREDENTIAL_UNKNOWN": "`keyswitch keys list` shows the keys; --owner names whose.",
    "CREDENTIAL_EXISTS": "Give it another id with --id, or put a new value into the one there is: `keyswitch keys "
    "add-version KEY`.",
    "CREDENTIAL_DISABLED": "`keyswitch keys enable KEY` makes it usable again.",
    "VERSION_NOT_ACTIVE": "`keyswitch keys activate KEY` activates the newest version.",
    "TEST_REQUIRED": "`keyswitch keys test KEY` tries it; `keyswitch keys activate KEY --force` takes it untested.",
    "INVALID_SECRET": "Copy the key again: only the key itself, in one line, without spaces and quotes.",
    "TOKEN_UNKNOWN": "`keyswitch tokens list` shows the tokens.",
    "AUDIT_RECORD_UNKNOWN": "`keyswitch audit list` shows the records.",
    "RESOURCE_NOT_FOUND": "Check the name. What this token may not see looks as if it did not exist.",
    "CREDENTIAL_FIXED": "Add --override-environment to change it over the environment's.",
    "RESOURCE_FIXED": "Add --override-file to store another one over the file's.",
    "ETAG_MISMATCH": "Somebody else was first: read it again.",
    "VAULT_SEALED": "Someone who holds the unseal keys must unseal Vault.",
    "INTERNAL": "Tell the operator the incident's id: it finds the fault in the service's log.",
}
_SHOWN_ELSEWHERE = frozenset({"field", "nearest", "committed"})
_MOST_SKIPPED = 6


def exit_code(error: KeyswitchError) -> int:
    """The documented exit code of a failed call."""
    if error.reason == "ERROR_REASON_CALLER_NOT_ALLOWED":
        return EXIT_IDENTITY
    return _EXIT_CODES.get(error.code, EXIT_FAULT)


def short_reason(error: KeyswitchError) -> str:
    """The reason without its prefix."""
    return error.reason.removeprefix("ERROR_REASON_")


def show_problem(console: Console, problem: Problem) -> None:
    """Prints what happened and what to do."""
    _show(console, problem.message, [("next", problem.advice)])


def show_error(console: Console, error: KeyswitchError) -> None:
    """Prints a failed call as one paragraph."""
    reason = short_reason(error)
    lines = [("field", _field(violation, error.message)) for violation in error.field_violations]
    if reason:
        lines.append(("reason", f"{reason} ({error.code.name}, {error.domain})"))
    else:
        lines.append(("reason", f"{error.code.name}, from gRPC itself"))
    known = {key: value for key, value in error.metadata.items() if key not in _SHOWN_ELSEWHERE}
    if known:
        lines.append(("about", ", ".join(f"{key} {value}" for key, value in sorted(known.items()))))
    if error.is_committed:
        lines.append(("note", "A part of the answer came and is billed: asking again pays twice."))
    if error.retry_delay is not None:
        lines.append(("wait", f"{error.retry_delay.total_seconds():g} s before the next try"))
    if error.receipt is not None:
        lines += _history(error.receipt)
    lines.append(("next", _advice(error)))
    if error.response_id:
        lines.append(("receipt", words.receipt_command(error.response_id)))
    is_word = error.message.partition(" ")[0].isalpha()  # and no name, whose letters matter
    _show(console, error.message[:1].upper() + error.message[1:] if is_word else error.message, lines)


def error_json(error: KeyswitchError) -> dict[str, object]:
    """A failed call as data."""
    return {
        "error": {
            "code": error.code.name,
            "reason": error.reason,
            "domain": error.domain,
            "message": error.message,
            "metadata": dict(error.metadata),
            "fieldViolations": [{"field": v.field, "description": v.description} for v in error.field_violations],
            "retryDelaySeconds": error.retry_delay.total_seconds() if error.retry_delay is not None else None,
            "responseId": error.response_id,
        }
    }


def _advice(error: KeyswitchError) -> str:
    if any(violation.field.endswith("application") for violation in error.field_violations):
        return (
            "Name one: keyswitch --organization ID … --application ID. Or use the token of somebody in an organization."
        )
    return _ADVICE.get(short_reason(error), "")


def _field(violation: FieldViolation, message: str) -> str:
    return violation.field if violation.description == message else f"{violation.field}: {violation.description}"


def _history(receipt: receipt_pb2.Receipt) -> list[tuple[str, str]]:
    """What was tried and what was passed over, a line each."""
    lines = []
    for attempt in receipt.attempts:
        why = words.enum_word(error_reason_pb2.ErrorReason, attempt.failure_reason, "ERROR_REASON_")
        who = f"{words.last(attempt.provider)} for {words.payer(attempt.payer)}"
        lines.append(("tried", f"{attempt.model} at {who}: {why}"))
    for skipped in receipt.skipped_candidates[:_MOST_SKIPPED]:
        why = words.enum_word(resolution_pb2.SkipReason, skipped.reason, "SKIP_REASON_")
        where = f" at {words.last(skipped.provider)}" if skipped.provider else ""
        lines.append(("skipped", f"{skipped.model}{where} for {words.payer(skipped.payer)}: {why}"))
    left = receipt.skipped_candidate_count - min(len(receipt.skipped_candidates), _MOST_SKIPPED)
    if left > 0:
        lines.append(("", f"and {left} more"))
    return lines


def _show(console: Console, message: str, lines: list[tuple[str, str]]) -> None:
    sentence = words.harmless(message)
    if sentence and sentence[-1] not in ".?!)":
        sentence += "."
    console.print(Text.assemble(("✗ ", "bold red"), (sentence or "The call failed.", "bold")), soft_wrap=True)
    for label, text in lines:
        if text:
            console.print(Text.assemble((f"  {label:<8}", "dim"), words.harmless(text)), soft_wrap=True)
