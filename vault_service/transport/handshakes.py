"""What a listener shows to those who connect, asked for at every handshake and given to gRPC where it changed."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import grpc

_SETTLING_SECONDS = 0.05
_sleep = time.sleep  # noqa: TID251 # gRPC asks in a thread of its own


@dataclass(frozen=True, slots=True)
class Shown:
    """What a listener shows, and whose certificates it takes: PEM. Without authorities nobody is asked for one."""

    chain: bytes
    key: bytes = field(repr=False)
    clients: bytes | None = None


def listener_credentials(read: Callable[[], Shown], sleep: Callable[[float], None] = _sleep) -> grpc.ServerCredentials:
    """Gives the credentials of one listener that follow what `read` gives."""
    changes = Changes(read, sleep)
    return grpc.dynamic_ssl_server_credentials(
        _configuration(changes.told),
        changes.fetch,
        require_client_authentication=changes.told.clients is not None,
    )


class Changes:
    """Gives a configuration only where it is another than the last one.

    For each one that it is given, gRPC makes a TLS context and frees the one before, which a handshake in another
    thread may be about to take (https://github.com/grpc/grpc/issues/36693). Given one for each handshake, a few
    clients that connect at once end the process. gRPC asks under a lock and takes the context after it: so a change
    waits here until the handshakes that were told of none have taken theirs.
    """

    def __init__(self, read: Callable[[], Shown], sleep: Callable[[float], None]) -> None:
        self._read = read
        self._sleep = sleep
        self.told = read()

    def fetch(self) -> grpc.ServerCertificateConfiguration:
        """What gRPC calls for each handshake, one at a time. None, for which its types have no word: as before."""
        found = self._read()
        if found == self.told:
            return None  # type: ignore[return-value] # gRPC takes it as "unchanged"
        self._sleep(_SETTLING_SECONDS)
        self.told = found
        return _configuration(found)


def _configuration(shown: Shown) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(shown.key, shown.chain)], root_certificates=shown.clients)
