"""Limits in Redis or Valkey: for many routers. Each operation is one script, and all time is the server's.

The keys of a script share a hash tag, so that a cluster keeps them together; every key ends by itself.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from importlib.resources import files
from typing import Any

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from router_service.core.faults import Reason
from router_service.policy.cooldown import LONGEST_SECONDS, RestCause, RestOrder
from router_service.state.limits import (
    SLOT_SECONDS,
    STEP_SECONDS,
    STEPS,
    WAITER_SECONDS,
    Demand,
    Exceeded,
    LimitsAway,
    Resting,
    Taken,
    linger_seconds,
)

ANSWER_SECONDS = 1.0
"""A store that takes longer counts as away: a call must not wait for it."""

MOST_CONNECTIONS = 64
_RESTS = "keyswitch:{rests}"
_SCRIPTS = (
    "take_slot",
    "keep_slots",
    "count_slots",
    "take_rates",
    "correct_rate",
    "rest",
    "rests",
    "claim_probe",
    "end_rest",
)
_ONCE = frozenset({"correct_rate", "claim_probe"})
"""What is not done again when its answer was lost: tokens given back twice would let more through than the limit, and a
first try claimed twice would be nobody's."""


def _ms(seconds: float) -> int:
    return max(0, round(seconds * 1000))


class RedisLimits:
    """Limits of all routers that use one server."""

    def __init__(self, url: str) -> None:
        pool = redis.asyncio.BlockingConnectionPool.from_url(
            url,
            max_connections=MOST_CONNECTIONS,
            timeout=ANSWER_SECONDS,
            socket_timeout=ANSWER_SECONDS,
            socket_connect_timeout=ANSWER_SECONDS,
            health_check_interval=0,
            retry=Retry(NoBackoff(), 0),
        )
        self._pool = pool
        self._client = redis.asyncio.Redis.from_pool(pool)
        here = files("router_service.state.scripts")
        self._scripts = {
            name: self._client.register_script((here / f"{name}.lua").read_text(encoding="utf-8")) for name in _SCRIPTS
        }

    async def _run(self, name: str, keys: Sequence[str], *arguments: str | int) -> Any:
        def ask() -> Awaitable[Any]:
            return self._scripts[name](keys=list(keys), args=list(arguments))

        return await self._ask(ask, may_repeat=name not in _ONCE)

    async def _ask(self, question: Callable[[], Awaitable[Any]], *, may_repeat: bool = True) -> Any:
        """The answer, in time. Asks again over a new connection where the old one had ended."""
        task = asyncio.current_task()
        cancels = task.cancelling() if task is not None else 0
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                try:
                    answer = await question()
                except redis.exceptions.ConnectionError:
                    if not may_repeat:
                        raise
                    await self._drop_idle()
                    answer = await question()
        except (RedisError, OSError) as error:
            await self._drop_idle()
            # Its text may hold the address with the password.
            raise LimitsAway(type(error).__name__) from None
        # The client waits with asyncio.wait_for, which loses a cancel that comes in the moment of the answer.
        if task is not None and task.cancelling() > cancels:
            raise asyncio.CancelledError
        return answer

    async def _drop_idle(self) -> None:
        """The other connections may lead to the same dead end, and would be tried one after the other."""
        # The pool's own way to do it lets others take a connection that is being closed.
        for connection in list(self._pool._available_connections):  # noqa: SLF001 # as said
            with suppress(RedisError, OSError):
                await connection.disconnect(nowait=True)

    async def take_slot(self, key: str, ticket: str, limit: int) -> int | None:
        """See Limits."""
        place = await self._run("take_slot", slot_keys(key), ticket, limit, _ms(SLOT_SECONDS), _ms(WAITER_SECONDS))
        return None if place < 0 else int(place)

    async def leave_slot(self, key: str, ticket: str) -> None:
        """See Limits."""
        taken, queue, waiting, _ = slot_keys(key)

        async def leave() -> None:
            async with self._client.pipeline(transaction=True) as pipeline:
                for name in (taken, queue, waiting):
                    pipeline.zrem(name, ticket)
                await pipeline.execute()

        await self._ask(leave)

    async def keep_slots(self, held: Mapping[str, Sequence[str]]) -> int:
        """See Limits."""
        lost = 0
        for key, tickets in held.items():
            lost += int(await self._run("keep_slots", slot_keys(key)[:1], _ms(SLOT_SECONDS), *tickets))
        return lost

    async def count_slots(self, key: str) -> tuple[int, int]:
        """See Limits."""
        taken, _, waiting, _ = slot_keys(key)
        counts = await self._run("count_slots", (taken, waiting))
        return int(counts[0]), int(counts[1])

    async def take_rates(self, tenant: str, demands: Sequence[Demand]) -> Taken | Exceeded:
        """See Limits."""
        keys = [rate_key(tenant, demand.key) for demand in demands]
        numbers = [number for demand in demands for number in (demand.limit, demand.cost)]
        which, value = await self._run("take_rates", keys, STEP_SECONDS, STEPS, *numbers)
        return Taken(int(value)) if which == 0 else Exceeded(int(which) - 1, int(value) / 1000)

    async def correct_rate(self, tenant: str, key: str, step: int, delta: int) -> None:
        """See Limits."""
        await self._run("correct_rate", (rate_key(tenant, key),), STEP_SECONDS, STEPS, step, delta)

    async def rest(self, order: RestOrder) -> None:
        """See Limits."""
        said = -1 if order.seconds is None else _ms(order.seconds)
        least = _ms(linger_seconds(0.0))
        numbers = (said, _ms(order.first_seconds), _ms(LONGEST_SECONDS), least)
        await self._run("rest", (_RESTS,), order.key, f"{order.cause.value}/{order.reason.value}", *numbers)

    async def rests(self) -> Mapping[str, Resting]:
        """See Limits."""
        flat = await self._run("rests", (_RESTS,))
        found: dict[str, Resting] = {}
        for key, label, left, probe in zip(flat[::4], flat[1::4], flat[2::4], flat[3::4], strict=True):
            cause, _, reason = label.decode().partition("/")
            if cause in _CAUSES and reason in _REASONS:  # else a newer router wrote it
                times = (int(left) / 1000, int(probe) / 1000)
                found[key.decode()] = Resting(_CAUSES[cause], _REASONS[reason], *times)
        return found

    async def claim_probe(self, key: str, seconds: float) -> bool:
        """See Limits."""
        return bool(await self._run("claim_probe", (_RESTS,), key, _ms(seconds)))

    async def end_rest(self, key: str) -> None:
        """See Limits."""
        await self._run("end_rest", (_RESTS,), key)

    async def wake(self, key: str) -> None:
        """See Limits."""
        await self._ask(lambda: self._client.hdel(_RESTS, key))

    async def close(self) -> None:
        """See Limits."""
        await self._client.aclose()
        await self._client.connection_pool.disconnect()


_CAUSES = {cause.value: cause for cause in RestCause}
_REASONS = {reason.value: reason for reason in Reason}


def slot_keys(key: str) -> tuple[str, str, str, str]:
    """The keys of a credential's slots: taken, queue, waiting, turn."""
    tag = f"keyswitch:{{{key}}}:slots"
    return tag, f"{tag}:queue", f"{tag}:waiting", f"{tag}:turn"


def rate_key(tenant: str, key: str) -> str:
    """The key of a rate."""
    return f"keyswitch:{{{tenant}}}:rate:{key}"
