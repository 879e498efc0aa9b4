"""The books: whether they add up, and every movement of credits."""

from __future__ import annotations

import typer
from keyswitch.router.v1 import budget_service_pb2

from keyswitch_cli import words
from keyswitch_cli.problem import EXIT_FAULT
from keyswitch_cli.session import Json, session_of

app = typer.Typer(name="ledger", help="The books.", no_args_is_help=True)


@app.command("verify")
def verify(context: typer.Context, is_json: Json = False) -> None:
    """Add everything up anew. Exit code 1 when a sum is not that of its rows."""
    session = session_of(context, is_json=is_json)
    answer = session.client.call(session.client.budgets.VerifyLedger, budget_service_pb2.VerifyLedgerRequest())
    if session.is_json:
        session.print_json(answer)
    elif answer.is_right:
        session.out.print(
            f"✓ {answer.entry_count} movements of {answer.organization_count} organizations add up", soft_wrap=True
        )
    for wrong in answer.mismatches:
        session.say(
            f"✗ {words.last(wrong.organization)}: the balance is {words.usd(wrong.balance_usd_nanos)} and its entries "
            f"are {words.usd(wrong.entries_usd_nanos)}; {words.usd(wrong.reserved_usd_nanos)} are reserved and its "
            f"reservations are {words.usd(wrong.reservations_usd_nanos)}",
            "red",
        )
    for budget in answer.budget_mismatches:
        session.say(f"✗ budget {budget}: its sums are not those of its calls", "red")
    if not answer.is_right:
        raise typer.Exit(EXIT_FAULT)
