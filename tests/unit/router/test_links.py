"""The time in which an instance is the one in use: what ends with it is asked of the next one."""

from typing import Any

import grpc
import pytest

from router_service.credentials.links import Term, TermOver


async def begin_on_a_closed_channel() -> None:
    """A call that begins after its channel was closed, as gRPC itself answers it."""
    channel = grpc.aio.insecure_channel("127.0.0.1:1")
    await channel.close()
    ask: Any = channel.unary_unary("/nobody/Asks")
    await ask(b"")


def make_term() -> Term:
    return Term(None)  # type: ignore[arg-type]  # nothing is asked over its link


async def test_a_call_that_begins_as_its_connection_is_closed_is_asked_again() -> None:
    term = make_term()
    term.is_over.set()
    with pytest.raises(TermOver):
        await term.run(begin_on_a_closed_channel())


async def test_a_closed_channel_of_an_instance_in_use_is_no_end_of_its_time() -> None:
    with pytest.raises(grpc.aio.UsageError):
        await make_term().run(begin_on_a_closed_channel())
