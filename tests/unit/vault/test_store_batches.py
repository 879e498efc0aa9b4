"""Requests that go out together: who comes meanwhile goes along, and one who leaves takes nobody with him."""

import asyncio
from collections.abc import Sequence
from contextvars import ContextVar

import pytest

from vault_service.store.batches import Batches

SECONDS = 60.0
DEADLINE: ContextVar[str] = ContextVar("deadline", default="none")


class Server:
    """Answers when it is told to, with each item in capitals."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Sequence[str]]] = []
        self.answers: list[asyncio.Future[None]] = []
        self.cancelled = 0
        self.deadlines: list[str] = []

    async def ask(self, key: str, items: Sequence[str]) -> Sequence[str]:
        self.asked.append((key, tuple(items)))
        self.deadlines.append(DEADLINE.get())
        self.answers.append(asyncio.get_running_loop().create_future())
        try:
            await self.answers[-1]
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return [item.upper() for item in items]

    def answer(self, number: int) -> None:
        self.answers[number].set_result(None)


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def new_batches(server: Server, *, patience_seconds: float = 60.0, max_items: int = 32) -> Batches[str, str]:
    return Batches(server.ask, max_items=max_items, spacing_seconds=0.0, patience_seconds=patience_seconds)


def ask(batches: Batches[str, str], *items: str, key: str = "k") -> list[asyncio.Task[str]]:
    return [asyncio.create_task(batches.ask(key, item, SECONDS)) for item in items]


async def test_who_comes_while_one_is_under_way_goes_with_the_next() -> None:
    server = Server()
    batches = new_batches(server)
    first = ask(batches, "a")
    await settle()
    later = ask(batches, "b") + ask(batches, "c")
    await settle()
    assert server.asked == [("k", ("a",))]
    server.answer(0)
    await settle()
    server.answer(1)
    assert await asyncio.gather(*first, *later) == ["A", "B", "C"]
    assert server.asked == [("k", ("a",)), ("k", ("b", "c"))]


async def test_what_comes_at_once_goes_together_and_no_more_than_so_many() -> None:
    server = Server()
    batches = new_batches(server, max_items=2)
    tasks = ask(batches, "a", "b", "c")
    await settle()
    server.answer(0)
    await settle()
    server.answer(1)
    assert await asyncio.gather(*tasks) == ["A", "B", "C"]
    assert server.asked == [("k", ("a", "b")), ("k", ("c",))]


async def test_keys_do_not_wait_for_one_another() -> None:
    server = Server()
    batches = new_batches(server)
    tasks = ask(batches, "a", key="one") + ask(batches, "b", key="two")
    await settle()
    assert server.asked == [("one", ("a",)), ("two", ("b",))]
    server.answer(1)
    assert await tasks[1] == "B"
    assert not tasks[0].done()
    server.answer(0)
    assert await tasks[0] == "A"
    await settle()
    assert batches._queues == {}


async def test_one_that_takes_long_holds_nobody_up() -> None:
    server = Server()
    batches = new_batches(server, patience_seconds=0.0)
    stuck = ask(batches, "a")
    await settle()
    (later,) = ask(batches, "b")
    while len(server.asked) < 2:
        await asyncio.sleep(0)
    server.answer(1)
    assert await later == "B"
    assert not stuck[0].done()
    server.answer(0)
    assert await stuck[0] == "A"


async def test_one_who_is_cancelled_leaves_the_others() -> None:
    server = Server()
    batches = new_batches(server)
    leaving, staying = ask(batches, "a", "b")
    await settle()
    leaving.cancel()
    await settle()
    assert leaving.cancelled()
    server.answer(0)
    assert await staying == "B"
    assert server.cancelled == 0


async def test_what_nobody_waits_for_is_cancelled_and_the_next_goes() -> None:
    server = Server()
    batches = new_batches(server)
    leaving = ask(batches, "a", "b")
    await settle()
    (waiting,) = ask(batches, "c")
    await settle()
    for one in leaving:
        one.cancel()
    await settle()
    assert server.cancelled == 1
    server.answer(1)
    assert await waiting == "C"


async def test_one_who_leaves_before_it_went_is_not_asked_for() -> None:
    server = Server()
    batches = new_batches(server)
    first = ask(batches, "a")
    await settle()
    leaving, staying = ask(batches, "b", "c")
    await settle()
    leaving.cancel()
    await settle()
    server.answer(0)
    await settle()
    server.answer(1)
    assert await asyncio.gather(*first, staying) == ["A", "C"]
    assert server.asked[1] == ("k", ("c",))


async def test_a_failure_is_everybody_s_and_not_the_next_one_s() -> None:
    server = Server()
    batches = new_batches(server)
    failing = ask(batches, "a", "b")
    await settle()
    (next_one,) = ask(batches, "c")
    await settle()
    server.answers[0].set_exception(RuntimeError("once"))
    found = await asyncio.gather(*failing, return_exceptions=True)
    assert [type(one) for one in found] == [RuntimeError, RuntimeError]
    await settle()
    server.answer(1)
    assert await next_one == "C"


@pytest.mark.parametrize("deadline", ["short", "long"])
async def test_what_one_caller_has_set_holds_for_nobody_else(deadline: str) -> None:
    server = Server()
    DEADLINE.set(deadline)
    tasks = ask(new_batches(server), "a")
    await settle()
    server.answer(0)
    await asyncio.gather(*tasks)
    assert server.deadlines == ["none"]


async def test_each_waits_for_as_long_as_it_said_and_takes_nobody_with_it() -> None:
    server = Server()
    batches = new_batches(server)
    patient, hasty = ask(batches, "a")[0], asyncio.create_task(batches.ask("k", "b", 0.0))
    with pytest.raises(TimeoutError):
        await hasty
    await settle()
    assert not patient.done()
    server.answer(0)
    assert await patient == "A"
