"""Times that a run prints, writes and shows exclude its pauses, also those before it was resumed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support.command_line import command
from support.disturbances import stop_at
from support.report_page import Page

from style_transfer import cli
from style_transfer.engine import Control, checkpoint_file
from style_transfer.observers.observer import Result, RunInfo
from style_transfer.observers.web import WebObserver

PAUSE = 1e6
"""Seconds of each pause, far more than the run takes."""


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Pause each run after every step, and return a list of the seconds on the live page at the end of each run."""
    clock, paused = time.perf_counter, 0.0
    begin, end, seconds = WebObserver.begin, WebObserver.end, list[float]()

    def wait(control: Control, stopped: Callable[[], bool]) -> float:
        nonlocal paused
        paused += PAUSE
        return PAUSE

    def begin_paused(page: WebObserver, run: RunInfo) -> None:
        begin(page, run)
        run.control.pause()

    def note(page: WebObserver, result: Result) -> object:
        seconds.append(page.server.state.now.step["seconds"])
        return end(page, result)

    monkeypatch.setattr(time, "perf_counter", lambda: clock() + paused)
    monkeypatch.setattr(Control, "wait_while_paused", wait)
    monkeypatch.setattr(WebObserver, "begin", begin_paused)
    monkeypatch.setattr(WebObserver, "end", note)
    return seconds


def test_no_time_includes_pauses(
    shown: list[float], place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["--web", "--port", "0", "--json", "--report", "r.html", "--save-every", "1"]

    def check(finished: bool) -> None:
        *steps, done = map(json.loads, capsys.readouterr().out.splitlines())
        times = [step["seconds"] for step in steps]
        assert done["interrupted"] is not finished
        assert times == sorted(times) and times[0] > 0 and times[-1] < PAUSE
        assert all(0 <= step["seconds_left"] < PAUSE for step in steps)
        recipe = json.loads(Path("out.png.json").read_text())
        assert recipe["finished"] is finished and times[-1] == pytest.approx(recipe["seconds"], abs=0.01)
        assert times[-1] == pytest.approx(shown[-1], abs=0.01)
        (total,) = [text for text in Page(Path("r.html").read_text("utf-8")).texts if text.startswith("Total: ")]
        assert total.split()[1].rstrip(",").count(":") == 1  # less than an hour

    with monkeypatch.context() as patch:
        stop_at(patch, 1, 2)
        assert cli.main(command(*more)) == 143
    check(finished=False)
    before, kept = (checkpoint_file.load(f"out.png.checkpoint{suffix}").seconds for suffix in (".old", ""))
    assert 0 < before < shown[0] <= kept < PAUSE  # the older one was written after a pause
    assert cli.main(command(*more, "--resume")) == 0
    check(finished=True)
    assert shown[1] > kept
