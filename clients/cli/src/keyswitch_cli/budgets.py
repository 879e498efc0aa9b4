"""Budgets: what may be spent in a day, a month or in all."""

from __future__ import annotations

from typing import Annotated

import typer
from google.protobuf.field_mask_pb2 import FieldMask
from keyswitch.router.v1 import budget_service_pb2

from keyswitch_cli import tables, words
from keyswitch_cli.session import Json, Session, session_of

app = typer.Typer(name="budgets", help="What may be spent in a day, a month or in all.", no_args_is_help=True)

BudgetId = Annotated[str, typer.Argument(help="The budget's id.")]


@app.command("list")
def list_budgets(context: typer.Context, is_json: Json = False) -> None:
    """List the budgets of an organization with what is left of them."""
    session = session_of(context, is_json=is_json)
    organization = session.settings.require_organization()
    request = budget_service_pb2.ListBudgetsRequest(organization=organization)
    answer = session.call_all(session.client.budgets.ListBudgets, request)
    if session.is_json:
        session.print_json(answer)
        return
    table = tables.listing("budget", "bounds", "per", "counts", "limit", "spent", "reserved", "left", "ends")
    for budget in answer.budgets:
        table.add_row(
            words.last(budget.name),
            budget.subject.removeprefix(f"{organization}/"),
            words.enum_word(budget_service_pb2.BudgetPeriod, budget.period, "BUDGET_PERIOD_"),
            words.enum_word(budget_service_pb2.BudgetBasis, budget.basis, "BUDGET_BASIS_"),
            words.usd(budget.limit_usd_nanos),
            words.usd(budget.spent_usd_nanos),
            words.usd(budget.reserved_usd_nanos),
            words.usd(budget.remaining_usd_nanos),
            words.minute(budget.expire_time) if budget.HasField("expire_time") else "",
        )
    session.show(table, "There is no budget: `keyswitch budgets create ID AMOUNT` makes one.")


@app.command("create")
def create(
    context: typer.Context,
    budget_id: BudgetId,
    amount: Annotated[str, typer.Argument(help="USD per window, for example 100.")],
    per: Annotated[str, typer.Option(help="day, month or total. Days and months are UTC.")] = "month",
    counts: Annotated[str, typer.Option(help="charged (credits only) or list_price (every call).")] = "list_price",
    application: Annotated[str, typer.Option(help="Only this application's calls.", show_default=False)] = "",
    user: Annotated[str, typer.Option(help="Only this user's calls.", show_default=False)] = "",
    until: Annotated[str, typer.Option(help="When it ends to bound anything.", show_default=False)] = "",
    is_json: Json = False,
) -> None:
    """Create a budget for the organization, or for an application or a user of it."""
    session = session_of(context, is_json=is_json)
    if application and user:
        raise typer.BadParameter("a budget is for an application or for a user, not for both")
    organization = session.settings.require_organization()
    subject = session.settings.application(application) if application else organization
    budget = budget_service_pb2.Budget(
        subject=f"{organization}/users/{user}" if user else subject,
        period=words.enum_number(budget_service_pb2.BudgetPeriod, per, "BUDGET_PERIOD_"),
        basis=words.enum_number(budget_service_pb2.BudgetBasis, counts, "BUDGET_BASIS_"),
        limit_usd_nanos=words.nanos_of(amount),
        expire_time=words.timestamp_of(until) if until else None,
    )
    request = budget_service_pb2.CreateBudgetRequest(organization=organization, budget_id=budget_id, budget=budget)
    _show(session, session.client.call(session.client.budgets.CreateBudget, request).budget)


@app.command("set")
def set_limit(
    context: typer.Context,
    budget_id: BudgetId,
    amount: Annotated[str, typer.Argument(help="USD per window.")],
    is_json: Json = False,
) -> None:
    """Change a budget's limit. What was spent stays spent."""
    session = session_of(context, is_json=is_json)
    budget = budget_service_pb2.Budget(name=_name(session, budget_id), limit_usd_nanos=words.nanos_of(amount))
    request = budget_service_pb2.UpdateBudgetRequest(budget=budget, update_mask=FieldMask(paths=["limit_usd_nanos"]))
    _show(session, session.client.call(session.client.budgets.UpdateBudget, request).budget)


@app.command("delete")
def delete(context: typer.Context, budget_id: BudgetId) -> None:
    """Delete a budget: nothing bounds its subject any more."""
    session = session_of(context)
    request = budget_service_pb2.DeleteBudgetRequest(name=_name(session, budget_id))
    session.client.call(session.client.budgets.DeleteBudget, request)
    session.say(f"✓ {budget_id} is deleted", "green")


def _name(session: Session, budget_id: str) -> str:
    return f"{session.settings.require_organization()}/budgets/{budget_id}"


def _show(session: Session, budget: budget_service_pb2.Budget) -> None:
    if session.is_json:
        session.print_json(budget)
        return
    session.out.print(
        f"{words.last(budget.name)} has {words.usd(budget.remaining_usd_nanos)} left of "
        f"{words.usd(budget.limit_usd_nanos)}",
        soft_wrap=True,
    )
