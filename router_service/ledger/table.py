"""Tables whose rows are written whole, each over an earlier one of the same key."""

from dataclasses import fields
from operator import attrgetter
from typing import Any, get_args, get_type_hints


class Table:
    """A table and the dataclass of its rows, which has a field for each column that is written.

    `key` names the columns by which a row takes the place of an earlier one; without it rows are only added.
    """

    def __init__(self, name: str, row: type, key: tuple[str, ...] = ()) -> None:
        self.name = name
        self.key = key
        hints = get_type_hints(row)
        self.columns: dict[str, type] = {one.name: _without_none(hints[one.name]) for one in fields(row)}
        self.values = attrgetter(*self.columns)

    @property
    def names(self) -> str:
        """The columns, as a statement lists them."""
        return ", ".join(self.columns)

    @property
    def on_conflict(self) -> str:
        """What a statement that inserts does with rows that are there."""
        if not self.key:
            return ""
        changes = ", ".join(f"{name} = excluded.{name}" for name in self.columns if name not in self.key)
        return f" ON CONFLICT ({', '.join(self.key)}) DO UPDATE SET {changes}"


def _without_none(hint: Any) -> type:
    (only,) = (one for one in get_args(hint) or (hint,) if one is not type(None))
    found: type = only
    return found
