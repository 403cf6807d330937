"""Keep the C heap, on huge pages: freeing a tensor of some megabytes gives its pages back, and the next one faults them in anew.

A training step frees and takes the same sizes thousands of times. On a virtual machine a fault of one 4 KiB page costs up to 10 us, so
that 8 MiB of fresh memory take longer to touch than to multiply. With the heap kept and its address range on 2 MiB pages this is gone.
"""

from __future__ import annotations

import ctypes
import os
import sys

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4  # from glibc's malloc.h
_MADV_HUGEPAGE = 14  # from linux/mman.h
_PAGE = 1 << 21
_kept = False


def keep_heap() -> bool:
    """Tells glibc never to return freed memory and puts the heap to come on huge pages; -> whether it did (glibc on Linux only).

    Address space is reserved, memory is taken only when it is used. Calling it again changes nothing.
    """
    global _kept
    if _kept or not sys.platform.startswith("linux"):
        return _kept
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallopt"):  # musl
        return False
    _kept = all(
        libc.mallopt(option, value)
        for option, value in ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, -1), (_M_TOP_PAD, 1 << 26))
    )
    if _kept:
        _ask_for_huge_pages(libc, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4)
    return _kept


def _ask_for_huge_pages(libc: ctypes.CDLL, size: int) -> None:
    """Grows the heap by `size` bytes, marks them, and gives them back to the heap, which keeps them. Without success nothing is lost."""
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    libc.free.argtypes, libc.madvise.argtypes = (
        [ctypes.c_void_p],
        [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int],
    )
    block = libc.malloc(size)
    if block:
        start = -(-block // _PAGE) * _PAGE
        libc.madvise(start, (block + size - start) // _PAGE * _PAGE, _MADV_HUGEPAGE)
        libc.free(block)
