"""Messages that are too large or none at all, refused with a reason.

The transport's own limit is a little above and gives none.
"""

from typing import Any

from vault_service.core.faults import invalid
from vault_service.transport.interceptors.wrap import MALFORMED, AroundInterceptor, Behaviour, Context

TRANSPORT_MARGIN_BYTES = 64 * 1024


class SizeInterceptor(AroundInterceptor):
    """Refuses requests beyond a number of bytes, and what is no request of the method."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes

    def around(self, method: str, behaviour: Behaviour) -> Behaviour:
        async def run(request: Any, context: Context) -> Any:
            if request is MALFORMED:
                raise invalid("", "must be a message of this method; check the stubs that made it")
            if request.ByteSize() > self._max_bytes:
                raise invalid("request", f"is larger than {self._max_bytes} bytes")
            return await behaviour(request, context)

        return run
