"""Calls that give secrets out must say how long they are waited for."""

from typing import Any

from vault_service.core.faults import Fault, Reason
from vault_service.transport.interceptors.wrap import AroundInterceptor, Behaviour, Context

METHODS = frozenset({"/keyswitch.vault.v1.LeaseService/LeaseCredential"})


class DeadlineInterceptor(AroundInterceptor):
    """Refuses calls without a deadline where one is required."""

    def around(self, method: str, behaviour: Behaviour) -> Behaviour:
        if method not in METHODS:
            return behaviour

        async def run(request: Any, context: Context) -> Any:
            if context.time_remaining() is None:
                raise Fault(Reason.DEADLINE_REQUIRED, {"method": method.rpartition("/")[2]})
            return await behaviour(request, context)

        return run
