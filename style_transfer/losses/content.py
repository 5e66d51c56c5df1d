"""The content loss: an error between the features of the picture and those of the content picture, cell by cell."""

from __future__ import annotations

from collections.abc import Iterator
from types import EllipsisType
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..geometry.tiles import Window
from .loss import ERRORS, Loss
from .statistics import Stats, inside, sum_dtype, widened

DIFFERENCES = 2**19
"""On a CPU about this many differences are computed at a time, so that they fit into the caches."""


class ContentLoss(Loss):
    """The error, by its name in `ERRORS`, of the differences of features to a target of the same shape (1, C, H, W).

    In a group of processes `target` is this process's band of the rows, which begins at row `first`.
    """

    def __init__(self, target: Tensor, first: int = 0, error: str = "scaled") -> None:
        self.target, self.first = target, first
        self._error = ERRORS[error]

    def store(self, features: Tensor, window: Window) -> None:
        """Set the target at a window's cells to `features` (1, C, H, W)."""
        self.target[self._place(window)] = inside(features, window).to(self.target)

    def _place(self, window: Window) -> tuple[EllipsisType, slice, slice]:
        return window.place.higher(self.first).index

    def measure(self, features: Tensor, window: Window | None = None) -> Stats:
        """Return the sums of squares and of magnitudes of the differences."""
        target = self.target if window is None else self.target[self._place(window)]
        part = inside(features, window)
        squares, magnitudes = _Differences.apply(part, target.to(features.device))
        return Stats({"squares": squares, "magnitudes": magnitudes}, part.numel())

    def score(self, total: Stats) -> Tensor:
        """Return the error."""
        return self._error(total.sums["squares"], total.sums["magnitudes"], total.count)


class _Differences(torch.autograd.Function):
    """The sums of squares and of magnitudes of the differences of two tensors (1, C, h, w), in `sum_dtype`.

    Differences are computed block by block and not kept; the backward pass computes them again.
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(features, target)
        squares, magnitudes = features.new_zeros(2, dtype=sum_dtype(features)).unbind()
        for x, y in _blocks(features, target):
            d = widened(x) - widened(y)
            squares += d.square().sum()
            magnitudes += d.abs().sum()
        return squares, magnitudes

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        features, target = ctx.saved_tensors
        result = torch.empty_like(features)
        for x, y, gradient in _blocks(features, target, result):
            d = widened(x) - widened(y)
            gradient.copy_(d.sgn().mul_(grads[1]).addcmul_(d, grads[0], value=2))
        return result, None


def _blocks(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Yield the same rows of tensors (1, C, h, w), on a CPU as few at a time as fit into the caches, elsewhere all."""
    first = tensors[0]
    rows = max(1, DIFFERENCES // max(1, first[0, :, :1].numel())) if first.device.type == "cpu" else max(1, first.shape[2])
    return zip(*(torch.split(x, rows, dim=2) for x in tensors), strict=True)
