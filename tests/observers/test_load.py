"""Many runs in one process, and damaged files in numbers: nothing grows, nothing breaks."""

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
from support.tiny import TINY, picture, tiny_weights
from tools import fuzz

from style_transfer.api import to_pixels
from style_transfer.engine.iterate import Iterate
from style_transfer.engine.loop import stylize
from style_transfer.evaluation import memory
from style_transfer.networks.graph import Network
from style_transfer.observers.console import TimeLeft
from style_transfer.observers.web import WebObserver
from style_transfer.settings.settings import Settings

CORPUS = Path(__file__).parents[1] / "corpus"
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


class Level:
    """Memory, open handles and threads of this process, which are to stay where they are once things have settled."""

    def __init__(self, runs: int, settled: int) -> None:
        self.runs, self.settled = runs, settled
        self.first: tuple[int, int, int] | None = None

    def note(self, number: int) -> None:
        """Take note after a run; check after the last."""
        if number not in (self.settled, self.runs):
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


def soak(runs: int, settled: int) -> None:
    """Run so many times at changing sizes and losses; after `settled` of them, nothing grows any more."""
    level = Level(runs, settled)
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
        level.note(number)


def visit(page: WebObserver, over: threading.Event) -> None:
    """Come and go as viewers do: one reads events and pictures, one does not read, one hangs up in the middle."""
    headers = {"Cookie": f"{page.cookie}={page.token}"}
    while not over.is_set():
        reader, deaf = (http.client.HTTPConnection("127.0.0.1", page.port, timeout=10) for _ in range(2))
        with contextlib.suppress(OSError, http.client.HTTPException):
            deaf.request("GET", "/events", headers=headers)
            reader.request("GET", "/events", headers=headers)
            reader.getresponse().readline()
            reader.close()
            reader.request("GET", "/image", headers=headers)
            reader.getresponse().read(100)
        reader.close()
        deaf.close()


def watched_soak(runs: int, settled: int) -> None:
    """As `soak`, with a live page for each run and three clients that come and go."""
    level = Level(runs, settled)
    network = Network(TINY, tiny_weights(0), dtype=torch.float32)
    settings = Settings(min_scale=32, end_scale="45", initial_iterations=30, iterations=30)
    content, style = picture(1, 50, 60, torch.float32), picture(2, 50, 60, torch.float32)
    for number in range(1, runs + 1):
        page = WebObserver(port=0, content=to_pixels(content))
        page.start()
        over = threading.Event()
        clients = [threading.Thread(target=visit, args=(page, over)) for _ in range(3)]
        for client in clients:
            client.start()
        clock: TimeLeft | None = None
        for iterate in stylize(content, [style], settings, networks=[network]):
            clock = clock or TimeLeft(iterate.stages)
            left = clock.update(iterate.index, iterate.step, iterate.seconds)
            page.update(iterate, clock, left, functools.partial(pixels_of, iterate))
        page.end(iterate, functools.partial(pixels_of, iterate), Path("none.png"), finished=True)
        over.set()
        page.close()
        for client in clients:
            client.join()
        del page, clients, iterate
        level.note(number)


def pixels_of(iterate: Iterate) -> np.ndarray:
    return to_pixels(iterate.image())


def test_runs_in_one_process_leave_nothing_behind() -> None:
    soak(30, 12)


def test_runs_with_a_live_page_and_clients_that_come_and_go_leave_nothing_behind() -> None:
    watched_soak(20, 8)


@pytest.mark.long
def test_two_hundred_runs_in_one_process_leave_nothing_behind() -> None:
    soak(200, 20)
