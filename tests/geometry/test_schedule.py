"""Scales, sizes and step counts against hand-worked values."""

from __future__ import annotations

import dataclasses

import pytest

from style_transfer.geometry.scales import Course, Stage, fit, plan, resolve_end_scale, scales
from style_transfer.settings.settings import Settings


@pytest.mark.parametrize(
    ("low", "end", "expected"),
    [
        (128, 512, (128, 181, 256, 362, 512)),
        (128, 362, (128, 181, 256, 362)),
        (128, 500, (177, 250, 354, 500)),
        (512, 512, (512,)),
        (1, 4, (1, 2, 3, 4)),
        (128, 2896, (128, 181, 256, 362, 512, 724, 1024, 1448, 2048, 2896)),
    ],
)
def test_scales(low: int, end: int, expected: tuple[int, ...]) -> None:
    assert scales(low, end) == expected


def test_an_end_below_the_start_is_one_scale() -> None:
    assert scales(128, 100) == (100,)


@pytest.mark.parametrize(
    ("size", "longest", "enlarge", "expected"),
    [
        ((768, 1024), 128, True, (96, 128)),
        ((768, 1024), 181, True, (136, 181)),
        ((100, 50), 200, True, (200, 100)),
        ((100, 50), 200, False, (100, 50)),
        ((100, 50), 99, False, (99, 50)),
        ((3, 20000), 128, True, (1, 128)),
    ],
)
def test_fit(size: tuple[int, int], longest: int, enlarge: bool, expected: tuple[int, int]) -> None:
    assert fit(size, longest, enlarge=enlarge) == expected


def test_safe_end_scale_keeps_the_area() -> None:
    assert resolve_end_scale("512", (768, 1024)) == 512
    assert resolve_end_scale("512+", (768, 1024)) == 591  # int(sqrt(4/3) * 512)
    assert resolve_end_scale("512+", (1024, 768)) == 591
    assert resolve_end_scale("512+", (100, 100)) == 512


def test_plan() -> None:
    settings = Settings(end_scale="256", style_scale_fac=0.5, initial_iterations=10, iterations=5)
    assert plan((768, 1024), [(640, 1024), (70, 70)], settings) == (
        Stage(128, (96, 128), ((40, 64), (64, 64)), 10),
        Stage(181, (136, 181), ((56, 90), (70, 70)), 5),
        Stage(256, (192, 256), ((80, 128), (70, 70)), 5),
    )


def test_plan_with_a_fixed_style_size() -> None:
    stages = plan((64, 64), [(300, 600)], Settings(end_scale="181", style_size=200))
    assert {s.style_sizes for s in stages} == {((100, 200),)}


def test_a_number_of_iterations_means_a_constant_step_size() -> None:
    course = Course.of(Settings(iterations=7, initial_iterations=9, step_size=0.03, avg_decay=0.5))
    assert (course.avg_decay, course.betas) == (0.5, None)
    assert [course.steps_at(index, 3) for index in range(3)] == [9, 7, 7] and course.steps_at(0, 1) == 9
    assert Course.of(Settings(iterations=7, initial_iterations=2)).steps_at(0, 1) == 2
    assert {course.step_size(step, 7) for step in range(1, 8)} == {0.03}


@pytest.mark.parametrize("loss", ["gram", "wasserstein", "covariance"])
def test_auto_takes_fewer_steps_whose_size_falls(loss: str) -> None:
    settings = Settings(iterations="auto", initial_iterations=7, step_size=0.5, style_loss=loss)
    for scale, steps in ((100, [300]), (181, [150, 300]), (362, [150, 100, 100, 300])):
        asked = dataclasses.replace(settings, end_scale=str(scale))
        assert [stage.steps for stage in plan((64, 64), [(64, 64)], asked)] == steps
    course = Course.of(settings)
    sizes = [course.step_size(step, 300) for step in range(1, 301)]
    assert sizes[0] == 0.16 and sizes == sorted(sizes, reverse=True) and 0.001 < sizes[-1] < 0.002
    assert sizes[150] == pytest.approx((0.16 + 0.001) / 2)
