"""How long one of several callers waits for what was asked once for all of them."""

import asyncio
import math
from typing import TypeVar

from router_service.credentials.errors import unavailable
from router_service.database.patience import left_seconds

T = TypeVar("T")


async def wait_for(task: asyncio.Task[T]) -> T:
    """What a task gives that others wait for too, and that goes on when this one leaves. A little before this one's own
    caller would hear nothing but that its time is over, it is told why."""
    left = left_seconds(math.inf)
    done, _ = await asyncio.wait((task,), timeout=None if left == math.inf else left)
    if not done:
        message = "The credential service did not answer in the time that this call has; it is not about your key."
        raise unavailable(message, {"cause": "deadline"})
    return task.result()
