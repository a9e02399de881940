"""The C library's allocator, told to keep what a training step frees.

The next step needs the same again.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys

# From glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGEST = 2**30


def keep_freed_memory() -> None:
    """Keep freed memory in this process, which then holds its peak until it
    ends. Linux with glibc; else nothing.

    By default glibc gives blocks of a step's activations back to the system, which hands them out
    again page by page, zeroed. `make bench` shows what it costs.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # another C library
            mallopt = ctypes.CDLL(None).mallopt
            mallopt(_M_MMAP_THRESHOLD, _LARGEST)
            mallopt(_M_TRIM_THRESHOLD, 2 * _LARGEST - 1)
