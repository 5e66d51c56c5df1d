"""What the C library does with memory that is freed. Only glibc can be told; elsewhere nothing happens."""

from __future__ import annotations

import contextlib
import ctypes
import sys

M_MMAP_THRESHOLD, M_TRIM_THRESHOLD = -3, -1


def keep_freed(keep: bool) -> None:
    """Keep freed memory for the next step, or give large blocks back to the system at once.

    Every step frees and takes the same tensors, and the system clears each page it hands out: an eighth of a step with the
    built-in network on a CPU. The numbers of the second case are those that glibc arrives at by itself.
    """
    _tell("mallopt", M_MMAP_THRESHOLD, 2**31 - 1 if keep else 2**25)
    _tell("mallopt", M_TRIM_THRESHOLD, -1 if keep else 2**26)


def trim() -> None:
    """Give back to the system what is free now."""
    _tell("malloc_trim", 0)


def _tell(function: str, *arguments: int) -> None:
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            getattr(ctypes.CDLL(None), function)(*arguments)
