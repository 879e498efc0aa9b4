"""Uses on their way into the audit log: kept until they have arrived, counted when they cannot be."""

import pytest
from keyswitch.vault.v1 import lease_pb2

from router_service.credentials import uses as uses_module
from router_service.credentials.uses import BATCH, UseOutcome, UsePurpose, Uses


class Log:
    """The credential service's end."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.lost = 0
        self.is_away = False
        self.uses = Uses(self.send, self.lose)

    async def send(self, uses: list[lease_pb2.CredentialUse]) -> None:
        if self.is_away:
            raise ConnectionError
        self.batches.append([use.request_id for use in uses])

    def lose(self, count: int) -> None:
        self.lost += count

    def add(self, count: int, first: int = 0) -> None:
        for number in range(first, first + count):
            self.uses.add(
                lease_id="l",
                request_id=str(number),
                attempt=1,
                principal="p",
                purpose=UsePurpose.COMPLETION,
                outcome=UseOutcome.SUCCEEDED,
                use_time=1.5,
            )


async def test_uses_arrive_in_order_and_in_batches() -> None:
    log = Log()
    log.add(BATCH + 1)
    await log.uses.flush()
    assert [len(batch) for batch in log.batches] == [BATCH, 1]
    assert [one for batch in log.batches for one in batch] == [str(number) for number in range(BATCH + 1)]


async def test_what_did_not_arrive_is_reported_again() -> None:
    log = Log()
    log.add(3)
    log.is_away = True
    with pytest.raises(ConnectionError):
        await log.uses.flush()
    log.is_away = False
    log.add(1, first=3)
    await log.uses.flush()
    assert log.batches == [["0", "1", "2", "3"]]
    await log.uses.flush()
    assert len(log.batches) == 1


async def test_too_many_lose_the_oldest_and_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uses_module, "MOST_WAITING", 5)
    log = Log()
    log.add(7)
    assert log.lost == 2
    await log.uses.flush()
    assert log.batches == [["2", "3", "4", "5", "6"]]


async def test_the_end_reports_what_is_left_and_counts_what_cannot_be() -> None:
    log = Log()
    log.uses.start()
    log.add(2)
    await log.uses.stop()
    assert (log.batches, log.lost) == ([["0", "1"]], 0)
    log.is_away = True
    log.add(2)
    await log.uses.stop()
    assert log.lost == 2
