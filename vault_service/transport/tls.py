"""TLS of the listeners, with certificates that may be replaced while the service runs.

Every new handshake asks; files that cannot be read or do not fit together leave the last good ones in place.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache

import grpc
import structlog
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from vault_service.config import TlsFiles

_log = structlog.stdlib.get_logger("vault_service.tls")
_Stamp = tuple[int, ...]
ReadAuthorities = Callable[[], bytes]
_SETTLING_SECONDS = 0.05
_sleep = time.sleep  # noqa: TID251 # gRPC asks in a thread of its own


@dataclass(frozen=True, slots=True)
class Shown:
    """What a listener shows, and whose certificates it takes: PEM. Without authorities nobody is asked for one."""

    chain: bytes
    key: bytes = field(repr=False)
    clients: bytes | None = None


class Changes:
    """Gives a configuration only where it is another than the last one.

    For each one that it is given, gRPC makes a TLS context and frees the one before, which a handshake in another
    thread may be about to take (https://github.com/grpc/grpc/issues/36693). Given one for each handshake, a few
    clients that connect at once end the process. gRPC asks under a lock and takes the context after it: so a change
    waits here until the handshakes that were told of none have taken theirs.
    """

    def __init__(self, read: Callable[[], Shown], sleep: Callable[[float], None] = _sleep) -> None:
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


@lru_cache(maxsize=4)
def _parse(pem: bytes) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(pem)


class Certificates:
    """The certificates in the files, read anew when the files change."""

    def __init__(self, files: TlsFiles) -> None:
        self._files = files
        self._stamp = self._read_stamp()
        self._key, self._chain, self._ca = self._read()

    @property
    def authorities(self) -> list[x509.Certificate]:
        """The authorities that clients' certificates must come from: the very same list while the file is the same."""
        return _parse(self._ca)

    def credentials(self, clients: ReadAuthorities | None) -> grpc.ServerCredentials:
        """Gives the credentials of a listener; `clients` gives the authorities of those who must show a certificate."""
        changes = Changes(lambda: self._read_shown(clients))
        return grpc.dynamic_ssl_server_credentials(
            _configuration(changes.told), changes.fetch, require_client_authentication=clients is not None
        )

    def own_authority(self) -> bytes:
        """Gives the authority of the deployment's own services, PEM."""
        return self._ca

    def _read_shown(self, clients: ReadAuthorities | None) -> Shown:
        self.refresh()
        return Shown(self._chain, self._key, clients() if clients is not None else None)

    def refresh(self) -> None:
        """Reads the files again where they have changed."""
        try:
            stamp = self._read_stamp()
            if stamp != self._stamp:
                self._key, self._chain, self._ca = self._read()
                self._stamp = stamp
        except (OSError, ValueError, TypeError) as error:
            _log.warning("certificates_not_replaced", error_type=type(error).__name__)

    def _read(self) -> tuple[bytes, bytes, bytes]:
        key, chain, ca = (path.read_bytes() for path in (self._files.key, self._files.certificate, self._files.ca))
        leaf = x509.load_pem_x509_certificates(chain)[0]
        x509.load_pem_x509_certificates(ca)
        private_key = load_pem_private_key(key, password=None)
        encoding = Encoding.DER, PublicFormat.SubjectPublicKeyInfo
        if private_key.public_key().public_bytes(*encoding) != leaf.public_key().public_bytes(*encoding):
            raise ValueError("the key is not the certificate's")
        return key, chain, ca

    def _read_stamp(self) -> _Stamp:
        stats = [path.stat() for path in (self._files.key, self._files.certificate, self._files.ca)]
        return tuple(part for stat in stats for part in (stat.st_mtime_ns, stat.st_ino, stat.st_size))


def _configuration(shown: Shown) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(shown.key, shown.chain)], root_certificates=shown.clients)
