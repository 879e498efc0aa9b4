"""Tables of the command show what people named as it is written."""

from io import StringIO

import pytest
from keyswitch_cli import tables
from rich.console import Console, RenderableType

NAME = "[red]x[/red]\x1b[2J :smile: [link=https://a.test]y[/link] [/nothing]\x9b\x07"
SHOWN = "[red]x[/red][2J :smile: [link=https://a.test]y[/link] [/nothing]"


TURNED = "a\nb\u202ec\u2067\td\u2028e"


def listed(name: str) -> RenderableType:
    table = tables.listing("name", "models", long=("models",))
    table.add_row(name, "echo")
    return table


@pytest.mark.parametrize("table", [listed(NAME), tables.sheet([("display name", NAME), ("empty", "")])])
def test_a_name_is_neither_markup_nor_a_command_to_the_terminal(table: RenderableType) -> None:
    plain, coloured = StringIO(), StringIO()
    Console(file=plain, width=200).print(table)
    assert SHOWN in plain.getvalue()
    assert not any(ord(one) < 32 or 127 <= ord(one) < 160 for one in plain.getvalue().replace("\n", ""))
    Console(file=coloured, width=200, force_terminal=True, color_system="truecolor").print(table)
    assert SHOWN in coloured.getvalue()
    assert "\x1b[31m" not in coloured.getvalue()
    assert "\x1b[2J" not in coloured.getvalue()


@pytest.mark.parametrize("table", [listed(TURNED), tables.sheet([("display name", TURNED)])])
def test_a_name_neither_breaks_its_row_nor_turns_the_rest_around(table: RenderableType) -> None:
    shown = StringIO()
    Console(file=shown, width=200).print(table)
    assert r"a\nb\u202ec\u2067\td\u2028e" in shown.getvalue()


def test_a_name_folds_where_it_has_a_mark_and_a_number_nowhere() -> None:
    assert tables.fold("anthropic/claude-sonnet-4.6", 14) == ["anthropic/", "claude-sonnet-", "4.6"]
    assert tables.fold("2026-11-27 07:53Z", 12) == ["2026-11-27", "07:53Z"]
    assert tables.fold("$0.0000045 to $0.0131", 14) == ["$0.0000045 to", "$0.0131"]
    assert tables.fold("8aa603d4dd5e", 5) == ["8aa60", "3d4dd", "5e"]
    assert tables.fold("模型一号", 4) == ["模型", "一号"]
    assert tables.fold("", 3) == [""]


def test_words_are_broken_only_where_there_is_no_other_way() -> None:
    table = tables.listing("application", "status", "paid by", "key", long=("key",))
    table.add_row("opencode", "using shared key", "ORGANIZATION_KEY", "the deployment's")
    shown = StringIO()
    Console(file=shown, width=52).print(table)
    assert {"opencode", "ORGANIZATION_KEY", "deployment's"} < set(shown.getvalue().split())
