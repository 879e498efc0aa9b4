"""Memory that a crowd of calls has left goes back to the system."""

import ctypes
import os
from pathlib import Path

import pytest

from router_service.observe.allocator import UNUSED_BYTES_MAX, give_back

PIECE_BYTES = 2_000


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="the C library is no glibc of 2.33 or later")
def test_unused_pages_are_given_back() -> None:
    pieces = [bytes(PIECE_BYTES) for _ in range(4 * UNUSED_BYTES_MAX // PIECE_BYTES)]
    pieces = pieces[::100]  # what lives between them keeps the rest from being given back by itself
    before = resident_bytes()
    assert give_back()
    assert resident_bytes() < before - UNUSED_BYTES_MAX
    assert pieces
