"""The content loss that compares features cell by cell: an error of their differences to those of the content picture."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Self

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ...geometry.tiles import Window
from ...registry import CONTENT_LOSSES
from ...settings import Resolved
from ..loss import ERRORS
from ..sampling import PointSampler
from ..statistics import Stats, inside, sum_dtype, widened
from .base import ContentLoss, ContentTarget

DIFFERENCES = 2**19
"""On a CPU about this many differences are computed at a time, so that they fit into the caches."""


@CONTENT_LOSSES.register("features")
class FeatureLoss(ContentLoss):
    """The error, by its name in `ERRORS`, of the differences of features to a target of the same shape (1, C, H, W)."""

    help = "the features of each cell"

    def __init__(self, target: ContentTarget, error: str = "scaled") -> None:
        self.target = target
        self._error = ERRORS[error]

    @classmethod
    def prepare(cls, settings: Resolved, targets: Mapping[str, ContentTarget], sampler: PointSampler) -> dict[str, Self]:
        """Return the loss at each content layer."""
        return {layer: cls(target, settings.content_error) for layer, target in targets.items()}

    def measure(self, features: Tensor, window: Window | None = None) -> Stats:
        """Return the sums of squares and of magnitudes of the differences."""
        part = inside(features, window)
        squares, magnitudes = _Differences.apply(part, self.target.at(window).to(features.device))
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
