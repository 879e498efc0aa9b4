"""Tries endpoints that a breaker has opened, so that they come back before their time is over.

A probe carries no key: a key may only be leased for a call that runs, on the proof of its caller. So a probe proves
that the provider can be reached and answers, no more. For what could not be reached that is the whole question. For
what answered with failures it is a reason to let one call try, while the others still go around it.
"""

from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass

import structlog

from router_service.catalog.catalog import Provider, Snapshot
from router_service.core.faults import Fault, Reason
from router_service.policy.cooldown import RestCause, read_key
from router_service.state.limits import Demand, Exceeded, Limits
from router_service.state.rest_board import RestBoard
from router_service.upstream.client import Upstream, UpstreamRequest

ROUND_SECONDS = 1.0
PROBES_PER_MINUTE = 12
"""Of one provider, by all routers together."""

TRIES_PER_MINUTE = 1
"""How often a probe may let a call try an endpoint that failed: one that answers probes but no calls costs no more."""

TIMEOUT_SECONDS = 5.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a probe brought. `status` is None where nothing answered."""

    status: int | None
    seconds: float
    ended: int = 0

    @property
    def is_reachable(self) -> bool:
        """A refusal of a request that has no key is an answer too."""
        return self.status is not None and self.status < 500


class Prober:
    """Probes providers. `clock` is monotonic."""

    def __init__(
        self,
        board: RestBoard,
        limits: Limits,
        upstream: Upstream,
        snapshot: Callable[[], Snapshot],
        clock: Callable[[], float],
    ) -> None:
        self._board = board
        self._limits = limits
        self._upstream = upstream
        self._snapshot = snapshot
        self._clock = clock

    async def follow(self, sleep: Callable[[float], Coroutine[object, object, None]]) -> None:
        """Probes for as long as the router runs."""
        while True:
            await sleep(ROUND_SECONDS)
            await self.probe_all()

    async def probe_all(self) -> None:
        """One round: every provider with an opened endpoint, once."""
        for name in self._open_endpoints():
            provider = _find(self._snapshot(), name)
            if provider is None or not provider.is_enabled:
                continue
            try:
                await self.probe(provider)
            except Fault:
                continue  # this minute has had its probes, or the store of limits is away

    async def probe(self, provider: Provider) -> Answer:
        """Asks one provider, and lets its endpoints back where it answers. Raises Fault RATE_LIMITED."""
        wait = await self._take(provider.name, PROBES_PER_MINUTE)
        if wait is not None:
            message = f"{provider.name} has been probed {PROBES_PER_MINUTE} times in a minute; wait a little."
            metadata = {"tier": "provider", "limit": "probes_per_minute"}
            raise Fault(Reason.RATE_LIMITED, message, metadata=metadata, retry_after_seconds=wait)
        began = self._clock()
        status = await _ask(self._upstream, provider)
        answer = Answer(status, self._clock() - began)
        if not answer.is_reachable:
            return answer
        ended = await self._let_back(self._open_endpoints().get(provider.name, ()))
        if ended:
            log.info("reachable_again", provider=provider.name, endpoints=ended)
        return Answer(status, answer.seconds, ended)

    def _open_endpoints(self) -> Mapping[str, Sequence[str]]:
        found: dict[str, list[str]] = {}
        for key in self._board.open_endpoints():
            found.setdefault(read_key(key).provider, []).append(key)
        return found

    async def _let_back(self, keys: Sequence[str]) -> int:
        rests = self._board.open_endpoints()
        unreached = [key for key in keys if rests[key].cause is RestCause.UNREACHABLE]
        await self._board.wake(unreached)
        failed = [key for key in keys if rests[key].cause is RestCause.BREAKER]
        tried = [key for key in failed if await self._take(key, TRIES_PER_MINUTE) is None]
        await self._board.end_rest(tried)
        return len(unreached) + len(tried)

    async def _take(self, what: str, limit: int) -> float | None:
        """None where it may be, else when it may."""
        answer = await self._limits.take_rates("probes", [Demand(what, limit, 1)])
        return answer.retry_seconds if isinstance(answer, Exceeded) else None


def _find(snapshot: Snapshot, name: str) -> Provider | None:
    kind, _, rest = name.partition("/")
    return snapshot.view_of(rest.partition("/")[0] if kind == "organizations" else "").find_provider(name)


async def _ask(upstream: Upstream, provider: Provider) -> int | None:
    """The status of the answer to a request that has no key."""
    url = provider.base_url.join(provider.key_test_path)
    headers = (("accept", "application/json"), *provider.headers)
    request = UpstreamRequest("GET", url, headers, b"", provider.allowed_private_networks)
    try:
        response = await upstream.send(
            request, connect_timeout_seconds=TIMEOUT_SECONDS, response_timeout_seconds=TIMEOUT_SECONDS
        )
    except Fault:
        return None
    response.abort()
    return response.status
