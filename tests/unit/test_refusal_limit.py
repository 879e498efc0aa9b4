"""Refusals of strangers: how many are answered with their cause, from one address and in all; what is remembered."""

import pytest

from vault_service.core.refusal_limit import (
    BURST,
    MOST_SOURCES,
    PER_SECOND,
    TOTAL_BURST,
    TOTAL_PER_SECOND,
    RefusalLimit,
    source_of,
)


class World:
    """A clock that stands still."""

    def __init__(self) -> None:
        self.now = 0.0
        self.limit = RefusalLimit(lambda: self.now)

    def flood(self, source: str, count: int) -> int:
        """How many of so many refusals were answered with their cause."""
        return sum(self.limit.refuse(source) == 0 for _ in range(count))


def test_one_source_is_told_why_for_a_while() -> None:
    world = World()
    assert world.flood("10.0.0.1", 1000) == BURST
    assert world.limit.refuse("10.0.0.1") == pytest.approx(1 / PER_SECOND)
    world.now += 3 / PER_SECOND
    assert world.flood("10.0.0.1", 1000) == 3
    assert world.flood("10.0.0.2", 1) == 1, "another address has its own"


def test_all_together_are_bounded_too() -> None:
    world = World()
    answered = sum(world.flood(f"10.1.{number >> 8}.{number & 255}", 5) for number in range(1000))
    assert answered == TOTAL_BURST
    world.now += 1.0
    assert sum(world.flood(f"10.2.0.{number}", 5) for number in range(200)) == TOTAL_PER_SECOND


def test_what_is_remembered_is_bounded() -> None:
    world = World()
    for number in range(3 * MOST_SOURCES):
        world.limit.refuse(f"source {number}")
    assert world.limit.size == MOST_SOURCES


def test_waiting_gives_no_more_than_a_burst() -> None:
    world = World()
    assert world.flood("10.0.0.1", 100) == BURST
    world.now += 1_000_000.0
    assert world.flood("10.0.0.1", 100) == BURST


@pytest.mark.parametrize(
    ("address", "source"),
    [
        ("10.0.0.1:4711", "10.0.0.1"),
        ("[2001:db8:1:2:aaaa::1]:4711", "2001:db8:1:2::/64"),
        ("[2001:db8:1:2:bbbb::9]:4712", "2001:db8:1:2::/64"),
        ("[::ffff:10.0.0.1]:4711", "10.0.0.1"),
        ("[fe80::1%eth0]:80", "fe80::/64"),
        ("unix:", "unix:"),
        ("", ""),
    ],
)
def test_the_port_does_not_make_another_source(address: str, source: str) -> None:
    assert source_of(address) == source
