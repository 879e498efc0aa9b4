"""A ledger against a model, operation by operation: balances are sums, and nothing is taken that is not there.

Every example takes organizations of its own, so that many can share one database.
"""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field, replace
from itertools import count

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from router_service.core.budget import Basis, Budget, Period, window_start
from router_service.core.database import Database
from router_service.core.faults import Fault, Reason
from router_service.ledger.ledger import Spending
from router_service.ledger.sql_ledger import SqlLedger, open_ledger
from tests.suites.ledger_values import NOW, Clock

ORGANIZATIONS = ("acme", "other")
WHO = ("", "/applications/chat", "/users/ada")
DAY = 86_400
organizations = st.sampled_from(ORGANIZATIONS)
attempts = st.tuples(st.sampled_from(("r1", "r2", "r3", "r4")), st.integers(1, 2))
amounts = st.none() | st.integers(0, 600)
limits = st.integers(0, 1500)
_examples = count()
Key = tuple[str, int]


@dataclass
class Cap:
    """The model of a budget."""

    budget: Budget
    spent: dict[int, int] = field(default_factory=dict)


@dataclass
class Held:
    """The model of a reservation, with what it holds of each budget: uid, window, amount."""

    spending: Spending
    expire_time: float
    holds: list[tuple[str, int, int]]
    state: str = "HELD"


@dataclass
class Books:
    """The model of the ledger."""

    entries: dict[str, list[int]] = field(default_factory=dict)
    credits: dict[tuple[str, str], int] = field(default_factory=dict)
    reservations: dict[Key, Held] = field(default_factory=dict)
    caps: dict[str, Cap] = field(default_factory=dict)  # by uid, also those that are deleted

    def expire(self, now: float) -> None:
        for held in self.reservations.values():
            if held.state == "HELD" and held.expire_time <= now:
                held.state = "EXPIRED"

    def balance(self, organization: str) -> int:
        return sum(self.entries.get(organization, ()))

    def reserved(self, organization: str) -> int:
        return sum(
            held.spending.credits_nanos or 0
            for held in self.reservations.values()
            if held.state == "HELD" and held.spending.organization == organization
        )

    def held_of(self, uid: str, window: int) -> int:
        return sum(
            amount
            for held in self.reservations.values()
            if held.state == "HELD"
            for owner, start, amount in held.holds
            if (owner, start) == (uid, window)
        )


class LedgerMachine(RuleBasedStateMachine):
    """Random operations on both."""

    keys: Bundle[Key] = Bundle("keys")
    place: Database

    def __init__(self) -> None:
        super().__init__()
        self.mark = f"{next(_examples)}-"
        self.clock = Clock()
        self.runner = asyncio.Runner()
        self.books = Books()
        self.live: dict[str, Budget] = {}  # by organization and id
        self.uids = count()
        self.ledger = self.open()

    def open(self) -> SqlLedger:
        return self.runner.run(open_ledger(self.place, self.clock, flush_interval_seconds=3600))

    def refusal_of(self, operation: Coroutine[object, object, object]) -> Reason | None:
        try:
            self.runner.run(operation)
        except Fault as fault:
            return fault.reason
        return None

    def teardown(self) -> None:
        self.runner.run(self.ledger.close())
        self.runner.close()

    @initialize()
    def begin_with_credits(self) -> None:
        for organization in ORGANIZATIONS:
            self.add_credits(organization, 1000, "start")

    @rule(organization=organizations, amount=st.integers(-500, 1000).filter(bool), request=st.sampled_from("abcd"))
    def add_credits(self, organization: str, amount: int, request: str) -> None:
        organization = self.mark + organization
        reason = self.refusal_of(self.ledger.add_credits(organization, amount, request, "", self.clock.now))
        if reason is not None:
            assert reason is Reason.REQUEST_ID_REUSED
            assert self.books.credits[organization, request] != amount
            return
        if (organization, request) not in self.books.credits:
            self.books.credits[organization, request] = amount
            self.books.entries.setdefault(organization, []).append(amount)
        assert self.books.credits[organization, request] == amount

    @rule(
        organization=organizations,
        budget_id=st.sampled_from("ab"),
        who=st.sampled_from(WHO),
        basis=st.sampled_from(Basis),
        period=st.sampled_from(Period),
        limit=limits,
    )
    def create_budget(
        self, organization: str, budget_id: str, who: str, basis: Basis, period: Period, limit: int
    ) -> None:
        organization = self.mark + organization
        subject, uid = f"organizations/{organization}{who}", f"{self.mark}{next(self.uids)}"
        made = Budget(organization, budget_id, uid, subject, period, basis, limit, None, NOW, NOW, 1)
        reason = self.refusal_of(self.ledger.create_budget(made))
        if made.name in self.live:
            assert reason is Reason.RESOURCE_EXISTS
            return
        assert reason is None
        self.live[made.name] = made
        self.books.caps[uid] = Cap(made)

    @rule(place=st.integers(0, 3), limit=limits, ends_in=st.none() | st.integers(-5, 50), is_stale=st.booleans())
    def update_budget(self, place: int, limit: int, ends_in: int | None, is_stale: bool) -> None:
        if place >= len(self.live):
            return
        current = list(self.live.values())[place]
        ends = None if ends_in is None else self.clock.now + ends_in
        revision = current.revision + (0 if is_stale else 1)
        changed = replace(current, limit_nanos=limit, expire_time=ends, revision=revision)
        reason = self.refusal_of(self.ledger.update_budget(changed))
        assert reason is (Reason.ETAG_MISMATCH if is_stale else None)
        if not is_stale:
            self.live[current.name] = self.books.caps[current.uid].budget = changed

    @rule(place=st.integers(0, 3))
    def delete_budget(self, place: int) -> None:
        if place < len(self.live):
            gone = list(self.live.values())[place]
            assert self.runner.run(self.ledger.delete_budget(gone.organization, gone.budget_id, None))
            del self.live[gone.name]

    @rule(
        target=keys,
        key=attempts,
        organization=organizations,
        charged=amounts,
        listed=amounts,
        seconds=st.integers(1, 100),
    )
    def reserve(self, key: Key, organization: str, charged: int | None, listed: int | None, seconds: int) -> Key:
        self.books.expire(self.clock.now)
        organization, key = self.mark + organization, (self.mark + key[0], key[1])
        subjects = tuple(f"organizations/{organization}{who}" for who in WHO)
        spending = Spending(organization, charged, listed, subjects)
        expire_time = self.clock.now + seconds
        reason = self.refusal_of(self.ledger.reserve(*key, spending, expire_time))
        known = self.books.reservations.get(key)
        if known is not None:
            assert reason is (None if known.state == "HELD" else Reason.INTERNAL)
            return key
        expected, holds = self.expect(spending)
        assert reason is expected
        if reason is None:
            self.books.reservations[key] = Held(spending, expire_time, holds)
        return key

    def expect(self, spending: Spending) -> tuple[Reason | None, list[tuple[str, int, int]]]:
        """What is to be said to a new reservation, and what it takes of each budget."""
        now, organization = self.clock.now, spending.organization
        available = self.books.balance(organization) - self.books.reserved(organization)
        if spending.credits_nanos is not None and available < spending.credits_nanos:
            return Reason.CREDIT_EXHAUSTED, []
        holds = []
        mine = [one for one in self.live.values() if one.organization == organization and one.is_in_force(now)]
        for budget in sorted(mine, key=lambda one: one.budget_id):
            amount = spending.credits_nanos if budget.basis is Basis.CHARGED else spending.list_nanos
            if amount is None:
                if budget.basis is Basis.CHARGED:
                    continue
                return Reason.PRICE_UNKNOWN, []
            window = window_start(budget.period, now)
            spent = self.books.caps[budget.uid].spent.get(window, 0)
            if budget.limit_nanos - spent - self.books.held_of(budget.uid, window) < amount:
                return Reason.BUDGET_EXHAUSTED, []
            holds.append((budget.uid, window, amount))
        return None, holds

    @rule(key=keys, charged=st.integers(0, 900), listed=st.none() | st.integers(0, 900))
    def settle(self, key: Key, charged: int, listed: int | None) -> None:
        held = self.books.reservations.get(key)
        reason = self.refusal_of(self.ledger.settle(*key, charged, key[0], listed))
        assert reason is (Reason.INTERNAL if held is None else None)
        if held is None or held.state not in ("HELD", "EXPIRED"):
            return
        held.state = "SETTLED"
        if charged:
            self.books.entries.setdefault(held.spending.organization, []).append(-charged)
        for uid, window, amount in held.holds:
            cap = self.books.caps[uid]
            cost = charged if cap.budget.basis is Basis.CHARGED else amount if listed is None else listed
            cap.spent[window] = cap.spent.get(window, 0) + cost

    @rule(key=keys)
    def cancel(self, key: Key) -> None:
        assert self.refusal_of(self.ledger.cancel_reservation(*key)) is None
        held = self.books.reservations.get(key)
        if held is not None and held.state == "HELD":
            held.state = "CANCELLED"

    @rule(seconds=st.integers(1, 80) | st.sampled_from((DAY, -DAY, -30)))
    def let_time_pass(self, seconds: int) -> None:
        """Also backwards: clocks are set."""
        self.books.expire(self.clock.now)
        self.runner.run(self.ledger.sweep())
        self.clock.now += seconds

    @rule()
    def reopen(self) -> None:
        self.runner.run(self.ledger.close())
        self.ledger = self.open()

    @invariant()
    def agree(self) -> None:
        self.books.expire(self.clock.now)
        for name in ORGANIZATIONS:
            organization = self.mark + name
            balance = self.runner.run(self.ledger.balance(organization))
            assert balance.balance_nanos == self.books.balance(organization)
            assert balance.reserved_nanos == self.books.reserved(organization)
            for status in self.runner.run(self.ledger.list_budgets(organization)):
                window = window_start(status.budget.period, self.clock.now)
                assert status.budget == self.live[status.budget.name]
                assert status.spent_nanos == self.books.caps[status.budget.uid].spent.get(window, 0)
                assert status.reserved_nanos == self.books.held_of(status.budget.uid, window)
        assert self.runner.run(self.ledger.verify()).is_right
        expired = self.runner.run(self.ledger.expired_reservations())
        mine = {(row.response_id, row.attempt) for row in expired if row.response_id.startswith(self.mark)}
        assert mine == {key for key, held in self.books.reservations.items() if held.state == "EXPIRED"}
