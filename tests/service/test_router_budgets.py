"""Budgets, credits and usage over gRPC, as an administrator, a member and an operator see them."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from keyswitch.router.v1 import budget_service_pb2 as budgets_pb2
from keyswitch.router.v1 import receipt_pb2, usage_service_pb2

from router_service.core.faults import Fault, Reason
from tests.service.router_answers import MARKUP_BASIS_POINTS, USAGE, answer
from tests.service.router_harness import ADA, CHAT, DEMO, Caller, Refused, Stack, make_call, make_policy, running_stack

Filter = usage_service_pb2.UsageFilter
LIST_NANOS = USAGE[0] * 1000 + USAGE[1] * 4000
CHARGED_NANOS = LIST_NANOS * (10_000 + MARKUP_BASIS_POINTS) // 10_000


@dataclass(frozen=True)
class Bench:
    """Both services, and callers of every role."""

    stack: Stack
    admin: Caller
    operator: Caller


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with running_stack(tmp_path) as stack:
        await stack.save_key(f"{DEMO}/credentials/first")
        await stack.save_key("deployment/credentials/first")
        yield Bench(stack, stack.caller(stack.admin.token), stack.caller(stack.vault.operator.token))


def make_budget(**fields: Any) -> budgets_pb2.Budget:
    values = {"subject": DEMO, "period": "BUDGET_PERIOD_MONTH", "basis": "BUDGET_BASIS_LIST_PRICE"}
    return budgets_pb2.Budget(**{**values, "limit_usd_nanos": 10**9, **fields})


async def create(who: Caller, budget_id: str = "cap", **fields: Any) -> budgets_pb2.Budget:
    request = budgets_pb2.CreateBudgetRequest(organization=DEMO, budget_id=budget_id, budget=make_budget(**fields))
    found: budgets_pb2.Budget = (await who.call(who.budgets.CreateBudget, request)).budget
    return found


async def refusal(awaitable: Any) -> Refused:
    with pytest.raises(Refused) as caught:
        await awaitable
    return caught.value


async def add_credits(bench: Bench, amount_nanos: int) -> None:
    request = budgets_pb2.AddCreditsRequest(
        organization=DEMO, amount_usd_nanos=amount_nanos, request_id=str(uuid.uuid4()), note="for tests"
    )
    await bench.operator.call(bench.operator.budgets.AddCredits, request)


async def test_a_budget_from_its_making_to_its_end(bench: Bench) -> None:
    admin, member = bench.admin, bench.stack.member
    made = await create(admin)
    assert (made.name, made.spent_usd_nanos, made.remaining_usd_nanos) == (f"{DEMO}/budgets/cap", 0, 10**9)
    assert (made.window_start_time.ToDatetime().day, made.window_end_time.ToDatetime().day) == (1, 1)
    assert (await refusal(create(admin))).reason == "RESOURCE_EXISTS"
    assert (await refusal(create(member, "other"))).reason == "CALLER_NOT_ALLOWED"
    changed = budgets_pb2.Budget(name=made.name, limit_usd_nanos=5, etag=made.etag)
    request = budgets_pb2.UpdateBudgetRequest(budget=changed, update_mask=FieldMask(paths=["limit_usd_nanos"]))
    updated = (await admin.call(admin.budgets.UpdateBudget, request)).budget
    assert (updated.limit_usd_nanos, updated.etag != made.etag) == (5, True)
    stale = await refusal(admin.call(admin.budgets.UpdateBudget, request))
    assert (stale.code, stale.reason) == (grpc.StatusCode.ABORTED, "ETAG_MISMATCH")
    listed = await member.call(member.budgets.ListBudgets, budgets_pb2.ListBudgetsRequest(organization=DEMO))
    assert [budget.etag for budget in listed.budgets] == [updated.etag]
    delete = budgets_pb2.DeleteBudgetRequest(name=made.name, etag=made.etag)
    assert (await refusal(admin.call(admin.budgets.DeleteBudget, delete))).reason == "ETAG_MISMATCH"
    await admin.call(admin.budgets.DeleteBudget, budgets_pb2.DeleteBudgetRequest(name=made.name))
    get = budgets_pb2.GetBudgetRequest(name=made.name)
    assert (await refusal(admin.call(admin.budgets.GetBudget, get))).reason == "RESOURCE_NOT_FOUND"


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"subject": "organizations/other"}, "budget.subject"),
        ({"subject": f"{DEMO}/users/nobody"}, "budget.subject"),
        ({"period": 0}, "budget.period"),
        ({"period": 99}, "budget.period"),
        ({"basis": 0}, "budget.basis"),
        ({"limit_usd_nanos": None}, "budget.limit_usd_nanos"),
        ({"limit_usd_nanos": -1}, "budget.limit_usd_nanos"),
        ({"limit_usd_nanos": 10**18 + 1}, "budget.limit_usd_nanos"),
        ({"expire_time": {"seconds": 1}}, "budget.expire_time"),
    ],
)
async def test_a_budget_that_makes_no_sense_is_refused(bench: Bench, fields: dict[str, Any], field: str) -> None:
    found = await refusal(create(bench.admin, **fields))
    assert (found.code, found.fields) == (grpc.StatusCode.INVALID_ARGUMENT, (field,))
    listed = await bench.admin.call(bench.admin.budgets.ListBudgets, budgets_pb2.ListBudgetsRequest(organization=DEMO))
    assert list(listed.budgets) == []


async def test_a_budget_of_list_prices_bounds_own_keys_too(bench: Bench) -> None:
    made = await create(bench.admin, limit_usd_nanos=10**12)
    bench.stack.first.script(answer())
    found = await bench.stack.member.stream(make_call())
    assert found.receipt.cost.charged_usd_nanos == 0
    await bench.stack.rest()
    get = budgets_pb2.GetBudgetRequest(name=made.name)
    budget = (await bench.admin.call(bench.admin.budgets.GetBudget, get)).budget
    assert (budget.spent_usd_nanos, budget.reserved_usd_nanos) == (LIST_NANOS, 0)
    low = budgets_pb2.Budget(name=made.name, limit_usd_nanos=LIST_NANOS)
    request = budgets_pb2.UpdateBudgetRequest(budget=low, update_mask=FieldMask(paths=["limit_usd_nanos"]))
    await bench.admin.call(bench.admin.budgets.UpdateBudget, request)
    refused = (await bench.stack.member.stream(make_call())).refused
    assert (refused.code, refused.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "BUDGET_EXHAUSTED")
    assert refused.has_quota_failure
    assert refused.metadata["budget"] == made.name
    assert len(bench.stack.first.received) == 1


async def test_a_budget_of_charges_counts_credits_only(bench: Bench) -> None:
    await add_credits(bench, 10**12)
    made = await create(bench.admin, basis="BUDGET_BASIS_CHARGED", subject=CHAT, limit_usd_nanos=10**12)
    bench.stack.first.script(answer(), answer())
    assert (await bench.stack.member.stream(make_call())).error is None
    paid = await bench.stack.member.stream(make_call(route_policy=make_policy(payers=["PAYER_CREDITS"])))
    assert paid.receipt.cost.charged_usd_nanos == CHARGED_NANOS
    await bench.stack.rest()
    get = budgets_pb2.GetBudgetRequest(name=made.name)
    budget = (await bench.stack.member.call(bench.stack.member.budgets.GetBudget, get)).budget
    assert (budget.spent_usd_nanos, budget.reserved_usd_nanos) == (CHARGED_NANOS, 0)


async def test_usage_is_listed_and_added_up_for_those_who_may_see_it(bench: Bench) -> None:
    await add_credits(bench, 10**12)
    bench.stack.first.script(answer(), answer())
    await bench.stack.member.stream(make_call())
    await bench.stack.member.stream(make_call(route_policy=make_policy(payers=["PAYER_CREDITS"])))
    await bench.stack.rest()
    member, admin = bench.stack.member, bench.admin
    first = await member.call(member.usage.ListReceipts, usage_service_pb2.ListReceiptsRequest(page_size=1))
    request = usage_service_pb2.ListReceiptsRequest(page_size=1, page_token=first.next_page_token)
    second = await member.call(member.usage.ListReceipts, request)
    assert second.next_page_token == ""
    payers = [receipt.attempts[0].payer for receipt in (*first.receipts, *second.receipts)]
    assert len(set(payers)) == 2
    request = usage_service_pb2.ListReceiptsRequest(
        page_size=1, page_token=first.next_page_token, state=receipt_pb2.RECEIPT_STATE_FAILED
    )
    assert (await refusal(member.call(member.usage.ListReceipts, request))).fields == ("page_token",)
    by_payer = usage_service_pb2.SummarizeRequest(
        group_by=[usage_service_pb2.USAGE_DIMENSION_PAYER, usage_service_pb2.USAGE_DIMENSION_PRINCIPAL]
    )
    rows = (await admin.call(admin.usage.Summarize, by_payer)).rows
    assert {tuple(row.keys) for row in rows} >= {("PAYER_CREDITS", ADA)}
    (credits_row,) = [row for row in rows if row.keys[0] == "PAYER_CREDITS"]
    assert credits_row.charged_usd_nanos.total == CHARGED_NANOS
    assert credits_row.list_price_usd_nanos.total == LIST_NANOS
    assert credits_row.upstream_charged_usd_nanos == usage_service_pb2.UsageSum(total=0, unknown_count=1)
    theirs = usage_service_pb2.SummarizeRequest(filter=Filter(principal=f"{DEMO}/users/bob"))
    assert (await refusal(member.call(member.usage.Summarize, theirs))).reason == "RESOURCE_NOT_FOUND"
    foreign = usage_service_pb2.SummarizeRequest(filter=Filter(organization="organizations/other"))
    assert (await refusal(admin.call(admin.usage.Summarize, foreign))).reason == "RESOURCE_NOT_FOUND"


async def test_the_books_are_open_to_those_who_answer_for_them(bench: Bench) -> None:
    await add_credits(bench, 100)
    await add_credits(bench, 20)
    admin, member, operator = bench.admin, bench.stack.member, bench.operator
    request = budgets_pb2.SetLowBalanceRequest(organization=DEMO, low_balance_usd_nanos=121)
    assert (await admin.call(admin.budgets.SetLowBalance, request)).balance.is_low
    assert (await refusal(member.call(member.budgets.SetLowBalance, request))).reason == "CALLER_NOT_ALLOWED"
    first = await admin.call(admin.budgets.ListEntries, budgets_pb2.ListEntriesRequest(organization=DEMO, page_size=1))
    rest = await admin.call(
        admin.budgets.ListEntries,
        budgets_pb2.ListEntriesRequest(organization=DEMO, page_size=1, page_token=first.next_page_token),
    )
    assert [entry.amount_usd_nanos for entry in (*first.entries, *rest.entries)] == [20, 100]
    assert rest.next_page_token == ""
    verified = await operator.call(operator.budgets.VerifyLedger, budgets_pb2.VerifyLedgerRequest())
    assert (verified.is_right, verified.entry_count) == (True, 2)
    found = await refusal(admin.call(admin.budgets.VerifyLedger, budgets_pb2.VerifyLedgerRequest()))
    assert found.reason == "CALLER_NOT_ALLOWED"


async def test_what_is_served_while_the_ledger_is_away_is_configured(bench: Bench) -> None:
    ledger: Any = bench.stack.router.ledger
    writer = ledger._writer
    submit = writer.submit

    def away(_: object) -> Any:
        writer.is_available = False
        future = ledger._loop.create_future()
        future.set_exception(Fault(Reason.LEDGER_UNAVAILABLE, "away"))
        return future

    writer.submit = away
    engine = bench.stack.router.engine
    engine.edges = replace(engine.edges, sleep=asyncio.sleep)  # what is to be given back is tried again and again
    bench.stack.first.script(answer())
    found = await bench.stack.member.stream(make_call())  # an own key: served, and recorded later
    credits_call = make_call(route_policy=make_policy(payers=["PAYER_CREDITS"]))
    assert (await bench.stack.member.stream(credits_call)).refused.reason == "LEDGER_UNAVAILABLE"
    engine.edges = replace(engine.edges, is_recorded_first=True)
    assert (await bench.stack.member.stream(make_call())).refused.reason == "LEDGER_UNAVAILABLE"
    assert len(bench.stack.first.received) == 1
    writer.submit = submit
    await ledger.flush()
    assert await ledger.get_receipt(found.receipt.response_id) is not None
    bench.stack.first.script(answer())
    assert (await bench.stack.member.stream(make_call())).error is None
