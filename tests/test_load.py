"""Many runs in one process, and damaged files in numbers: nothing grows, nothing breaks."""

from __future__ import annotations

import gc
import itertools
import threading
import tracemalloc
from pathlib import Path

import fuzz
import psutil
import pytest
import torch
from conftest import TINY, picture, tiny_weights

from style_transfer import memory
from style_transfer.config import Settings
from style_transfer.engine import stylize
from style_transfer.networks.graph import Network

CORPUS = Path(__file__).parent / "corpus"
"""Files made by hand, and found by fuzzing, that have something wrong with them: TARGET-what."""


@pytest.mark.parametrize("target", fuzz.TARGETS)
def test_damaged_files_are_read_or_refused(target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert fuzz.fuzz(target, 15.0) > 3


@pytest.mark.parametrize("path", sorted(CORPUS.iterdir()), ids=lambda path: path.name)
def test_files_that_once_broke_something_are_read_or_refused(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tracemalloc.start()
    try:
        fuzz.attempt(path.name.split("-")[0], path.read_bytes(), path.suffix)
    finally:
        tracemalloc.stop()
    assert not list(tmp_path.iterdir())


@pytest.mark.long
@pytest.mark.parametrize("target", fuzz.TARGETS)
def test_damaged_files_for_a_minute(target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert fuzz.fuzz(target, 60.0, seed=1) > 100


def test_the_guard_of_damaged_files_can_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def careless(data: bytes, suffix: str) -> None:
        data.index(b"__metadata__")

    monkeypatch.setitem(fuzz.TARGETS, "checkpoint", (careless, fuzz.checkpoints))
    with pytest.raises(ValueError, match="not found"):
        fuzz.fuzz("checkpoint", 60.0)
    assert Path("crash-checkpoint").exists()


def soak(runs: int, settled: int) -> None:
    """Run so many times at changing sizes and losses; after `settled` of them, memory, handles and threads stay as they are."""
    process = psutil.Process()
    level = handles = threads = 0
    cases = itertools.cycle(itertools.product((32, 45, 64), ("gram", "wasserstein"), ("adam", "lbfgs"), ("average", "max")))
    for number, (scale, loss, optimizer, pooling) in zip(range(1, runs + 1), cases, strict=False):
        network = Network(TINY, tiny_weights(number % 3), pooling=pooling, dtype=torch.float32)
        settings = Settings(
            style_loss=loss, optimizer=optimizer, min_scale=32, end_scale=str(scale), initial_iterations=4, iterations=3
        )
        styles = [picture(2, 50, 60, torch.float32)] * (1 + number % 2)
        *_, last = stylize(picture(1, 50 + number % 7, 60, torch.float32), styles, settings, networks=[network])
        assert last.image().isfinite().all()
        del last, network
        if number in (settled, runs):
            gc.collect()
            memory.release()
            now = process.memory_info().rss, process.num_fds(), threading.active_count()
            if number == settled:
                level, handles, threads = now
    assert now[0] <= 1.05 * level
    assert now[1:] == (handles, threads)


def test_runs_in_one_process_leave_nothing_behind() -> None:
    soak(30, 12)


@pytest.mark.long
def test_two_hundred_runs_in_one_process_leave_nothing_behind() -> None:
    soak(200, 20)
