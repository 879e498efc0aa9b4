"""Asking a provider when the used-up windows of a key's plan start anew, where it has an endpoint for that."""

import asyncio

from router_service.catalog.catalog import Provider
from router_service.core.faults import Fault
from router_service.core.secret import Secret
from router_service.upstream.auth import authorize
from router_service.upstream.client import Upstream, UpstreamRequest

REPORT_SECONDS = 2.0
"""A call that failed waits no longer for the news; then the default of a plan holds."""

MOST_REPORT_BYTES = 64 * 1024


async def ask_reset_seconds(upstream: Upstream, provider: Provider, secret: Secret | None, now: float) -> float | None:
    """How long the key has to wait; None where the provider does not say. Never raises for what the provider does."""
    report = provider.errors.reset_report
    if report is None:
        return None
    base = provider.base_url
    url = f"{base.origin}{report.path}" if report.is_from_origin else base.join(report.path)
    headers = (("accept", "application/json"), *provider.headers)
    plain = UpstreamRequest("GET", url, headers, b"", provider.allowed_private_networks)
    try:
        async with asyncio.timeout(REPORT_SECONDS):
            response = await upstream.send(
                authorize(plain, provider.auth, secret, now),
                connect_timeout_seconds=REPORT_SECONDS,
                response_timeout_seconds=REPORT_SECONDS,
            )
            try:
                body = await response.read_all(MOST_REPORT_BYTES)
            finally:
                await response.close()
    except (Fault, TimeoutError):
        return None
    return report.read(body, now) if response.status == 200 else None
