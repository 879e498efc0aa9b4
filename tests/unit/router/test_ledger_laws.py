"""The ledger against a model: the balance is the sum of the entries, and no reservation takes what is not there."""

import asyncio
import shutil
import tempfile
from collections.abc import Coroutine
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from router_service.core.database import SqliteDatabase
from router_service.core.faults import Fault, Reason
from router_service.ledger.sql_ledger import SqlLedger, open_ledger
from tests.suites.ledger_values import NOW, Clock, spend

ORGANIZATIONS = ("acme", "other")
organizations = st.sampled_from(ORGANIZATIONS)
response_ids = st.sampled_from(("r1", "r2", "r3", "r4"))
attempts = st.integers(1, 2)
amounts = st.integers(0, 600)
Key = tuple[str, int]


@dataclass
class Held:
    """The model of a reservation."""

    organization: str
    amount: int
    expire_time: float
    state: str = "HELD"


@dataclass
class Books:
    """The model of the ledger."""

    entries: dict[str, list[int]] = field(default_factory=lambda: {name: [] for name in ORGANIZATIONS})
    credits: dict[tuple[str, str], int] = field(default_factory=dict)
    reservations: dict[Key, Held] = field(default_factory=dict)

    def expire(self, now: float) -> None:
        for held in self.reservations.values():
            if held.state == "HELD" and held.expire_time <= now:
                held.state = "EXPIRED"

    def balance(self, organization: str) -> int:
        return sum(self.entries[organization])

    def reserved(self, organization: str) -> int:
        return sum(
            held.amount
            for held in self.reservations.values()
            if held.state == "HELD" and held.organization == organization
        )


class LedgerMachine(RuleBasedStateMachine):
    """Random operations on both. Most settle or cancel what was reserved, or tried to be."""

    keys: Bundle[Key] = Bundle("keys")

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.clock = Clock()
        self.runner = asyncio.Runner()
        self.books = Books()
        self.ledger = self.reopen_file()

    def reopen_file(self) -> SqlLedger:
        return self.runner.run(
            open_ledger(SqliteDatabase(self.folder / "ledger.db"), self.clock, flush_interval_seconds=3600)
        )

    def refusal_of(self, operation: Coroutine[object, object, object]) -> Reason | None:
        try:
            self.runner.run(operation)
        except Fault as fault:
            return fault.reason
        return None

    def teardown(self) -> None:
        self.runner.run(self.ledger.close())
        self.runner.close()
        shutil.rmtree(self.folder)

    @initialize()
    def begin_with_credits(self) -> None:
        for organization in ORGANIZATIONS:
            self.add_credits(organization, 1000, "start")

    @rule(organization=organizations, amount=st.integers(-500, 1000).filter(bool), request=st.sampled_from("abcd"))
    def add_credits(self, organization: str, amount: int, request: str) -> None:
        reason = self.refusal_of(self.ledger.add_credits(organization, amount, request, "", NOW))
        if reason is not None:
            assert reason is Reason.REQUEST_ID_REUSED
            assert self.books.credits[organization, request] != amount
            return
        if (organization, request) not in self.books.credits:
            self.books.credits[organization, request] = amount
            self.books.entries[organization].append(amount)
        assert self.books.credits[organization, request] == amount

    @rule(
        target=keys,
        response_id=response_ids,
        attempt=attempts,
        organization=organizations,
        amount=amounts,
        seconds=st.integers(1, 100),
    )
    def reserve(self, response_id: str, attempt: int, organization: str, amount: int, seconds: int) -> Key:
        self.books.expire(self.clock.now)
        known = self.books.reservations.get((response_id, attempt))
        available = self.books.balance(organization) - self.books.reserved(organization)
        expire_time = self.clock.now + seconds
        reason = self.refusal_of(self.ledger.reserve(response_id, attempt, spend(organization, amount), expire_time))
        if known is None and available >= amount:
            assert reason is None
            self.books.reservations[response_id, attempt] = Held(organization, amount, expire_time)
        elif known is None:
            assert reason is Reason.CREDIT_EXHAUSTED
        else:
            assert reason is (None if known.state == "HELD" else Reason.INTERNAL)
        return response_id, attempt

    @rule(key=keys, charged=st.integers(0, 900))
    def settle(self, key: Key, charged: int) -> None:
        held = self.books.reservations.get(key)
        reason = self.refusal_of(self.ledger.settle(*key, charged, key[0]))
        assert reason is (Reason.INTERNAL if held is None else None)
        if held is not None and held.state in ("HELD", "EXPIRED"):
            held.state = "SETTLED"
            if charged:
                self.books.entries[held.organization].append(-charged)

    @rule(key=keys)
    def cancel(self, key: Key) -> None:
        assert self.refusal_of(self.ledger.cancel_reservation(*key)) is None
        held = self.books.reservations.get(key)
        if held is not None and held.state == "HELD":
            held.state = "CANCELLED"

    @rule(seconds=st.integers(1, 80))
    def let_time_pass(self, seconds: int) -> None:
        self.clock.now += seconds

    @rule()
    def reopen(self) -> None:
        self.runner.run(self.ledger.close())
        self.ledger = self.reopen_file()

    @invariant()
    def agree(self) -> None:
        self.books.expire(self.clock.now)
        for organization in ORGANIZATIONS:
            balance = self.runner.run(self.ledger.balance(organization))
            assert balance.balance_nanos == self.books.balance(organization)
            assert balance.reserved_nanos == self.books.reserved(organization)
        verification = self.runner.run(self.ledger.verify())
        assert verification.mismatches == ()
        assert verification.entry_count == sum(len(entries) for entries in self.books.entries.values())
        expired = self.runner.run(self.ledger.expired_reservations())
        assert {(row.response_id, row.attempt) for row in expired} == {
            key for key, held in self.books.reservations.items() if held.state == "EXPIRED"
        }


TestLedgerMachine = LedgerMachine.TestCase
TestLedgerMachine.settings = settings(max_examples=60, stateful_step_count=40)
