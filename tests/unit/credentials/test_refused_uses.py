"""A use that is refused for itself holds nothing back, and what is pushed out meanwhile is counted once."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from keyswitch.vault.v1 import lease_pb2

from router_service.credentials import uses as uses_module
from router_service.credentials.uses import BATCH, RefusedUses, UseOutcome, UsePurpose, Uses


class Service:
    """Refuses a batch with a bad use in it, and is away as often as it is told."""

    def __init__(self, bad: set[str], away: int = 0) -> None:
        self.bad = bad
        self.away = away
        self.arrived: list[str] = []
        self.sends = 0
        self.lost = 0
        self.uses = Uses(self.send, self.lose)
        self.added = 0
        self.meanwhile = 0

    async def send(self, batch: list[lease_pb2.CredentialUse]) -> None:
        self.sends += 1
        names = [use.request_id for use in batch]
        assert names
        assert len(names) <= BATCH
        if self.away:
            self.away -= 1
            raise ConnectionError
        self.add(self.meanwhile)
        self.meanwhile = 0
        if self.bad.intersection(names):
            raise RefusedUses
        self.arrived += names

    def lose(self, count: int) -> None:
        self.lost += count

    def add(self, count: int) -> None:
        for _ in range(count):
            self.uses.add(
                lease_id="l",
                request_id=str(self.added),
                attempt=1,
                principal="p",
                purpose=UsePurpose.COMPLETION,
                outcome=UseOutcome.FAILED,
                use_time=1.5,
            )
            self.added += 1


@given(
    bad=st.sets(st.integers(0, 30).map(str)),
    count=st.integers(0, 30),
    away=st.integers(0, 3),
    meanwhile=st.integers(0, 5),
)
async def test_all_but_the_bad_arrive_once_and_in_order(bad: set[str], count: int, away: int, meanwhile: int) -> None:
    service = Service(bad, away)
    service.add(count)
    service.meanwhile = meanwhile
    for _ in range(away + 1):
        try:
            await service.uses.flush()
        except ConnectionError:
            continue
    expected = [str(number) for number in range(service.added) if str(number) not in bad]
    assert service.arrived == expected
    assert service.lost == service.added - len(expected)
    assert not service.uses._waiting


async def test_after_a_bad_use_batches_are_whole_again() -> None:
    service = Service({"2"})
    service.add(3 * BATCH)
    await service.uses.flush()
    assert len(service.arrived) == 3 * BATCH - 1
    assert service.sends < 10


async def test_what_is_pushed_out_while_it_is_sent_takes_nothing_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uses_module, "MOST_WAITING", 4)
    service = Service(set())
    service.add(4)
    service.meanwhile = 2
    await service.uses.flush()
    assert service.arrived == ["0", "1", "2", "3", "4", "5"]
    assert not service.uses._waiting


def test_the_moment_of_use_is_kept() -> None:
    service = Service(set())
    service.add(1)
    (use,) = service.uses._waiting
    assert use.use_time.ToNanoseconds() == 1_500_000_000
    assert use.outcome == lease_pb2.CREDENTIAL_USE_OUTCOME_FAILED
