"""The HTTP client of the hot path, over aiohttp.

There is one session for each set of allowed networks: a pooled connection is only reused by requests that would have
been allowed to open it. The address is checked in the socket factory, which sees exactly what is connected to.
"""

import asyncio
import socket
import ssl
from collections.abc import Collection, Mapping
from functools import lru_cache
from io import BytesIO
from ipaddress import ip_address

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from router_service.core.faults import Fault
from router_service.upstream.addresses import Listener, Resolve, choose, is_literal, refusal, resolve_with_system
from router_service.upstream.client import (
    AddressRefused,
    IpNetwork,
    Phase,
    Trouble,
    TroubleTable,
    UpstreamRequest,
    UpstreamResponse,
    collect,
    network_fault,
    trouble_fault,
)

_IDLE_SECONDS = 60.0  # common servers keep an idle connection for 60 to 75 s; ours ends first
_AUTOMATIC = ("User-Agent", "Accept", "Accept-Encoding", "Content-Type")
_LARGE_BYTES = 512 * 1024
_PIECE_BYTES = 16 * 1024  # decoding keeps about eight copies of a piece for as long as its caller does not read
_AHEAD_BYTES = 64 * 1024  # what the system takes of a stream ahead of us; one read of ours may take all of it
_WHOLE_BYTES = 1024 * 1024  # of an answer that is read whole: a small window would make it slow on a long way
_IDENTITY = ("accept-encoding", "identity")

_TROUBLES: TroubleTable = {
    aiohttp.ServerDisconnectedError: Trouble.DISCONNECTED,
    aiohttp.ServerTimeoutError: Trouble.CONNECT_TIMEOUT,
    aiohttp.ClientConnectorCertificateError: Trouble.TLS,
    aiohttp.ClientSSLError: Trouble.TLS,
    aiohttp.ClientConnectorDNSError: Trouble.NAME_NOT_RESOLVED,
    aiohttp.ClientPayloadError: Trouble.TRUNCATED,
    aiohttp.ClientResponseError: Trouble.MALFORMED,
    aiohttp.http_exceptions.HttpProcessingError: Trouble.MALFORMED,
    aiohttp.InvalidURL: Trouble.UNREACHABLE,
}
_KINDS = (aiohttp.ClientError, aiohttp.http_exceptions.HttpProcessingError, OSError)  # OSError contains TimeoutError


class AiohttpUpstream:
    """See Upstream. To be made inside the event loop that uses it."""

    def __init__(
        self,
        *,
        own_listeners: Collection[Listener] = (),
        resolve: Resolve = resolve_with_system,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._own_listeners = frozenset(own_listeners)
        self._resolve = resolve
        self._ssl_context = ssl_context or ssl.create_default_context()
        self._sessions: dict[tuple[IpNetwork, ...], aiohttp.ClientSession] = {}

    async def send(
        self, request: UpstreamRequest, *, connect_timeout_seconds: float, response_timeout_seconds: float
    ) -> UpstreamResponse:
        """See Upstream."""
        session = self._sessions.get(request.allowed_private_networks)
        if session is None:
            session = self._open_session(request.allowed_private_networks)
        response_timeout = asyncio.timeout(response_timeout_seconds)
        try:
            async with response_timeout:
                response = await session.request(
                    request.method,
                    _parse(request.url),
                    headers=(*request.headers, _IDENTITY),
                    data=_payload(request.body),
                    allow_redirects=False,
                    timeout=_timeout(connect_timeout_seconds),
                )
        except _KINDS as exc:
            if response_timeout.expired() and isinstance(exc, TimeoutError):
                raise trouble_fault(Trouble.RESPONSE_TIMEOUT) from exc
            raise network_fault(exc, Phase.HEAD, _TROUBLES) from exc
        _bound(response)
        result = AiohttpResponse(response)
        if response.headers.get("Content-Encoding", "identity").lower() != "identity":
            result.abort()
            raise trouble_fault(Trouble.ENCODED)
        return result

    async def close(self) -> None:
        """See Upstream."""
        sessions, self._sessions = list(self._sessions.values()), {}
        for session in sessions:
            await session.close()

    def _open_session(self, allowed: tuple[IpNetwork, ...]) -> aiohttp.ClientSession:
        guard = _Guard(allowed, self._own_listeners, self._resolve)
        connector = aiohttp.TCPConnector(
            limit=0,  # limits are policy's; a second queue here would hide them
            resolver=guard,
            socket_factory=guard.open_socket,
            ssl=self._ssl_context,
            keepalive_timeout=_IDLE_SECONDS,
        )
        session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            auto_decompress=False,
            skip_auto_headers=_AUTOMATIC,
            raise_for_status=False,
            read_bufsize=_PIECE_BYTES,
        )
        self._sessions[allowed] = session
        return session


class AiohttpResponse:
    """See UpstreamResponse."""

    __slots__ = ("_headers", "_is_aborted", "_response", "status")

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self._headers: dict[str, str] | None = None
        self._is_aborted = False
        self.status: int = response.status

    @property
    def headers(self) -> Mapping[str, str]:
        """See UpstreamResponse."""
        if self._headers is None:
            headers: dict[str, str] = {}
            for name, value in self._response.headers.items():
                headers.setdefault(name.lower(), value)
            self._headers = headers
        return self._headers

    async def read_chunk(self) -> bytes:
        """See UpstreamResponse."""
        if self._is_aborted:
            raise trouble_fault(Trouble.ABORTED)
        try:
            return await self._response.content.read(_PIECE_BYTES)
        except _KINDS as exc:
            raise self._fault(exc) from exc

    async def read_all(self, max_bytes: int) -> bytes:
        """See UpstreamResponse."""
        return await collect(self, max_bytes)

    def abort(self) -> None:
        """See UpstreamResponse."""
        if self._is_aborted:
            return
        self._is_aborted = True
        connection = self._response.connection
        if connection is not None and connection.transport is not None:
            connection.transport.abort()  # close() would wait for unsent bytes and for TLS to say goodbye
        self._response.close()

    async def close(self) -> None:
        """See UpstreamResponse."""
        if not self._is_aborted and not self._response.content.at_eof():
            self.abort()
        self._response.release()

    def _fault(self, exc: BaseException) -> Fault:
        if self._is_aborted:
            return trouble_fault(Trouble.ABORTED)
        return network_fault(exc, Phase.BODY, _TROUBLES)


class _Guard(AbstractResolver):
    """Resolves names to allowed addresses and opens sockets for nothing else."""

    def __init__(self, allowed: tuple[IpNetwork, ...], own: frozenset[Listener], resolve: Resolve) -> None:
        self._allowed = allowed
        self._own = own
        self._resolve = resolve

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Names only: aiohttp does not ask for literals, which the socket factory sees."""
        addresses = choose(await self._resolve(host, port), port, self._allowed, self._own)
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=socket.IPPROTO_TCP,
                flags=socket.AI_NUMERICHOST,
            )
            for address in addresses
        ]

    async def close(self) -> None:
        """Nothing is held."""

    def open_socket(self, address_info: aiohttp.AddrInfoType) -> socket.socket:
        """The last step before connecting."""
        family, kind, proto, _, address = address_info
        host, port = str(address[0]), int(address[1])
        if not is_literal(host):
            raise AddressRefused("its address could not be read.")
        rule = refusal(ip_address(host), port, self._allowed, self._own)
        if rule is not None:
            raise AddressRefused(rule)
        opened = socket.socket(family, kind, proto)
        opened.setblocking(False)
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _AHEAD_BYTES)  # before there is a window to fill
        return opened


def _bound(response: aiohttp.ClientResponse) -> None:
    """Before a caller that does not read its stream, only so much of it is taken from the provider (decision 0120)."""
    transport = None if response.connection is None else response.connection.transport
    if transport is None:
        return  # all of it has arrived
    is_whole = response.content_type == "application/json"
    opened = transport.get_extra_info("socket")
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _WHOLE_BYTES if is_whole else _AHEAD_BYTES)
    limit = getattr(transport, "set_read_buffer_limits", None)  # TLS has a buffer of its own, of 256 KiB by default
    if limit is not None:
        limit(_PIECE_BYTES)


def _payload(body: bytes) -> bytes | BytesIO | None:
    # Above 1 MiB aiohttp warns of bytes, because it writes them in one go; a file-like object is written in pieces.
    return (body if len(body) < _LARGE_BYTES else BytesIO(body)) if body else None


@lru_cache(maxsize=1024)
def _parse(url: str) -> URL:
    return URL(url, encoded=True)  # as it was written: nothing is quoted again


@lru_cache(maxsize=64)
def _timeout(connect_timeout_seconds: float) -> aiohttp.ClientTimeout:
    # Only connecting: the response's timeout is the caller's asyncio.timeout, and a stream may be silent for long.
    return aiohttp.ClientTimeout(total=None, connect=connect_timeout_seconds, ceil_threshold=float("inf"))
