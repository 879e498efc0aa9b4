"""Money as integers: prices, costs and bounds in nano-USD (1 USD = 1,000,000,000 nanos).

Nothing here is a float. What is not known is a CostUnknown, never 0. Buckets of tokens are disjoint: cached tokens
are priced once, as cached. An amount is rounded half to even, once, after everything was added.
"""

import re
from dataclasses import dataclass, replace

from router_service.core.events import Usage
from router_service.core.receipt import Amount, CostUnknown

NANOS_PER_USD = 1_000_000_000
NANOS_MAX = 10**18  # a thousand million dollars; the contract's bound, and far from the end of an int64
TOKENS_MAX = 10**9  # beyond this a provider's count is not believed: a thousand times the longest context
BASIS_POINTS_MAX = 1_000_000  # a markup of 100 times

_MILLION = 1_000_000
_BASIS = 10_000
_BYTES_PER_TOKEN = 3  # English has about 4 bytes to a token and CJK 2 to 3; JSON's own marks are few
_DECIMAL = re.compile(r"(-?)([0-9]{1,12})(?:\.([0-9]{1,30}))?")


class MoneyError(ValueError):
    """An amount is not one: malformed, negative where it cannot be, or out of bounds."""


@dataclass(frozen=True, slots=True)
class Price:
    """A list price: nano-USD per million tokens by bucket, and per request. None means that there is no such price."""

    input_nanos: int | None = None
    output_nanos: int | None = None
    cache_read_nanos: int | None = None
    cache_write_five_minute_nanos: int | None = None  # also for writes whose lifetime the provider does not say
    cache_write_one_hour_nanos: int | None = None
    request_nanos: int = 0  # per request, not per million
    tool_request_nanos: tuple[tuple[str, int], ...] = ()  # by the tool's name, per request of it
    revision: str = ""
    input_audio_nanos: int | None = None  # None: sound costs what text does

    def __post_init__(self) -> None:
        amounts = (
            self.input_audio_nanos,
            self.input_nanos,
            self.output_nanos,
            self.cache_read_nanos,
            self.cache_write_five_minute_nanos,
            self.cache_write_one_hour_nanos,
            self.request_nanos,
            *(nanos for _, nanos in self.tool_request_nanos),
        )
        if any(amount is not None and not 0 <= amount <= NANOS_MAX for amount in amounts):
            raise MoneyError("a price is from 0 to 10^18 nano-USD")


@dataclass(frozen=True, slots=True)
class ListPrice:
    """What usage costs. `is_estimate` where the provider's counts contradict each other and were clamped."""

    amount: Amount
    is_estimate: bool = False


@dataclass(frozen=True, slots=True)
class _Buckets:
    """Disjoint counts."""

    uncached: int
    cache_read: int
    cache_write_five_minute: int
    cache_write_one_hour: int
    output: int
    is_clamped: bool


def list_price(usage: Usage | None, price: Price | None) -> ListPrice:
    """What the usage costs at the list price, tool fees included."""
    if usage is None or usage.input_tokens is None or usage.output_tokens is None or not _is_credible(usage):
        return ListPrice(CostUnknown.NO_USAGE)
    if price is None:
        return ListPrice(CostUnknown.NO_PRICE)
    buckets = _split(usage, usage.input_tokens, usage.output_tokens)
    millionths = price.request_nanos * _MILLION
    for tokens, nanos in (
        (buckets.uncached, price.input_nanos),
        (buckets.cache_read, price.cache_read_nanos),
        (buckets.cache_write_five_minute, price.cache_write_five_minute_nanos),
        (buckets.cache_write_one_hour, price.cache_write_one_hour_nanos),
        (buckets.output, price.output_nanos),
    ):
        if tokens and nanos is None:
            return ListPrice(CostUnknown.NO_PRICE)
        millionths += tokens * (nanos or 0)
    sound = min(usage.input_audio_tokens or 0, buckets.uncached)
    if sound and price.input_audio_nanos is not None:
        if buckets.cache_read:
            return ListPrice(CostUnknown.NO_PRICE)  # nobody says how much of what was cached is sound
        millionths += sound * (price.input_audio_nanos - (price.input_nanos or 0))
    fees = dict(price.tool_request_nanos)
    for tool in usage.tool_requests:
        if tool.request_count and tool.tool not in fees:
            return ListPrice(CostUnknown.NO_PRICE)
        millionths += tool.request_count * fees.get(tool.tool, 0) * _MILLION
    amount = divide_half_even(millionths, _MILLION)
    if amount > NANOS_MAX:
        return ListPrice(CostUnknown.NO_USAGE)
    return ListPrice(amount, buckets.is_clamped)


def believe(usage: Usage) -> Usage:
    """A provider's report without the counts that nobody believes, which are then not known.

    The counts of the input are parts of one another, so one of them that is wrong takes the others with it.
    """
    inputs = (
        usage.input_tokens,
        usage.cache_read_tokens,
        usage.cache_write_tokens,
        usage.cache_write_five_minute_tokens,
        usage.cache_write_one_hour_tokens,
    )
    believed = usage
    if not all(map(_is_credible_count, inputs)):
        believed = replace(
            believed,
            input_tokens=None,
            cache_read_tokens=None,
            cache_write_tokens=None,
            cache_write_five_minute_tokens=None,
            cache_write_one_hour_tokens=None,
        )
    if not _is_credible_count(usage.input_audio_tokens):
        believed = replace(believed, input_audio_tokens=None)
    if not _is_credible_count(usage.output_tokens):
        believed = replace(believed, output_tokens=None, reasoning_tokens=None)
    if not _is_credible_count(usage.reasoning_tokens):
        believed = replace(believed, reasoning_tokens=None)
    if not all(_is_credible_count(tool.request_count) for tool in usage.tool_requests):
        tools = tuple(tool for tool in usage.tool_requests if _is_credible_count(tool.request_count))
        believed = replace(believed, tool_requests=tools)
    return believed


def split_usage(usage: Usage | None) -> tuple[int | None, int | None, int | None, int | None, int | None]:
    """Uncached input, cache reads, cache writes, output, and reasoning, which is a part of the output.

    Disjoint, but for reasoning. None is what is not known, or not believed.
    """
    if usage is None or not _is_credible(usage):
        return (None, None, None, None, None)
    reasoning = usage.reasoning_tokens
    if reasoning is not None and not 0 <= reasoning <= TOKENS_MAX:
        reasoning = None
    output = usage.output_tokens
    if usage.input_tokens is None:
        return (None, usage.cache_read_tokens, usage.cache_write_tokens, output, reasoning)
    buckets = _split(usage, usage.input_tokens, output or 0)
    write = buckets.cache_write_five_minute + buckets.cache_write_one_hour
    return (buckets.uncached, buckets.cache_read, write, output, reasoning)


def charge(list_nanos: int, markup_basis_points: int) -> int:
    """A list price with the markup. A receipt prints both, so anybody can recompute it."""
    _check(list_nanos, markup_basis_points)
    charged = divide_half_even(list_nanos * (_BASIS + markup_basis_points), _BASIS)
    if charged > NANOS_MAX:
        raise MoneyError("the charge is out of bounds")
    return charged


def upper_bound(
    input_tokens_estimate: int, max_output_tokens: int, price: Price | None, markup_basis_points: int
) -> Amount:
    """What a call may be charged at most: all input at its dearest and all output, without tool fees. Rounded up."""
    if price is None or price.input_nanos is None or (price.output_nanos is None and max_output_tokens):
        return CostUnknown.NO_PRICE
    if not (0 <= input_tokens_estimate <= TOKENS_MAX and 0 <= max_output_tokens <= TOKENS_MAX):
        raise MoneyError("a count of tokens is out of bounds")
    dearest = max(
        price.input_nanos,
        price.cache_read_nanos or 0,
        price.cache_write_five_minute_nanos or 0,
        price.cache_write_one_hour_nanos or 0,
        price.input_audio_nanos or 0,
    )
    millionths = input_tokens_estimate * dearest + max_output_tokens * (price.output_nanos or 0)
    list_nanos = price.request_nanos - (-millionths // _MILLION)
    _check(list_nanos, markup_basis_points)
    bound = -(-list_nanos * (_BASIS + markup_basis_points) // _BASIS)
    if bound > NANOS_MAX:
        raise MoneyError("the upper bound of the call's cost is out of bounds")
    return bound


def estimate_input_tokens(size_bytes: int) -> int:
    """How many tokens a text of that many UTF-8 bytes has, rather too many than too few."""
    return -(-size_bytes // _BYTES_PER_TOKEN)


def usd_to_nanos(text: str) -> int:
    """A decimal such as "0.10" in nano-USD, exact up to nine places and half to even beyond them."""
    match = _DECIMAL.fullmatch(text)
    if match is None:
        raise MoneyError("an amount is a plain decimal such as 0.25")
    sign, whole, fraction = match[1], match[2], match[3] or ""
    scale = 10 ** len(fraction)
    nanos = divide_half_even(int(whole + fraction) * NANOS_PER_USD, scale)
    if nanos > NANOS_MAX:
        raise MoneyError("an amount is at most a thousand million dollars")
    return -nanos if sign else nanos


def divide_half_even(dividend: int, divisor: int) -> int:
    """The quotient of two integers, rounded half to even. The divisor is above 0."""
    quotient, rest = divmod(dividend, divisor)
    twice = rest * 2
    if twice > divisor or (twice == divisor and quotient % 2):
        quotient += 1
    return quotient


def _split(usage: Usage, input_tokens: int, output_tokens: int) -> _Buckets:
    read = usage.cache_read_tokens or 0
    five_minute = usage.cache_write_five_minute_tokens or 0
    one_hour = usage.cache_write_one_hour_tokens or 0
    write = max(usage.cache_write_tokens or 0, five_minute + one_hour)
    uncached = input_tokens - read - write
    is_clamped = uncached < 0 or (usage.cache_write_tokens is not None and write > usage.cache_write_tokens)
    return _Buckets(max(uncached, 0), read, write - one_hour, one_hour, output_tokens, is_clamped)


def _is_credible(usage: Usage) -> bool:
    counts = (
        usage.input_tokens,
        usage.output_tokens,
        usage.cache_read_tokens,
        usage.cache_write_tokens,
        usage.cache_write_five_minute_tokens,
        usage.cache_write_one_hour_tokens,
        *(tool.request_count for tool in usage.tool_requests),
    )
    return all(map(_is_credible_count, counts))


def _is_credible_count(count: int | None) -> bool:
    return count is None or 0 <= count <= TOKENS_MAX


def _check(list_nanos: int, markup_basis_points: int) -> None:
    if not 0 <= list_nanos <= NANOS_MAX:
        raise MoneyError("a list price is from 0 to 10^18 nano-USD")
    if not 0 <= markup_basis_points <= BASIS_POINTS_MAX:
        raise MoneyError("a markup is from 0 to 1,000,000 basis points")
