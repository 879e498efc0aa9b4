"""What every ledger must do, whatever database it stands on."""

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable
from dataclasses import replace
from pathlib import Path

import pytest

from router_service.core.events import ToolRequests, Usage
from router_service.core.faults import Fault, Reason
from router_service.core.receipt import Attempt, Cost, CostUnknown, Receipt, ReceiptState
from router_service.core.resolution import Payer, SkippedCandidate, SkipReason
from router_service.ledger.ledger import CLAIM_SECONDS, Balance, ExpiredReservation, Ledger

NOW = 1_800_000_000.0
LATER = NOW + 600


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


def make_receipt(response_id: str, request_id: str = "", **changes: object) -> Receipt:
    receipt = Receipt(response_id, "acme", "users/ada", request_id, ReceiptState.IN_FLIGHT, NOW)
    return replace(receipt, **changes)  # type: ignore[arg-type]  # the names are checked by replace


FULL = make_receipt(
    "full",
    "request-full",
    state=ReceiptState.FAILED,
    end_time=NOW + 1.5,
    failure_reason=Reason.UPSTREAM_TIMEOUT,
    attempts=(
        Attempt(
            number=1,
            model="practice/echo",
            provider="providers/practice",
            payer=Payer.CREDITS,
            credential_version="organizations/acme/credentials/a/versions/1",
            lease_id="lease-1",
            start_time=NOW + 0.25,
            failure_reason=Reason.UPSTREAM_TIMEOUT,
            upstream_request_id="r",
            upstream_backend="b",
            served_model_id="m",
            time_to_first_content_seconds=0.125,
            duration_seconds=1.0,
            usage=Usage(10, 1, 2, 3, 4, tool_requests=(ToolRequests("web_search", 2),)),
            cost=Cost(CostUnknown.NOT_REPORTED, 12, 13, "revision", True),
            provider_usage_json='{"äöü": "\\u0000", "n": 9007199254740993}',
        ),
        Attempt(2, "practice/echo", "providers/practice", Payer.FREE, "", "", NOW),
    ),
    skipped_candidates=(
        SkippedCandidate("m", "providers/p", None, SkipReason.NO_CREDENTIAL, "no key"),
        SkippedCandidate("m", "providers/p", Payer.USER_KEY, SkipReason.PRICE_UNKNOWN, "no price"),
    ),
    skipped_candidate_count=19,
    markup_basis_points=500,
)


async def reason_of(awaitable: Awaitable[object]) -> Reason:
    with pytest.raises(Fault) as caught:
        await awaitable
    return caught.value.reason


async def spend_forever(ledger: Ledger, workers: int) -> None:
    """The program that is killed: says what has been acknowledged, after it has been."""
    await ledger.add_credits("acme", 10**12, "start", "", NOW)

    async def work(worker: int) -> None:
        number = 0
        while True:
            response_id = f"{worker}-{number}"
            await ledger.reserve(response_id, 1, "acme", 100, 0, LATER)
            await ledger.settle(response_id, 1, 1, response_id)
            await ledger.record(make_receipt(response_id))
            sys.stdout.write(f"{response_id}\n")
            sys.stdout.flush()
            number += 1

    await asyncio.gather(*(work(worker) for worker in range(workers)))


class LedgerSuite:
    """Subclassed for each database."""

    async def open(self, path: Path, clock: Clock) -> Ledger:
        raise NotImplementedError

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        return tmp_path / "ledger.db"

    @pytest.fixture
    def clock(self) -> Clock:
        return Clock()

    @pytest.fixture
    async def ledger(self, path: Path, clock: Clock) -> AsyncIterator[Ledger]:
        ledger = await self.open(path, clock)
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
        assert await reason_of(ledger.reserve("r", 1, "acme", 1, 0, LATER)) is Reason.CREDIT_EXHAUSTED

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
        await ledger.reserve("r", 1, "acme", 400, 500, LATER)
        assert await ledger.balance("acme") == Balance("acme", 1000, 400)
        await ledger.reserve("r", 1, "acme", 400, 500, LATER)
        await ledger.reserve("r", 2, "acme", 600, 500, LATER)
        assert (await ledger.balance("acme")).available_nanos == 0
        assert await reason_of(ledger.reserve("q", 1, "acme", 1, 0, LATER)) is Reason.CREDIT_EXHAUSTED
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
            await ledger.reserve("r", 1, "acme", 1, 0, LATER)
        assert caught.value.metadata == {"organization": "organizations/acme"}

    async def test_an_answer_may_cost_more_than_was_reserved(self, ledger: Ledger) -> None:
        await ledger.add_credits("acme", 100, "id", "", NOW)
        await ledger.reserve("r", 1, "acme", 100, 0, LATER)
        await ledger.settle("r", 1, 130, "r")
        assert await ledger.balance("acme") == Balance("acme", -30, 0)
        assert await reason_of(ledger.reserve("s", 1, "acme", 0, 0, LATER)) is Reason.CREDIT_EXHAUSTED

    async def test_a_cancelled_reservation_costs_nothing(self, ledger: Ledger) -> None:
        await ledger.add_credits("acme", 100, "id", "", NOW)
        await ledger.reserve("r", 1, "acme", 100, 0, LATER)
        await ledger.cancel_reservation("r", 1)
        await ledger.cancel_reservation("r", 1)
        await ledger.cancel_reservation("unknown", 1)
        await ledger.settle("r", 1, 50, "r")
        assert await ledger.balance("acme") == Balance("acme", 100, 0)

    async def test_an_attempt_that_has_ended_is_not_reserved_again(self, ledger: Ledger) -> None:
        await ledger.add_credits("acme", 100, "id", "", NOW)
        await ledger.reserve("r", 1, "acme", 10, 0, LATER)
        await ledger.settle("r", 1, 5, "r")
        assert await reason_of(ledger.reserve("r", 1, "acme", 10, 0, LATER)) is Reason.INTERNAL
        assert await reason_of(ledger.settle("unknown", 1, 5, "r")) is Reason.INTERNAL

    @pytest.mark.parametrize("amount", [-1, 10**18 + 1])
    async def test_only_real_amounts_are_reserved_and_charged(self, ledger: Ledger, amount: int) -> None:
        with pytest.raises(ValueError, match="10\\^18"):
            await ledger.reserve("r", 1, "acme", amount, 0, LATER)
        with pytest.raises(ValueError, match="10\\^18"):
            await ledger.settle("r", 1, amount, "r")

    async def test_a_reservation_that_nobody_settles_is_freed_and_stays_visible(
        self, ledger: Ledger, clock: Clock
    ) -> None:
        await ledger.add_credits("acme", 100, "id", "", NOW)
        await ledger.reserve("r", 1, "acme", 100, 0, LATER)
        clock.now = LATER - 1
        assert (await ledger.balance("acme")).available_nanos == 0
        clock.now = LATER
        assert await ledger.balance("acme") == Balance("acme", 100, 0)
        await ledger.reserve("s", 1, "acme", 100, 0, LATER + 600)
        assert await ledger.expired_reservations() == (ExpiredReservation("r", 1, "acme", 100, LATER),)
        assert (await ledger.verify()).mismatches == ()
        await ledger.settle("r", 1, 40, "late")  # the answer was given after all
        assert await ledger.balance("acme") == Balance("acme", 60, 100)
        assert await ledger.expired_reservations() == ()

    async def test_many_spenders_never_reserve_more_than_there_is(self, ledger: Ledger) -> None:
        await ledger.add_credits("acme", 10_000, "id", "", NOW)
        results = await asyncio.gather(
            *(ledger.reserve(f"r{number}", 1, "acme", 130, 0, LATER) for number in range(200)),
            return_exceptions=True,
        )
        refused = [result for result in results if isinstance(result, Fault)]
        assert {fault.reason for fault in refused} == {Reason.CREDIT_EXHAUSTED}
        assert len(results) - len(refused) == 10_000 // 130
        assert await ledger.balance("acme") == Balance("acme", 10_000, 130 * (10_000 // 130))

    async def test_two_ledgers_on_one_store_share_the_credits(self, ledger: Ledger, path: Path, clock: Clock) -> None:
        second = await self.open(path, clock)
        await ledger.add_credits("acme", 10_000, "id", "", NOW)
        results = await asyncio.gather(
            *((ledger, second)[number % 2].reserve(f"r{number}", 1, "acme", 130, 0, LATER) for number in range(200)),
            return_exceptions=True,
        )
        assert sum(result is None for result in results) == 10_000 // 130
        assert await second.balance("acme") == Balance("acme", 10_000, 130 * (10_000 // 130))
        await second.close()

    async def test_a_caller_that_goes_away_leaves_nothing_half_done(self, ledger: Ledger) -> None:
        await ledger.add_credits("acme", 100, "id", "", NOW)
        reserving = asyncio.ensure_future(ledger.reserve("r", 1, "acme", 100, 0, LATER))
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

    async def test_everything_is_there_after_reopening(self, path: Path, clock: Clock) -> None:
        ledger = await self.open(path, clock)
        first, _ = await ledger.add_credits("acme", 100, "id", "", NOW)
        await ledger.reserve("r", 1, "acme", 60, 0, LATER)
        await ledger.claim("acme", "id", "r", NOW)
        ledger.record_soon(FULL)
        await ledger.close()
        again = await self.open(path, clock)
        assert await again.balance("acme") == Balance("acme", 100, 60)
        assert await again.claim("acme", "id", "s", NOW) == "r"
        assert await again.get_receipt("full") == FULL
        second, _ = await again.add_credits("acme", 1, "id-2", "", NOW)
        assert second.entry_id > first.entry_id
        await again.settle("r", 1, 60, "r")
        assert await again.balance("acme") == Balance("acme", 41, 0)
        await again.close()

    async def test_a_closed_ledger_says_so(self, path: Path, clock: Clock) -> None:
        ledger = await self.open(path, clock)
        await ledger.close()
        await ledger.close()
        assert await reason_of(ledger.balance("acme")) is Reason.LEDGER_UNAVAILABLE

    killed_program = ""  # opens the store named by its first argument and runs spend_forever with 8 workers

    @pytest.mark.parametrize("acknowledged_count", [1, 20, 200])
    async def test_a_killed_process_loses_nothing_that_it_acknowledged(
        self, path: Path, clock: Clock, acknowledged_count: int
    ) -> None:
        program = await asyncio.create_subprocess_exec(
            sys.executable, "-c", self.killed_program, str(path), stdout=asyncio.subprocess.PIPE
        )
        assert program.stdout is not None
        acknowledged = [(await program.stdout.readline()).decode().strip() for _ in range(acknowledged_count)]
        program.kill()
        acknowledged += [line.decode().strip() async for line in program.stdout if line.endswith(b"\n")]
        await program.wait()
        ledger = await self.open(path, clock)
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
