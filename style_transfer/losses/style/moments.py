"""Losses that compare a function of first and second moments: Gram matrices, covariances, mean and standard deviation."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from ...geometry.tiles import Window
from ...registry import STYLE_LOSSES
from ...settings import Resolved
from ..loss import ERRORS
from ..statistics import Stats, moments
from .base import StyleLoss

STD_EPS = 1e-6
"""Added to variances, whose square root has no gradient at 0."""


class MomentLoss(StyleLoss):
    """The error `--style-error` of a function of moments, which is divided by the channels if `--gram-norm` is not pixels."""

    defaults: ClassVar[Mapping[str, Any]] = {"style_error": "scaled"}

    def __init__(self, settings: Resolved, target: Mapping[str, Tensor], guide: Tensor | None = None) -> None:
        super().__init__(settings, target, guide)
        self.norm = settings.gram_norm
        self._error = ERRORS[settings.style_error or self.defaults["style_error"]]

    @staticmethod
    @abstractmethod
    def derive(means: Mapping[str, Tensor]) -> Tensor:
        """Return the tensor to compare, from the means over cells."""

    def difference(self, total: Stats) -> Tensor:
        """Return the difference to the target."""
        d = self.derive(total.means()) - self.derive(self.target)
        return d if self.norm == "pixels" else d / total.sums["second"].shape[0]

    def score(self, total: Stats) -> Tensor:
        """Return the error of the difference to the target."""
        d = self.difference(total)
        return self._error(d.square().sum(), d.abs().sum(), d.numel())


@STYLE_LOSSES.register("gram")
class GramLoss(MomentLoss):
    """The error of Gram matrices F F^T of features (C, n), by default divided by n.

    Gatys et al. (2015), https://arxiv.org/abs/1508.06576, do not divide; Johnson et al. (2016) divide by the channels too. With
    the norms raw and raw-squared the sums of both pictures are divided by the number of elements of the result's features, or by
    its square, so that the target depends on the sizes of the style pictures.
    """

    help = "Gram matrices"
    gram_norms = ("pixels", "elements", "raw", "raw-squared")

    @staticmethod
    def statistic(features: Tensor, window: Window | None = None, weights: Tensor | None = None) -> Stats:
        """Return the sum over cells of f f^T, (C, C)."""
        return moments(features, window, weights, mean=False)

    @classmethod
    def blend(cls, settings: Resolved, stats: Sequence[Stats], weights: Sequence[float]) -> dict[str, Tensor]:
        """Return the weighted average of the means, or, with a raw norm, of the sums."""
        if settings.gram_norm.startswith("raw"):
            stats = [Stats({"second": each.sums["second"]}, 1) for each in stats]
        return super().blend(settings, stats, weights)

    @staticmethod
    def derive(means: Mapping[str, Tensor]) -> Tensor:
        """Return the Gram matrix."""
        return means["second"]

    def difference(self, total: Stats) -> Tensor:
        """Return the difference to the target."""
        if not self.norm.startswith("raw"):
            return super().difference(total)
        channels = total.sums["second"].shape[0]
        d = (self.derive(total.means()) - self.target["second"] / total.cells) / channels
        return d / (channels * total.cells) if self.norm == "raw-squared" else d


@STYLE_LOSSES.register("covariance")
class CovarianceLoss(MomentLoss):
    """The error of covariances: Gram matrices of features less their mean, divided by the number of cells."""

    help = "covariances: Gram matrices of features less their mean"
    statistic = staticmethod(moments)

    @staticmethod
    def derive(means: Mapping[str, Tensor]) -> Tensor:
        """Return the covariance."""
        return means["second"] - torch.outer(means["mean"], means["mean"])


@STYLE_LOSSES.register("shifted-gram")
class ShiftedGramLoss(MomentLoss):
    """The error of Gram matrices of features less 1, divided by the number of cells.

    From Novak and Nikulin (2016), https://arxiv.org/abs/1603.02249, as implemented in titu1994's Neural-Style-Transfer.
    """

    help = "Gram matrices of (features - 1)"
    statistic = staticmethod(moments)

    @staticmethod
    def derive(means: Mapping[str, Tensor]) -> Tensor:
        """Return the Gram matrix of features less 1."""
        return means["second"] - means["mean"][:, None] - means["mean"][None] + 1


@STYLE_LOSSES.register("mean-std")
class MeanStdLoss(MomentLoss):
    """The error of each channel's mean and standard deviation.

    From Huang and Belongie (2017), https://arxiv.org/abs/1703.06868; Galerne et al. (2024) combine it with Gram matrices.
    """

    help = "mean and standard deviation of each channel"
    defaults: ClassVar[Mapping[str, Any]] = {"style_error": "mean", "content_weight": 0.002}

    @staticmethod
    def statistic(features: Tensor, window: Window | None = None, weights: Tensor | None = None) -> Stats:
        """Return the sums over cells of f and of f^2, both (C,)."""
        return moments(features, window, weights, second="diagonal")

    @staticmethod
    def derive(means: Mapping[str, Tensor]) -> Tensor:
        """Return means and standard deviations, (2, C)."""
        variance = means["second"] - means["mean"].square()
        return torch.stack([means["mean"], (variance.clamp_min(0) + STD_EPS).sqrt()])
