"""The bar, the JSON lines and the time left."""

from __future__ import annotations

import io
import json
import types
from typing import Any

import pytest
import torch

from style_transfer.geometry.scales import Stage
from style_transfer.observers.console import Bar, JSONLines, Quiet, TimeLeft, clock

STAGES = tuple(Stage(s, (s, s), (), n) for s, n in ((100, 40), (200, 20), (300, 20), (400, 20)))


def iterate(**about: Any) -> Any:
    values = {
        "stage": STAGES[0], "index": 0, "stages": STAGES, "step": 40, "steps": 40, "scale": 100, "size": (100, 90),
        "loss": torch.tensor(1.5), "parts": {"tv": torch.tensor(0.5)}, "seconds": 2.0, "memory": 7, "done": 10,
        "ends_scale": True, "ends_run": False,
    }  # fmt: skip
    return types.SimpleNamespace(**values | about)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (61, "1:01"), (3600, "1:00:00"), (90061, "25:01:01"), (-3, "0:00")]
)
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text


@pytest.mark.parametrize("fixed", [0.0, 0.05])
def test_time_left_is_exact_when_a_step_costs_a_plus_b_pixels(fixed: float) -> None:
    costs = [fixed + 1e-6 * s.size[0] ** 2 for s in STAGES]
    total = sum(c * s.steps for c, s in zip(costs, STAGES, strict=True))
    left = TimeLeft(STAGES)
    seconds = 0.0
    for index, stage in enumerate(STAGES):
        for step in range(1, stage.steps + 1):
            seconds += costs[index]
            guess = left.update(index, step, seconds)
            if index >= 1 or fixed == 0:
                assert guess == pytest.approx(total - seconds, abs=1e-6)
    assert guess == 0


def test_slow_preparation_of_a_scale_does_not_spoil_the_pace() -> None:
    left = TimeLeft(STAGES[:1])
    left.update(0, 1, 100.0)
    assert left.update(0, 2, 101.0) == pytest.approx(38)


def test_a_run_that_begins_in_the_middle_or_goes_back_has_an_honest_time_left() -> None:
    left = TimeLeft(STAGES, began=50.0)
    left.update(1, 7, 53.0)
    assert left.update(1, 8, 55.0) == pytest.approx(12 * 2 + 20 * 2 * 9 / 4 + 20 * 2 * 16 / 4)
    left.update(1, 3, 56.0)  # back after numbers that were not finite
    left.update(1, 4, 57.0)
    assert left.update(1, 5, 58.0) == pytest.approx(15 + 20 * 9 / 4 + 20 * 16 / 4)


def test_a_line_per_scale_when_the_error_stream_is_no_terminal() -> None:
    stream = io.StringIO()
    bar = Bar(100, stream)
    bar.update(iterate(step=39, ends_scale=False), 61)
    assert stream.getvalue() == ""
    bar.update(iterate(), 61)
    bar.close()
    assert stream.getvalue() == "scale 1 of 4: 90x100, 40 steps, loss 1.5, 0:02 so far, 1:01 left\n"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_bar_shows_work_done_and_time_left() -> None:
    stream = Terminal()
    bar = Bar(40, stream)
    bar.update(iterate(), 61)
    bar.say("hello")
    bar.close()
    text = stream.getvalue()
    assert "90x100 40/40" in text and "25%" in text and "loss 1.5, 1:01 left" in text and "hello\n" in text


def test_json_lines() -> None:
    out = io.StringIO()
    JSONLines(out).update(iterate(), 9.87)
    event = json.loads(out.getvalue())
    assert (event["loss"], event["parts"], event["seconds_left"]) == (1.5, {"tv": 0.5}, 9.9)
    assert (event["width"], event["height"], event["step"]) == (90, 100, 40)


class Gone(io.StringIO):
    def write(self, text: str) -> int:
        raise BrokenPipeError


def test_a_reader_that_has_gone_does_not_hurt() -> None:
    lines = JSONLines(Gone())
    lines.update(iterate(), 0)
    lines.update(iterate(), 0)
    Quiet(Gone()).say("x")
    closed = io.StringIO()
    closed.close()
    Quiet(closed).say("x")
