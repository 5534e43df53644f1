"""Memory that was given back is kept for the next array, instead of being returned to the system.

A training step makes and drops the same large arrays again and again. The C library returns each of them to the system
at once, and the system hands out the next one page by page, filled with zeros: a convolutional network's step took
almost twice as long for it. `keep_freed_memory` tells glibc (Linux) to keep what was freed; the process then stays as
large as its largest step was. Elsewhere nothing is changed.

It is done once, when minidl is imported; with MINIDL_KEEP_MEMORY=0 in the environment it is not.
"""

from __future__ import annotations

import ctypes
import os
import sys

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4             # numbers of the settings, from glibc's malloc.h


def keep_freed_memory() -> bool:
    """Tell the C library, unless the environment forbids it; returns whether it listened."""
    if os.environ.get("MINIDL_KEEP_MEMORY") == "0" or not sys.platform.startswith("linux"):
        return False
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is None:                      # another C library than glibc
        return False
    # No array gets pages of its own (mmap), and the heap is not cut when its end is free.
    return bool(set_option(_MMAP_MAX, 0) and set_option(_TRIM_THRESHOLD, 2**31 - 1))
