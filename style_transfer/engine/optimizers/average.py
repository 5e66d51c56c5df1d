"""The average of the iterates."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from .optimizer import Saved


class Average:
    """Exponential moving average of the iterates, corrected for its start at zero as Adam's moments are.

    `sum` is None before the first iterate; `missing` is the weight that the zeros of the start still have.
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self.sum: Tensor | None = None
        self.missing = 1.0

    def update(self, image: Tensor) -> None:
        """Add an iterate."""
        self.prepare(image)
        self.apply(image)

    def prepare(self, image: Tensor) -> None:
        """Count an iterate, which `apply` adds."""
        if self.sum is None:
            self.sum = torch.zeros_like(image)
        self.missing *= self.decay

    @torch.no_grad()
    def apply(self, image: Tensor) -> None:
        """Add the iterate that was counted, by the same operations on the same tensors every time."""
        assert self.sum is not None
        self.sum.lerp_(image, 1 - self.decay)

    def value(self) -> Tensor:
        """Return the average so far. Call `update` first."""
        assert self.sum is not None
        return self.sum.detach() / (1 - self.missing)

    def state(self) -> Saved:
        """Return the sum and the missing weight."""
        return {} if self.sum is None else {"average": self.sum}, {"missing": self.missing}

    def restore(self, tensors: Mapping[str, Tensor], numbers: Mapping[str, float]) -> None:
        """Restore what `state` returned."""
        self.sum, self.missing = tensors["average"], float(numbers["missing"])
