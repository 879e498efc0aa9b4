"""TLS of the listeners, with certificates that may be replaced while the service runs.

Every new handshake asks; files that cannot be read or do not fit together leave the last good ones in place.
"""

from collections.abc import Callable
from functools import lru_cache

import grpc
import structlog
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from vault_service.config import TlsFiles
from vault_service.transport.handshakes import Shown, listener_credentials

_log = structlog.stdlib.get_logger("vault_service.tls")
_Stamp = tuple[int, ...]
ReadAuthorities = Callable[[], bytes]


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
        return listener_credentials(lambda: self._read_shown(clients))

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
