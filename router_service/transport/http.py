"""The HTTP listener for operators: /healthz, /readyz and /metrics. Nothing that a caller could want is here."""

from collections.abc import Callable, Sequence

from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST


async def serve_http(
    host: str,
    port: int,
    registry: CollectorRegistry,
    is_ready: Callable[[], bool],
    away: Callable[[], Sequence[str]] = tuple,
) -> tuple[web.AppRunner, int]:
    """Starts listening; gives the runner and the port in use."""

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_: web.Request) -> web.Response:
        if is_ready():
            # Calls that need none of these stores are served all the same, so the router stays in the rotation.
            remarks = "".join(f"; the store of {store} is out of reach" for store in away())
            return web.Response(text=f"ready{remarks}\n")
        return web.Response(status=503, text="not ready: the credential service is out of reach, or it is draining\n")

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(registry), headers={"content-type": CONTENT_TYPE_LATEST})

    application = web.Application()
    application.router.add_get("/healthz", healthz)
    application.router.add_get("/readyz", readyz)
    application.router.add_get("/metrics", metrics)
    runner = web.AppRunner(application, access_log=None, handle_signals=False)
    await runner.setup()
    site = web.TCPSite(runner, host, port, reuse_port=False)
    await site.start()
    return runner, runner.addresses[0][1]
