"""What every ledger must do, whatever database it stands on."""

import asyncio
import sys
from abc import abstractmethod
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from router_service.core.database import Database, PostgresDatabase, SqliteDatabase
from router_service.core.faults import Fault, Reason
from router_service.core.receipt import ReceiptState
from router_service.ledger.ledger import CLAIM_SECONDS, Balance, ExpiredReservation, Ledger
from tests.suites.budget_suite import BudgetSuite
from tests.suites.ledger_values import FULL, LATER, NOW, Clock, make_receipt, reason_of, spend


async def spend_forever(ledger: Ledger, workers: int) -> None:
    """The program that is killed: says what has been acknowledged, after it has been."""
    await ledger.add_credits("acme", 10**12, "start", "", NOW)

    async def work(worker: int) -> None:
        number = 0
        while True:
            response_id = f"{worker}-{number}"
            await ledger.reserve(response_id, 1, spend("acme", 100), LATER)
            await ledger.settle(response_id, 1, 1, response_id)
            await ledger.record(make_receipt(response_id))
            sys.stdout.write(f"{response_id}\n")
            sys.stdout.flush()
            number += 1

    await asyncio.gather(*(work(worker) for worker in range(workers)))


KILLED_PROGRAM = """
import asyncio, pathlib, sys
from router_service.core.database import parse_database
from router_service.ledger.sql_ledger import open_ledger
from tests.suites.ledger_suite import NOW, spend_forever
async def main():
    place = parse_database(sys.argv[1], pathlib.Path(sys.argv[2]) if len(sys.argv) > 2 else None)
    await spend_forever(await open_ledger(place, lambda: NOW), 8)
asyncio.run(main())
"""


def arguments(place: Database) -> list[str]:
    """What names a database to a program."""
    match place:
        case SqliteDatabase():
            return [str(place)]
        case PostgresDatabase():
            return [str(place), str(place.password_file)]


class LedgerSuite(BudgetSuite):
    """Subclassed for each database."""

    @abstractmethod
    async def open(self, place: Database, clock: Clock) -> Ledger:
        """A ledger in the database."""

    @pytest.fixture
    @abstractmethod
    def place(self) -> Database:
        """A database without anything in it."""

    @pytest.fixture
    def clock(self) -> Clock:
        return Clock()

    @pytest.fixture
    async def ledger(self, place: Database, clock: Clock) -> AsyncIterator[Ledger]:
        ledger = await self.open(place, clock)
        yield ledger
        await ledger.close()

    async def test_a_request_id_belongs_to_the_first_call(self, ledger: Ledger) -> None:
        assert await ledger.claim("acme", "id", "first", NOW) is None
        assert await ledger.claim("acme", "id", "second", NOW) == "first"
        assert await ledger.claim("acme", "id", "first", NOW) is None
        assert await ledger.claim("other", "id", "second", NOW) is None

    async def test_a_request_id_is_forgotten_after_a_day(self, ledger: Ledger) -> None:
        assert await ledger.claim("acme", "id", "first", NOW) is None
        assert await ledger.claim("acme", "id", "second", NOW + CLAIM_SECONDS - 1) == "first"
        assert await ledger.claim("acme", "id", "second", NOW + CLAIM_SECONDS) is None

    async def test_only_the_call_that_has_a_request_id_releases_it(self, ledger: Ledger) -> None:
        await ledger.claim("acme", "id", "first", NOW)
        await ledger.release_claim("acme", "id", "second")
        assert await ledger.claim("acme", "id", "second", NOW) == "first"
        await ledger.release_claim("acme", "id", "first")
        assert await ledger.claim("acme", "id", "second", NOW) is None

    async def test_of_many_calls_with_one_request_id_one_goes_on(self, ledger: Ledger) -> None:
        earlier = await asyncio.gather(*(ledger.claim("acme", "id", f"r{number}", NOW) for number in range(50)))
        winners = [number for number, other in enumerate(earlier) if other is None]
        assert len(winners) == 1
        assert {other for other in earlier if other is not None} == {f"r{winners[0]}"}

    async def test_an_unknown_organization_has_nothing(self, ledger: Ledger) -> None:
        assert await ledger.balance("acme") == Balance("acme", 0, 0)
        assert await reason_of(ledger.reserve("r", 1, spend("acme", 1), LATER)) is Reason.CREDIT_EXHAUSTED

    async def test_credits_are_added_once(self, ledger: Ledger) -> None:
        entry, balance = await ledger.add_credits("acme", 500, "id", "welcome", NOW)
        assert (entry.organization, entry.amount_nanos, entry.note, entry.create_time) == ("acme", 500, "welcome", NOW)
        assert balance == Balance("acme", 500, 0)
        again, balance = await ledger.add_credits("acme", 500, "id", "another note", NOW + 9)
        assert (again, balance.balance_nanos) == (entry, 500)
        assert await reason_of(ledger.add_credits("acme", 501, "id", "", NOW)) is Reason.REQUEST_ID_REUSED
        other, _ = await ledger.add_credits("other", 1, "id", "", NOW)
        assert other.entry_id == entry.entry_id + 1
        _, balance = await ledger.add_credits("acme", -700, "id-2", "taken back", NOW)
        assert balance == Balance("acme", -200, 0)

    @pytest.mark.parametrize("amount", [0, 10**18 + 1, -(10**18) - 1, 10**30])
    async def test_an_amount_out_of_bounds_is_refused(self, ledger: Ledger, amount: int) -> None:
        assert await reason_of(ledger.add_credits("acme", amount, "id", "", NOW)) is Reason.INVALID_REQUEST

    async def test_a_balance_stays_within_bounds(self, ledger: Ledger) -> None:
        for number in range(9):
            await ledger.add_credits("acme", 10**18, f"id-{number}", "", NOW)
        assert await reason_of(ledger.add_credits("acme", 10**18, "id-9", "", NOW)) is Reason.INVALID_REQUEST
        assert (await ledger.balance("acme")).balance_nanos == 9 * 10**18

    async def test_reserve_and_settle(self, ledger: Ledger) -> None:
        await ledger.add_credits("acme", 1000, "id", "", NOW)
        await ledger.reserve("r", 1, spend("acme", 400), LATER)
        assert await ledger.balance("acme") == Balance("acme", 1000, 400)
        await ledger.reserve("r", 1, spend("acme", 400), LATER)
        await ledger.reserve("r", 2, spend("acme", 600), LATER)
        assert (await ledger.balance("acme")).available_nanos == 0
        assert await reason_of(ledger.reserve("q", 1, spend("acme", 1), LATER)) is Reason.CREDIT_EXHAUSTED
        await ledger.settle("r", 1, 150, "r")
        assert await ledger.balance("acme") == Balance("acme", 850, 600)
        await ledger.settle("r", 1, 999, "r")
        assert await ledger.balance("acme") == Balance("acme", 850, 600)
        await ledger.settle("r", 2, 0, "r")
        assert await ledger.balance("acme") == Balance("acme", 850, 0)
        verification = await ledger.verify()
        assert (verification.organization_count, verification.entry_count, verification.mismatches) == (1, 2, ())

    async def test_a_refusal_names_the_organization(self, ledger: Ledger) -> None:
        with pytest.raises(Fault) as caught:
            await ledger.reserve("r", 1, spend("acme", 1), LATER)
        assert caught.value.metadata == {"organization": "organizations/acme"}

    async def test_an_answer_may_cost_more_than_was_reserved(self, ledger: Ledger) -> None:
        await ledger.add_credits("acme", 100, "id", "", NOW)
        await ledger.reserve("r", 1, spend("acme", 100), LATER)
        await ledger.settle("r", 1, 130, "r")
        assert await ledger.balance("acme") == Balance("acme", -30, 0)
        assert await reason_of(ledger.reserve("s", 1, spend("acme", 0), LATER)) is Reason.CREDIT_EXHAUSTED

    async def test_a_cancelled_reservation_costs_nothing(self, ledger: Ledger) -> None:
        await ledger.add_credits("acme", 100, "id", "", NOW)
        await ledger.reserve("r", 1, spend("acme", 100), LATER)
        await ledger.cancel_reservation("r", 1)
        await ledger.cancel_reservation("r", 1)
        await ledger.cancel_reservation("unknown", 1)
        await ledger.settle("r", 1, 50, "r")
        assert await ledger.balance("acme") == Balance("acme", 100, 0)

    async def test_an_attempt_that_has_ended_is_not_reserved_again(self, ledger: Ledger) -> None:
        await ledger.add_credits("acme", 100, "id", "", NOW)
        await ledger.reserve("r", 1, spend("acme", 10), LATER)
        await ledger.settle("r", 1, 5, "r")
        assert await reason_of(ledger.reserve("r", 1, spend("acme", 10), LATER)) is Reason.INTERNAL
        assert await reason_of(ledger.settle("unknown", 1, 5, "r")) is Reason.INTERNAL

    @pytest.mark.parametrize("amount", [-1, 10**18 + 1])
    async def test_only_real_amounts_are_reserved_and_charged(self, ledger: Ledger, amount: int) -> None:
        with pytest.raises(ValueError, match="10\\^18"):
            await ledger.reserve("r", 1, spend("acme", amount), LATER)
        with pytest.raises(ValueError, match="10\\^18"):
            await ledger.settle("r", 1, amount, "r")

    async def test_a_reservation_that_nobody_settles_is_freed_and_stays_visible(
        self, ledger: Ledger, clock: Clock
    ) -> None:
        await ledger.add_credits("acme", 100, "id", "", NOW)
        await ledger.reserve("r", 1, spend("acme", 100), LATER)
        clock.now = LATER - 1
        assert (await ledger.balance("acme")).available_nanos == 0
        clock.now = LATER
        assert await ledger.balance("acme") == Balance("acme", 100, 0)
        await ledger.reserve("s", 1, spend("acme", 100), LATER + 600)
        assert await ledger.expired_reservations() == (ExpiredReservation("r", 1, "acme", 100, LATER),)
        assert (await ledger.verify()).mismatches == ()
        await ledger.settle("r", 1, 40, "late")  # the answer was given after all
        assert await ledger.balance("acme") == Balance("acme", 60, 100)
        assert await ledger.expired_reservations() == ()

    async def test_many_spenders_never_reserve_more_than_there_is(self, ledger: Ledger) -> None:
        await ledger.add_credits("acme", 10_000, "id", "", NOW)
        results = await asyncio.gather(
            *(ledger.reserve(f"r{number}", 1, spend("acme", 130), LATER) for number in range(200)),
            return_exceptions=True,
        )
        refused = [result for result in results if isinstance(result, Fault)]
        assert {fault.reason for fault in refused} == {Reason.CREDIT_EXHAUSTED}
        assert len(results) - len(refused) == 10_000 // 130
        assert await ledger.balance("acme") == Balance("acme", 10_000, 130 * (10_000 // 130))

    async def test_two_ledgers_on_one_store_share_the_credits(
        self, ledger: Ledger, place: Database, clock: Clock
    ) -> None:
        second = await self.open(place, clock)
        await ledger.add_credits("acme", 10_000, "id", "", NOW)
        results = await asyncio.gather(
            *(
                (ledger, second)[number % 2].reserve(f"r{number}", 1, spend("acme", 130), LATER)
                for number in range(200)
            ),
            return_exceptions=True,
        )
        assert sum(result is None for result in results) == 10_000 // 130
        assert await second.balance("acme") == Balance("acme", 10_000, 130 * (10_000 // 130))
        await second.close()

    async def test_a_caller_that_goes_away_leaves_nothing_half_done(self, ledger: Ledger) -> None:
        await ledger.add_credits("acme", 100, "id", "", NOW)
        reserving = asyncio.ensure_future(ledger.reserve("r", 1, spend("acme", 100), LATER))
        await asyncio.sleep(0)  # lets it be submitted
        reserving.cancel()
        await ledger.cancel_reservation("r", 1)
        assert await ledger.balance("acme") == Balance("acme", 100, 0)
        assert (await ledger.verify()).mismatches == ()

    async def test_a_receipt_comes_back_as_it_was(self, ledger: Ledger) -> None:
        await ledger.record(FULL)
        assert await ledger.get_receipt("full") == FULL
        assert await ledger.find_receipt("acme", "request-full") == FULL
        assert await ledger.find_receipt("other", "request-full") is None
        assert await ledger.get_receipt("unknown") is None

    async def test_a_later_receipt_takes_the_place_of_an_earlier_one(self, ledger: Ledger) -> None:
        ended = make_receipt("r", state=ReceiptState.SUCCEEDED)
        await ledger.record(make_receipt("r"))
        await ledger.record(ended)
        assert await ledger.get_receipt("r") == ended
        assert ledger.record_soon(make_receipt("s"))
        await ledger.record(replace(ended, response_id="s"))
        await ledger.flush()
        assert await ledger.get_receipt("s") == replace(ended, response_id="s")

    async def test_a_reused_request_id_finds_the_latest_receipt(self, ledger: Ledger) -> None:
        latest = make_receipt("b", "id", create_time=NOW + CLAIM_SECONDS)
        await ledger.record(latest)
        await ledger.record(make_receipt("a", "id"))
        await ledger.record(make_receipt("c"))
        assert await ledger.find_receipt("acme", "id") == latest
        assert await ledger.find_receipt("acme", "") is None

    async def test_a_queued_receipt_is_read_back_at_once(self, ledger: Ledger) -> None:
        assert ledger.record_soon(make_receipt("r", "id"))
        assert await ledger.get_receipt("r") == make_receipt("r", "id")
        assert ledger.record_soon(FULL)
        assert await ledger.find_receipt("acme", "request-full") == FULL
        assert await ledger.find_receipt("acme", "id") == make_receipt("r", "id")
        await ledger.flush()
        assert await ledger.get_receipt("r") == make_receipt("r", "id")

    async def test_everything_is_there_after_reopening(self, place: Database, clock: Clock) -> None:
        ledger = await self.open(place, clock)
        first, _ = await ledger.add_credits("acme", 100, "id", "", NOW)
        await ledger.reserve("r", 1, spend("acme", 60), LATER)
        await ledger.claim("acme", "id", "r", NOW)
        ledger.record_soon(FULL)
        await ledger.close()
        again = await self.open(place, clock)
        assert await again.balance("acme") == Balance("acme", 100, 60)
        assert await again.claim("acme", "id", "s", NOW) == "r"
        assert await again.get_receipt("full") == FULL
        second, _ = await again.add_credits("acme", 1, "id-2", "", NOW)
        assert second.entry_id > first.entry_id
        await again.settle("r", 1, 60, "r")
        assert await again.balance("acme") == Balance("acme", 41, 0)
        await again.close()

    async def test_a_closed_ledger_says_so(self, place: Database, clock: Clock) -> None:
        ledger = await self.open(place, clock)
        await ledger.close()
        await ledger.close()
        assert await reason_of(ledger.balance("acme")) is Reason.LEDGER_UNAVAILABLE

    @pytest.mark.parametrize("acknowledged_count", [1, 20, 200])
    async def test_a_killed_process_loses_nothing_that_it_acknowledged(
        self, place: Database, clock: Clock, acknowledged_count: int
    ) -> None:
        program = await asyncio.create_subprocess_exec(
            sys.executable, "-c", KILLED_PROGRAM, *arguments(place), stdout=asyncio.subprocess.PIPE
        )
        assert program.stdout is not None
        acknowledged = [(await program.stdout.readline()).decode().strip() for _ in range(acknowledged_count)]
        program.kill()
        acknowledged += [line.decode().strip() async for line in program.stdout if line.endswith(b"\n")]
        await program.wait()
        ledger = await self.open(place, clock)
        balance = await ledger.balance("acme")
        charged = 10**12 - balance.balance_nanos
        assert len(acknowledged) <= charged <= len(acknowledged) + 8  # one more that was under way in each worker
        assert (await ledger.verify()).mismatches == ()
        for response_id in acknowledged:
            assert await ledger.get_receipt(response_id) == make_receipt(response_id)
            await ledger.settle(response_id, 1, 1, "again")
        assert await ledger.balance("acme") == balance
        clock.now = LATER
        assert (await ledger.balance("acme")).reserved_nanos == 0
        assert len(await ledger.expired_reservations()) == balance.reserved_nanos // 100
        await ledger.close()
