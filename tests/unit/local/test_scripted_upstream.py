"""The scripted upstream does on the wire what its actions say."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest

from tests.fakes.scripted_upstream import (
    Action,
    Cut,
    Pause,
    Reached,
    Reset,
    Send,
    Stall,
    head,
    respond,
    scripted_upstream,
    stream,
)


async def test_requests_are_recorded_and_answered_on_one_connection() -> None:
    async with scripted_upstream(respond(b"{}", retry_after="1", status=429), stream(b"a", b"b")) as upstream:
        async with aiohttp.ClientSession() as session:
            async with session.post(f"{upstream.base_url}/x", json={"n": 1}) as response:
                assert (response.status, response.headers["retry-after"]) == (429, "1")
            async with session.get(f"{upstream.base_url}/y") as response:
                assert await response.read() == b"ab"
            async with session.get(f"{upstream.base_url}/z") as response:
                assert response.status == 500
            assert upstream.open_connections == 1
        await upstream.wait_for_connections(0)
    assert [(r.method, r.path) for r in upstream.received] == [("POST", "/v1/x"), ("GET", "/v1/y"), ("GET", "/v1/z")]
    assert upstream.received[0].json == {"n": 1}


@pytest.mark.parametrize(("ending", "error"), [(Cut(), aiohttp.ClientPayloadError), (Reset(), aiohttp.ClientError)])
async def test_a_body_that_breaks_off_is_an_error(ending: Cut | Reset, error: type[Exception]) -> None:
    async with (
        scripted_upstream([Send(head() + b"3\r\nabc\r\n"), ending]) as upstream,
        aiohttp.ClientSession() as session,
    ):
        with pytest.raises(error):
            await (await session.get(upstream.base_url)).read()


async def test_a_pause_waits_for_the_test() -> None:
    before, go = asyncio.Event(), asyncio.Event()
    script: list[Action] = [Send(head(content_length=2) + b"a"), Reached(before), Pause(go), Send(b"b")]
    async with (
        scripted_upstream(script) as upstream,
        aiohttp.ClientSession() as session,
        session.get(upstream.base_url) as response,
    ):
        await before.wait()
        assert await response.content.readexactly(1) == b"a"
        go.set()
        assert await response.read() == b"b"


async def test_a_caller_that_leaves_a_stall_is_noticed() -> None:
    async with scripted_upstream([Send(head()), Stall()]) as upstream, aiohttp.ClientSession() as session:
        response = await session.get(upstream.base_url)
        await upstream.wait_for_connections(1)
        response.close()
        await upstream.wait_for_connections(0)
