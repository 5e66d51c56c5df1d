"""Step schedules, and the stages of a run."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from ..geometry import Size, Stage, at_scale, fit, resolve_end_scale, scales
from ..settings import Resolved


@dataclass(frozen=True)
class StepSchedule:
    """How many steps are taken at each scale, and how large they are.

    There are `initial_steps` at the first scale, `last_steps`, if given, at the last one (even if it is the first too), and
    `steps` at the others; or the numbers `listed`, the last one at further scales too. The step size falls linearly from
    `first_size` at the first step of each scale to `last_size` at its last. `betas` are Adam's, None for those of the style loss;
    `avg_decay` is the decay of the average of the iterates.
    """

    initial_steps: int
    steps: int
    first_size: float
    last_size: float
    avg_decay: float
    betas: tuple[float, float] | None = None
    last_steps: int | None = None
    listed: tuple[int, ...] = ()

    @staticmethod
    def of(settings: Resolved) -> StepSchedule:
        """Return the schedule of the settings: a constant step size, as in style-transfer-pytorch, or `AUTO`."""
        listed = settings.steps or ()
        if isinstance(settings.iterations, str):
            return dataclasses.replace(AUTO, listed=listed)
        size = settings.step_size / settings.optimizer_range
        return StepSchedule(settings.initial_iterations, settings.iterations, size, size, settings.avg_decay, listed=listed)

    def step_size(self, step: int, steps: int) -> float:
        """Return the size of a step, counted from 1, at a scale of so many steps."""
        return self.first_size + (self.last_size - self.first_size) * (step - 1) / max(1, steps - 1)

    def steps_at(self, index: int, scales: int) -> int:
        """Return the number of steps at a scale, counted from 0, in a run of so many scales."""
        if self.listed:
            return at_scale(self.listed, index)
        if index == scales - 1 and self.last_steps is not None:
            return self.last_steps
        return self.steps if index else self.initial_steps


AUTO = StepSchedule(75, 50, 0.02, 0.001, 0.9, (0.9, 0.99), last_steps=150)
"""The schedule of `--iterations auto`, for every style loss.

As the steps become smaller, less needs to be averaged. Most steps are at the last scale, where they count. Larger first steps or
more momentum reach a lower loss, but carry the picture away from the photograph before the content loss holds it: the numbers
were found by trial with the structure that is kept as the measure (benchmarks/results, "quality").
"""


def plan_stages(content_size: Size, style_sizes: Sequence[Size], settings: Resolved) -> tuple[Stage, ...]:
    """Return the stages of a run. Raises `SettingsError` if `style_scale` does not match the number of styles."""
    schedule = StepSchedule.of(settings)
    expanded = settings.expanded(len(style_sizes))
    ladder = settings.scales or scales(settings.min_scale, resolve_end_scale(settings.end_scale, content_size))
    stages = []
    for index, scale in enumerate(ladder):
        sides = [settings.style_size or max(1, round(scale * factor)) for _, factor in expanded]
        styles = [
            fit(style_sizes[style], side, enlarge=settings.style_enlarge)
            for (style, _), side in zip(expanded, sides, strict=True)
        ]
        steps = schedule.steps_at(index, len(ladder))
        stages.append(Stage(scale, fit(content_size, scale, enlarge=True), tuple(styles), steps))
    return tuple(stages)
