"""Gradient descent with momentum."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

import torch
from torch import Tensor

from ...compute.distributed import Group
from ...registry import OPTIMIZERS
from ...settings import Resolved
from .optimizer import Optimizer, Resize, Saved


@OPTIMIZERS.register("sgd")
class SGD(Optimizer):
    """Gradient descent with momentum, v <- momentum v + g, x <- x - step v.

    The step size is multiplied by `decay` every `PERIOD` steps, as in neuralart. The velocity is resized bicubically for a new
    scale, and the count of steps continues.
    """

    help = "gradient descent with momentum and a decaying step size"
    PERIOD = 100

    def __init__(self, *, step_size: float, momentum: float = 0.9, decay: float = 0.75, bounded: bool = True) -> None:
        self.step_size = step_size
        self.momentum = momentum
        self.decay = decay
        self.bounded = bounded
        self.steps = 0
        self.velocity: Tensor | None = None

    @classmethod
    def from_settings(cls, settings: Resolved, group: Group, factor: float) -> Self:
        """Return SGD before its first step."""
        step = settings.step_size * factor / settings.optimizer_range**2
        return cls(step_size=step, momentum=settings.momentum, decay=settings.step_decay, bounded=settings.bounded)

    @staticmethod
    def pictures(settings: Resolved) -> int:
        """Return 1, the velocity."""
        return 1

    @torch.no_grad()
    def step(self, image: Tensor, loss: Tensor | None = None) -> None:
        """Change `image` by one step."""
        assert image.grad is not None
        if self.velocity is None:
            self.velocity = torch.zeros_like(image)
        self.velocity.mul_(self.momentum).add_(image.grad)
        image.add_(self.velocity, alpha=-self.step_size * self.decay ** (self.steps // self.PERIOD))
        self.steps += 1
        if self.bounded:
            image.clamp_(0, 1)

    def resized(self, resize: Resize) -> Self:
        """Return an SGD with a resized velocity."""
        resized = type(self)(step_size=self.step_size, momentum=self.momentum, decay=self.decay, bounded=self.bounded)
        resized.steps = self.steps
        resized.velocity = None if self.velocity is None else resize(self.velocity, "bicubic")
        return resized

    def state(self, image: Tensor) -> Saved:
        """Return the velocity and the step count."""
        return {} if self.velocity is None else {"velocity": self.velocity}, {"steps": self.steps}

    def restore(self, tensors: Mapping[str, Tensor], numbers: Mapping[str, float]) -> None:
        """Restore the velocity and the step count."""
        self.steps = int(numbers["steps"])
        if self.steps:
            self.velocity = tensors["velocity"]
