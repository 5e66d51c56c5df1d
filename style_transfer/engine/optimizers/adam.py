"""Adam with warm-started moments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

import torch
from torch import Tensor
from torch.optim.adam import adam

from ...compute.distributed import Group
from ...registry import OPTIMIZERS, STYLE_LOSSES
from ...settings import Resolved
from ..schedule import StepSchedule
from .optimizer import CapturableOptimizer, Resize, Saved

BETAS = 0.9, 0.999
"""The decay rates of the moments, unless the schedule or the style loss has its own."""


@OPTIMIZERS.register("adam")
class Adam(CapturableOptimizer):
    """Adam (Kingma and Ba 2014, https://arxiv.org/abs/1412.6980), warm-started from scale to scale.

    The first moment is resized bicubically, the second bilinearly and clamped to be non-negative, and the step count of the bias
    correction continues, as in style-transfer-pytorch, so that a new scale starts without noise. If `bounded`, pixels are clamped
    to [0, 1] after each step. The step is torch's fused one, a single pass over all tensors in the order of their memory, so
    pictures must be contiguous.
    """

    help = "Adam, its moments resized from scale to scale"
    scheduled = True

    def __init__(self, *, step_size: float, betas: tuple[float, float] = BETAS, eps: float = 1e-8, bounded: bool = True) -> None:
        self.step_size = step_size
        self.betas = betas
        self.eps = eps
        self.bounded = bounded
        self.steps = 0
        self.first: Tensor | None = None
        self.second: Tensor | None = None
        self._numbers: tuple[Tensor, Tensor] | None = None
        """The number of steps so far and the size of the next step, where `apply` reads them."""

    @classmethod
    def from_settings(cls, settings: Resolved, group: Group, factor: float) -> Self:
        """Return Adam before its first step; betas are the schedule's, else the style loss's, else `BETAS`."""
        schedule = StepSchedule.of(settings)
        betas = schedule.betas or STYLE_LOSSES[settings.style_loss].betas or BETAS
        return cls(step_size=schedule.first_size * factor, betas=betas, bounded=settings.bounded)

    @staticmethod
    def pictures(settings: Resolved) -> int:
        """Return 2, the moments."""
        return 2

    def set_step_size(self, size: float) -> None:
        """Set the size of the next steps."""
        self.step_size = size

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """The moments and the count of steps."""
        assert self.first is not None and self.second is not None and self._numbers is not None
        return self.first, self.second, self._numbers[0]

    @torch.no_grad()
    def prepare(self, image: Tensor) -> None:
        """Count a step of `image`, and write its number and size where `apply` reads them."""
        if self.first is None or self.second is None:
            self.first, self.second = torch.zeros_like(image), torch.zeros_like(image)
        if self._numbers is None:
            self._numbers = image.new_empty((), dtype=torch.float32), image.new_empty((), dtype=torch.float32)
        for number, value in zip(self._numbers, (self.steps, self.step_size), strict=True):
            number.fill_(value)
        self.steps += 1

    @torch.no_grad()
    def apply(self, image: Tensor) -> None:
        """Change `image` by the step that was prepared."""
        assert image.grad is not None and self._numbers is not None and image.is_contiguous()
        grad = image.grad.contiguous()  # networks use channels-last memory
        first, second, count = self.tensors
        size, (beta1, beta2) = self._numbers[1], self.betas
        adam(
            [image], [grad], [first], [second], [], [count], lr=size, beta1=beta1, beta2=beta2, eps=self.eps,
            weight_decay=0, amsgrad=False, maximize=False, fused=True,
        )  # fmt: skip
        if self.bounded:
            image.clamp_(0, 1)

    def resized(self, resize: Resize) -> Self:
        """Return an Adam with resized moments."""
        resized = type(self)(step_size=self.step_size, betas=self.betas, eps=self.eps, bounded=self.bounded)
        resized.steps = self.steps
        if self.first is not None and self.second is not None:
            resized.first = resize(self.first, "bicubic")
            resized.second = resize(self.second, "bilinear").clamp_min(0)
        return resized

    def state(self, image: Tensor) -> Saved:
        """Return the moments and the step count."""
        tensors = {} if self.first is None or self.second is None else {"first": self.first, "second": self.second}
        return tensors, {"steps": self.steps}

    def restore(self, tensors: Mapping[str, Tensor], numbers: Mapping[str, float]) -> None:
        """Restore the moments and the step count."""
        self.steps = int(numbers["steps"])
        if self.steps:
            self.first, self.second = tensors["first"], tensors["second"]
