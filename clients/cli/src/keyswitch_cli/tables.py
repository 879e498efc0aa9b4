"""How tables look: thin, and never cutting a name that somebody may want to copy."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from rich import box
from rich.table import Table


def listing(*headers: str, long: Collection[str] = ()) -> Table:
    """A table with a head. Where the screen is narrow, the columns named in `long` go on in the next line."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, header_style="bold")
    for header in headers:
        table.add_column(header, overflow="fold", no_wrap=header not in long)
    return table


def sheet(rows: Sequence[tuple[str, str]]) -> Table:
    """Labels and values, those without a value left out."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for label, value in rows:
        if value:
            table.add_row(label, value)
    return table
