"""The laws of money: exact, disjoint, rounded once, bounded."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_service.core.events import ToolRequests, Usage
from router_service.core.money import (
    NANOS_MAX,
    TOKENS_MAX,
    ListPrice,
    MoneyError,
    Price,
    believe,
    charge,
    divide_half_even,
    estimate_input_tokens,
    list_price,
    upper_bound,
    usd_to_nanos,
)
from router_service.core.receipt import CostUnknown

SONNET = Price(
    input_nanos=usd_to_nanos("3"),
    output_nanos=usd_to_nanos("15"),
    cache_read_nanos=usd_to_nanos("0.30"),
    cache_write_five_minute_nanos=usd_to_nanos("3.75"),
    cache_write_one_hour_nanos=usd_to_nanos("6"),
)

nanos = st.integers(0, 10**12)
prices = st.builds(
    Price,
    input_nanos=nanos,
    output_nanos=nanos,
    cache_read_nanos=nanos,
    cache_write_five_minute_nanos=nanos,
    cache_write_one_hour_nanos=nanos,
    request_nanos=nanos,
)
counts = st.integers(0, 10**7)
markups = st.integers(0, 100_000)


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    """Counts that agree with each other."""
    uncached, read, five_minute, one_hour, unsaid, output = (draw(counts) for _ in range(6))
    return Usage(
        input_tokens=uncached + read + five_minute + one_hour + unsaid,
        cache_read_tokens=read,
        cache_write_tokens=five_minute + one_hour + unsaid,
        cache_write_five_minute_tokens=five_minute,
        cache_write_one_hour_tokens=one_hour,
        output_tokens=output,
    )


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("0", 0),
        ("0.10", 100_000_000),
        ("15", 15_000_000_000),
        ("0.000000001", 1),
        ("0.0000000005", 0),  # half to even
        ("0.0000000015", 2),
        ("0.00000000050000000000000000001", 1),
        ("-2.5", -2_500_000_000),
        ("1000000000", NANOS_MAX),
    ],
)
def test_decimals_become_nanos_exactly(text: str, amount: int) -> None:
    assert usd_to_nanos(text) == amount


@pytest.mark.parametrize(
    "text", ["", " 1", "1 ", "+1", "1e3", "1.", ".5", "1,5", "NaN", "inf", "0x1", "١", "1_000", "1000000001", "--1"]
)
def test_what_is_not_a_plain_decimal_is_refused(text: str) -> None:
    with pytest.raises(MoneyError):
        usd_to_nanos(text)


@given(st.integers(-(NANOS_MAX), NANOS_MAX))
def test_nanos_survive_the_way_through_text(amount: int) -> None:
    sign = "-" if amount < 0 else ""
    assert usd_to_nanos(f"{sign}{abs(amount) // 10**9}.{abs(amount) % 10**9:09d}") == amount


@given(st.integers(-(10**30), 10**30), st.integers(1, 10**12))
def test_rounding_is_half_to_even(dividend: int, divisor: int) -> None:
    assert divide_half_even(dividend, divisor) == round(Fraction(dividend, divisor))


def test_each_bucket_has_its_price() -> None:
    usage = Usage(
        input_tokens=1_000_000,
        cache_read_tokens=400_000,
        cache_write_tokens=300_000,
        cache_write_five_minute_tokens=100_000,
        cache_write_one_hour_tokens=150_000,  # 50,000 more without a lifetime: as five minutes
        output_tokens=10_000,
    )
    expected = usd_to_nanos("0.9") + usd_to_nanos("0.12") + usd_to_nanos("0.5625") + usd_to_nanos("0.9")
    assert list_price(usage, SONNET) == ListPrice(expected + usd_to_nanos("0.15"))


def test_one_token_is_rounded_once() -> None:
    price = Price(input_nanos=500_000, output_nanos=500_000)  # half a nano each
    assert list_price(Usage(input_tokens=1, output_tokens=0), price).amount == 0
    assert list_price(Usage(input_tokens=1, output_tokens=1), price).amount == 1
    assert list_price(Usage(input_tokens=2, output_tokens=1), price).amount == 2


@given(usages(), prices)
def test_the_price_is_the_exact_sum_rounded_once(usage: Usage, price: Price) -> None:
    assert usage.input_tokens is not None
    read, write = usage.cache_read_tokens or 0, usage.cache_write_tokens or 0
    hour = usage.cache_write_one_hour_tokens or 0
    exact = Fraction(
        (usage.input_tokens - read - write) * (price.input_nanos or 0)
        + read * (price.cache_read_nanos or 0)
        + (write - hour) * (price.cache_write_five_minute_nanos or 0)
        + hour * (price.cache_write_one_hour_nanos or 0)
        + (usage.output_tokens or 0) * (price.output_nanos or 0),
        10**6,
    )
    assert list_price(usage, price) == ListPrice(round(exact + price.request_nanos))


@given(usages(), prices, markups)
def test_the_upper_bound_is_one(usage: Usage, price: Price, markup: int) -> None:
    assert usage.input_tokens is not None
    assert usage.output_tokens is not None
    amount = list_price(usage, price).amount
    bound = upper_bound(usage.input_tokens, usage.output_tokens, price, markup)
    assert isinstance(amount, int)
    assert isinstance(bound, int)
    assert charge(amount, markup) <= bound


def add(first: Usage, second: Usage) -> Usage:
    return Usage(
        input_tokens=(first.input_tokens or 0) + (second.input_tokens or 0),
        cache_read_tokens=(first.cache_read_tokens or 0) + (second.cache_read_tokens or 0),
        cache_write_tokens=(first.cache_write_tokens or 0) + (second.cache_write_tokens or 0),
        cache_write_one_hour_tokens=(first.cache_write_one_hour_tokens or 0)
        + (second.cache_write_one_hour_tokens or 0),
        output_tokens=(first.output_tokens or 0) + (second.output_tokens or 0),
    )


@given(usages(), usages(), prices)
def test_more_usage_never_costs_less(first: Usage, second: Usage, price: Price) -> None:
    both = add(first, second)
    amounts = [list_price(usage, price).amount for usage in (first, second, both)]
    assert all(isinstance(amount, int) for amount in amounts)
    assert int(amounts[2]) >= max(int(amounts[0]), int(amounts[1]))  # type: ignore[arg-type]  # checked above


@pytest.mark.parametrize(
    "usage",
    [
        None,
        Usage(),
        Usage(input_tokens=5),
        Usage(output_tokens=5),
        Usage(input_tokens=-1, output_tokens=5),
        Usage(input_tokens=TOKENS_MAX + 1, output_tokens=5),
        Usage(input_tokens=5, output_tokens=5, tool_requests=(ToolRequests("web_search", -1),)),
    ],
)
def test_usage_that_is_unknown_or_incredible_is_unknown(usage: Usage | None) -> None:
    assert list_price(usage, SONNET) == ListPrice(CostUnknown.NO_USAGE)


WRONG = TOKENS_MAX + 1


@pytest.mark.parametrize(
    ("reported", "believed"),
    [
        (Usage(input_tokens=9, output_tokens=7), Usage(input_tokens=9, output_tokens=7)),
        (Usage(input_tokens=WRONG, cache_read_tokens=3, output_tokens=7), Usage(output_tokens=7)),
        (Usage(input_tokens=9, cache_read_tokens=WRONG, output_tokens=7), Usage(output_tokens=7)),
        (Usage(input_tokens=9, cache_write_one_hour_tokens=-1, output_tokens=7), Usage(output_tokens=7)),
        (Usage(input_tokens=9, output_tokens=WRONG, reasoning_tokens=WRONG), Usage(input_tokens=9)),
        (Usage(input_tokens=9, output_tokens=7, reasoning_tokens=-1), Usage(input_tokens=9, output_tokens=7)),
        (Usage(input_tokens=9, output_tokens=7, input_audio_tokens=WRONG), Usage(input_tokens=9, output_tokens=7)),
        (
            Usage(input_tokens=9, output_tokens=7, tool_requests=(ToolRequests("a", WRONG), ToolRequests("b", 2))),
            Usage(input_tokens=9, output_tokens=7, tool_requests=(ToolRequests("b", 2),)),
        ),
    ],
)
def test_a_count_that_nobody_believes_is_not_known(reported: Usage, believed: Usage) -> None:
    assert believe(reported) == believed
    assert believe(believed) == believed


@pytest.mark.parametrize(
    ("usage", "price"),
    [
        (Usage(input_tokens=1, output_tokens=1), None),
        (Usage(input_tokens=1, output_tokens=1), Price(input_nanos=1)),
        (Usage(input_tokens=1, output_tokens=1), Price(output_nanos=1)),
        (Usage(input_tokens=2, cache_read_tokens=1, output_tokens=1), Price(input_nanos=1, output_nanos=1)),
        (Usage(input_tokens=2, cache_write_tokens=1, output_tokens=1), Price(input_nanos=1, output_nanos=1)),
        (Usage(input_tokens=1, output_tokens=1, tool_requests=(ToolRequests("web_search", 1),)), SONNET),
    ],
)
def test_a_bucket_without_a_price_is_unknown_and_never_zero(usage: Usage, price: Price | None) -> None:
    assert list_price(usage, price) == ListPrice(CostUnknown.NO_PRICE)


def test_a_bucket_without_tokens_needs_no_price() -> None:
    assert list_price(Usage(input_tokens=10**6, output_tokens=0), Price(input_nanos=7)) == ListPrice(7)


def test_a_free_model_has_a_price() -> None:
    assert list_price(Usage(input_tokens=9, output_tokens=9), Price(input_nanos=0, output_nanos=0)) == ListPrice(0)


def test_tool_fees_are_added() -> None:
    price = Price(input_nanos=0, output_nanos=0, request_nanos=3, tool_request_nanos=(("web_search", 10_000_000),))
    usage = Usage(input_tokens=1, output_tokens=1, tool_requests=(ToolRequests("web_search", 2),))
    assert list_price(usage, price) == ListPrice(20_000_003)


@pytest.mark.parametrize(
    "usage",
    [
        Usage(input_tokens=5, cache_read_tokens=9, output_tokens=0),
        Usage(input_tokens=9, cache_write_tokens=2, cache_write_one_hour_tokens=9, output_tokens=0),
    ],
)
def test_counts_that_contradict_each_other_are_clamped_and_marked(usage: Usage) -> None:
    priced = list_price(usage, SONNET)
    assert priced.is_estimate
    assert isinstance(priced.amount, int)
    assert priced.amount > 0


@given(st.integers(0, 10**15), markups)
def test_a_charge_is_the_price_and_its_markup(amount: int, markup: int) -> None:
    assert charge(amount, markup) == round(Fraction(amount * (10_000 + markup), 10_000))
    assert charge(amount, 0) == amount


@pytest.mark.parametrize(("amount", "markup"), [(-1, 0), (NANOS_MAX + 1, 0), (1, -1), (1, 10**9), (NANOS_MAX, 1)])
def test_a_charge_out_of_bounds_is_refused(amount: int, markup: int) -> None:
    with pytest.raises(MoneyError):
        charge(amount, markup)


def test_an_amount_out_of_bounds_is_not_believed() -> None:
    price = Price(input_nanos=NANOS_MAX, output_nanos=0)
    assert list_price(Usage(input_tokens=TOKENS_MAX, output_tokens=0), price) == ListPrice(CostUnknown.NO_USAGE)
    with pytest.raises(MoneyError):
        upper_bound(TOKENS_MAX, 0, price, 0)


@pytest.mark.parametrize("price", [None, Price(), Price(input_nanos=1), Price(output_nanos=1)])
def test_a_bound_needs_both_prices(price: Price | None) -> None:
    assert upper_bound(1, 1, price, 0) is CostUnknown.NO_PRICE


def test_a_bound_is_rounded_up() -> None:
    assert upper_bound(1, 0, Price(input_nanos=1, output_nanos=0), 1) == 2


@pytest.mark.parametrize("amount", [-1, NANOS_MAX + 1])
def test_a_price_is_within_bounds(amount: int) -> None:
    with pytest.raises(MoneyError):
        Price(output_nanos=amount)


@pytest.mark.parametrize(("size_bytes", "tokens"), [(0, 0), (1, 1), (3, 1), (4, 2), (300, 100)])
def test_tokens_are_estimated_upwards(size_bytes: int, tokens: int) -> None:
    assert estimate_input_tokens(size_bytes) == tokens


SOUND = Price(input_nanos=300_000_000, output_nanos=0, cache_read_nanos=30_000_000, input_audio_nanos=1_000_000_000)


@pytest.mark.parametrize(
    ("usage", "amount"),
    [
        (Usage(input_tokens=1_000_000, output_tokens=5), 300_000_000),
        (Usage(input_tokens=1_000_000, output_tokens=5, input_audio_tokens=400_000), 180_000_000 + 400_000_000),
        (Usage(input_tokens=1_000_000, output_tokens=5, input_audio_tokens=1_000_000), 1_000_000_000),
        (Usage(input_tokens=100, output_tokens=5, cache_read_tokens=50, input_audio_tokens=10), CostUnknown.NO_PRICE),
    ],
)
def test_sound_has_a_price_of_its_own(usage: Usage, amount: object) -> None:
    assert list_price(usage, SOUND).amount == amount


def test_sound_costs_what_text_does_where_no_price_says_otherwise() -> None:
    usage = Usage(input_tokens=1_000_000, output_tokens=0, input_audio_tokens=400_000)
    assert list_price(usage, SONNET).amount == SONNET.input_nanos


def test_an_upper_bound_expects_sound() -> None:
    assert upper_bound(1_000_000, 0, SOUND, 0) == 1_000_000_000
