"""A provider's data as values: how entries are laid over one another, its plan, and what its errors mean."""

import re
from collections.abc import Mapping
from typing import Any

from router_service.catalog.catalog import BillingPlan
from router_service.core.endpoint import BaseUrlError, parse_base_url
from router_service.core.faults import Cause, Reason
from router_service.dialects.error_rules import ErrorGuide, ErrorRule
from router_service.dialects.reset_report import ResetReport, UsedUp
from router_service.dialects.waiting import ResetForm, ResetHeader

_PLACEHOLDER = re.compile(r"\{([a-z][a-z_]{0,30})\}")
# What belongs to the built-in provider alone and not to another that is like it.
_OWN = frozenset({"display_name", "is_enabled"})


def resolve_patterns(entries: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The built-in entries, those with `template` whole. A pattern is none itself."""
    plain = {key: dict(entry) for key, entry in entries.items() if "template" not in entry}
    built = {key: entry for key, entry in entries.items() if "template" in entry}
    resolved = lay_over(plain, built)
    return {key: resolved[key] for key in entries}


def lay_over(base: Mapping[str, Mapping[str, Any]], top: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Entries of a file over the built-in ones, key by key. `template` names a built-in entry to begin from."""
    merged = {key: dict(entry) for key, entry in base.items()}
    for key, entry in top.items():
        pattern = entry.get("template")
        if pattern is not None and pattern not in base:
            merged[key] = dict(entry)
            continue
        below: Mapping[str, Any] = base.get(key, {})
        if pattern is not None:
            below = {name: value for name, value in base[pattern].items() if name not in _OWN}
        merged[key] = _lay_one(below, {name: value for name, value in entry.items() if name != "template"})
    return merged


def _lay_one(below: Mapping[str, Any], entry: Mapping[str, Any]) -> dict[str, Any]:
    merged = {**below, **entry}
    if "quirks" in below and entry.get("dialect", below["dialect"]) == below["dialect"]:
        merged["quirks"] = {**below["quirks"], **entry.get("quirks", {})}
    elif "quirks" in below:
        merged["quirks"] = entry.get("quirks", {})
    if "errors" in below and "errors" in entry:
        parts = (entry["errors"], below["errors"])
        merged["errors"] = {**below["errors"], **entry["errors"]} | {
            name: [item for part in parts for item in part.get(name, ())] for name in ("rules", "reset_headers")
        }
    # A known provider's prices are not those of whatever answers at another address.
    if below and "price_provider" not in entry and _moves(below, entry):
        merged.pop("price_provider", None)
    return _fill(merged)


def _moves(below: Mapping[str, Any], entry: Mapping[str, Any]) -> bool:
    if "base_url" not in entry or find_placeholders(below["base_url"]):
        return False
    try:
        return parse_base_url(entry["base_url"]).origin != parse_base_url(below["base_url"]).origin
    except BaseUrlError:
        return True


def _fill(entry: dict[str, Any]) -> dict[str, Any]:
    parameters = entry.pop("parameters", {})
    if parameters and "base_url" in entry:
        entry["base_url"] = _PLACEHOLDER.sub(
            lambda match: str(parameters.get(match.group(1), match.group())), entry["base_url"]
        )
    return entry


def find_placeholders(base_url: str) -> tuple[str, ...]:
    """The names in a base URL that stand for something nobody has said yet."""
    return tuple(_PLACEHOLDER.findall(base_url))


def build_plan(raw: Mapping[str, Any]) -> BillingPlan:
    """A plan. What comes in here fits the schema."""
    return BillingPlan(
        id=raw["id"],
        display_name=raw.get("display_name", raw["id"]),
        warning=raw.get("warning", ""),
        max_concurrent_requests=raw.get("max_concurrent_requests"),
        highest_concurrent_requests=raw.get("highest_concurrent_requests"),
        key_prefixes=tuple(raw.get("key_prefixes", ())),
    )


def build_errors(raw: Mapping[str, Any]) -> ErrorGuide:
    """What a provider's errors mean. What comes in here fits the schema."""
    return ErrorGuide(
        rules=tuple(_build_rule(rule) for rule in raw.get("rules", ())),
        reset_headers=tuple(
            ResetHeader(header["name"], ResetForm(header.get("form", "duration")), header.get("remaining", ""))
            for header in raw.get("reset_headers", ())
        ),
        utc_offset_hours=raw.get("utc_offset_hours"),
        reset_report=_build_report(raw["reset_report"]) if "reset_report" in raw else None,
    )


def _build_report(raw: Mapping[str, Any]) -> ResetReport:
    return ResetReport(
        path=raw["path"],
        windows=tuple(raw["windows"]),
        used_up=tuple(UsedUp(rule["name"], rule.get("at_most"), rule.get("at_least")) for rule in raw["used_up"]),
        resets=tuple(raw["resets"]),
        is_from_origin=raw.get("is_from_origin", False),
    )


def _build_rule(raw: Mapping[str, Any]) -> ErrorRule:
    return ErrorRule(
        reason=Reason(raw["reason"]),
        cause=Cause(raw["cause"]) if "cause" in raw else None,
        statuses=tuple(raw.get("statuses", ())),
        codes=tuple(raw.get("codes", ())),
        words=tuple(raw.get("words", ())),
        wait_seconds=raw.get("wait_seconds"),
        is_retryable_here=raw.get("is_retryable_here"),
        detected_plan=raw.get("detected_plan", ""),
    )
