"""Refused callers on their way into the audit log: what was not taken is kept, and what came meanwhile is not lost."""

import pytest
from keyswitch.vault.v1 import lease_service_pb2

from router_service.credentials.refusals import MOST_ADDRESSES, MOST_IN_A_REPORT, Refusals


class World:
    """What was sent, and whether it arrives."""

    def __init__(self) -> None:
        self.sent: list[lease_service_pb2.CallerRefusals] = []
        self.is_away = False
        self.refusals = Refusals(self.send)

    async def send(self, refusals: list[lease_service_pb2.CallerRefusals]) -> None:
        self.refusals.add("A/B", "late", "10.0.0.9")
        if self.is_away:
            raise ConnectionError
        self.sent += refusals

    def counts(self) -> dict[str, tuple[int, int]]:
        return {one.cause: (one.count, one.address_count) for one in self.sent}


async def test_counts_are_sent_once() -> None:
    world = World()
    for number in range(5):
        world.refusals.add("A/B", "token_invalid", f"10.0.0.{number % 2}")
    await world.refusals.flush()
    assert world.counts() == {"token_invalid": (5, 2)}
    world.sent.clear()
    await world.refusals.flush()
    assert world.counts() == {"late": (1, 1)}


async def test_a_report_that_fails_is_made_again_whole() -> None:
    world = World()
    world.refusals.add("A/B", "token_invalid", "10.0.0.1")
    world.is_away = True
    with pytest.raises(ConnectionError):
        await world.refusals.flush()
    world.is_away = False
    await world.refusals.flush()
    assert world.counts()["token_invalid"] == (1, 1)


async def test_a_report_and_the_addresses_are_bounded() -> None:
    world = World()
    for number in range(MOST_ADDRESSES + 10):
        world.refusals.add("A/B", "token_invalid", str(number))
        world.refusals.add(f"A/M{number}", "token_missing", "10.0.0.1")
    await world.refusals.flush()
    assert len(world.sent) == MOST_IN_A_REPORT
    assert world.counts()["token_invalid"] == (MOST_ADDRESSES + 10, MOST_ADDRESSES)
