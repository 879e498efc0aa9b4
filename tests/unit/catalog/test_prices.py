"""Prices are exact, wherever they come from."""

import json
import subprocess
import sys
from datetime import date
from decimal import Decimal
from importlib.metadata import version

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_service.catalog.defaults import list_priced_endpoints, load_built_in
from router_service.catalog.loader import load_snapshot
from router_service.catalog.prices import extract_listing, extract_listings, find_listing, parse_price, read_listings
from router_service.core.money import Price


@given(st.integers(0, 10**15 - 1))
def test_a_stated_price_is_exact(nanos: int) -> None:
    usd = format(Decimal(nanos).scaleb(-9), "f")
    text = f"""
models:
  acme/one:
    endpoints: [{{provider: own, upstream_model: one}}]
    price: {{input_usd_per_million: "{usd}", cache_write_1h_usd_per_million: "{usd}", checked: 2026-11-21}}
providers: {{own: {{dialect: openai_chat, base_url: "https://llm.example.com", auth: none}}}}
"""
    price = load_snapshot(text, source="f", builtin=False).models["acme/one"].price
    assert price == Price(nanos, None, cache_write_one_hour_nanos=nanos, revision="configuration:2026-11-21")


def test_a_price_of_zero_is_a_price_and_an_absent_one_is_not() -> None:
    price = parse_price({"input_usd_per_million": "0", "request_usd": "0.005"}, "r")
    assert price == Price(0, None, request_nanos=5_000_000, revision="r")


def test_the_kept_listings_are_what_the_installed_library_says() -> None:
    kept = json.loads(read_listings())
    assert kept["version"] == version("genai-prices"), "run: python -m router_service.catalog.defaults YYYY-MM-DD"
    wanted = list_priced_endpoints(load_built_in())
    assert wanted
    assert kept == extract_listings(wanted, date.fromisoformat(kept["checked"]))


def test_every_built_in_model_has_a_price() -> None:
    snapshot = load_snapshot("", source="f")
    revision = f"genai-prices:{version('genai-prices')}"
    listed = {model.id: model.price_revision for model in snapshot.models.values()}
    # Vertex asks for its own embeddings by the character; Cohere's on Bedrock are in no list but AWS's.
    unlisted = {name: listed.pop(name) for name in list(listed) if name.startswith(("google/text-", "cohere/embed-"))}
    assert set(unlisted.values()) == {"", "configuration:2026-11-27"}
    assert set(listed.values()) == {revision}
    sonnet = snapshot.models["anthropic/claude-sonnet-4.6"]
    assert sonnet.price == Price(
        3_000_000_000,
        15_000_000_000,
        300_000_000,
        3_750_000_000,
        6_000_000_000,
        0,
        (("web_search", 10_000_000),),
        revision,
    )


def test_a_tiered_price_ends_the_context_where_the_next_tier_begins() -> None:
    listing = find_listing("openai", "gpt-5.4", None)
    assert listing is not None
    assert listing.price.input_nanos == 2_500_000_000
    assert listing.context_limit_tokens == 272_000


def test_a_dated_price_begins_on_its_day() -> None:
    before = extract_listing("openrouter", "moonshotai/kimi-k2.5", date(2026, 10, 18))
    after = extract_listing("openrouter", "moonshotai/kimi-k2.5", date(2026, 10, 19))
    newest = extract_listing("openrouter", "moonshotai/kimi-k2.5", None)
    assert before is not None
    assert after is not None
    assert newest is not None
    assert (before["input_usd_per_million"], after["input_usd_per_million"]) == ("0.4", "0.5")
    assert newest["input_usd_per_million"] == "0.532"


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        ("deepseek", "deepseek-chat"),  # by the time of day
        ("openai", "no-such-model"),
        ("no-such-provider", "gpt-5.4"),
    ],
)
def test_a_price_that_cannot_be_told_is_unknown(provider: str, model: str) -> None:
    assert find_listing(provider, model, None) is None


def test_another_model_is_looked_up_by_its_provider() -> None:
    text = "models: {openai/gpt-5: {endpoints: [{provider: openai, upstream_model: gpt-5}]}}"
    model = load_snapshot(text, source="f", on=date(2026, 11, 21)).models["openai/gpt-5"]
    assert model.price is not None
    assert model.price.input_nanos == 1_250_000_000
    assert model.price_revision.startswith("genai-prices:")


def test_endpoints_with_different_prices_have_each_its_own() -> None:
    text = """
models:
  moonshotai/kimi-k2.5:
    endpoints:
      - {provider: openrouter, upstream_model: moonshotai/kimi-k2.5}
      - {provider: openai, upstream_model: gpt-5.1}
"""
    model = load_snapshot(text, source="f").models["moonshotai/kimi-k2.5"]
    listings = [
        find_listing("openrouter", "moonshotai/kimi-k2.5", None),
        find_listing("openai", "gpt-5.1", None),
    ]
    assert listings[0] is not None
    assert listings[1] is not None
    assert model.price_at("openrouter") == listings[0].price
    assert model.price_at("openai") == listings[1].price
    assert listings[0].price != listings[1].price


def test_loading_the_built_in_catalog_neither_imports_the_library_nor_opens_a_socket() -> None:
    program = """
import socket, sys
def refuse(*_): raise AssertionError("a socket was opened")
socket.socket.__init__ = refuse
import router_service.catalog.loader as loader
assert not {"genai_prices", "ruamel.yaml", "jsonschema"} & set(sys.modules), "a slow import at import time"
assert loader.load_snapshot("", source="f").models
assert "genai_prices" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
