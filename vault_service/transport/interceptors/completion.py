"""Changes are carried through, also when the caller goes away half way.

A revocation is written first and told to the routers then. A deadline that passes in between must not leave it
written and untold until the leases run out.
"""

import asyncio
from typing import Any

from vault_service.transport.interceptors.wrap import AroundInterceptor, Behaviour, Context

_SERVICES = ("/keyswitch.vault.v1.CredentialService/", "/keyswitch.vault.v1.TokenService/")
_READS = ("Get", "List")
_METHODS = frozenset({"/keyswitch.vault.v1.LeaseService/ReportTest"})


class CompletionInterceptor(AroundInterceptor):
    """Runs what changes something in a task of its own."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()

    def around(self, method: str, behaviour: Behaviour) -> Behaviour:
        if not is_change(method):
            return behaviour

        async def run(request: Any, context: Context) -> Any:
            task = asyncio.ensure_future(_complete(behaviour, request, context))
            self._running.add(task)
            task.add_done_callback(self._forget)
            return await asyncio.shield(task)

        return run

    async def wait(self, timeout_seconds: float) -> None:
        """Waits for what is still running after the callers have gone."""
        if self._running:
            await asyncio.wait(self._running, timeout=timeout_seconds)

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # of a caller that is gone: seen here, so that asyncio does not print it


def is_change(method: str) -> bool:
    """Whether the method changes something."""
    name = method.rpartition("/")[2]
    return method in _METHODS or (method.startswith(_SERVICES) and not name.startswith(_READS))


async def _complete(behaviour: Behaviour, request: Any, context: Context) -> Any:
    return await behaviour(request, context)
