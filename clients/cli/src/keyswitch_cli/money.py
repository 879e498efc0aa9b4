"""Credits: what the platform pays providers for on an organization's account."""

from __future__ import annotations

import uuid
from typing import Annotated

import typer
from keyswitch.router.v1 import budget_service_pb2
from keyswitch_client import KeyswitchError

from keyswitch_cli import tables, words
from keyswitch_cli.session import Json, Session, session_of

app = typer.Typer(name="credits", help="See and add an organization's credits.", no_args_is_help=True)


@app.command("show")
def show(context: typer.Context, is_json: Json = False) -> None:
    """Show the balance of an organization (--organization before the command names another one)."""
    session = session_of(context, is_json=is_json)
    request = budget_service_pb2.GetBalanceRequest(organization=session.settings.require_organization())
    answer = session.client.call(session.client.budgets.GetBalance, request)
    if session.is_json:
        session.print_json(answer)
    else:
        _print_balance(session, answer.balance)


@app.command("add")
def add(
    context: typer.Context,
    amount: Annotated[str, typer.Argument(help="USD, for example 10 or 2.50. Put -- before a negative amount.")],
    note: Annotated[str, typer.Option(help="For the books.", show_default=False)] = "",
    request_id: Annotated[
        str, typer.Option(help="A UUID4; repeating the command with it adds nothing twice.", show_default=False)
    ] = "",
    is_json: Json = False,
) -> None:
    """Add credits to an organization. Only the operator may."""
    session = session_of(context, is_json=is_json)
    request = budget_service_pb2.AddCreditsRequest(
        organization=session.settings.require_organization(),
        amount_usd_nanos=words.nanos_of(amount),
        request_id=request_id or str(uuid.uuid4()),
        note=note,
    )
    answer = session.client.call(session.client.budgets.AddCredits, request)
    if session.is_json:
        session.print_json(answer)
        return
    session.say(f"✓ {words.usd(answer.entry.amount_usd_nanos)} is entry {answer.entry.entry_id}", "green")
    _print_balance(session, answer.balance)


@app.command("entries")
def entries(
    context: typer.Context,
    limit: Annotated[int, typer.Option(help="How many, at most 1000.", min=1, max=1000)] = 20,
    is_json: Json = False,
) -> None:
    """List movements of credits, the latest first."""
    session = session_of(context, is_json=is_json)
    organization = session.settings.require_organization()
    request = budget_service_pb2.ListEntriesRequest(organization=organization, page_size=limit)
    answer = session.client.call(session.client.budgets.ListEntries, request)
    if session.is_json:
        session.print_json(answer)
        return
    table = tables.listing("entry", "when", "amount", "for")
    for entry in answer.entries:
        when = words.minute(entry.create_time)
        table.add_row(str(entry.entry_id), when, words.usd(entry.amount_usd_nanos), entry.note)
    session.show(table, "Nothing was added or charged yet.")


@app.command("threshold")
def threshold(
    context: typer.Context,
    amount: Annotated[str, typer.Argument(help="USD below which the credits count as low, or `none`.")],
    is_json: Json = False,
) -> None:
    """Say below which an organization's credits count as low."""
    session = session_of(context, is_json=is_json)
    request = budget_service_pb2.SetLowBalanceRequest(
        organization=session.settings.require_organization(),
        low_balance_usd_nanos=None if amount == "none" else words.nanos_of(amount),
    )
    answer = session.client.call(session.client.budgets.SetLowBalance, request)
    if session.is_json:
        session.print_json(answer)
    else:
        _print_balance(session, answer.balance)


def warn_of_low_credits(session: Session) -> None:
    """Says that an organization's credits are low, to whoever may see them, before a call is refused for it."""
    if not session.settings.organization:
        return
    request = budget_service_pb2.GetBalanceRequest(organization=session.settings.organization)
    try:
        balance = session.client.call(session.client.budgets.GetBalance, request).balance
    except KeyswitchError:
        return  # the answer is there: what is only a courtesy must not fail the command
    if not balance.is_low:
        return
    left, low = words.usd(balance.available_usd_nanos), words.usd(balance.low_balance_usd_nanos)
    then = (
        "calls that credits pay are refused until the operator adds some"
        if balance.available_usd_nanos <= 0
        else (f"below the {low} that count as low")
    )
    session.say(f"! {words.last(balance.organization)} has {left} of credits left: {then}.", "yellow")


def _print_balance(session: Session, balance: budget_service_pb2.Balance) -> None:
    low = ""
    if balance.HasField("low_balance_usd_nanos"):
        threshold = words.usd(balance.low_balance_usd_nanos)
        low = f"; LOW: below {threshold}" if balance.is_low else f"; below {threshold} they count as low"
    session.out.print(
        f"{words.last(balance.organization)} has {words.usd(balance.available_usd_nanos)} of credits to spend: "
        f"{words.usd(balance.balance_usd_nanos)}, of which {words.usd(balance.reserved_usd_nanos)} "
        f"is reserved for calls under way{low}",
        soft_wrap=True,
    )
