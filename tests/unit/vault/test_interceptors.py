"""Interceptors as one: the order, and that a method is wrapped once."""

from types import SimpleNamespace
from typing import Any

import grpc

from vault_service.transport.interceptors.wrap import AroundInterceptor, Behaviour, Context, Interceptors

METHOD = "/keyswitch.vault.v1.LeaseService/LeaseCredential"


class Noting(AroundInterceptor):
    def __init__(self, name: str, notes: list[str]) -> None:
        self._name = name
        self._notes = notes
        self.wraps = 0

    def around(self, method: str, behaviour: Behaviour) -> Behaviour:
        self.wraps += 1

        async def run(request: Any, context: Context) -> Any:
            self._notes.append(self._name)
            return await behaviour(request, context)

        return run


def handler(answer: str) -> Any:
    async def behave(request: Any, context: Any) -> str:
        return answer

    return grpc.unary_unary_rpc_method_handler(behave)


async def find(interceptors: Interceptors, found: Any) -> Any:
    async def continuation(details: Any) -> Any:
        return found

    details: Any = SimpleNamespace(method=METHOD)
    return await interceptors.intercept_service(continuation, details)


async def test_the_first_is_outermost_and_a_method_is_wrapped_once() -> None:
    notes: list[str] = []
    outer, inner = Noting("outer", notes), Noting("inner", notes)
    interceptors, found = Interceptors([outer, inner]), handler("answer")
    first, second = await find(interceptors, found), await find(interceptors, found)
    assert first is second
    assert await first.unary_unary(None, None) == "answer"
    assert notes == ["outer", "inner"]
    assert (outer.wraps, inner.wraps) == (1, 1)


async def test_another_handler_of_the_method_is_wrapped_anew() -> None:
    interceptors = Interceptors([Noting("one", [])])
    first, second = await find(interceptors, handler("a")), await find(interceptors, handler("b"))
    assert [await one.unary_unary(None, None) for one in (first, second)] == ["a", "b"]


async def test_a_method_that_is_not_there_stays_so() -> None:
    assert await find(Interceptors([Noting("one", [])]), None) is None
