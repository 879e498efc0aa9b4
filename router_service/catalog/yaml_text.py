"""A value as YAML text that `parse_document` reads as the same value, and that people can read too."""

import re
from io import StringIO
from typing import Any

from router_service.catalog.document import Value

# What needs no quotes in any reader: other YAMLs take "no", "1e5" or a date for something else than a text.
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*([./-][A-Za-z0-9_]+)*")
_WORDS = frozenset({"true", "false", "null", "yes", "no", "on", "off", "y", "n"})
_MOST_INDENT = 1_000_000  # no line is folded


def write_yaml(value: Value) -> str:
    """The text, without a line break at its end where the value is a scalar."""
    from ruamel.yaml import YAML
    from ruamel.yaml.representer import SafeRepresenter

    class Representer(SafeRepresenter):
        """Quotes every text that somebody could take for another thing."""

    def represent_text(representer: Any, text: str) -> Any:
        is_plain = _PLAIN.fullmatch(text) is not None and text.lower() not in _WORDS
        return representer.represent_scalar("tag:yaml.org,2002:str", text, style=None if is_plain else '"')

    Representer.add_representer(str, represent_text)
    yaml = YAML(typ="safe", pure=True)
    yaml.Representer = Representer
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment] # declared as None alone
    yaml.allow_unicode = True
    yaml.width = _MOST_INDENT
    # An alias (*name) would be made of every value that stands twice, and none is read.
    yaml.representer.ignore_aliases = lambda _: True
    stream = StringIO()
    yaml.dump(value, stream)
    return stream.getvalue().removesuffix("...\n")
