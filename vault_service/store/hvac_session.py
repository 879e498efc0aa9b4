"""hvac without its defaults: the connections and the adapter through which every request to Vault goes.

Left alone, hvac follows redirects and sends the token along, obeys proxies and variables of the environment, and raises
errors that carry the answer's text but not its status. This adapter does none of that. Nor does it go through requests,
which takes half as long again as urllib3 below it and adds only what is switched off here.
"""

import contextlib
import ipaddress
import json
import socket
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode

import certifi
import urllib3
from hvac.adapters import JSONAdapter

from vault_service.store.store import Sealed, StoreError
from vault_service.store.vault_errors import error_of, error_of_transport
from vault_service.store.vault_settings import VaultSettings

REQUEST_ID_HEADER = "X-Keyswitch-Request-Id"
_MAX_REQUEST_ID_CHARACTERS = 128


_LOCAL = threading.local()


@dataclass(slots=True)
class Exchange:
    """One piece of work in one thread: under which token it is done, for which calls, and what ids Vault gave it."""

    token: str = field(repr=False)
    request_ids: Sequence[str] = ()
    is_in_root: bool = False
    """Whether the server itself is asked, which has no namespace and refuses a request that names one."""
    vault_request_ids: list[str] = field(default_factory=list)


class Waiting:
    """What one thread waits for, to be ended from another one.

    A time-out of the socket counts each read anew, and so never ends what comes byte by byte.
    """

    def __init__(self) -> None:
        self._connection: urllib3.connection.HTTPConnection | None = None
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def here(self) -> Iterator[None]:
        """Notes the connections that this thread uses inside."""
        _LOCAL.waiting = self
        try:
            yield
        finally:
            del _LOCAL.waiting
            self.uses(None)

    def uses(self, connection: urllib3.connection.HTTPConnection | None) -> None:
        """Notes the connection in use."""
        with self._lock:
            self._connection = connection

    def abandon(self) -> None:
        """Ends the waiting, if there is any."""
        with self._lock:
            waiting = self._connection.sock if self._connection is not None else None
            if waiting is not None:
                with contextlib.suppress(OSError):
                    socket.socket.shutdown(waiting, socket.SHUT_RDWR)


class _PlainConnection(urllib3.connection.HTTPConnection):
    """A connection of which the thread's `Waiting` knows, and which goes to this machine whatever its name means."""

    def connect(self) -> None:
        _note(self)
        super().connect()
        if not ipaddress.ip_address(self.sock.getpeername()[0]).is_loopback:
            self.close()
            raise urllib3.exceptions.NewConnectionError(self, "plain http goes to this machine only")

    def request(self, *arguments: Any, **options: Any) -> None:
        _note(self)
        super().request(*arguments, **options)


class _SecureConnection(urllib3.connection.HTTPSConnection):
    """The same over TLS."""

    def connect(self) -> None:
        _note(self)
        super().connect()

    def request(self, *arguments: Any, **options: Any) -> None:
        _note(self)
        super().request(*arguments, **options)


class _PlainPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _PlainConnection


class _SecurePool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _SecureConnection


def _note(connection: urllib3.connection.HTTPConnection) -> None:
    waiting: Waiting | None = getattr(_LOCAL, "waiting", None)
    if waiting is not None:
        waiting.uses(connection)


def new_pools(settings: VaultSettings) -> urllib3.PoolManager:
    """Gives connections to the configured server, and to nothing that the environment or an answer names: urllib3 by
    itself knows no proxies of the environment, no .netrc and no cookies."""
    pools = urllib3.PoolManager(
        num_pools=1,
        maxsize=settings.threads,
        cert_reqs="CERT_REQUIRED",
        ca_certs=str(settings.ca_file) if settings.ca_file else certifi.where(),
        timeout=urllib3.Timeout(connect=settings.connect_timeout_seconds, read=settings.read_timeout_seconds),
        retries=False,  # requests are repeated by the layers above, which know what may be repeated
    )
    pools.pool_classes_by_scheme = {"http": _PlainPool, "https": _SecurePool}
    return pools


class _NoSession:
    """What hvac is given in place of a session of requests, with which it would send by itself."""

    verify = cert = proxies = None


class VaultAdapter(JSONAdapter):  # type: ignore[misc]  # hvac ships no type information
    """Sends what hvac's API classes ask for, and raises StoreError by the answer's status."""

    def __init__(self, pools: urllib3.PoolManager, settings: VaultSettings) -> None:
        # Token and redirects are given although `request` looks at neither: hvac's own defaults must not be in force.
        super().__init__(
            base_uri=settings.url,
            token="",  # the token comes with each exchange
            session=_NoSession(),
            allow_redirects=False,
        )
        self._pools = pools
        self._vault_namespace = settings.namespace

    @contextlib.contextmanager
    def exchanging(self, exchange: Exchange) -> Iterator[None]:
        """Does what is inside, in this thread, as part of the exchange."""
        _LOCAL.exchange = exchange
        try:
            yield
        finally:
            del _LOCAL.exchange

    def request(
        self,
        method: str,
        url: str,
        headers: dict[str, str] | None = None,
        raise_exception: bool = True,
        wrap_ttl: str | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Gives the answer's JSON object, an empty one where it has no body."""
        exchange: Exchange = _LOCAL.exchange
        response = self._send(method.upper(), self.urljoin(self.base_uri, url), self._headers(exchange), kwargs)
        body = _json_object(response.data)
        vault_request_id = body.get("request_id")
        if isinstance(vault_request_id, str) and vault_request_id:
            exchange.vault_request_ids.append(vault_request_id)
        if response.status >= 300:
            raise self._told_apart(error_of(response.status, _errors(body), exchange.vault_request_ids))
        return body

    def _told_apart(self, error: StoreError) -> StoreError:
        """Vault says of a server that was never initialised that it is sealed; only its seal's status tells."""
        if isinstance(error, Sealed):
            with contextlib.suppress(StoreError):
                status = self._send("GET", self.urljoin(self.base_uri, "/v1/sys/seal-status"), {}, {})
                if status.status == 200 and _json_object(status.data).get("initialized") is False:
                    return error_of(501, (), error.vault_request_ids)
        return error

    def _headers(self, exchange: Exchange) -> dict[str, str]:
        headers = {"X-Vault-Request": "true"}
        if self._vault_namespace and not exchange.is_in_root:
            headers["X-Vault-Namespace"] = self._vault_namespace
        if exchange.token:
            headers["X-Vault-Token"] = exchange.token
        ids = [quote(one, safe="/:@")[:_MAX_REQUEST_ID_CHARACTERS] for one in exchange.request_ids]
        if any(ids):
            headers[REQUEST_ID_HEADER] = ",".join(ids)
        return headers

    def _send(
        self, method: str, url: str, headers: dict[str, str], arguments: dict[str, Any]
    ) -> urllib3.BaseHTTPResponse:
        problem: StoreError
        params, sent = arguments.get("params"), arguments.get("json")
        body = None
        if sent is not None:
            body = json.dumps(sent).encode()
            headers["Content-Type"] = "application/json"
        try:
            return self._pools.urlopen(
                method, f"{url}?{urlencode(params)}" if params else url, body=body, headers=headers, redirect=False
            )
        except (urllib3.exceptions.HTTPError, OSError) as fault:
            problem = error_of_transport(fault)
        # Raised out here, so that the error has no context: that one may hold the request with its headers.
        raise problem


def _json_object(content: bytes) -> dict[str, Any]:
    if not content:
        return {}
    try:
        body = json.loads(content)
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _errors(body: dict[str, Any]) -> Sequence[str]:
    errors = body.get("errors")
    return [text for text in errors if isinstance(text, str)] if isinstance(errors, list) else []
