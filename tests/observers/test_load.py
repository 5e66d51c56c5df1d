"""Many runs in one process leave nothing behind, and damaged files are refused."""

from __future__ import annotations

import contextlib
import functools
import gc
import http.client
import itertools
import threading
import tracemalloc
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from support.live_page import Page, progress
from support.settings import resolved
from support.tiny import TINY, picture, tiny_weights
from tools import fuzz

from style_transfer.compute import memory
from style_transfer.engine.iterate import Iterate
from style_transfer.engine.loop import stylize
from style_transfer.networks.forward import Network
from style_transfer.observers.observer import Result
from style_transfer.observers.web.server import Server
from style_transfer.pictures.tensors import to_pixels

CORPUS = Path(__file__).parents[1] / "corpus"
"""Damaged files, made by hand or found by fuzzing, named TARGET-what."""


@pytest.mark.parametrize("target", fuzz.TARGETS)
def test_damaged_files_are_read_or_refused(target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert fuzz.fuzz(target, 8.0) > 0


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
    assert fuzz.fuzz(target, 60.0, seed=1) > 0


def test_the_guard_of_damaged_files_can_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def careless(data: bytes, suffix: str) -> None:
        data.index(b"__metadata__")

    monkeypatch.setitem(fuzz.TARGETS, "checkpoint", (careless, fuzz.checkpoints))
    with pytest.raises(ValueError, match="not found"):
        fuzz.fuzz("checkpoint", 60.0)
    assert Path("crash-checkpoint").exists()


class Level:
    """Memory, open files and threads of this process, which must not grow after `warmup` of `runs` runs."""

    def __init__(self, runs: int, warmup: int) -> None:
        self.runs, self.warmup = runs, warmup
        self.first: tuple[int, int, int] | None = None

    def note(self, number: int) -> None:
        """Measure after a run; compare after the last."""
        if number not in (self.warmup, self.runs):
            return
        gc.collect()
        memory.release()
        process = psutil.Process()
        now = process.memory_info().rss, process.num_fds(), threading.active_count()
        if self.first is None:
            self.first = now
            return
        assert now[0] <= 1.05 * self.first[0]
        assert now[1:] == self.first[1:]


def soak(runs: int, warmup: int) -> None:
    """Make `runs` runs of changing sizes and losses; after `warmup` of them, nothing may grow."""
    level = Level(runs, warmup)
    cases = itertools.cycle(itertools.product((32, 45, 64), ("gram", "wasserstein"), ("adam", "lbfgs"), ("average", "max")))
    for number, (scale, loss, optimizer, pooling) in zip(range(1, runs + 1), cases, strict=False):
        network = Network(TINY, tiny_weights(number % 3), pooling=pooling, dtype=torch.float32)
        settings = resolved(
            style_loss=loss, optimizer=optimizer, min_scale=32, end_scale=str(scale), initial_iterations=4, iterations=3
        )
        styles = [picture(2, 50, 60, torch.float32)] * (1 + number % 2)
        *_, last = stylize(picture(1, 50 + number % 7, 60, torch.float32), styles, settings, networks=[network])
        assert last.image().isfinite().all()
        del last, network
        level.note(number)


def visit(server: Server, over: threading.Event) -> None:
    """Come and go as viewers do: one reads events and a part of a picture, one does not read."""
    headers = {"Cookie": f"{server.guard.cookie}={server.guard.token}"}
    while not over.is_set():
        reader, silent = (http.client.HTTPConnection("127.0.0.1", server.guard.port, timeout=10) for _ in range(2))
        with contextlib.suppress(OSError, http.client.HTTPException):
            silent.request("GET", "/events", headers=headers)
            reader.request("GET", "/events", headers=headers)
            reader.getresponse().readline()
            reader.close()
            reader.request("GET", "/image", headers=headers)
            reader.getresponse().read(100)
        reader.close()
        silent.close()


def watched_soak(runs: int, warmup: int) -> None:
    """As `soak`, with a live page for each run and three clients that come and go."""
    level = Level(runs, warmup)
    network = Network(TINY, tiny_weights(0), dtype=torch.float32)
    settings = resolved(min_scale=32, end_scale="45", initial_iterations=30, iterations=30)
    content, style = picture(1, 50, 60, torch.float32), picture(2, 50, 60, torch.float32)
    for number in range(1, runs + 1):
        page = Page().open(content=content)
        over = threading.Event()
        clients = [threading.Thread(target=visit, args=(page.server, over)) for _ in range(3)]
        for client in clients:
            client.start()
        for iterate in stylize(content, [style], settings, networks=[network]):
            last = progress(iterate, functools.partial(pixels_of, iterate))
            page.step(last)
        page.end(Result(path=Path("none.png"), status="finished", size=iterate.size, progress=last, resumable=False))
        over.set()
        page.close()
        for client in clients:
            client.join()
        del page, clients, iterate, last
        level.note(number)


def pixels_of(iterate: Iterate) -> np.ndarray:
    return to_pixels(iterate.image())


def test_runs_in_one_process_leave_nothing_behind() -> None:
    soak(30, 12)


def test_runs_with_a_live_page_and_clients_that_come_and_go_leave_nothing_behind() -> None:
    watched_soak(12, 5)


@pytest.mark.long
def test_two_hundred_runs_in_one_process_leave_nothing_behind() -> None:
    soak(200, 20)
