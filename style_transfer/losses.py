"""Losses, each an additive statistic and a small score of its total: L = f(S), S = sum of s over parts of the picture.

`measure` returns raw sums and a count over the cells it is given; sums of parts of a picture add up to the sums
of the whole. `score` turns the total into a scalar. A style's target is an average of the statistics' means, so styles
are blended by averaging means with weights. Features are (1, C, H, W); the picture itself is (1, 3, H, W) in [0, 1].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from .matrix import exact, sqrt_psd, trace_sqrt

SCALED_EPS = 1e-8
COVARIANCE_EPS = 1e-4


@dataclass(frozen=True)
class Stats:
    """Raw sums over the cells of a part of the picture, and how many cells those were."""

    sums: dict[str, Tensor]
    count: int

    def __add__(self, other: Stats) -> Stats:
        return Stats({k: v + other.sums[k] for k, v in self.sums.items()}, self.count + other.count)

    def means(self) -> dict[str, Tensor]:
        """Return every sum divided by the count."""
        return {k: v / self.count for k, v in self.sums.items()}


def blend(stats: Sequence[Stats], weights: Sequence[float]) -> dict[str, Tensor]:
    """Return the weighted average of the means of several statistics; `weights` sum to 1."""
    means = [s.means() for s in stats]
    return {k: torch.stack([m[k] * w for m, w in zip(means, weights, strict=True)]).sum(0) for k in means[0]}


class Loss(Protocol):
    """What the objective needs of a loss."""

    def measure(self, features: Tensor) -> Stats:
        """Return raw sums over all cells of `features` (1, C, H, W)."""

    def score(self, total: Stats) -> Tensor:
        """Return the loss, a scalar, of the sums over the whole picture."""


class StyleLoss(Loss, Protocol):
    """A loss against the averaged statistics of the styles; `measure` needs no target."""

    def __init__(self, target: dict[str, Tensor]) -> None: ...

    @staticmethod
    def measure(features: Tensor) -> Stats:
        """Return raw sums over all cells of `features` (1, C, H, W)."""


def scaled_squared_error(squares: Tensor, magnitudes: Tensor) -> Tensor:
    """Return sum d^2 / (sum |d| + 1e-8), whose gradient has an L1 norm of about 1.

    From style-transfer-pytorch (2021), which takes it instead of normalising the gradient itself.
    """
    return squares / (magnitudes + SCALED_EPS)


def _flat(features: Tensor) -> Tensor:
    return features.flatten(2)[0]


class ContentLoss:
    """Scaled squared error of features to a target of the same shape (1, C, H, W)."""

    def __init__(self, target: Tensor) -> None:
        self.target = target

    def measure(self, features: Tensor) -> Stats:
        """Return the sums of squares and of magnitudes of the differences."""
        d = features - self.target
        return Stats({"squares": d.square().sum(), "magnitudes": d.abs().sum()}, d.numel())

    def score(self, total: Stats) -> Tensor:
        """Return the scaled squared error."""
        return scaled_squared_error(total.sums["squares"], total.sums["magnitudes"])


class MeanSquaredContentLoss:
    """Mean squared error of features to a target of the same shape (1, C, H, W)."""

    def __init__(self, target: Tensor) -> None:
        self.target = target

    def measure(self, features: Tensor) -> Stats:
        """Return the sum of squares of the differences."""
        d = features - self.target
        return Stats({"squares": d.square().sum()}, d.numel())

    def score(self, total: Stats) -> Tensor:
        """Return the mean squared error."""
        return total.means()["squares"]


class GramLoss:
    """Scaled squared error of Gram matrices divided by height x width.

    Gatys et al. (2015), https://arxiv.org/abs/1508.06576, do not divide; Johnson et al. (2016) divide by the channels too.
    """

    def __init__(self, target: dict[str, Tensor]) -> None:
        self.target = target

    @staticmethod
    def measure(features: Tensor) -> Stats:
        """Return the sum over cells of f f^T, (C, C)."""
        x = _flat(features)
        return Stats({"gram": x @ x.mT}, x.shape[1])

    def score(self, total: Stats) -> Tensor:
        """Return the scaled squared error of the Gram matrix to the target."""
        d = total.means()["gram"] - self.target["gram"]
        return scaled_squared_error(d.square().sum(), d.abs().sum())


class WassersteinLoss:
    """Squared Wasserstein-2 distance of Gaussians fitted to the features, each part averaged over the channels.

    With means m, m' and covariances S, S': mean((m - m')^2) + tr(S + S' - 2 (S'^1/2 S S'^1/2)^1/2) / C, as in
    style-transfer-pytorch (2023). Mean and second moment are what is added and blended. Both covariances have
    1e-4 added on the diagonal: with fewer cells than channels they are rank-deficient, and the gradient of a root
    grows without bound towards the null space; this bounds it by 1/(2 sqrt(1e-4)) relative to the target's own
    spread. Everything here is float64 whatever the features are.
    """

    def __init__(self, target: dict[str, Tensor]) -> None:
        self.mean, self.covariance = self._gaussian(target)
        self.root = sqrt_psd(self.covariance)

    @staticmethod
    def measure(features: Tensor) -> Stats:
        """Return the sums over cells of f, (C,), and of f f^T, (C, C)."""
        x = _flat(features)
        return Stats({"mean": x.sum(1), "second": x @ x.mT}, x.shape[1])

    @staticmethod
    def _gaussian(means: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        mean, second = exact(means["mean"]), exact(means["second"])
        ridge = COVARIANCE_EPS * torch.eye(mean.shape[0], dtype=mean.dtype, device=mean.device)
        return mean, second - torch.outer(mean, mean) + ridge

    def score(self, total: Stats) -> Tensor:
        """Return the squared distance to the target."""
        mean, covariance = self._gaussian(total.means())
        cross = self.root @ covariance @ self.root
        traces = covariance.trace() + self.covariance.trace() - 2 * trace_sqrt((cross + cross.mT) / 2)
        loss = (mean - self.mean).square().mean() + traces / mean.shape[0]
        like = total.sums["mean"]
        return loss.to(device=like.device, dtype=like.dtype)


class TVLoss:
    """Mean squared difference to the right and lower neighbour, the edge replicated (Mahendran and Vedaldi 2014)."""

    def measure(self, features: Tensor) -> Stats:
        """Return the sum of squared differences of a picture (1, 3, H, W)."""
        dx, dy = features.diff(dim=3), features.diff(dim=2)
        return Stats({"tv": dx.square().sum() + dy.square().sum()}, features.numel())

    def score(self, total: Stats) -> Tensor:
        """Return the mean over all samples."""
        return total.means()["tv"]


class NinePointTVLoss:
    """Total variation on the nine-point stencil, the edge replicated, as in style-transfer-pytorch (2023).

    2 ((mean dx^2 + mean dy^2) / 3 + (mean d1^2 + mean d2^2) / 12), d1 and d2 the differences along the diagonals of
    all (H + 1) x (W + 1) blocks of 2 x 2 of the padded picture.
    """

    def measure(self, features: Tensor) -> Stats:
        """Return the sums of squared differences along the axes and along the diagonals, and how many the latter are."""
        axes = features.diff(dim=3).square().sum() + features.diff(dim=2).square().sum()
        padded = F.pad(features, (1, 1, 1, 1), "replicate")
        falling = padded[..., 1:, 1:] - padded[..., :-1, :-1]
        rising = padded[..., 1:, :-1] - padded[..., :-1, 1:]
        diagonals = falling.square().sum() + rising.square().sum()
        return Stats({"axes": axes, "diagonals": diagonals, "corners": axes.new_tensor(falling.numel())}, features.numel())

    def score(self, total: Stats) -> Tensor:
        """Return the weighted mean over all samples."""
        diagonals = total.sums["diagonals"] / total.sums["corners"]
        return 2 * (total.means()["axes"] / 3 + diagonals / 12)
