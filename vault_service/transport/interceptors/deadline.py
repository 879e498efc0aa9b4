"""Calls that give secrets out must say how long they are waited for; what the store does for a call ends before that.

A caller whose deadline passes learns no reason. So whatever only reads gives up a little before it, and says why.
"""

from typing import Any

from vault_service.core.faults import Fault, Reason
from vault_service.store.patience import waited_for
from vault_service.transport.interceptors.completion import is_change
from vault_service.transport.interceptors.wrap import AroundInterceptor, Behaviour, Context

METHODS = frozenset(f"/keyswitch.vault.v1.LeaseService/{name}" for name in ("LeaseCredential", "BatchLeaseCredentials"))


class DeadlineInterceptor(AroundInterceptor):
    """Refuses calls without a deadline where one is required, and bounds the store by the deadline there is."""

    def around(self, method: str, behaviour: Behaviour) -> Behaviour:
        if is_change(method):
            return behaviour  # carried through, whether or not the caller still waits

        async def run(request: Any, context: Context) -> Any:
            left = _left_seconds(context)
            if left is None and method in METHODS:
                raise Fault(Reason.DEADLINE_REQUIRED, {"method": method.rpartition("/")[2]})
            with waited_for(left):
                return await behaviour(request, context)

        return run


def _left_seconds(context: Any) -> float | None:
    """None where the caller named no deadline, which the types of grpc do not know."""
    left: float | None = context.time_remaining()
    return left
