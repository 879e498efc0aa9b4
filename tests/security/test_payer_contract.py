"""Who pays, under every fault: a call that does not list CREDITS is never charged, and a failing key moves no bill."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from keyswitch.router.v1 import payer_pb2

from router_service.core.caller import Caller as Identity
from router_service.core.caller import Holdings
from router_service.core.faults import Fault, Reason
from router_service.core.receipt import Attempt, Receipt
from router_service.core.resolution import Payer, PayerFailoverCause
from router_service.credentials.errors import unavailable
from router_service.policy.retry import FAILOVER_CAUSES
from router_service.upstream.client import Trouble, trouble_fault
from tests.fakes.scripted_upstream import Action, Cut, Reset, Send, Stall, chunk, head, respond, stream
from tests.service.router_answers import MARKUP_BASIS_POINTS, USAGE, answer, answer_events, cut_after
from tests.service.router_harness import (
    ADA,
    DEMO,
    Stack,
    make_call,
    make_policy,
    running_stack,
)

CREDITS_NANOS = 10**15
EXAMPLES = 400
EVENTS = answer_events("Hello", " world")
ERROR_EVENT = b'data: {"error":{"message":"x","type":"server_error","code":503}}\n\n'
LIST_NANOS = USAGE[0] * 1000 + USAGE[1] * 4000
CHARGED_NANOS = LIST_NANOS * (10_000 + MARKUP_BASIS_POINTS) // 10_000  # divides evenly
OWNERS = {
    Payer.USER_KEY: f"{ADA}/credentials/mine",
    Payer.ORGANIZATION_KEY: f"{DEMO}/credentials/ours",
    Payer.SHARED_KEY: "deployment/credentials/first",
}


def begun(*then: Action) -> list[Action]:
    """An answer of which something was delivered."""
    return [Send(head()), *(Send(chunk(one)) for one in EVENTS[:3]), *then]


FAULTS: dict[str, list[Action]] = {
    "none": answer("Hello", " world"),
    "reset": [Reset()],
    "closed": [Cut()],
    "400": respond(b"{}", status=400),
    "401": respond(b'{"error":{"code":"invalid_api_key"}}', status=401),
    "402": respond(b"{}", status=402),
    "403": respond(b"{}", status=403),
    "429": respond(b"{}", status=429),
    "500": respond(b"{}", status=500),
    "503": respond(b"{}", status=503),
    "cut before content": cut_after(EVENTS, 1),
    "cut after content": cut_after(EVENTS, 3),
    "cut after usage": cut_after(EVENTS, 5),
    "stall": [Send(head()), Stall()],
    "stall after content": begun(Stall()),
    "error event": stream(ERROR_EVENT),
    "error event after content": begun(Send(chunk(ERROR_EVENT))),
    "cancel": begun(Stall()),
    "refused": [],
    "ledger reserves nothing": answer(),
    "ledger settles late": answer(),
    "credential service away": answer(),
    "no list of credentials": answer(),
}


@dataclass(frozen=True)
class Example:
    """A call, what is there for it, and what goes wrong."""

    payers: tuple[Payer, ...]
    narrowed: tuple[Payer, ...]
    causes: frozenset[PayerFailoverCause]
    present: frozenset[Payer]
    fault: str
    times: int
    model: str
    is_unary: bool

    @property
    def allowed(self) -> tuple[Payer, ...]:
        return tuple(payer for payer in self.payers if not self.narrowed or payer in self.narrowed)


PAYERS = (Payer.USER_KEY, Payer.ORGANIZATION_KEY, Payer.SHARED_KEY, Payer.CREDITS)


@st.composite
def examples(draw: st.DrawFn) -> Example:
    payers = tuple(draw(st.lists(st.sampled_from(PAYERS), min_size=1, max_size=4, unique=True)))
    return Example(
        payers,
        tuple(draw(st.lists(st.sampled_from(payers), max_size=4, unique=True))),
        draw(st.frozensets(st.sampled_from(list(PayerFailoverCause)))),
        draw(st.frozensets(st.sampled_from(PAYERS))),
        draw(st.sampled_from(sorted(FAULTS))),
        draw(st.integers(1, 3)),
        draw(st.sampled_from(["test/echo", "test/both"])),
        draw(st.booleans()),
    )


class Saboteur:
    """What makes the parts around a call fail, and sees every reservation."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.example: Example | None = None
        self.left = 0
        self.reserved: list[int] = []
        engine: Any = stack.router.engine
        ledger: Any = stack.router.ledger
        credentials: Any = stack.router.credentials
        self._reserve, self._settle = ledger.reserve, ledger.settle
        self._lease, self._holdings = credentials.lease, credentials.holdings
        self._upstream = engine.edges.upstream
        ledger.reserve, ledger.settle = self.reserve, self.settle
        credentials.lease, credentials.holdings = self.lease, self.holdings
        engine.edges = replace(engine.edges, upstream=self)

    def fails(self, fault: str) -> bool:
        assert self.example is not None
        if self.example.fault != fault or self.left == 0:
            return False
        self.left -= 1
        return True

    async def reserve(self, *arguments: Any) -> None:
        if self.fails("ledger reserves nothing"):
            raise Fault(Reason.LEDGER_UNAVAILABLE, "away")
        await self._reserve(*arguments)
        self.reserved.append(arguments[2].credits_nanos)

    async def settle(self, *arguments: Any) -> None:
        if self.fails("ledger settles late"):
            raise Fault(Reason.LEDGER_UNAVAILABLE, "away")
        await self._settle(*arguments)

    async def lease(self, *arguments: Any, **options: Any) -> Any:
        if self.fails("credential service away"):
            raise unavailable("away", {"cause": "test"})
        return await self._lease(*arguments, **options)

    async def holdings(self, caller: Identity, user: str) -> Holdings:
        if self.fails("no list of credentials"):
            raise unavailable("away", {"cause": "test"})
        assert self.example is not None
        found: Holdings = await self._holdings(caller, user)
        present = self.example.present
        return replace(
            found,
            user=found.user if Payer.USER_KEY in present else (),
            organization=found.organization if Payer.ORGANIZATION_KEY in present else (),
            deployment=found.deployment if present & {Payer.SHARED_KEY, Payer.CREDITS} else (),
        )

    async def send(self, request: Any, **options: Any) -> Any:
        if self.fails("refused"):
            raise trouble_fault(Trouble.REFUSED)
        return await self._upstream.send(request, **options)

    async def close(self) -> None:
        await self._upstream.close()


@pytest.fixture
async def saboteur(tmp_path: Path) -> AsyncIterator[Saboteur]:
    async with running_stack(tmp_path, disconnect_grace_seconds=600.0) as stack:
        for provider in ("first", "second"):
            for prefix in (f"{ADA}/credentials/mine", f"{DEMO}/credentials/ours"):
                await stack.save_key(f"{prefix}-{provider}", provider=provider)
            await stack.save_key(f"deployment/credentials/{provider}", provider=provider)
        await stack.add_credits(CREDITS_NANOS)
        yield Saboteur(stack)


async def run(saboteur: Saboteur, example: Example) -> Receipt:
    """Makes the call, however it ends, and gives its receipt."""
    stack = saboteur.stack

    def configure(file: dict[str, Any]) -> None:
        file["organizations"]["demo"]["applications"]["chat"].update(
            payers=[payer.value for payer in example.payers],
            payer_failover_on=sorted(cause.value for cause in example.causes),
        )

    try:
        stack.reconfigure(configure)
    except AssertionError:
        assert not stack.router.configuration.problems  # the same configuration as before is no change
    saboteur.example, saboteur.left = example, example.times
    saboteur.reserved.clear()
    is_script = example.fault not in ("refused", "ledger settles late", "credential service away")
    for upstream in (stack.first, stack.second):
        upstream.scripts.clear()
        script = FAULTS[example.fault]
        upstream.script(*([script] * example.times if is_script and script else []), *[answer("Hello", " world")] * 9)
    policy = make_policy(
        payers=[payer_pb2.Payer.Value(f"PAYER_{payer.value}") for payer in example.narrowed],
        first_content_timeout=0.03 if example.fault == "stall" else 5.0,
        idle_timeout=0.03 if example.fault == "stall after content" else 5.0,
    )
    board = stack.router.engine.edges.admission.board
    await board.wake(list(board.current))  # each example begins with nothing that rests
    before, seen = len(stack.receipts), len(stack.first.received)
    call = make_call(model=example.model, route_policy=policy)
    if example.is_unary:
        call.spec.settings.max_output_tokens = 20_000  # streamed upstream, folded here
        calling = asyncio.ensure_future(stack.member.complete(call))
        if example.fault == "cancel":
            sent = asyncio.ensure_future(stack.first.wait_for_requests(seen + 1))
            await asyncio.wait({calling, sent}, return_when=asyncio.FIRST_COMPLETED)
            sent.cancel()
            calling.cancel()
        await asyncio.gather(calling, return_exceptions=True)
    else:
        opened = stack.member.open(call)
        try:
            message = await opened.read()
            while message is not grpc.aio.EOF:
                if example.fault == "cancel" and message.events[-1].HasField("part_delta"):
                    opened.cancel()
                message = await opened.read()
        except (grpc.aio.AioRpcError, asyncio.CancelledError):
            pass
    await stack.ended.wait_for(lambda: len(stack.receipts) > before)
    await stack.rest()
    return stack.receipts[-1]


def check_bill(example: Example, attempts: tuple[Attempt, ...]) -> None:
    """The first payer with a key pays; another one only for a cause that the application states."""
    usable = {payer for payer in example.present if payer in OWNERS or payer is Payer.CREDITS}
    if usable & {Payer.SHARED_KEY, Payer.CREDITS}:
        usable |= {Payer.SHARED_KEY, Payer.CREDITS}  # one credential of the deployment serves both
    order = [payer for payer in example.allowed if payer in usable]
    for number, attempt in enumerate(attempts):
        assert attempt.payer in order
        if number == 0:
            if example.fault != "ledger reserves nothing":
                assert attempt.payer is order[0]
        elif attempt.payer is not attempts[number - 1].payer:
            reason = attempts[number - 1].failure_reason
            assert reason is not None
            assert FAILOVER_CAUSES[reason] in example.causes


async def check(saboteur: Saboteur, example: Example) -> None:
    ledger = saboteur.stack.router.ledger
    before = await ledger.balance("demo")
    entries = (await ledger.verify()).entry_count
    receipt = await run(saboteur, example)
    after = await ledger.balance("demo")
    checked = await ledger.verify()
    paid = before.balance_nanos - after.balance_nanos
    assert after.reserved_nanos == 0
    assert checked.mismatches == ()
    check_bill(example, receipt.attempts)
    if Payer.CREDITS not in example.allowed:
        assert saboteur.reserved == []
        assert (paid, checked.entry_count) == (0, entries)
    charged = 0
    for attempt in receipt.attempts:
        if attempt.cost is None:
            continue
        assert isinstance(attempt.cost.charged, int)
        if attempt.payer is not Payer.CREDITS:
            assert attempt.cost.charged == 0
        elif attempt.failure_reason is None and example.fault != "cancel":
            assert attempt.cost.charged == CHARGED_NANOS
        charged += attempt.cost.charged
    assert paid == charged
    assert paid <= sum(saboteur.reserved)


COUNTED = {"examples": 0}


@settings(
    max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)
@given(example=examples())
@pytest.mark.timeout(300)
async def test_the_bill_under_every_fault(saboteur: Saboteur, example: Example) -> None:
    COUNTED["examples"] += 1
    await check(saboteur, example)
    if COUNTED["examples"] == EXAMPLES:
        print(
            f"\npayer contract: {EXAMPLES} calls, {len(FAULTS)} faults over every list of payers, bills moved unasked 0"
        )


@pytest.mark.parametrize("fault", sorted(FAULTS))
async def test_every_fault_with_and_without_credits(saboteur: Saboteur, fault: str) -> None:
    own = (Payer.USER_KEY, Payer.ORGANIZATION_KEY, Payer.SHARED_KEY)
    every = frozenset(PayerFailoverCause)
    for times in (1, 3):
        for payers, narrowed, present, causes in (
            ((*own, Payer.CREDITS), own, frozenset(PAYERS), every),  # left out by the call, whatever may move
            ((*own, Payer.CREDITS), (), frozenset(PAYERS), frozenset[PayerFailoverCause]()),
            ((*own, Payer.CREDITS), (), frozenset({Payer.USER_KEY, Payer.CREDITS}), every),
            ((Payer.CREDITS,), (), frozenset({Payer.CREDITS}), frozenset[PayerFailoverCause]()),
            ((Payer.USER_KEY,), (), frozenset({Payer.CREDITS}), frozenset[PayerFailoverCause]()),
        ):
            example = Example(payers, narrowed, causes, present, fault, times, "test/both", is_unary=False)
            await check(saboteur, example)
