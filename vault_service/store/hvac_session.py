"""hvac without its defaults: the HTTP session and the adapter through which every request to Vault goes.

Left alone, hvac follows redirects and sends the token along, obeys proxies and variables of the environment, and raises
errors that carry the answer's text but not its status. This adapter does none of that.
"""

import contextlib
import ipaddress
import socket
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from http.cookiejar import DefaultCookiePolicy
from typing import Any
from urllib.parse import quote

import requests
import urllib3
from hvac.adapters import JSONAdapter
from requests.adapters import HTTPAdapter

from vault_service.store.store import StoreError
from vault_service.store.vault_errors import error_of, error_of_transport
from vault_service.store.vault_settings import VaultSettings

REQUEST_ID_HEADER = "X-Keyswitch-Request-Id"
_MAX_REQUEST_ID_CHARACTERS = 128


_LOCAL = threading.local()


@dataclass(slots=True)
class Exchange:
    """One piece of work in one thread: under which token it is done, for which call, and what ids Vault gave it."""

    token: str = field(repr=False)
    request_id: str = ""
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


class _Pools(HTTPAdapter):
    """Requests' pools of such connections."""

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        super().init_poolmanager(*arguments, **options)
        self.poolmanager.pool_classes_by_scheme = {"http": _PlainPool, "https": _SecurePool}


def _note(connection: urllib3.connection.HTTPConnection) -> None:
    waiting: Waiting | None = getattr(_LOCAL, "waiting", None)
    if waiting is not None:
        waiting.uses(connection)


def new_session(settings: VaultSettings) -> requests.Session:
    """Gives a session that talks to the configured server and to nothing that the environment or an answer names."""
    session = requests.Session()
    session.trust_env = False  # no proxies, no .netrc, no certificate bundle from the environment
    session.verify = str(settings.ca_file) if settings.ca_file else True
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    # Requests are repeated by the layers above, which know what may be repeated.
    pool = _Pools(pool_connections=1, pool_maxsize=settings.threads, max_retries=0)
    session.mount("https://", pool)
    session.mount("http://", pool)
    return session


class VaultAdapter(JSONAdapter):  # type: ignore[misc]  # hvac ships no type information
    """Sends what hvac's API classes ask for, and raises StoreError by the answer's status."""

    def __init__(self, session: requests.Session, settings: VaultSettings) -> None:
        # Token and redirects are given although `request` looks at neither: hvac's own defaults must not be in force.
        super().__init__(
            base_uri=settings.url,
            token="",  # the token comes with each exchange
            session=session,
            allow_redirects=False,
            timeout=(settings.connect_timeout_seconds, settings.read_timeout_seconds),
        )
        self._timeout = (settings.connect_timeout_seconds, settings.read_timeout_seconds)
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
        body = _json_object(response)
        vault_request_id = body.get("request_id")
        if isinstance(vault_request_id, str) and vault_request_id:
            exchange.vault_request_ids.append(vault_request_id)
        if response.status_code >= 300:
            raise error_of(response.status_code, _errors(body), exchange.vault_request_ids)
        return body

    def _headers(self, exchange: Exchange) -> dict[str, str]:
        headers = {"X-Vault-Request": "true"}
        if self._vault_namespace and not exchange.is_in_root:
            headers["X-Vault-Namespace"] = self._vault_namespace
        if exchange.token:
            headers["X-Vault-Token"] = exchange.token
        if exchange.request_id:
            headers[REQUEST_ID_HEADER] = quote(exchange.request_id, safe="/:@")[:_MAX_REQUEST_ID_CHARACTERS]
        return headers

    def _send(self, method: str, url: str, headers: dict[str, str], arguments: dict[str, Any]) -> requests.Response:
        problem: StoreError
        try:
            response: requests.Response = self.session.request(
                method,
                url,
                headers=headers,
                params=arguments.get("params"),
                json=arguments.get("json"),
                timeout=self._timeout,
                allow_redirects=False,
            )
            return response
        except requests.RequestException as fault:
            problem = error_of_transport(fault)
        # Raised out here, so that the error has no context: requests' own ones hold the request with its headers.
        raise problem


def _json_object(response: requests.Response) -> dict[str, Any]:
    if not response.content:
        return {}
    try:
        body = response.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _errors(body: dict[str, Any]) -> Sequence[str]:
    errors = body.get("errors")
    return [text for text in errors if isinstance(text, str)] if isinstance(errors, list) else []
