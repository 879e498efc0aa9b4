"""Tables of the command show what people named as it is written."""

from io import StringIO

import pytest
from keyswitch_cli import tables
from rich.console import Console
from rich.table import Table

NAME = "[red]x[/red]\x1b[2J :smile: [link=https://a.test]y[/link] [/nothing]\x9b\x07"
SHOWN = "[red]x[/red][2J :smile: [link=https://a.test]y[/link] [/nothing]"


def listed() -> Table:
    table = tables.listing("name", "models", long=("models",))
    table.add_row(NAME, "echo")
    return table


@pytest.mark.parametrize("table", [listed(), tables.sheet([("display name", NAME), ("empty", "")])])
def test_a_name_is_neither_markup_nor_a_command_to_the_terminal(table: Table) -> None:
    plain, coloured = StringIO(), StringIO()
    Console(file=plain, width=200).print(table)
    assert SHOWN in plain.getvalue()
    assert not any(ord(one) < 32 or 127 <= ord(one) < 160 for one in plain.getvalue().replace("\n", ""))
    Console(file=coloured, width=200, force_terminal=True, color_system="truecolor").print(table)
    assert SHOWN in coloured.getvalue()
    assert "\x1b[31m" not in coloured.getvalue()
    assert "\x1b[2J" not in coloured.getvalue()
