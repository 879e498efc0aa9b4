"""Tries endpoints that could not be reached, so that they come back before a caller has to try.

A probe carries no key: a key may only be leased for a call that runs, on the proof of its caller. So a probe proves
that the provider can be reached and answers, no more; endpoints that answered with failures come back by their time
and a first call, not through a probe.
"""

from collections.abc import Callable, Coroutine

import structlog

from router_service.catalog.catalog import Provider, Snapshot
from router_service.core.faults import Fault
from router_service.policy.cooldown import RestCause
from router_service.state.limits import Demand, Limits, Taken
from router_service.state.rest_board import RestBoard
from router_service.upstream.client import Upstream, UpstreamRequest

ROUND_SECONDS = 1.0
PROBES_PER_MINUTE = 12
"""Of one provider, by all routers together."""

TIMEOUT_SECONDS = 5.0

log = structlog.get_logger(__name__)


class Prober:
    """Probes providers that were unreachable."""

    def __init__(self, board: RestBoard, limits: Limits, upstream: Upstream, snapshot: Callable[[], Snapshot]) -> None:
        self._board = board
        self._limits = limits
        self._upstream = upstream
        self._snapshot = snapshot

    async def follow(self, sleep: Callable[[float], Coroutine[object, object, None]]) -> None:
        """Probes for as long as the router runs."""
        while True:
            await sleep(ROUND_SECONDS)
            await self.probe_all()

    async def probe_all(self) -> None:
        """One round: every provider with an unreachable endpoint, once."""
        by_provider: dict[str, list[str]] = {}
        for key, rest in self._board.current.items():
            if rest.cause is RestCause.UNREACHABLE:
                by_provider.setdefault(key.split(":")[1].removeprefix("providers/"), []).append(key)
        for provider_id, keys in by_provider.items():
            provider = self._snapshot().providers.get(provider_id)
            if provider is None or not provider.is_enabled or not await self._may_probe(provider_id):
                continue
            if await reaches(self._upstream, provider):
                log.info("reachable_again", provider=provider.name)
                await self._board.wake(keys)

    async def _may_probe(self, provider_id: str) -> bool:
        demand = Demand(provider_id, PROBES_PER_MINUTE, 1)
        try:
            return isinstance(await self._limits.take_rates("probes", [demand]), Taken)
        except Fault:
            return False


async def reaches(upstream: Upstream, provider: Provider) -> bool:
    """Whether the provider answers at all, be it with a refusal of a request that has no key."""
    url = provider.base_url.join(provider.key_test_path)
    request = UpstreamRequest(
        "GET", url, (("accept", "application/json"), *provider.headers), b"", provider.allowed_private_networks
    )
    try:
        response = await upstream.send(
            request, connect_timeout_seconds=TIMEOUT_SECONDS, response_timeout_seconds=TIMEOUT_SECONDS
        )
    except Fault:
        return False
    response.abort()
    return response.status < 500
