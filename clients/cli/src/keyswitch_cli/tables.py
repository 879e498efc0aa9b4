"""How tables look: thin, and never cutting a name that somebody may want to copy."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence

from rich import box
from rich.cells import cell_len, chop_cells
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from keyswitch_cli import words

# Where a name may go on in the next line: behind a mark, but for those within numbers and dates.
_BREAK = re.compile(r"(?<=[/:@_.,-])(?![/:@_.,-])(?:(?<!\d[:.,-])|(?!\d))")
_LEAST_LONG = 24
_GAP, _NARROW_GAP = 3, 2


class Listing:
    """A table with a head. Where the screen is too narrow for it, it folds its columns rather than cut any."""

    def __init__(self, headers: Sequence[str], long: Collection[str]) -> None:
        """The columns named in `long` are the first to go on in the next line."""
        self._headers = headers
        self._is_long = [header in long for header in headers]
        self._rows: list[list[list[str]]] = []

    def __len__(self) -> int:
        """How many rows there are."""
        return len(self._rows)

    def add_row(self, *cells: str | Sequence[str]) -> None:
        """Adds a row. A cell is a text, or the texts of its lines."""
        lines = ([cell] if isinstance(cell, str) else cell for cell in cells)
        self._rows.append([[words.one_line(line) for line in cell] for cell in lines])

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        widths = self._widths(cell_len)
        is_narrow = sum(widths) + _GAP * len(widths) - 1 > options.max_width
        if is_narrow:
            widths = self._folded(options.max_width - _NARROW_GAP * (len(widths) - 1))
        table = Table(
            box=box.SIMPLE_HEAD,
            show_edge=False,
            header_style="bold",
            pad_edge=not is_narrow,
            collapse_padding=is_narrow,
        )
        for header, width in zip(self._headers, widths, strict=True):
            table.add_column(Text("\n".join(fold(header, width))), width=width, no_wrap=True)
        for row in self._rows:
            cells = zip(row, widths, strict=True)
            folded = ([part for line in cell for part in fold(line, width)] for cell, width in cells)
            table.add_row(*(Text("\n".join(lines)) for lines in folded))
        yield table

    def _folded(self, room: int) -> list[int]:
        """Widths that fit. Names are broken where words end, then where their pieces do, then anywhere."""
        widths = self._widths(cell_len)
        by_word, by_piece = self._widths(_longest_word), self._widths(_longest_piece)
        every = [True] * len(widths)
        for floors, may_shrink in (
            (by_word, self._is_long),
            ([max(least, _LEAST_LONG) for least in by_piece], self._is_long),
            (by_word, every),
            (by_piece, self._is_long),
            (by_piece, every),
            ([1] * len(widths), every),
        ):
            while sum(widths) > room:
                able = [at for at, width in enumerate(widths) if may_shrink[at] and width > floors[at]]
                if not able:
                    break
                widths[max(able, key=widths.__getitem__)] -= 1
        return widths

    def _widths(self, measure: Callable[[str], int]) -> list[int]:
        return [
            max(1, measure(header), *(measure(line) for row in self._rows for line in row[at]))
            for at, header in enumerate(self._headers)
        ]


def fold(text: str, width: int) -> list[str]:
    """The lines of a text of which none is wider: a word that fits on a line stays whole, so does a piece of a name."""
    lines = [""]
    for word in text.split(" "):
        if lines[-1] and cell_len(lines[-1]) + 1 + cell_len(word) <= width:
            lines[-1] += f" {word}"
            continue
        if lines[-1]:
            lines.append("")
        for piece in _BREAK.split(word):
            for part in chop_cells(piece, width):
                if cell_len(lines[-1]) + cell_len(part) > width:
                    lines.append("")
                lines[-1] += part
    return lines


def listing(*headers: str, long: Collection[str] = ()) -> Listing:
    """A table with a head. Where the screen is narrow, the columns named in `long` go on in the next line."""
    return Listing(headers, long)


def sheet(rows: Sequence[tuple[str, str]]) -> Table:
    """Labels and values, those without a value left out."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for label, value in rows:
        if value:
            table.add_row(Text(label), Text(words.one_line(value)))
    return table


def _longest_word(text: str) -> int:
    return max(cell_len(word) for word in text.split(" "))


def _longest_piece(text: str) -> int:
    return max(cell_len(piece) for word in text.split(" ") for piece in _BREAK.split(word))
