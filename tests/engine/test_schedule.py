"""Step schedules and the stages of a run against hand-worked values."""

from __future__ import annotations

import dataclasses

import pytest
from support.settings import resolved

from style_transfer.engine.schedule import StepSchedule, plan_stages
from style_transfer.geometry import Stage


def test_plan() -> None:
    settings = resolved(end_scale="256", style_scale_fac=0.5, initial_iterations=10, iterations=5)
    assert plan_stages((768, 1024), [(640, 1024), (70, 70)], settings) == (
        Stage(128, (96, 128), ((40, 64), (64, 64)), 10),
        Stage(181, (136, 181), ((56, 90), (70, 70)), 5),
        Stage(256, (192, 256), ((80, 128), (70, 70)), 5),
    )


def test_plan_with_a_fixed_style_size() -> None:
    stages = plan_stages((64, 64), [(300, 600)], resolved(end_scale="181", style_size=200))
    assert {s.style_sizes for s in stages} == {((100, 200),)}


def test_a_number_of_iterations_means_a_constant_step_size() -> None:
    schedule = StepSchedule.of(resolved(iterations=7, initial_iterations=9, step_size=0.03, avg_decay=0.5))
    assert (schedule.avg_decay, schedule.betas) == (0.5, None)
    assert [schedule.steps_at(index, 3) for index in range(3)] == [9, 7, 7] and schedule.steps_at(0, 1) == 9
    assert StepSchedule.of(resolved(iterations=7, initial_iterations=2)).steps_at(0, 1) == 2
    assert {schedule.step_size(step, 7) for step in range(1, 8)} == {0.03}


@pytest.mark.parametrize("loss", ["gram", "wasserstein", "covariance"])
def test_auto_takes_fewer_steps_whose_size_falls_to_the_last_one(loss: str) -> None:
    settings = resolved(iterations="auto", initial_iterations=7, step_size=0.5, style_loss=loss)
    for scale, steps in ((100, [150]), (181, [75, 150]), (362, [75, 50, 50, 150])):
        asked = dataclasses.replace(settings, end_scale=str(scale))
        assert [stage.steps for stage in plan_stages((64, 64), [(64, 64)], asked)] == steps
    schedule = StepSchedule.of(settings)
    sizes = [schedule.step_size(step, 300) for step in range(1, 301)]
    assert sizes == sorted(sizes, reverse=True)
    assert (sizes[0], sizes[-1]) == pytest.approx((0.02, 0.001))
    assert schedule.step_size(2, 3) == pytest.approx((0.02 + 0.001) / 2) and schedule.step_size(1, 1) == 0.02
