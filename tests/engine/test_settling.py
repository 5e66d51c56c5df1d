"""Scales of one's own, with their steps and histories, and scales that end once their loss has settled."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import torch
from support.command_line import command

from style_transfer import cli
from style_transfer.engine.optimizers.lbfgs import LBFGS
from style_transfer.engine.schedule import plan_stages
from style_transfer.engine.settling import WINDOW, Settling
from style_transfer.settings import Settings


def settled_at(losses: list[float], tolerance: float) -> int | None:
    """Return the step at which losses have settled."""
    rule = Settling(tolerance)
    return next((step for step, loss in enumerate(losses, 1) if rule.add(torch.tensor(loss), step)), None)


def test_a_loss_settles_when_two_windows_differ_by_less_than_the_tolerance() -> None:
    falling = [1.0 / step for step in range(1, 1001)]
    means = [sum(falling[at : at + WINDOW]) / WINDOW for at in range(0, 1000, WINDOW)]
    drops = [1 - after / before for before, after in itertools.pairwise(means)]
    first = next(index for index, drop in enumerate(drops) if drop < 0.1)
    assert settled_at(falling, 0.1) == (first + 2) * WINDOW
    assert settled_at(falling, 0.0) is None
    assert settled_at([2.0] * 1000, 1e-6) == 2 * WINDOW
    assert settled_at([float(step) for step in range(1, 1001)], 1e-6) == 2 * WINDOW  # it rises


def test_a_resumed_rule_decides_as_before() -> None:
    losses = [1.0 / step for step in range(1, 1001)]
    whole = settled_at(losses, 0.1)
    rule = Settling(0.1)
    for step, loss in enumerate(losses[:117], 1):
        assert not rule.add(torch.tensor(loss), step)
    resumed = Settling(0.1)
    resumed.restore({"other": 1.0} | rule.numbers())
    assert next(s for s, loss in enumerate(losses[117:], 118) if resumed.add(torch.tensor(loss), s)) == whole


def test_listed_scales_and_steps() -> None:
    settings = Settings(scales=(256, 512, 1024), steps=(1000, 200)).resolve()
    stages = plan_stages((300, 400), [(100, 80)], settings)
    assert [(stage.size, stage.steps) for stage in stages] == [((192, 256), 1000), ((384, 512), 200), ((768, 1024), 200)]
    assert {size for stage in stages for size in stage.style_sizes} == {(100, 80)}
    larger = plan_stages((300, 400), [(100, 80)], Settings(scales=(256, 512), style_enlarge=True).resolve())
    assert [stage.style_sizes for stage in larger] == [((256, 205),), ((512, 410),)]
    own = plan_stages((300, 421), [(100, 80)], Settings(end_scale=0, min_scale=10**6).resolve())
    assert [stage.size for stage in own] == [(300, 421)]


def test_lbfgs_keeps_another_history_at_each_scale() -> None:
    lbfgs = LBFGS(history=(7, 2))
    kept = []
    for index in range(4):
        lbfgs.begin_scale(index)
        kept.append(lbfgs.pairs.maxlen)
    assert kept == [7, 2, 2, 2]


def test_a_scale_that_has_settled_is_noted_in_the_result(place: Path) -> None:
    more = ["--scales", "32", "46", "--steps", "200", "3", "--tolerance", "0.9"]
    assert cli.main(command(*more)) == 0
    recipe = json.loads((place / "out.png.json").read_text())
    assert recipe["skipped"] == [{"scale": 1, "after": 2 * WINDOW}]
    assert [entry["steps"] for entry in recipe["scales"]] == [200, 3]
