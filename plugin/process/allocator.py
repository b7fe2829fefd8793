"""What the C library does with memory that tensors give back.

glibc returns blocks above 32 MiB to the system as soon as they are free, and every new one comes as pages that the
system has to zero: on a CPU that takes a third of a large network's step, whose tensors are made again in every step.
"""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4  # of mallopt, malloc.h
_DEFAULT_MMAP_MAX = 65536
_LARGEST_THRESHOLD = 1 << 25  # what glibc's own threshold grows to


def keep_freed_memory(keep: bool = True) -> bool:
    """Keeps freed memory for the next tensors; `keep=False` goes back to what glibc does in a long run.

    For a whole process, so for command lines only. False where there is no glibc, and nothing was changed.
    """
    if sys.platform != "linux":
        return False
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "gnu_get_libc_version"):
        return False
    if keep:
        return bool(libc.mallopt(_MMAP_MAX, 0) and libc.mallopt(_TRIM_THRESHOLD, -1))
    settings = {
        _MMAP_MAX: _DEFAULT_MMAP_MAX,
        _MMAP_THRESHOLD: _LARGEST_THRESHOLD,
        _TRIM_THRESHOLD: 2 * _LARGEST_THRESHOLD,
    }
    done = all(libc.mallopt(name, value) for name, value in settings.items())
    libc.malloc_trim(0)
    return bool(done)
