"""The outermost interceptor: whatever goes wrong becomes a status here, and is logged here, once.

grpc sends the text of an unhandled exception to the client, so nothing may pass unhandled. The text is not logged
either: it may hold what the handler held. Type and place, with the incident's id, are what is logged.
"""

import asyncio
import secrets
import traceback
from typing import Any

import grpc
import structlog

from vault_service.core.faults import Fault, Reason, from_store
from vault_service.observe.metrics import Metrics
from vault_service.store.store import StoreError
from vault_service.transport.interceptors.wrap import AroundInterceptor, Behaviour, Context
from vault_service.transport.status import make_status

_log = structlog.stdlib.get_logger("vault_service.faults")


class FaultsInterceptor(AroundInterceptor):
    """Turns exceptions into statuses."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def around(self, method: str, behaviour: Behaviour) -> Behaviour:
        async def run(request: Any, context: Context) -> Any:
            try:
                answer = await behaviour(request, context)
            except grpc.aio.AbortError:
                raise
            except asyncio.CancelledError:
                self._metrics.count_call(method, "CANCELLED")
                raise
            except Exception as error:  # noqa: BLE001 - the border: no exception may reach grpc, which would send its text
                is_expected = isinstance(error, Fault | StoreError)
                if not is_expected and (context.cancelled() or context.done()):
                    self._metrics.count_call(method, "CANCELLED")
                    raise asyncio.CancelledError from None
                fault = explain(method, error)
                self._metrics.count_call(method, fault.row.code.value)
                refusal = make_status(fault)
            else:
                self._metrics.count_call(method, "OK")
                return answer
            # gRPC keeps what `abort` raises, and with it this frame: it must hold no request, nor what went wrong.
            request = None
            del fault
            return await context.abort_with_status(refusal)

        return run


def explain(method: str, error: Exception) -> Fault:
    """Gives what the caller is told of an exception, and logs the rest: its type and place, never its text."""
    fault, cause = _fault_of(error)
    if fault.reason is Reason.INTERNAL:
        incident_id = secrets.token_hex(13)
        fault = Fault(Reason.INTERNAL, {"incidentId": incident_id})
        _log.error("internal_fault", method=method, incident_id=incident_id, **_place(cause))
    else:
        _log.info("refused", method=method, reason=fault.reason.value, **_place(cause))
    return fault


def _fault_of(error: Exception) -> tuple[Fault, BaseException | None]:
    match error:
        case Fault():
            return error, error.__cause__
        case StoreError():
            return from_store(error, ""), error
        case _:
            return Fault(Reason.INTERNAL), error


def _place(error: BaseException | None) -> dict[str, Any]:
    """Gives the type of an exception and where it came from, without its text."""
    if error is None:
        return {}
    frames = traceback.extract_tb(error.__traceback__)[-8:]
    return {
        "exception_type": type(error).__name__,
        "frames": [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames],
    }
