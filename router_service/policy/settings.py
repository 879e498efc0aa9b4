"""What one attempt is asked to do: settings merged over the layers, and the provider options that apply to it.

The layers, the first one that sets a field wins: the fallback route, the call, the model's defaults. Sampling is
merged field by field, every other field is taken whole (GenerationSettings in settings.proto).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields

import msgspec

from router_service.catalog.catalog import Provider
from router_service.core.faults import Fault, invalid
from router_service.core.request import ProviderOptions, Sampling, Settings

FAMILIES = frozenset({"anthropic", "google", "openai", "openrouter", "openaiCompatible"})
"""Names of provider families that a namespace may have."""

MAX_OPTIONS_BYTES = 64 * 1024

_NOTHING = Settings()


def merge_settings(layers: Sequence[Settings]) -> Settings:
    """The settings that hold, the strongest layer first."""
    given = [layer for layer in layers if layer != _NOTHING]
    if len(given) <= 1:
        return given[0] if given else _NOTHING
    sampling = {
        item.name: next(
            (value for layer in layers if (value := getattr(layer.sampling, item.name)) not in (None, ())),
            getattr(Sampling(), item.name),
        )
        for item in fields(Sampling)
    }
    return Settings(
        sampling=Sampling(**sampling),
        max_output_tokens=next((x.max_output_tokens for x in layers if x.max_output_tokens is not None), None),
        reasoning=next((x.reasoning for x in layers if x.reasoning is not None), None),
        provider_options=next((x.provider_options for x in layers if x.provider_options), ()),
        upstream_routing=next((x.upstream_routing for x in layers if x.upstream_routing is not None), None),
    )


def parse_options(entry: ProviderOptions, field: str) -> Mapping[str, object]:
    """The object that an entry of options holds. Raises Fault for what is no JSON object, or too large a one."""
    if len(entry.json.encode()) > MAX_OPTIONS_BYTES:
        raise invalid(f"{field}.json", "Provider options have at most 64 KiB.")
    try:
        parsed: object = msgspec.json.decode(entry.json)
    except (msgspec.DecodeError, ValueError, RecursionError):
        where = _find_fault(entry.json)
        message = f"Provider options must be one JSON object; this is no valid JSON{where}."
        raise invalid(f"{field}.json", message) from None
    if not isinstance(parsed, dict):
        raise invalid(f"{field}.json", "Provider options must be one JSON object.")
    if not entry.namespace:
        named = FAMILIES & parsed.keys()
        if named and (named != parsed.keys() or not all(isinstance(value, dict) for value in parsed.values())):
            raise _mixed(field)
    return parsed


def _find_fault(text: str) -> str:
    """Where JSON stops being JSON, for a message: people miss commas."""
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        return f" (line {error.lineno}, column {error.colno})"
    except (ValueError, RecursionError):
        return ""
    return ""


def select_options(
    entries: Sequence[tuple[ProviderOptions, Mapping[str, object]]], provider: Provider, dialect: str
) -> tuple[Mapping[str, object], ...]:
    """The objects that apply to an attempt at a provider, in order. The others are not sent."""
    names = {provider.name, dialect, provider.quirks.options_family} - {""}
    applying: list[Mapping[str, object]] = []
    for entry, parsed in entries:
        if entry.namespace:
            if entry.namespace in names:
                applying.append(parsed)
        elif FAMILIES & parsed.keys():
            applying += [value for family, value in parsed.items() if family in names and isinstance(value, dict)]
        else:
            applying.append(parsed)
    return tuple(applying)


def _mixed(field: str) -> Fault:
    return invalid(
        f"{field}.json",
        "Where one key names a provider family, all keys must, each with an object; or set `namespace` instead.",
    )
