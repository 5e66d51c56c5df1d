"""Freed memory is kept during a run, and the thresholds of the C library are restored."""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from support.tiny import ENVIRONMENT

from style_transfer.compute import memory
from style_transfer.networks.forward import Network

MakeNetwork = Callable[..., Network]
CPU = torch.device("cpu")
LAYERS = {"relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu4_2", "relu5_1"}


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="works with glibc")
def test_freed_memory_is_used_again() -> None:
    """In a process of its own: pages that the system workers out, and clears, while tensors of 40 MB come and go."""
    program = """
import resource, sys, torch
from style_transfer.compute import memory
memory.keep_freed(True)
memory.keep_freed(sys.argv[1] == "keep")
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(40):
    torch.ones(10_000_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    kept, given = (
        int(subprocess.run([sys.executable, "-c", program, word], capture_output=True, text=True, check=True).stdout)
        for word in ("keep", "give")
    )
    assert kept < given / 4


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="works with glibc")
@pytest.mark.parametrize(
    "variables", [{"MALLOC_MMAP_THRESHOLD_": "1000000"}, {"GLIBC_TUNABLES": "glibc.malloc.mmap_threshold=1000000"}]
)
def test_thresholds_of_the_environment_are_restored(variables: dict[str, str]) -> None:
    """Blocks of 4 MB are mapped one by one before and after, but not while freed memory is kept."""
    program = """
import ctypes
from style_transfer.compute import memory

class Info(ctypes.Structure):
    names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    _fields_ = [(name, ctypes.c_size_t) for name in names.split()]

libc = ctypes.CDLL(None)
libc.mallinfo2.restype = Info
libc.malloc.restype = ctypes.c_void_p

def mapped():
    before = libc.mallinfo2().hblks
    libc.malloc(4_000_000)
    return libc.mallinfo2().hblks - before

found = [mapped()]
for keep in (True, False):
    memory.keep_freed(keep)
    found.append(mapped())
print(*found)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=ENVIRONMENT | variables
    )
    assert done.stdout.split() == ["1", "0", "1"]


def test_thresholds_are_not_set_by_a_run_that_keeps_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[object, ...]] = []
    monkeypatch.setattr(memory, "_call", lambda *call: calls.append(call))
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "5000000")
    memory.keep_freed(False)
    assert calls == []
    memory.keep_freed(True)
    memory.keep_freed(False)
    assert calls[2:] == [("mallopt", memory.M_MMAP_THRESHOLD, 2**25), ("mallopt", memory.M_TRIM_THRESHOLD, 5_000_000)]
