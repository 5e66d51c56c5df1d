"""The console: messages, the progress bar, JSON lines, the result, and the estimated time left."""

from __future__ import annotations

import io
import json
import os
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from support.runs import Asked, progress, result, run_info

from style_transfer.errors import NumericError
from style_transfer.geometry.scales import Stage
from style_transfer.observers.console import FIXED, Bar, Console, JSONLines, Quiet, TimeLeft, clock
from style_transfer.registry import OBSERVERS

STAGES = tuple(Stage(s, (s, s), (), n) for s, n in ((100, 40), (200, 20), (300, 20), (400, 20)))


def iterate(**about: Any) -> Any:
    values = {
        "stage": STAGES[0], "index": 0, "stages": STAGES, "step": 40, "steps": 40, "scale": 100, "size": (100, 90),
        "loss": torch.tensor(1.5), "parts": {"tv": torch.tensor(0.5)}, "seconds": 2.0, "memory": 7, "done": 300_000,
        "ends_scale": True, "ends_run": False,
    }  # fmt: skip
    return types.SimpleNamespace(**values | about)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (61, "1:01"), (3600, "1:00:00"), (90061, "25:01:01"), (-3, "0:00")]
)
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text


@pytest.mark.parametrize("fixed", [0.0, 1e-6 * FIXED, 0.05])
def test_time_left_is_exact_when_a_step_costs_a_plus_b_pixels(fixed: float) -> None:
    costs = [fixed + 1e-6 * s.size[0] ** 2 for s in STAGES]
    total = sum(c * s.steps for c, s in zip(costs, STAGES, strict=True))
    left = TimeLeft(STAGES)
    seconds = 0.0
    for index, stage in enumerate(STAGES):
        for step in range(1, stage.steps + 1):
            seconds += costs[index]
            guess = left.update(index, step, seconds)
            if index >= 1 or fixed == 1e-6 * FIXED:
                assert guess == pytest.approx(total - seconds, abs=1e-6)
    assert guess == 0


def test_slow_preparation_of_a_scale_does_not_spoil_the_pace() -> None:
    left = TimeLeft(STAGES[:1])
    left.update(0, 1, 100.0)
    assert left.update(0, 2, 101.0) == pytest.approx(38)


def test_time_left_of_a_run_that_begins_in_the_middle_or_returns_to_an_earlier_step() -> None:
    left = TimeLeft(STAGES, began=50.0)
    left.update(1, 7, 53.0)
    more = (20 * (300**2 + FIXED) + 20 * (400**2 + FIXED)) / (200**2 + FIXED)
    assert left.update(1, 8, 55.0) == pytest.approx(2 * (12 + more))
    left.update(1, 3, 56.0)  # back after numbers that were not finite
    left.update(1, 4, 57.0)
    assert left.update(1, 5, 58.0) == pytest.approx(15 + more)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_line_per_scale_when_the_error_stream_is_no_terminal() -> None:
    stream = io.StringIO()
    bar = Bar(stream)
    bar.begin(run_info(stages=STAGES))
    bar.step(progress(iterate(step=39, ends_scale=False), 61))
    assert stream.getvalue() == "" and bar.picture_rows is None
    bar.step(progress(iterate(seconds=12.0), 61, paused=10.0))
    bar.end(result(iterate()))
    assert stream.getvalue() == "scale 1 of 4: 90x100, 40 steps, loss 1.5, 0:02 so far, 1:01 left\n"


def test_the_bar_shows_work_done_and_time_left() -> None:
    stream = Terminal()
    bar = Bar(stream)
    bar.begin(run_info(stages=STAGES[:2]))
    bar.step(progress(iterate(), 61))
    bar.message("hello")
    bar.end(result(iterate()))
    text = stream.getvalue()
    assert "90x100 40/40" in text and "25%" in text and "loss 1.5, 1:01 left" in text and "hello\n" in text
    bar.message("after the run")
    assert stream.getvalue().endswith("\nafter the run\n")


def test_each_picture_has_a_bar_of_its_own() -> None:
    stream = Terminal()
    bar = Bar(stream)
    for _ in range(2):
        bar.begin(run_info(stages=STAGES[:2]))
        bar.step(progress(iterate(), 61))
        bar.fail(NumericError("not finite"), None)
    assert stream.getvalue().count("\n") == 2 and stream.getvalue().count("25%") >= 2


def test_json_lines() -> None:
    out = io.StringIO()
    lines = JSONLines(out)
    lines.step(progress(iterate(seconds=12.3456), 9.87, paused=10.0))
    event = json.loads(out.getvalue())
    assert (event["loss"], event["parts"], event["seconds_left"]) == (1.5, {"tv": 0.5}, 9.9)
    assert (event["width"], event["height"], event["step"]) == (90, 100, 40)
    assert event["seconds"] == 2.346  # pauses do not count


def test_json_lines_end_with_the_result_and_its_files() -> None:
    out, err = io.StringIO(), io.StringIO()
    lines = JSONLines(out, err)
    lines.step(progress(iterate(loss=torch.tensor(float("nan")))))
    ended = result(iterate(ends_run=True), Path("o.png"))
    lines.end(ended)
    lines.message("a note")
    lines.done(ended, {"animation": Path("a.gif")})
    first, last = map(json.loads, out.getvalue().splitlines())
    assert first["loss"] is None and err.getvalue() == "a note\n"
    assert last == {
        "event": "done", "output": "o.png", "width": 64, "height": 48, "interrupted": False, "animation": "a.gif"
    }  # fmt: skip


def test_others_print_the_path_of_the_result(capsys: pytest.CaptureFixture[str]) -> None:
    for console in (Quiet(), Bar()):
        console.done(result(iterate()), {"report": Path("r.html")})
    assert capsys.readouterr() == ("o.png\no.png\n", "")


@pytest.mark.parametrize(
    ("command", "kind"),
    [
        (Asked(), Bar),
        (Asked(quiet=True), Quiet),
        (Asked(json=True), JSONLines),
        (Asked(json=True, quiet=True), JSONLines),
        (Asked(rank=1), None),
        (Asked(rank=1, json=True), None),
        (Asked(rank=1, quiet=True), None),
    ],
)
def test_a_command_has_one_console(command: Asked, kind: type[Console] | None) -> None:
    kinds = [entry for entry in OBSERVERS.values() if issubclass(entry, Console)]
    made = [console for entry in kinds if (console := entry.create(command)) is not None]
    assert [type(console) for console in made] == ([] if kind is None else [kind])


class Closed(io.StringIO):
    def write(self, text: str) -> int:
        raise BrokenPipeError


def test_a_closed_pipe_is_ignored() -> None:
    lines = JSONLines(Closed())
    lines.step(progress(iterate()))
    lines.step(progress(iterate()))
    Quiet(Closed()).message("x")
    closed = io.StringIO()
    closed.close()
    Quiet(closed).message("x")


def test_json_prints_every_nth_step_and_the_last_of_each_scale() -> None:
    out = io.StringIO()
    lines = JSONLines(out, every=15)
    for step in range(1, 41):
        lines.step(progress(iterate(step=step, ends_scale=step == 40), 1))
    lines.close()
    assert [json.loads(line)["step"] for line in out.getvalue().splitlines()] == [15, 30, 40]


def test_a_terminal_that_does_not_know_its_width_has_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "get_terminal_size", lambda *_: os.terminal_size((0, 0)))
    stream = Terminal()
    stream.fileno = lambda: 2  # type: ignore[method-assign]
    bar = Bar(stream)
    bar.begin(run_info(stages=STAGES))
    bar.step(progress(iterate(), 61))
    bar.close()
    assert "1:01 left" in stream.getvalue()
