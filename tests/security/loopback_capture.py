"""What crosses this machine's loopback interface: the bytes of TCP by port, as whoever may capture sees them."""

import socket
import struct
import threading
from collections import defaultdict
from collections.abc import Collection
from typing import Self

_ALL_PROTOCOLS = 0x0003
_IPV4, _IPV6, _TCP = 0x0800, 0x86DD, 6
_BUFFER_BYTES = 64 << 20


class LoopbackCapture:
    """Captures from its beginning to its end. Raises PermissionError where the process may not."""

    def __init__(self, ports: Collection[int]) -> None:
        self.ports = frozenset(ports)
        self._flows: dict[tuple[int, int], list[bytes]] = defaultdict(list)
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ALL_PROTOCOLS))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
        self._socket.bind(("lo", 0))
        self._socket.settimeout(0.2)
        self._is_over = threading.Event()
        self._reader = threading.Thread(target=self._read)

    def __enter__(self) -> Self:
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._reader.join()
        self._socket.close()

    def bytes_of(self, port: int) -> bytes:
        """All that came from and went to a port, connection by connection, each way for itself."""
        return b"".join(b"".join(parts) for ends, parts in list(self._flows.items()) if port in ends)

    def _read(self) -> None:
        while not self._is_over.is_set():
            try:
                frame, address = self._socket.recvfrom(1 << 17)
            except TimeoutError:
                continue
            if address[2] != socket.PACKET_OUTGOING:  # each is seen twice: as it leaves and as it arrives
                self._keep(frame)

    def _keep(self, frame: bytes) -> None:
        packet, kind = frame[14:], struct.unpack_from("!H", frame, 12)[0]
        if kind == _IPV4 and packet[9] == _TCP:
            segment = packet[(packet[0] & 15) * 4 : struct.unpack_from("!H", packet, 2)[0]]
        elif kind == _IPV6 and packet[6] == _TCP:
            segment = packet[40:]
        else:
            return
        ends = struct.unpack_from("!HH", segment)
        if self.ports.intersection(ends):
            self._flows[ends].append(segment[(segment[12] >> 4) * 4 :])
