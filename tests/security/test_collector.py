"""Promise 17: what a call held is free when the call ends. Nothing of it waits for Python's collector of circles."""

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest
from google.protobuf.message import Message

from router_service.core.secret import Secret
from tests.fakes.scripted_upstream import Action, Send, Stall, chunk, head, respond
from tests.security.promises import count, tried
from tests.service.router_answers import Json, answer, answer_events, whole_answer
from tests.service.router_harness import ADA, DEMO, Stack, make_call, running_stack
from tests.service.vault_harness import ORIGIN, Refused

PROMPT, KEY = "a prompt that nobody keeps", "sk-0123456789-that-nobody-keeps"
CALLS = count(5, 200)
REFUSED = respond(b'{"error":{"message":"no"}}', status=400)
DOWN = respond(b'{"error":{"message":"no"}}', status=503)
STALLED: list[Action] = [Send(head()), *(Send(chunk(event)) for event in answer_events("Hello")[:2]), Stall()]


@contextmanager
def collected() -> Iterator[list[str]]:
    """What the collector would have had to free of what was used inside: the texts in it, known after the end."""
    texts: list[str] = []
    gc.collect()
    gc.disable()
    try:
        yield texts
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        texts += _texts(gc.garbage)
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


def _texts(objects: Sequence[object]) -> Iterator[str]:
    """The texts in objects, and in what they have that the collector does not follow."""
    for one in objects:
        for held in gc.get_referents(one):
            match held:
                case str():
                    yield held
                case bytes():
                    yield held.decode("latin-1")
                case Message():
                    yield held.SerializeToString().decode("latin-1")
                case Secret():
                    yield held.reveal()
                case tuple() | dict() if not gc.is_tracked(held):
                    yield from _texts([held])
                case _:
                    pass


class Circle:
    """Holds itself."""

    def __init__(self, held: object) -> None:
        self.held = held
        self.itself = self


@pytest.mark.parametrize("held", [KEY, KEY.encode(), (1, (2, KEY)), Secret(KEY), make_call(KEY)])
def test_what_waits_for_the_collector_is_found(held: object) -> None:
    with collected() as texts:
        Circle(held)
    assert any(KEY in text for text in texts)


def configure(made: Json) -> None:
    """Failures in a row are no reason to rest."""
    for provider in made["providers"].values():
        provider["breaker_failures"] = 0


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[Stack]:
    async with running_stack(tmp_path, configuration=configure) as running:
        for provider in ("first", "second"):
            await running.save_key(f"{DEMO}/credentials/{provider}", KEY, provider=provider)
        yield running


async def stream(stack: Stack) -> None:
    stack.first.script(answer("Hello"))
    assert (await stack.member.stream(make_call(PROMPT, model="test/both"))).error is None


async def complete(stack: Stack) -> None:
    stack.first.script(respond(whole_answer("Hello")))
    await stack.member.complete(make_call(PROMPT, model="test/both"))


async def fail_over(stack: Stack) -> None:
    stack.first.script(DOWN)
    stack.second.script(answer("Hello"))
    assert (await stack.member.stream(make_call(PROMPT, model="test/both"))).error is None


async def be_refused(stack: Stack) -> None:
    stack.first.script(REFUSED)
    assert (
        await stack.member.stream(make_call(PROMPT, model="test/both"))
    ).refused.reason == "UPSTREAM_REJECTED_REQUEST"


async def leave(stack: Stack) -> None:
    stack.first.script(STALLED)
    opened = stack.member.open(make_call(PROMPT, model="test/both"))
    await opened.read()
    opened.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opened.read()


WAYS: dict[str, Callable[[Stack], Awaitable[None]]] = {
    "streamed": stream,
    "completed": complete,
    "failed over": fail_over,
    "refused": be_refused,
    "left": leave,
}


@pytest.mark.parametrize("way", WAYS)
async def test_nothing_of_a_call_waits_for_the_collector(stack: Stack, way: str) -> None:
    with collected() as texts:
        for _ in range(CALLS):
            await WAYS[way](stack)
        await stack.rest()
    assert not [text for text in texts if PROMPT in text or KEY in text]
    tried(17, "calls whose prompt and key no circle of objects held when they had ended", calls=CALLS)


@pytest.mark.parametrize("origin", [ORIGIN, "https://elsewhere.example"], ids=["given", "refused"])
async def test_nothing_of_a_lease_waits_for_the_collector(stack: Stack, origin: str) -> None:
    vault, name = stack.vault, f"{DEMO}/credentials/leased"
    await vault.ready(stack.admin, name, KEY)
    with collected() as texts:
        for _ in range(CALLS):
            with nullcontext() if origin == ORIGIN else pytest.raises(Refused):
                await vault.take(f"{name}/versions/active", stack.member.token, principal=ADA, origin=origin)
    assert not [text for text in texts if KEY in text or stack.member.token in text]
    tried(17, "leases whose key and request no circle of objects held when they had ended", leases=CALLS)
