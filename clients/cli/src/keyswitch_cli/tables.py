"""How tables look: thin, and never cutting a name that somebody may want to copy."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from rich import box
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from keyswitch_cli import words

_ANY_WIDTH = 10_000


class PlainTable(Table):
    """A table whose texts are shown as they are: names that people chose are no markup, and no terminal obeys them."""

    def add_row(self, *cells: RenderableType | None, **options: Any) -> None:
        """Adds a row."""
        shown = (Text(words.harmless(cell)) if isinstance(cell, str) else cell for cell in cells)
        super().add_row(*shown, **options)


class Listing(PlainTable):
    """A table that folds all of its columns where the screen is too narrow for it, rather than cut any."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        least = Measurement.get(console, options.update_width(_ANY_WIDTH), self).minimum
        if least > options.max_width:
            for column in self.columns:
                column.no_wrap = False
        yield from super().__rich_console__(console, options)


def listing(*headers: str, long: Collection[str] = ()) -> Table:
    """A table with a head. Where the screen is narrow, the columns named in `long` go on in the next line."""
    table = Listing(box=box.SIMPLE_HEAD, show_edge=False, header_style="bold")
    for header in headers:
        table.add_column(header, overflow="fold", no_wrap=header not in long)
    return table


def sheet(rows: Sequence[tuple[str, str]]) -> Table:
    """Labels and values, those without a value left out."""
    table = PlainTable.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for label, value in rows:
        if value:
            table.add_row(label, value)
    return table
