"""What the C library keeps of memory that was freed. After a crowd of streams that is most of what they took."""

import ctypes

UNUSED_BYTES_MAX = 32 * 1024 * 1024  # what a router that runs for long has anyway; less is not worth the page faults

_FIELDS = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"


class _Mallinfo(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_size_t) for name in _FIELDS.split())


def give_back() -> bool:
    """Gives unused pages back to the system where they are many; whether it did. Other threads go on meanwhile."""
    library = ctypes.CDLL(None)
    try:
        read, trim = library.mallinfo2, library.malloc_trim
    except AttributeError:  # not glibc, or one before 2.33
        return False
    read.restype = _Mallinfo
    if read().fordblks < UNUSED_BYTES_MAX:
        return False
    return bool(trim(0))
