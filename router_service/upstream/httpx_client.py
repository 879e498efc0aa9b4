"""The HTTP client for whatever is not hot (key tests, model lists), over any httpx transport.

The transport is called directly: httpx's client above it logs whole URLs, follows the environment and keeps cookies.
The host in the URL is replaced by the address that was checked, and the name stays in the Host header and in TLS.
Connections are not reused, because a transport would share them by address between names.
"""

import asyncio
import contextlib
import os
import socket
import ssl
from collections.abc import AsyncIterator, Collection, Mapping

import h11
import httpx

from router_service.upstream.addresses import Listener, Resolve, choose, resolve_with_system
from router_service.upstream.client import (
    Phase,
    Trouble,
    TroubleTable,
    UpstreamRequest,
    UpstreamResponse,
    collect,
    network_fault,
    trouble_fault,
)

_TROUBLES: TroubleTable = {
    httpx.ConnectTimeout: Trouble.CONNECT_TIMEOUT,
    httpx.PoolTimeout: Trouble.CONNECT_TIMEOUT,
    httpx.TimeoutException: Trouble.RESPONSE_TIMEOUT,
    httpx.ReadError: Trouble.RESET,
    httpx.WriteError: Trouble.RESET,
    h11.RemoteProtocolError: Trouble.MALFORMED,  # the root of what httpx calls by the same name
    httpx.RemoteProtocolError: Trouble.DISCONNECTED,
}
_KINDS = (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, OSError)


class HttpxUpstream:
    """See Upstream. `transport` must not keep connections alive; the default one does not."""

    def __init__(
        self,
        *,
        own_listeners: Collection[Listener] = (),
        resolve: Resolve = resolve_with_system,
        ssl_context: ssl.SSLContext | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._own_listeners = frozenset(own_listeners)
        self._resolve = resolve
        self._transport = transport or httpx.AsyncHTTPTransport(
            verify=ssl_context or ssl.create_default_context(),
            trust_env=False,
            http2=False,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
        )
        self._closing: set[asyncio.Task[None]] = set()

    async def send(
        self, request: UpstreamRequest, *, connect_timeout_seconds: float, response_timeout_seconds: float
    ) -> UpstreamResponse:
        """See Upstream."""
        response_timeout = asyncio.timeout(response_timeout_seconds)
        try:
            async with response_timeout:
                async with asyncio.timeout(connect_timeout_seconds):
                    pinned = await self._pin(request, connect_timeout_seconds)
                response = await self._transport.handle_async_request(pinned)
        except _KINDS as exc:
            if response_timeout.expired() and isinstance(exc, TimeoutError):
                raise trouble_fault(Trouble.RESPONSE_TIMEOUT) from exc
            raise network_fault(exc, Phase.HEAD, _TROUBLES) from exc
        result = HttpxResponse(response, self._closing)
        if response.headers.get("content-encoding", "identity").lower() != "identity":
            result.abort()
            raise trouble_fault(Trouble.ENCODED)
        return result

    async def close(self) -> None:
        """See Upstream."""
        await self._transport.aclose()
        if self._closing:
            await asyncio.wait(self._closing)

    async def _pin(self, request: UpstreamRequest, connect_timeout_seconds: float) -> httpx.Request:
        url = httpx.URL(request.url)
        port = url.port or (443 if url.scheme == "https" else 80)
        addresses = choose(
            await self._resolve(url.host, port), port, request.allowed_private_networks, self._own_listeners
        )
        if not addresses:
            raise socket.gaierror(socket.EAI_NONAME, "no address")
        return httpx.Request(
            request.method,
            url.copy_with(host=addresses[0]),
            headers=[("host", url.netloc.decode("ascii")), *request.headers, ("accept-encoding", "identity")],
            content=request.body,
            extensions={
                "timeout": {"connect": connect_timeout_seconds, "read": None, "write": None, "pool": None},
                "sni_hostname": url.raw_host.decode("ascii"),
            },
        )


class HttpxResponse:
    """See UpstreamResponse."""

    __slots__ = ("_chunks", "_closing", "_is_aborted", "_is_at_end", "_response", "headers", "status")

    def __init__(self, response: httpx.Response, closing: set[asyncio.Task[None]]) -> None:
        self._response = response
        self._closing = closing
        self._is_aborted = False
        self._is_at_end = False
        self._chunks: AsyncIterator[bytes] | None = None
        self.status: int = response.status_code
        headers: dict[str, str] = {}
        for name, value in response.headers.multi_items():
            headers.setdefault(name.lower(), value)
        self.headers: Mapping[str, str] = headers

    async def read_chunk(self) -> bytes:
        """See UpstreamResponse."""
        self._refuse_when_aborted()
        if self._is_at_end:
            return b""
        if self._chunks is None:
            stream = self._response.stream
            if not isinstance(stream, httpx.AsyncByteStream):
                raise TypeError("the transport's responses cannot be read asynchronously")
            self._chunks = stream.__aiter__()
        try:
            async for chunk in self._chunks:
                if chunk:
                    return chunk
        except _KINDS as exc:
            raise trouble_fault(Trouble.ABORTED if self._is_aborted else Trouble.TRUNCATED) from exc
        self._refuse_when_aborted()
        self._is_at_end = True
        return b""

    async def read_all(self, max_bytes: int) -> bytes:
        """See UpstreamResponse."""
        return await collect(self, max_bytes)

    def abort(self) -> None:
        """See UpstreamResponse."""
        if self._is_aborted:
            return
        self._is_aborted = True
        network = self._response.extensions.get("network_stream")
        opened = network.get_extra_info("socket") if network is not None else None
        if opened is not None:
            # Through a second descriptor, because the sockets that event loops show cannot all be shut down.
            with contextlib.suppress(OSError), socket.socket(fileno=os.dup(opened.fileno())) as twin:
                twin.shutdown(socket.SHUT_RDWR)  # raises when it is closed already
        # httpx can only be told to clean up asynchronously; the connection itself is gone now.
        task = asyncio.get_running_loop().create_task(self._finish())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        """See UpstreamResponse."""
        if self._is_at_end:
            await self._finish()
        else:
            self.abort()

    def _refuse_when_aborted(self) -> None:
        if self._is_aborted:
            raise trouble_fault(Trouble.ABORTED)

    async def _finish(self) -> None:
        with contextlib.suppress(*_KINDS, RuntimeError):  # RuntimeError: a read still runs, and ends by itself
            await self._response.aclose()
