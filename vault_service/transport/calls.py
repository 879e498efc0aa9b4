"""What is known of the call that is being served, set by the identity interceptor and read by the servicers."""

from contextvars import ContextVar
from dataclasses import dataclass
from urllib.parse import unquote

import grpc
from cryptography import x509

from vault_service.audit.recorder import Actor, current_call_id
from vault_service.core.access import Caller

_ACTOR: ContextVar[Actor] = ContextVar("actor")
_CALLER: ContextVar[Caller] = ContextVar("caller")
_CERTIFICATE: ContextVar[x509.Certificate | None] = ContextVar("certificate", default=None)


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a proven caller. `call_id` goes to the store, and so into Vault's own audit log."""

    actor: Actor
    call_id: str


def set_actor(actor: Actor) -> None:
    """Sets who is served in this task."""
    _ACTOR.set(actor)


def set_caller(caller: Caller) -> None:
    """Sets whose token came."""
    _CALLER.set(caller)


def set_certificate(certificate: x509.Certificate | None) -> None:
    """Sets the client certificate of a router's connection."""
    _CERTIFICATE.set(certificate)


def certificate() -> x509.Certificate | None:
    """Gives the client certificate of the router that is served."""
    return _CERTIFICATE.get()


def current() -> Call:
    """Gives the call that this task serves."""
    return Call(_ACTOR.get(), current_call_id())


def unproven_actor() -> Actor | None:
    """Gives who is served so far; None where not even the identity interceptor was reached."""
    return _ACTOR.get(None)


def caller() -> Caller:
    """Gives whose token came; only methods behind the identity interceptor have one."""
    return _CALLER.get()


def peer_address(context: grpc.aio.ServicerContext[object, object]) -> str:
    """Gives the peer's address and port, or "unix:"."""
    peer = unquote(context.peer())
    scheme, _, rest = peer.partition(":")
    return rest if scheme in ("ipv4", "ipv6") else peer
