"""Memory of devices: how much is free and used, the peak, errors that mean a lack of it, and memory that the C library keeps."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import math
import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
import torch

if sys.platform != "win32":
    import resource

CPU = torch.device("cpu")
SHARED_WITH_HOST = ("cpu", "mps")
"""Types of devices that use the host's memory."""

UNKNOWN = (RuntimeError, ValueError, ImportError, AttributeError)
"""What torch raises for a device whose memory it cannot measure."""

M_MMAP_THRESHOLD, M_TRIM_THRESHOLD = -3, -1
LARGEST_MMAP_THRESHOLD = 2**25
"""The largest value of glibc's dynamic threshold for blocks that are mapped one by one; that of trimming is twice as large."""

OUT_OF_MEMORY = re.compile(
    "out[ _]of[ _](device_|host_)?memory|can't allocate memory|not enough memory|unable to find an engine|alloc_failed|bad_alloc"
    r"|could not (create|execute) a primitive(?! descriptor)",
    re.IGNORECASE,
)
"""The messages of errors of other types that mean a lack of memory. oneDNN's do not tell it from other failures."""

_keeps = False
"""Whether this process keeps freed memory now."""
_peaks: dict[torch.device, int] = {}
"""The peaks that devices reached before torch's or the system's own counters were reset."""


def show_bytes(count: float) -> str:
    """Return bytes as 1.2 GB or 340 MB."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{max(1, round(count / 1e6))} MB"


def free_bytes(device: torch.device) -> int | None:
    """Return the memory that is free on a device, or None where that is unknown.

    On the CPU it is also limited by control groups, such as a container's. Memory that torch caches for new tensors is free.
    """
    if device.type in SHARED_WITH_HOST:
        return max(0, round(min(psutil.virtual_memory().available, cgroup_bytes_left())))
    try:
        free = int(torch.accelerator.get_memory_info(device)[0])
        return free + torch.accelerator.memory_reserved(device) - torch.accelerator.memory_allocated(device)
    except UNKNOWN:
        return None


def free_host_bytes() -> int:
    """Return the memory that is free on the host."""
    return free_bytes(CPU) or 0


def cgroup_bytes_left(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> float:
    """Return the bytes left by the limits of this process's control group and of its ancestors, infinity without limits.

    The file `own` names the group, of version 1 or 2, below `root`. The page cache of files that were not used recently counts
    as free.
    """
    left = math.inf
    try:
        lines = [line.split(":", 2) for line in own.read_text().splitlines()]
    except OSError:
        return left
    for line in lines:
        if len(line) == 3 and not line[1]:
            top, names = root, ("memory.max", "memory.current", "inactive_file")
        elif len(line) == 3 and "memory" in line[1].split(","):
            top, names = root / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        group = top / line[2].lstrip("/")
        for folder in (top, *(folder for folder in (group, *group.parents) if top in folder.parents)):
            with contextlib.suppress(OSError, ValueError):
                limit, usage = (int((folder / name).read_text()) for name in names[:2])
                statistics = (folder / "memory.stat").read_text().splitlines()
                values = dict(line.split(maxsplit=1) for line in statistics if " " in line)
                left = min(left, limit - usage + int(values.get(names[2], 0)))
    return left


def used_bytes(device: torch.device) -> int:
    """Return the memory that this process uses on a device, 0 where that is unknown."""
    if device.type in SHARED_WITH_HOST:
        return int(psutil.Process().memory_info().rss)
    try:
        return int(torch.accelerator.memory_allocated(device))
    except UNKNOWN:
        return 0


def peak_bytes(devices: Sequence[torch.device]) -> int:
    """Return the peak memory so far: the accelerators' largest, or the process's if all devices use the host's memory.

    It never decreases, and is 0 where it is unknown.
    """
    accelerators = [device for device in dict.fromkeys(devices) if device.type not in SHARED_WITH_HOST]
    return max(_record_peak(device) for device in accelerators or [CPU])


def _record_peak(device: torch.device) -> int:
    """Return a device's peak memory, and remember it, since the counters behind it can be reset."""
    peak = 0
    if device.type not in SHARED_WITH_HOST:
        with contextlib.suppress(*UNKNOWN):
            peak = int(torch.accelerator.max_memory_allocated(device))
    elif sys.platform != "win32":
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    _peaks[device] = max(peak, _peaks.get(device, 0))
    return _peaks[device]


@contextlib.contextmanager
def measured_rise(device: torch.device) -> Iterator[list[int]]:
    """Append to the list, after the block, the bytes by which its peak exceeds the memory used before; nothing if unknown.

    This resets the device's own counter of the peak.
    """
    rise: list[int] = []
    own, known = device.type not in SHARED_WITH_HOST, free_bytes(device) is not None
    _record_peak(device)
    if own and known:
        torch.accelerator.reset_peak_memory_stats(device)
    elif not own:
        try:
            Path("/proc/self/clear_refs").write_text("5")
        except OSError:  # it exists on Linux alone
            known = False
    before = used_bytes(device)
    yield rise
    if own and known:
        rise.append(torch.accelerator.max_memory_allocated(device) - before)
    elif known and (high := re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())):
        rise.append(int(high[1]) * 1024 - before)


def ran_out(error: BaseException) -> bool:
    """Return whether an exception means that memory ran out."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or OUT_OF_MEMORY.search(str(error)) is not None


def release() -> None:
    """Return unused memory of this process to the system, and that of torch's caches to the devices."""
    gc.collect()
    trim()
    kind = torch.accelerator.current_accelerator()
    if kind is not None and kind.type == "mps":
        torch.mps.empty_cache()  # torch.accelerator.empty_cache fails there before torch 2.15
    elif kind is not None:
        torch.accelerator.empty_cache()


def keep_freed(keep: bool) -> None:
    """Keep freed memory for the next step, or restore the thresholds from which glibc returns it to the system.

    Every step frees and allocates the same tensors, and the system clears each page that it provides: an eighth of a step with
    the built-in network on a CPU. glibc's thresholds cannot be read, and setting one ends their dynamic adjustment for good. So
    they are only changed by a run that keeps memory. They are restored to the values of the environment
    (`MALLOC_MMAP_THRESHOLD_` or `GLIBC_TUNABLES`), or else to those that the dynamic adjustment reaches in a process that has
    freed large tensors. Values that the caller set by mallopt itself are lost. Other C libraries are left as they are.
    """
    global _keeps
    if keep == _keeps:
        return
    _keeps = keep
    mmap, trim = 2**31 - 1, -1
    if not keep:
        mmap = _from_environment("mmap_threshold") or LARGEST_MMAP_THRESHOLD
        trim = _from_environment("trim_threshold") or 2 * mmap
    _call("mallopt", M_MMAP_THRESHOLD, mmap)
    _call("mallopt", M_TRIM_THRESHOLD, trim)


def _from_environment(name: str) -> int | None:
    """Return a threshold that the environment sets for the whole process, or None."""
    tunable = re.search(rf"(?:^|:)glibc\.malloc\.{name}=(\w+)", os.environ.get("GLIBC_TUNABLES", ""))
    text = tunable[1] if tunable else os.environ.get(f"MALLOC_{name.upper()}_", "")
    try:
        return int(text, 0)
    except ValueError:
        return None


def trim() -> None:
    """Return the memory that is free now to the system."""
    _call("malloc_trim", 0)


def _call(function: str, *arguments: int) -> None:
    """Call a function of the C library if it has it."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            getattr(ctypes.CDLL(None), function)(*arguments)
