"""Streams over the wire: the grammar, the fold, one answer from each dialect."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.fakes.scripted_upstream import respond
from tests.service.router_harness import DEMO, Stack, answer, make_call, running_stack


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[Stack]:
    async with running_stack(tmp_path) as running:
        await running.save_key(f"{DEMO}/credentials/first")
        yield running


async def test_an_answer_is_streamed_with_its_receipt(stack: Stack) -> None:
    stack.first.script(answer("Hello", " world"))
    found = await stack.member.stream()
    assert found.error is None
    assert found.text == "Hello world"


async def test_a2(stack: Stack) -> None:
    stack.first.script(answer("Hello", " world"))
    found = await stack.member.stream()
    assert found.text == "Hello world"


async def test_a3(stack: Stack) -> None:
    stack.first.script(answer("Hello", " world"))
    found = await stack.member.complete()
    print(found)
