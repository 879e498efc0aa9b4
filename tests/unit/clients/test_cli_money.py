"""Budgets, usage and the books of the keyswitch command against scripted services."""

from __future__ import annotations

from keyswitch.router.v1 import budget_service_pb2, receipt_pb2, usage_service_pb2

from tests.unit.clients.cli_terminal import OPERATOR, Terminal

BUDGET = budget_service_pb2.Budget(
    name="organizations/demo/budgets/monthly",
    subject="organizations/demo/users/ada",
    period=budget_service_pb2.BUDGET_PERIOD_MONTH,
    basis=budget_service_pb2.BUDGET_BASIS_LIST_PRICE,
    limit_usd_nanos=100 * 10**9,
    spent_usd_nanos=40 * 10**9,
    remaining_usd_nanos=60 * 10**9,
)


def test_budgets(terminal: Terminal) -> None:
    terminal.services.answers |= {
        "ListBudgets": budget_service_pb2.ListBudgetsResponse(budgets=[BUDGET]),
        "CreateBudget": budget_service_pb2.CreateBudgetResponse(budget=BUDGET),
        "UpdateBudget": budget_service_pb2.UpdateBudgetResponse(budget=BUDGET),
        "DeleteBudget": budget_service_pb2.DeleteBudgetResponse(),
    }
    listed = terminal.run("budgets", "list").stdout
    assert all(text in listed for text in ("monthly", "users/ada", "month", "$100.00", "$40.00", "$60.00"))
    terminal.run("budgets", "create", "monthly", "100", "--user", "ada", "--until", "2030-01-01")
    asked = terminal.services.asked("CreateBudget")
    assert (asked.organization, asked.budget_id) == ("organizations/demo", "monthly")
    assert (asked.budget.subject, asked.budget.limit_usd_nanos) == (BUDGET.subject, BUDGET.limit_usd_nanos)
    assert (asked.budget.period, asked.budget.basis) == (BUDGET.period, BUDGET.basis)
    assert "$60.00 left of $100.00" in terminal.run("budgets", "set", "monthly", "100").stdout
    assert list(terminal.services.asked("UpdateBudget").update_mask.paths) == ["limit_usd_nanos"]
    assert terminal.run("budgets", "delete", "monthly").exit_code == 0
    assert terminal.services.asked("DeleteBudget").name == BUDGET.name
    assert terminal.run("budgets", "create", "both", "1", "--user", "a", "--application", "b").exit_code == 2


def test_usage_says_what_is_not_known(terminal: Terminal) -> None:
    row = usage_service_pb2.UsageSummary(
        keys=["2026-11-21"],
        attempt_count=3,
        call_count=2,
        uncached_input_tokens=usage_service_pb2.UsageSum(total=1200),
        list_price_usd_nanos=usage_service_pb2.UsageSum(total=9_200, unknown_count=1),
    )
    other = usage_service_pb2.UsageSummary(keys=["2026-11-22"], call_count=1)
    terminal.services.answers |= {"Summarize": usage_service_pb2.SummarizeResponse(rows=[row, other])}
    shown = terminal.run("usage", "show", "--by", "day", "--payer", "credits", "--since", "2026-11-01").stdout
    assert all(text in shown for text in ("2026-11-21", "1,200", "$0.0000092 (+1 unknown)"))
    asked = terminal.services.asked("Summarize")
    assert list(asked.group_by) == [usage_service_pb2.USAGE_DIMENSION_DAY]
    assert asked.filter.organization == "organizations/demo"
    lines = terminal.run("usage", "plot").stdout.splitlines()
    assert lines[0].split() == ["2026-11-21", "█" * 40, "$0.0000092"]
    assert lines[1].split() == ["2026-11-22", "$0.00"]
    assert terminal.run("usage", "plot", "--measure", "nothing").exit_code == 2


def test_receipts_are_listed(terminal: Terminal) -> None:
    bill = receipt_pb2.Receipt(response_id="r-7", state=receipt_pb2.RECEIPT_STATE_FAILED)
    terminal.services.answers |= {
        "ListReceipts": usage_service_pb2.ListReceiptsResponse(receipts=[bill], next_page_token="more")
    }
    found = terminal.run("usage", "receipts", "--state", "failed", "--limit", "1")
    assert "r-7" in found.stdout
    assert "There are more" in found.stderr
    assert terminal.services.asked("ListReceipts").state == receipt_pb2.RECEIPT_STATE_FAILED


def test_the_books(terminal: Terminal) -> None:
    right = budget_service_pb2.VerifyLedgerResponse(is_right=True, organization_count=2, entry_count=9)
    entry = budget_service_pb2.LedgerEntry(entry_id=7, amount_usd_nanos=-5, note="r-7")
    balance = budget_service_pb2.Balance(organization="organizations/demo", low_balance_usd_nanos=10, is_low=True)
    terminal.services.answers |= {
        "VerifyLedger": right,
        "ListEntries": budget_service_pb2.ListEntriesResponse(entries=[entry]),
        "SetLowBalance": budget_service_pb2.SetLowBalanceResponse(balance=balance),
    }
    assert "9 movements of 2 organizations add up" in terminal.run("ledger", "verify", token=OPERATOR).stdout
    assert "-$0.000000005" in terminal.run("credits", "entries").stdout
    assert "LOW" in terminal.run("credits", "threshold", "0.00000001").stdout
    wrong = budget_service_pb2.LedgerMismatch(organization="organizations/acme", balance_usd_nanos=6)
    terminal.services.answers |= {"VerifyLedger": budget_service_pb2.VerifyLedgerResponse(mismatches=[wrong])}
    found = terminal.run("ledger", "verify", token=OPERATOR)
    assert found.exit_code == 1
    assert "acme" in found.stderr
