"""Scales, sizes and step counts: which pictures are painted, one after the other. Integers only."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import SettingsError
from ..settings.settings import END_SCALE, Settings

Size = tuple[int, int]
"""(height, width) in pixels, everywhere in this package."""


@dataclass(frozen=True)
class Stage:
    """One rung of the ladder: the picture's long side and size, each style's size, and the number of steps."""

    scale: int
    size: Size
    style_sizes: tuple[Size, ...]
    steps: int

    @property
    def work(self) -> int:
        """Pixels times steps: what the time of a stage grows with."""
        return self.size[0] * self.size[1] * self.steps


@dataclass(frozen=True)
class Course:
    """How many steps of Adam there are at the first scale and at later ones, and how they are taken.

    At the last scale, be it the first too, there are `last_steps` instead, if given. The step size falls evenly from
    `first_size` to `last_size` at each scale. `betas` are Adam's, None for the style loss's own.
    """

    initial_steps: int
    steps: int
    first_size: float
    last_size: float
    avg_decay: float
    betas: tuple[float, float] | None = None
    last_steps: int | None = None

    @staticmethod
    def of(settings: Settings) -> Course:
        """Return the course that settings ask for: style-transfer-pytorch's, with a constant step size, or `AUTO`."""
        if isinstance(settings.iterations, str):
            return AUTO
        size = settings.step_size / settings.optimizer_range
        return Course(settings.initial_iterations, settings.iterations, size, size, settings.avg_decay)

    def step_size(self, step: int, steps: int) -> float:
        """Return the size of a step, counted from 1, of so many."""
        return self.first_size + (self.last_size - self.first_size) * (step - 1) / steps

    def steps_at(self, index: int, scales: int) -> int:
        """Return how many steps there are at a scale, counted from 0, of so many."""
        if index == scales - 1 and self.last_steps is not None:
            return self.last_steps
        return self.steps if index else self.initial_steps


AUTO = Course(150, 100, 0.16, 0.001, 0.9, (0.97, 0.99), last_steps=300)
"""`--iterations auto`, for every style loss.

Large steps with much momentum first, then ever smaller ones, so that less needs to be averaged; most of them at the last scale,
where they count. Found by trial (benchmarks/results, "schedule"): they end at about the loss of 1000 and 500 steps of 0.02, or
below.
"""


def scales(min_scale: int, end_scale: int) -> tuple[int, ...]:
    """Return the scales, ascending: `end_scale` divided by powers of sqrt(2), rounded, down to `min_scale`.

    Gatys et al. (2016), https://arxiv.org/abs/1611.07865, paint coarse to fine; style-transfer-pytorch takes sqrt(2) as
    the factor. As there, a `min_scale` above `end_scale` counts as `end_scale`: there is one scale then.
    """
    min_scale = min(min_scale, end_scale)
    found: list[int] = []
    while (scale := round(end_scale / 2 ** (len(found) / 2))) >= min_scale and (not found or scale < found[-1]):
        found.append(scale)
    return tuple(reversed(found))


def fit(size: Size, longest: int, *, enlarge: bool) -> Size:
    """Return `size` scaled so that its long side is `longest`, the other rounded and at least 1.

    A size that is small enough already is left alone unless `enlarge`.
    """
    long_side = max(size)
    if not enlarge and long_side <= longest:
        return size
    height, width = (max(1, round(longest * side / long_side)) for side in size)
    return height, width


def resolve_end_scale(end_scale: str, size: Size) -> int:
    """Return the last scale in pixels. `"512+"` means int(sqrt(long / short) * 512): the area is about 512 x 512."""
    match = END_SCALE.fullmatch(end_scale)
    if match is None:
        raise SettingsError(f"--end-scale must be a number of pixels, with or without a +, not {end_scale!r}")
    pixels = int(match[1])
    return int(math.sqrt(max(size) / min(size)) * pixels) if match[2] else pixels


def plan(content_size: Size, style_sizes: Sequence[Size], settings: Settings) -> tuple[Stage, ...]:
    """Return the stages of a run."""
    course = Course.of(settings)
    stages: list[Stage] = []
    expanded = settings.expanded(len(style_sizes))
    ladder = scales(settings.min_scale, resolve_end_scale(settings.end_scale, content_size))
    for index, scale in enumerate(ladder):
        longest = [settings.style_size or max(1, round(scale * factor)) for _, factor in expanded]
        stages.append(
            Stage(
                scale=scale,
                size=fit(content_size, scale, enlarge=True),
                style_sizes=tuple(
                    fit(style_sizes[style], side, enlarge=False) for (style, _), side in zip(expanded, longest, strict=True)
                ),
                steps=course.steps_at(index, len(ladder)),
            )
        )
    return tuple(stages)
