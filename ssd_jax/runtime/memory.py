"""Memory that the allocator of the C library holds, although it is no longer used."""

import ctypes
import platform
from collections.abc import Callable
from functools import cache


def return_free_memory() -> None:
    """Return free memory to the operating system. On systems without glibc, this function does nothing."""
    trim = _find_trim()
    if trim is not None:
        trim(0)


@cache
def _find_trim() -> Callable[[int], int] | None:
    return ctypes.CDLL(None).malloc_trim if platform.libc_ver()[0] == "glibc" else None
