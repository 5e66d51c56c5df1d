"""Free, used and peak memory."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import torch

from style_transfer.compute import memory
from style_transfer.networks.forward import Network

MakeNetwork = Callable[..., Network]
CPU = torch.device("cpu")
LAYERS = {"relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu4_2", "relu5_1"}


def groups(root: Path, limits: dict[str, tuple[str, int, int]], names: tuple[str, str, str]) -> None:
    """Make the files of control groups below `root`, each with a limit, what is used, and how much of that is idle cache."""
    for group, (limit, used, idle) in limits.items():
        (root / group).mkdir(parents=True, exist_ok=True)
        about = f"anon 5\n{names[2]} {idle}\nactive_file 7\n"
        for name, text in (*zip(names[:2], (limit, str(used)), strict=True), ("memory.stat", about)):
            (root / group / name).write_text(text + "\n")


def test_what_a_container_leaves_is_its_limit_less_what_is_not_idle_cache(tmp_path: Path) -> None:
    own = tmp_path / "own"
    assert memory.cgroup_bytes_left(tmp_path, own) == math.inf
    second = ("memory.max", "memory.current", "inactive_file")
    groups(tmp_path, {"": ("max", 900, 0), "job": ("1000", 800, 300), "job/step": ("max", 700, 200)}, second)
    for path, left in (("/job/step", 500), ("/job", 500), ("/", math.inf), ("/other/job", math.inf), ("/../x", math.inf)):
        own.write_text(f"0::{path}\n")
        assert memory.cgroup_bytes_left(tmp_path, own) == left, path
    groups(tmp_path, {"": ("600", 550, 30)}, second)
    own.write_text("0::/job/step\n")
    assert memory.cgroup_bytes_left(tmp_path, own) == 80
    first = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    groups(tmp_path / "v1" / "memory", {"": (str(2**63 - 4096), 900, 0), "docker": ("1000", 800, 150)}, first)
    own.write_text("4:cpu,cpuacct:/docker\n7:hugetlb,memory:/docker\n")
    assert memory.cgroup_bytes_left(tmp_path / "v1", own) == 350


def test_free_memory_is_what_the_system_says() -> None:
    free = memory.free_bytes(torch.device("cpu"))
    assert 0 < free <= psutil.virtual_memory().total


def test_the_memory_of_an_accelerator_is_its_own_or_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the host's."""
    xpu = torch.device("xpu:0")
    assert memory.free_bytes(xpu) is None and memory.used_bytes(xpu) == 0 and memory.peak_bytes([xpu, CPU]) == 0
    with memory.measured_rise(xpu) as rise:
        pass
    assert rise == []
    for name, value in {"get_memory_info": (5000, 9000), "memory_reserved": 700, "memory_allocated": 400}.items():
        monkeypatch.setattr(torch.accelerator, name, lambda device, value=value: value)
    assert memory.free_bytes(xpu) == 5300 and memory.used_bytes(xpu) == 400


def test_the_peak_of_an_accelerator_never_falls_though_measurements_reset_it(monkeypatch: pytest.MonkeyPatch) -> None:
    xpu, peak = torch.device("xpu:0"), [900]
    monkeypatch.setattr(memory, "_peaks", {})
    monkeypatch.setattr(torch.accelerator, "get_memory_info", lambda device: (5000, 9000))
    monkeypatch.setattr(torch.accelerator, "memory_reserved", lambda device: 700)
    monkeypatch.setattr(torch.accelerator, "memory_allocated", lambda device: 400)
    monkeypatch.setattr(torch.accelerator, "max_memory_allocated", lambda device: peak[0])
    monkeypatch.setattr(torch.accelerator, "reset_peak_memory_stats", lambda device: peak.__setitem__(0, 400))
    with memory.measured_rise(xpu) as rise:
        peak[0] = 650
    assert rise == [250] and memory.peak_bytes([CPU, xpu]) == 900
    peak[0] = 1200
    assert memory.peak_bytes([xpu]) == 1200


@pytest.mark.skipif(sys.platform != "linux", reason="resets the peak by /proc")
def test_the_peak_never_falls_though_measurements_reset_it() -> None:
    memory.keep_freed(False)
    torch.ones(100_000_000)
    memory.trim()
    before = memory.peak_bytes([CPU])
    with memory.measured_rise(CPU) as rise:
        torch.ones(20_000_000)
    assert not rise or 50_000_000 < rise[0] < 200_000_000
    assert memory.peak_bytes([CPU]) >= before > 400_000_000
