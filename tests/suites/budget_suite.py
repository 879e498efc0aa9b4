"""What every ledger must do with budgets and usage; a part of the ledger's suite."""

import asyncio
from dataclasses import replace

import pytest

from router_service.core.budget import Basis, Budget, Period
from router_service.core.faults import Fault, Reason
from router_service.core.receipt import CostUnknown, ReceiptState
from router_service.ledger.ledger import Balance, Ledger, Spending
from router_service.ledger.usage import Dimension, Sum, UsageFilter
from tests.suites.ledger_values import FULL, LATER, NOW, Clock, make_receipt, reason_of

ACME = "organizations/acme"
ADA = f"{ACME}/users/ada"
CHAT = f"{ACME}/applications/chat"
DAY = 86_400


def make_budget(budget_id: str = "cap", limit_nanos: int = 100, **changes: object) -> Budget:
    budget = Budget(
        "acme", budget_id, f"uid-{budget_id}", ACME, Period.MONTH, Basis.CHARGED, limit_nanos, None, NOW, NOW, 1
    )
    return replace(budget, **changes)  # type: ignore[arg-type]  # the names are checked by replace


def paid(amount_nanos: int | None, list_nanos: int | None = None) -> Spending:
    """Spending of Ada's over the chat application."""
    return Spending("acme", amount_nanos, list_nanos, (ACME, CHAT, ADA))


class BudgetSuite:
    """See LedgerSuite."""

    async def test_every_tier_is_reserved_or_none(self, ledger: Ledger) -> None:
        await ledger.add_credits("acme", 1000, "id", "", NOW)
        await ledger.create_budget(make_budget("all", 500))
        await ledger.create_budget(make_budget("app", 300, subject=CHAT))
        await ledger.create_budget(make_budget("her", 100, subject=ADA))
        await ledger.create_budget(make_budget("him", 1, subject=f"{ACME}/users/bob"))
        with pytest.raises(Fault) as caught:
            await ledger.reserve("r", 1, paid(101, 90), LATER)
        assert caught.value.reason is Reason.BUDGET_EXHAUSTED
        assert caught.value.metadata == {"budget": f"{ACME}/budgets/her", "subject": ADA}
        assert await ledger.balance("acme") == Balance("acme", 1000, 0)
        assert {status.reserved_nanos for status in await ledger.list_budgets("acme")} == {0}
        await ledger.reserve("r", 1, paid(100, 90), LATER)
        await ledger.reserve("r", 1, paid(100, 90), LATER)
        await ledger.settle("r", 1, 40, "r", 35)
        await ledger.settle("r", 1, 40, "r", 35)
        spent = {status.budget.budget_id: status.spent_nanos for status in await ledger.list_budgets("acme")}
        assert spent == {"all": 40, "app": 40, "her": 40, "him": 0}
        assert await ledger.balance("acme") == Balance("acme", 960, 0)
        assert (await ledger.verify()).is_right

    async def test_list_prices_count_whoever_pays(self, ledger: Ledger) -> None:
        assert not ledger.counts_list_prices((ACME, CHAT, ADA))
        await ledger.create_budget(make_budget("own", 100, basis=Basis.LIST_PRICE))
        await ledger.create_budget(make_budget("charged", 0))
        assert ledger.counts_list_prices((ACME, CHAT, ADA))
        assert not ledger.counts_list_prices(("organizations/other",))
        await ledger.reserve("r", 1, paid(None, 60), LATER)
        assert await reason_of(ledger.reserve("s", 1, paid(None, 60), LATER)) is Reason.BUDGET_EXHAUSTED
        assert await reason_of(ledger.reserve("t", 1, paid(None, None), LATER)) is Reason.PRICE_UNKNOWN
        await ledger.settle("r", 1, 0, "r", 20)
        await ledger.reserve("u", 1, paid(None, 80), LATER)
        await ledger.settle("u", 1, 0, "u", None)  # what is not known is not 0: what was reserved counts
        status = await ledger.get_budget("acme", "own")
        assert status is not None
        assert (status.spent_nanos, status.reserved_nanos, status.remaining_nanos) == (100, 0, 0)
        assert await ledger.balance("acme") == Balance("acme", 0, 0)
        assert (await ledger.verify()).is_right

    async def test_a_window_ends_with_its_month_and_settles_where_it_was_reserved(
        self, ledger: Ledger, clock: Clock
    ) -> None:
        await ledger.create_budget(make_budget("own", 100, basis=Basis.LIST_PRICE, period=Period.DAY))
        await ledger.reserve("r", 1, paid(None, 100), NOW + 3 * DAY)
        clock.now += DAY
        await ledger.reserve("s", 1, paid(None, 100), NOW + 3 * DAY)  # a new day
        await ledger.settle("r", 1, 0, "r", 70)
        status = await ledger.get_budget("acme", "own")
        assert status is not None
        assert (status.spent_nanos, status.reserved_nanos) == (0, 100)
        clock.now -= DAY  # a clock that was set back finds the day as it was left
        status = await ledger.get_budget("acme", "own")
        assert status is not None
        assert (status.spent_nanos, status.reserved_nanos) == (70, 0)
        assert (await ledger.verify()).is_right

    async def test_holds_end_with_their_reservation(self, ledger: Ledger, clock: Clock) -> None:
        await ledger.create_budget(make_budget("own", 100, basis=Basis.LIST_PRICE, period=Period.TOTAL))
        await ledger.reserve("r", 1, paid(None, 60), LATER)
        await ledger.cancel_reservation("r", 1)
        await ledger.reserve("s", 1, paid(None, 60), LATER)
        clock.now = LATER
        found = await ledger.sweep()
        assert (found.expired_count, found.low) == (1, ())
        status = await ledger.get_budget("acme", "own")
        assert status is not None
        assert status.remaining_nanos == 100
        await ledger.settle("s", 1, 0, "s", 50)  # the answer was given after all
        status = await ledger.get_budget("acme", "own")
        assert status is not None
        assert status.remaining_nanos == 50
        assert (await ledger.verify()).is_right

    async def test_changes_of_a_budget(self, ledger: Ledger, clock: Clock) -> None:
        first = make_budget(limit_nanos=0, basis=Basis.LIST_PRICE)
        await ledger.create_budget(first)
        assert await reason_of(ledger.create_budget(first)) is Reason.RESOURCE_EXISTS
        await ledger.reserve("free", 1, paid(None, 0), LATER)  # costs nothing
        assert await reason_of(ledger.reserve("r", 1, paid(None, 1), LATER)) is Reason.BUDGET_EXHAUSTED
        second = replace(first, limit_nanos=9, expire_time=NOW + 5, revision=2)
        assert (await ledger.update_budget(second)).budget == second
        assert await reason_of(ledger.update_budget(second)) is Reason.ETAG_MISMATCH
        clock.now += 5
        await ledger.reserve("r", 1, paid(None, 1000), LATER)  # it has ended
        assert await reason_of(ledger.delete_budget("acme", "cap", 1)) is Reason.ETAG_MISMATCH
        assert await ledger.delete_budget("acme", "cap", 2)
        assert not await ledger.delete_budget("acme", "cap", None)
        assert await ledger.list_budgets("acme") == ()

    async def test_many_spenders_never_overshoot_a_budget(self, ledger: Ledger) -> None:
        await ledger.add_credits("acme", 10**6, "id", "", NOW)
        await ledger.create_budget(make_budget("all", 10_000))
        await ledger.create_budget(make_budget("her", 5_000, subject=ADA))
        results = await asyncio.gather(
            *(ledger.reserve(f"r{number}", 1, paid(130, 130), LATER) for number in range(200)), return_exceptions=True
        )
        assert sum(result is None for result in results) == 5_000 // 130
        assert (await ledger.verify()).is_right

    async def test_a_low_balance_is_seen(self, ledger: Ledger) -> None:
        await ledger.add_credits("acme", 100, "id", "", NOW)
        assert not (await ledger.balance("acme")).is_low
        assert not (await ledger.set_low_balance("acme", 100)).is_low
        await ledger.reserve("r", 1, Spending("acme", 1), LATER)
        assert (await ledger.balance("acme")).is_low
        assert [balance.organization for balance in (await ledger.sweep()).low] == ["acme"]
        assert not (await ledger.set_low_balance("acme", None)).is_low
        assert (await ledger.sweep()).low == ()

    async def test_movements_come_in_pages(self, ledger: Ledger) -> None:
        for number in range(5):
            await ledger.add_credits("acme", number + 1, f"id-{number}", "", NOW)
        await ledger.add_credits("other", 9, "id", "", NOW)
        first = await ledger.list_entries("acme", None, 3)
        rest = await ledger.list_entries("acme", first[-1].entry_id, 3)
        assert [entry.amount_nanos for entry in (*first, *rest)] == [5, 4, 3, 2, 1]

    async def test_receipts_are_found_and_added_up(self, ledger: Ledger) -> None:
        full = replace(FULL, application=CHAT, principal=ADA)
        (attempt, _) = full.attempts
        assert attempt.cost is not None
        unknown = replace(attempt, cost=replace(attempt.cost, list_price=CostUnknown.NO_PRICE, charged=0), usage=None)
        await ledger.record(full)
        await ledger.record(replace(full, response_id="again", attempts=(attempt, replace(unknown, number=2))))
        await ledger.record(make_receipt("empty", create_time=NOW + 1, state=ReceiptState.CANCELLED))
        await ledger.record(replace(make_receipt("theirs"), organization="other"))
        wanted = UsageFilter(organization="acme")
        assert [one.response_id for one in await ledger.list_receipts(wanted, None, 9)] == ["empty", "full", "again"]
        assert [one.response_id for one in await ledger.list_receipts(wanted, (NOW, "full"), 9)] == ["again"]
        for narrower, found in (
            (replace(wanted, state=ReceiptState.CANCELLED), 1),
            (replace(wanted, principal=ADA), 2),
            (replace(wanted, payer="CREDITS", model=attempt.model), 2),
            (replace(wanted, payer="USER_KEY"), 0),
            (replace(wanted, start_time=NOW + 1), 1),
            (replace(wanted, end_time=NOW), 0),
        ):
            assert len(await ledger.list_receipts(narrower, None, 9)) == found
        (row,) = await ledger.summarize(wanted, (Dimension.PAYER, Dimension.APPLICATION, Dimension.DAY))
        assert row.keys == ("CREDITS", CHAT, str(int(NOW // DAY)))
        assert (row.attempt_count, row.call_count, row.estimate_count) == (3, 2, 3)
        assert row.uncached_input_tokens == Sum(14, 1)
        assert row.cache_read_tokens == Sum(2, 1)
        assert row.list_nanos == Sum(24, 1)
        assert row.charged_nanos == Sum(26, 0)
        assert row.upstream_nanos == Sum(0, 3)
        assert await ledger.summarize(replace(wanted, model="none"), (Dimension.MODEL,)) == ()
        (empty,) = await ledger.summarize(replace(wanted, model="none"), ())
        assert (empty.attempt_count, empty.list_nanos) == (0, Sum(0, 0))
