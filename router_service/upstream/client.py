"""The way to a provider: send → status, headers, chunks, close. Two clients stand behind it, one suite runs on both.

This is the one place where a network exception becomes a Fault. A message never holds the exception's text or a URL's
query: both may carry what the provider echoed. The exception stays as the fault's cause, for the debugger.
"""

import re
import socket
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from ipaddress import IPv4Network, IPv6Network
from typing import Protocol, assert_never

from router_service.core.faults import Fault, Reason, invalid, violation

IpNetwork = IPv4Network | IPv6Network

_HEADER_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110 section 5.6.2, token
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e]*")  # RFC 9110 section 5.5 without obs-text: clients differ in its encoding
_OWN_HEADERS = frozenset({"host", "content-length", "transfer-encoding", "connection", "accept-encoding"})


@dataclass(frozen=True, slots=True)
class UpstreamRequest:
    """One HTTP request. Headers hold the credential, so neither they nor the body are ever printed.

    `allowed_private_networks` are those of the provider: what is listed there may be reached although it is not public.
    """

    method: str
    url: str
    headers: tuple[tuple[str, str], ...] = field(repr=False)
    body: bytes = field(repr=False)
    allowed_private_networks: tuple[IpNetwork, ...] = ()

    def __post_init__(self) -> None:
        for name, value in self.headers:
            if not _HEADER_NAME.fullmatch(name):
                raise invalid("headers", "A header's name holds a character that is not allowed in one.")
            if name.lower() in _OWN_HEADERS:
                raise invalid("headers", f"The header {name.lower()} belongs to the connection and cannot be set.")
            if not _HEADER_VALUE.fullmatch(value):
                raise invalid(
                    "headers",
                    f"The value of the header {name.lower()} holds a line break or a character outside ASCII.",
                )


class UpstreamResponse(Protocol):
    """A response whose body is still to be read. `close` or `abort` must end it, also after an exception."""

    @property
    def status(self) -> int:
        """The HTTP status. A redirect (3xx) is returned like any other: none is followed."""

    @property
    def headers(self) -> Mapping[str, str]:
        """By names in lower case; of a repeated header the first value."""

    async def read_chunk(self) -> bytes:
        """What has arrived, as it came; b"" at a clean end. Raises Fault when the body is cut."""

    async def read_all(self, max_bytes: int) -> bytes:
        """The whole body. Raises Fault (violation "too_large") and aborts when it is longer."""

    def abort(self) -> None:
        """Closes the connection at once, unless the whole body has arrived: then nobody is waiting at its other end.

        May be called at any time and repeatedly; a pending read ends with a Fault.
        """

    async def close(self) -> None:
        """Ends the response: a body that was read to its end leaves the connection for reuse, any other closes it."""


class Upstream(Protocol):
    """An HTTP client. It follows no redirect, obeys no proxy variable, keeps no cookie and decompresses nothing."""

    async def send(
        self, request: UpstreamRequest, *, connect_timeout_seconds: float, response_timeout_seconds: float
    ) -> UpstreamResponse:
        """Sends and waits for the response's head. Cancelling it closes the connection.

        The response timeout counts from the call and contains connecting. Reading the body has no timeout: the caller
        sets its own.
        """

    async def close(self) -> None:
        """Closes every connection."""


class Trouble(Enum):
    """What can go wrong on the network. The value is what a fault's metadata says."""

    REFUSED = "refused"
    RESET = "reset"
    DISCONNECTED = "disconnected"
    NAME_NOT_RESOLVED = "dns"
    TLS = "tls"
    UNREACHABLE = "unreachable"
    ADDRESS_REFUSED = "address_refused"
    CONNECT_TIMEOUT = "connect"
    RESPONSE_TIMEOUT = "response"
    TRUNCATED = "truncated"
    MALFORMED = "http"
    ENCODED = "content_encoding"
    TOO_LARGE = "too_large"
    ABORTED = "aborted"


class AddressRefused(OSError):
    """The guard refused an address. `rule` says which rule; it holds no secret and may be shown."""

    def __init__(self, rule: str) -> None:
        super().__init__(rule)
        self.rule = rule


_UNAVAILABLE = {
    Trouble.REFUSED: "The provider refused the connection: nothing listens there, or a firewall is in the way.",
    Trouble.RESET: "The connection to the provider was reset before it answered. Try again.",
    Trouble.DISCONNECTED: "The provider closed the connection before it answered. Try again.",
    Trouble.NAME_NOT_RESOLVED: "The provider's host name cannot be resolved. Check its base URL and the name server.",
    Trouble.TLS: "No TLS connection to the provider could be made. Check its certificate and the system's time.",
    Trouble.UNREACHABLE: "The provider cannot be reached over the network. Check its base URL and the route to it.",
}


def trouble_fault(trouble: Trouble, rule: str = "") -> Fault:
    """The fault that a trouble becomes."""
    match trouble:
        case (
            Trouble.REFUSED
            | Trouble.RESET
            | Trouble.DISCONNECTED
            | Trouble.NAME_NOT_RESOLVED
            | Trouble.TLS
            | Trouble.UNREACHABLE
        ):
            return Fault(Reason.UPSTREAM_UNAVAILABLE, _UNAVAILABLE[trouble], metadata={"cause": trouble.value})
        case Trouble.ADDRESS_REFUSED:
            return Fault(
                Reason.UPSTREAM_UNAVAILABLE,
                f"The provider's address is not one that the router may call: {rule}",
                metadata={"cause": trouble.value},
                is_retryable_here=False,
            )
        case Trouble.ABORTED:
            return Fault(
                Reason.UPSTREAM_UNAVAILABLE,
                "The router closed the connection to the provider while it was in use.",
                metadata={"cause": trouble.value},
                is_retryable_here=False,
            )
        case Trouble.CONNECT_TIMEOUT:
            return Fault(
                Reason.UPSTREAM_TIMEOUT,
                "No connection to the provider was made in time.",
                metadata={"timeout": trouble.value},
            )
        case Trouble.RESPONSE_TIMEOUT:
            return Fault(
                Reason.UPSTREAM_TIMEOUT, "The provider did not answer in time.", metadata={"timeout": trouble.value}
            )
        case Trouble.TRUNCATED:
            return violation(trouble.value, "The provider's answer was cut before its end.")
        case Trouble.MALFORMED:
            return violation(trouble.value, "The provider's answer is not valid HTTP.")
        case Trouble.ENCODED:
            return violation(trouble.value, "The provider compressed its answer although it was asked not to.")
        case Trouble.TOO_LARGE:
            return violation(trouble.value, "The provider's answer is longer than the router reads.")
        case _:
            assert_never(trouble)


class Phase(Enum):
    """How far a call was when the network failed: after the head everything is a cut answer."""

    HEAD = "head"
    BODY = "body"


TroubleTable = Mapping[type[BaseException], Trouble]

# The standard library's exceptions, most particular first. Every client raises its own from one of these.
_SYSTEM: TroubleTable = {
    ConnectionRefusedError: Trouble.REFUSED,
    ConnectionResetError: Trouble.RESET,
    ConnectionAbortedError: Trouble.RESET,
    BrokenPipeError: Trouble.RESET,
    socket.gaierror: Trouble.NAME_NOT_RESOLVED,
    ssl.SSLError: Trouble.TLS,
    TimeoutError: Trouble.CONNECT_TIMEOUT,
}


def network_fault(exc: BaseException, phase: Phase, table: TroubleTable) -> Fault:
    """The border: the fault for a network exception, to be raised from it.

    `table` is the client's own classes, most particular first.
    """
    chain = list(_causes(exc))
    for link in chain:
        if isinstance(link, AddressRefused):
            return trouble_fault(Trouble.ADDRESS_REFUSED, link.rule)
    if phase is Phase.BODY:
        return trouble_fault(Trouble.TRUNCATED)
    for link in reversed(chain):  # the root says most
        for classes in (_SYSTEM, table):
            for kind, trouble in classes.items():
                if isinstance(link, kind):
                    return trouble_fault(trouble)
    return trouble_fault(Trouble.UNREACHABLE)


def _causes(exc: BaseException) -> Iterator[BaseException]:
    link: BaseException | None = exc
    for _ in range(8):
        if link is None:
            return
        yield link
        # Not __context__: a call may be made while an earlier failure is being handled. httpcore wraps without "from".
        wrapped = link.args[0] if link.args else None
        link = link.__cause__ or (wrapped if isinstance(wrapped, BaseException) else None)


async def collect(response: UpstreamResponse, max_bytes: int) -> bytes:
    """Reads a body to its end; both clients' `read_all`."""
    parts: list[bytes] = []
    size_bytes = 0
    while chunk := await response.read_chunk():
        size_bytes += len(chunk)
        if size_bytes > max_bytes:
            response.abort()
            raise trouble_fault(Trouble.TOO_LARGE)
        parts.append(chunk)
    return parts[0] if len(parts) == 1 else b"".join(parts)
