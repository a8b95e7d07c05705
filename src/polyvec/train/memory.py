"""Memory that one pass frees and the next one takes again."""

import ctypes
import functools
import sys

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
"""glibc's mallopt(3)."""


@functools.cache
def keep_freed_memory() -> None:
    """Make glibc keep what a pass frees, instead of giving it back and mapping it anew.

    A mapped block costs a page fault and a page of zeros every 4 KiB each time (dev/LOG.md). Other
    allocators are left as they are.
    """
    if not sys.platform.startswith("linux"):
        return
    library = ctypes.CDLL(None)
    if hasattr(library, "gnu_get_libc_version"):
        library.mallopt(_MMAP_MAX, 0)
        library.mallopt(_TRIM_THRESHOLD, 2**31 - 1)
