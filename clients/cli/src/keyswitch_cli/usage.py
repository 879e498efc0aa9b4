"""What calls used and cost: tables and bars in the terminal, and the list of receipts."""

from __future__ import annotations

from typing import Annotated

import typer
from keyswitch.router.v1 import payer_pb2, receipt_pb2, usage_service_pb2
from rich.bar import Bar
from rich.table import Table
from rich.text import Text

from keyswitch_cli import tables, words
from keyswitch_cli.session import Json, Session, session_of

app = typer.Typer(name="usage", help="What calls used and cost.", no_args_is_help=True)

_BAR_CHARACTERS, _LEAST_BAR = 40, 8
Since = Annotated[str, typer.Option(help="From this time on, like 2026-11-01.", show_default=False)]
Until = Annotated[str, typer.Option(help="Before this time.", show_default=False)]
Model = Annotated[str, typer.Option(help="Only this model.", show_default=False)]
Payer = Annotated[str, typer.Option(help="Only what it paid for: user_key, credits, ...", show_default=False)]
Application = Annotated[str, typer.Option(help="Only this application.", show_default=False)]
User = Annotated[str, typer.Option(help="Only this user.", show_default=False)]


@app.command("show")
def show(
    context: typer.Context,
    by: Annotated[
        list[str] | None,
        typer.Option(help="model, provider, payer, application, principal, organization or day. May be repeated."),
    ] = None,
    since: Since = "",
    until: Until = "",
    model: Model = "",
    payer: Payer = "",
    application: Application = "",
    user: User = "",
    is_json: Json = False,
) -> None:
    """Add up tokens and the three costs. What is not known is counted beside a sum, never as 0 in it."""
    session = session_of(context, is_json=is_json)
    dimensions = [
        words.enum_number(usage_service_pb2.UsageDimension, text, "USAGE_DIMENSION_") for text in by or ["model"]
    ]
    request = usage_service_pb2.SummarizeRequest(
        filter=_filter(session, since, until, model, payer, application, user), group_by=dimensions
    )
    answer = session.client.call(session.client.usage.Summarize, request)
    if session.is_json:
        session.print_json(answer)
        return
    counts = ("calls", "input", "cached", "written", "output", "list price", "charged")
    table = tables.listing(*(by or ["model"]), *counts, long=by or ["model"])
    for row in answer.rows:
        table.add_row(
            *(_key(session, dimension, key) for dimension, key in zip(dimensions, row.keys, strict=True)),
            str(row.call_count),
            _count(row.uncached_input_tokens),
            _count(row.cache_read_tokens),
            _count(row.cache_write_tokens),
            _count(row.output_tokens),
            _usd(row.list_price_usd_nanos),
            _usd(row.charged_usd_nanos),
        )
    session.show(table, "Nothing was used.")


@app.command("plot")
def plot(
    context: typer.Context,
    by: Annotated[str, typer.Option(help="As for `usage show`.")] = "day",
    measure: Annotated[str, typer.Option(help="list, charged, calls or tokens.")] = "list",
    since: Since = "",
    until: Until = "",
    model: Model = "",
    payer: Payer = "",
    application: Application = "",
    user: User = "",
) -> None:
    """Draw a bar for each day, model, payer and so on."""
    if measure not in _MEASURES:
        raise typer.BadParameter(f"--measure is one of {', '.join(_MEASURES)}")
    session = session_of(context)
    dimension = words.enum_number(usage_service_pb2.UsageDimension, by, "USAGE_DIMENSION_")
    request = usage_service_pb2.SummarizeRequest(
        filter=_filter(session, since, until, model, payer, application, user), group_by=[dimension]
    )
    rows = session.client.call(session.client.usage.Summarize, request).rows
    values = [(_key(session, dimension, row.keys[0]), _MEASURES[measure](row)) for row in rows]
    most = max((value for _, value in values), default=0)
    shown = [words.usd(value) if measure in ("list", "charged") else f"{value:,}" for _, value in values]
    taken = max((len(key) for key, _ in values), default=0) + max(map(len, shown), default=0) + 2
    width = max(_LEAST_BAR, min(_BAR_CHARACTERS, session.out.width - taken))
    chart = Table.grid(padding=(0, 1))
    chart.add_column(overflow="fold")
    chart.add_column(width=width)
    chart.add_column(no_wrap=True, justify="right")
    for (key, value), amount in zip(values, shown, strict=True):
        chart.add_row(Text(key), Bar(most or 1, 0, value, width=width), amount)
    session.out.print(chart)
    if not values:
        session.say("Nothing was used.")


@app.command("receipts")
def receipts(
    context: typer.Context,
    since: Since = "",
    until: Until = "",
    model: Model = "",
    payer: Payer = "",
    application: Application = "",
    user: User = "",
    state: Annotated[str, typer.Option(help="succeeded, failed or cancelled.", show_default=False)] = "",
    limit: Annotated[int, typer.Option(help="How many, at most 1000.", min=1, max=1000)] = 20,
    is_json: Json = False,
) -> None:
    """List receipts, the latest first; `keyswitch receipt ID` shows one whole."""
    session = session_of(context, is_json=is_json)
    request = usage_service_pb2.ListReceiptsRequest(
        filter=_filter(session, since, until, model, payer, application, user),
        state=words.enum_number(receipt_pb2.ReceiptState, state, "RECEIPT_STATE_")
        if state
        else receipt_pb2.RECEIPT_STATE_UNSPECIFIED,
        page_size=limit,
    )
    answer = session.client.call(session.client.usage.ListReceipts, request)
    if session.is_json:
        session.print_json(answer)
        return
    table = tables.listing("receipt", "began", "paid by", "tokens", "list price", "charged", long=("tokens",))
    for bill in answer.receipts:
        last = bill.attempts[-1] if bill.attempts else receipt_pb2.Attempt()
        state = words.enum_word(receipt_pb2.ReceiptState, bill.state, "RECEIPT_STATE_")
        table.add_row(
            [bill.response_id, last.model],
            [words.minute(bill.create_time), state],
            words.payer(last.payer) if last.payer else "",
            words.tokens(bill.usage) if bill.HasField("usage") else "",
            words.list_price(bill.cost) if bill.HasField("cost") else "",
            words.charged(bill.cost) if bill.HasField("cost") else "",
        )
    session.show(table, "No receipt fits.")
    if answer.next_page_token:
        session.say("There are more: narrow them, or raise --limit.")


def _filter(
    session: Session, since: str, until: str, model: str, payer: str, application: str, user: str
) -> usage_service_pb2.UsageFilter:
    settings = session.settings
    return usage_service_pb2.UsageFilter(
        organization=settings.organization,
        application=settings.application(application) if application else "",
        principal=f"{settings.require_organization()}/users/{user}" if user and "/" not in user else user,
        model=model,
        payer=words.enum_number(payer_pb2.Payer, payer, "PAYER_") if payer else payer_pb2.PAYER_UNSPECIFIED,
        start_time=words.timestamp_of(since) if since else None,
        end_time=words.timestamp_of(until) if until else None,
    )


def _key(session: Session, dimension: usage_service_pb2.UsageDimension.ValueType, key: str) -> str:
    """What a row is about: its id, where the rest of its name is the same in every row."""
    if dimension == usage_service_pb2.USAGE_DIMENSION_PAYER:
        key = key.removeprefix("PAYER_")
    elif dimension != usage_service_pb2.USAGE_DIMENSION_MODEL and session.settings.organization:
        key = words.last(key)
    return words.one_line(key) or "-"


def _unknown(value: usage_service_pb2.UsageSum) -> str:
    return f" (+{value.unknown_count} unknown)" if value.unknown_count else ""


def _count(value: usage_service_pb2.UsageSum) -> str:
    return f"{value.total:,}{_unknown(value)}"


def _usd(value: usage_service_pb2.UsageSum) -> str:
    return words.usd(value.total) + _unknown(value)


def _tokens(row: usage_service_pb2.UsageSummary) -> int:
    sums = (row.uncached_input_tokens, row.cache_read_tokens, row.cache_write_tokens, row.output_tokens)
    return sum(value.total for value in sums)


_MEASURES = {
    "list": lambda row: row.list_price_usd_nanos.total,
    "charged": lambda row: row.charged_usd_nanos.total,
    "calls": lambda row: row.call_count,
    "tokens": _tokens,
}
