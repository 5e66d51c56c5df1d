"""The Wasserstein-2 distance of Gaussians fitted to the features."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from ...registry import STYLE_LOSSES
from ...settings import Resolved
from ..matrix_sqrt import RunningTraceSqrt, to_float64, with_gradients
from ..statistics import Stats, moments
from .base import StyleLoss

COVARIANCE_EPS = 1e-4


@STYLE_LOSSES.register("wasserstein")
class WassersteinLoss(StyleLoss):
    """Squared Wasserstein-2 distance of Gaussians fitted to the features, each part averaged over the channels.

    With means m, m' and covariances S, S': mean((m - m')^2) + tr(S + S' - 2 (S'^1/2 S S'^1/2)^1/2) / C, as in
    style-transfer-pytorch (2023). Mean and second moment are added over tiles and blended over styles. Both covariances have
    1e-4 added on the diagonal: with fewer cells than channels they are rank-deficient, and the gradient of a matrix square root
    grows without bound towards the null space; this bounds it by 1/(2 sqrt(1e-4)) relative to the target's own spread. Sums
    are in the features' dtype, float32 at least; everything computed from them is in float64, except for some products.
    """

    help = "the Wasserstein-2 distance of Gaussians fitted to the features"
    defaults: ClassVar[Mapping[str, Any]] = {
        "content_error": "mean",
        "content_weight": 0.003,
        "tv_loss": "nine-point",
    }
    betas = (0.9, 0.99)  # style-transfer-pytorch's of 2023
    decomposes = True
    statistic = staticmethod(moments)

    def __init__(self, settings: Resolved, target: Mapping[str, Tensor], guide: Tensor | None = None) -> None:
        super().__init__(settings, target, guide)
        self.mean, self.covariance = gaussian(target)
        rank = covariance_rank(int(target["count"]))
        self.trace_sqrt = RunningTraceSqrt(self.covariance, target["mean"].dtype, COVARIANCE_EPS, rank)

    @property
    def capturable(self) -> bool:
        """Whether the next score needs no decomposition, for which the host would wait."""
        return self.trace_sqrt.iterates

    def increment(self) -> None:
        """Count a score that a replayed CUDA graph computed."""
        self.trace_sqrt.increment()

    def restore_step(self, count: int) -> None:
        """Continue as after `count` scores."""
        self.trace_sqrt.restore_step(count)

    def score(self, total: Stats) -> Tensor:
        """Return the squared distance to the target."""
        means = total.means()
        with torch.no_grad():
            mean, covariance = gaussian(means)
            root, gradient = self.trace_sqrt(covariance, covariance_rank(total.count))
            away, channels = mean - self.mean, len(mean)
            traces = covariance.diagonal().sum() + self.covariance.diagonal().sum() - 2 * root
            loss = away.square().mean() + traces / channels
            # with respect to the covariance S = second moment - mean mean^T, then to the mean
            gradient.mul_(-2 / channels).diagonal().add_(1 / channels)
            of_mean = away * (2 / channels) - 2 * (gradient @ mean.to(gradient))
        return with_gradients(loss, (means["mean"], of_mean), (means["second"], gradient))


def covariance_rank(cells: int) -> int:
    """Return the rank of a covariance of this many cells, of which the mean takes one; at least 1."""
    return max(1, cells - 1)


def gaussian(means: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Return the mean, (C,), and the covariance, (C, C), with `COVARIANCE_EPS` added on its diagonal, both float64."""
    mean, second = to_float64(means["mean"]), to_float64(means["second"])
    covariance = torch.addr(second, mean, mean, alpha=-1)
    covariance.diagonal().add_(COVARIANCE_EPS)
    return mean, covariance
