"""The breaker's table, and that the document draws what it says."""

import re
from itertools import product
from pathlib import Path

import pytest

from router_service.policy.breaker import TABLE, Breaker, Happening, Rules, State

DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "limits.md"


def test_the_table_is_total() -> None:
    assert set(TABLE) == set(product(State, Happening))


def test_the_diagram_is_the_table() -> None:
    drawn = set(re.findall(r"^ {4}(\w+) --> (\w+): (\w+)$", DOCUMENT.read_text(), re.MULTILINE))
    moves = {(a.value, b.value, h.value) for (a, h), b in TABLE.items() if a is not b}
    assert drawn == moves


@pytest.mark.parametrize("failures", [1, 3, 5])
def test_it_opens_after_so_many_failures_in_a_row(failures: int) -> None:
    rules = Rules(failures)
    breaker = Breaker()
    for number in range(1, failures + 1):
        after = breaker.hear(Happening.FAILED, rules)
        assert breaker.opens(after) == (number == failures)
        breaker = after
    assert breaker.state is State.OPEN


def test_a_success_begins_the_count_anew() -> None:
    breaker = Breaker()
    for happening in [Happening.FAILED, Happening.FAILED, Happening.SUCCEEDED] * 5:
        breaker = breaker.hear(happening, Rules(3))
    assert breaker == Breaker()


def test_a_first_try_decides() -> None:
    tried = Breaker(State.OPEN, 4).hear(Happening.TRIED, Rules())
    assert tried.state is State.HALF_OPEN
    assert tried.hear(Happening.SUCCEEDED, Rules()) == Breaker()
    assert tried.opens(tried.hear(Happening.FAILED, Rules()))


def test_it_can_be_switched_off() -> None:
    breaker = Breaker()
    for _ in range(100):
        breaker = breaker.hear(Happening.FAILED, Rules(0))
    assert breaker.state is State.CLOSED
