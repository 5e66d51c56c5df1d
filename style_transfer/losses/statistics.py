"""Further style statistics, beside those of `losses`: what other programs compare, and how they normalise it.

All are made of sums over cells, so they are tiled and shared like the others. Statistics of features (C, n) and their sources:

- gram: the Gram matrix F F^T (Gatys et al. 2015); covariance: the same of features less their mean ("centred");
  shifted-gram: of features less 1 (Novak and Nikulin 2016, https://arxiv.org/abs/1603.02249, as titu1994's program has it).
- mean-std: mean and standard deviation of each channel (Huang and Belongie 2017; Galerne et al. 2024 add it to Gram matrices).
- histogram: the distribution of each channel. Risser et al. (2017, https://arxiv.org/abs/1701.08893) move features to where
  matching histograms would put them; here the squared distance between cumulative histograms is minimised, which has the
  same minimum and is made of sums over cells.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..geometry.tiles import Window
from .losses import Stats, error, flat, gram, inside, wide

STD_EPS = 1e-6
BINS = 64
SPREAD = 4.0
"""Histograms reach from the style's mean less so many standard deviations to the mean and so many more."""


def _gram(means: Mapping[str, Tensor]) -> Tensor:
    return means["second"]


def _covariance(means: Mapping[str, Tensor]) -> Tensor:
    return means["second"] - torch.outer(means["mean"], means["mean"])


def _shifted(means: Mapping[str, Tensor]) -> Tensor:
    return means["second"] - means["mean"][:, None] - means["mean"][None] + 1


def _mean_std(means: Mapping[str, Tensor]) -> Tensor:
    variance = means["second"] - means["mean"].square()
    return torch.stack([means["mean"], (variance.clamp_min(0) + STD_EPS).sqrt()])


DERIVED: dict[str, Callable[[Mapping[str, Tensor]], Tensor]] = {
    "gram": _gram,
    "covariance": _covariance,
    "shifted-gram": _shifted,
    "mean-std": _mean_std,
}
"""What is compared, from the means of features and of their products."""


@dataclass(frozen=True)
class MomentForm:
    """A statistic that follows from first and second moments, and how it is compared.

    `norm` says what matrices are divided by. pixels: the cells of a channel. elements: all elements of the features. raw and
    raw-squared: the elements of the picture's features, or their square, the style's sums taken as they are, whatever its size.
    """

    statistic: str
    error: str
    norm: str = "pixels"

    @property
    def raw(self) -> bool:
        """Whether the style's sums are not divided by its own size."""
        return self.statistic == "gram" and self.norm.startswith("raw")

    def measure(self, features: Tensor, window: Window | None = None, weights: Tensor | None = None) -> Stats:
        """Return the sums over cells of f, (C,), and of its squares or of f f^T; cells count as much as `weights` (n,) say."""
        return moments(features, window, weights, squares=self.statistic == "mean-std")

    def loss(self, target: dict[str, Tensor]) -> MomentLoss:
        """Return the loss against a target, the blend of the styles' statistics."""
        return MomentLoss(self, target)


def moments(features: Tensor, window: Window | None, weights: Tensor | None = None, *, squares: bool = False) -> Stats:
    """Return the sums over cells of f, (C,), and of f f^T, (C, C), or of f^2, (C,), if `squares`.

    With `weights` (n,) each cell counts as much as they say, and their sum, the area, stands for the number of cells.
    """
    x = flat(features, window)
    sums = {}
    y, z = x, wide(x)
    if weights is not None:
        weights = weights.to(device=x.device, dtype=z.dtype)
        sums["area"] = weights.sum()
        z = z * weights
        y = (x * weights.sqrt()).to(x.dtype)
    sums["mean"] = z.sum(1)
    sums["second"] = wide(y).square().sum(1) if squares else gram(y)
    return Stats(sums, x.shape[1])


class MomentLoss:
    """An error of a statistic that follows from moments to a target's."""

    def __init__(self, form: MomentForm, target: dict[str, Tensor]) -> None:
        self.form = form
        self.target = target

    def measure(self, features: Tensor, window: Window | None = None) -> Stats:
        """Return the sums of the form."""
        return self.form.measure(features, window)

    def score(self, total: Stats) -> Tensor:
        """Return the error of the statistic to the target's."""
        derive = DERIVED[self.form.statistic]
        if self.form.raw:
            cells = total.sums.get("area", total.count)
            d = derive(total.means()) - self.target["second"] / cells
        else:
            d = derive(total.means()) - derive(self.target)
        channels = total.sums["mean"].shape[0]
        if self.form.norm != "pixels":
            d = d / channels
        if self.form.raw and self.form.norm == "raw-squared":
            d = d / (channels * total.sums.get("area", total.count))
        return error(self.form.error, d.square().sum(), d.abs().sum(), d.numel())


class HistogramLoss:
    """Mean squared distance of the channels' cumulative histograms to the target's, averaged over channels and bins.

    Bins are spread over the style's own mean plus and minus four deviations, (C,) each in `low` and `high`. A value counts in
    the two bins beside it by how near they are, which makes the counts differentiable; values beyond the last bins count there.
    """

    def __init__(self, target: dict[str, Tensor], low: Tensor, high: Tensor) -> None:
        self.target, self.low, self.high = target, low, high

    @staticmethod
    def spread(means: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return where the bins begin and end, from the means of the style's features and of their squares or products."""
        second = means["second"]
        squares = second.diagonal() if second.dim() == 2 else second
        reach = SPREAD * (squares - means["mean"].square()).clamp_min(STD_EPS).sqrt()
        return means["mean"] - reach, means["mean"] + reach

    def measure(self, features: Tensor, window: Window | None = None) -> Stats:
        """Return the counts in each bin, (C, bins)."""
        return histogram(features, window, self.low, self.high)

    def score(self, total: Stats) -> Tensor:
        """Return the mean squared difference of the cumulative histograms."""
        d = (total.means()["counts"] - self.target["counts"]).cumsum(1)
        return d.square().mean()


def histogram(features: Tensor, window: Window | None, low: Tensor, high: Tensor, weights: Tensor | None = None) -> Stats:
    """Return how many values of each channel lie in each bin between `low` and `high`, both (C,), as (C, bins).

    With `weights` (n,) each cell counts as much as they say, and their sum, the area, stands for the number of cells.
    """
    x = wide(flat(features, window))
    low, high = low.to(x)[:, None], high.to(x)[:, None]
    place = ((x - low) / (high - low) * (BINS - 1)).clamp(0, BINS - 1)
    below = place.detach().floor().clamp(max=BINS - 2)
    share = place - below
    index = below.nan_to_num(0).long()  # a place that is not finite is none
    above, sums = 1 - share, {}
    if weights is not None:
        weights = weights.to(x)
        sums["area"] = weights.sum()
        above, share = above * weights, share * weights
    sums["counts"] = x.new_zeros(x.shape[0], BINS).scatter_add(1, index, above).scatter_add(1, index + 1, share)
    return Stats(sums, x.shape[1])


class InnerTVLoss:
    """Half the sum of squared differences to the right and lower neighbour, of pixels that have both.

    As in neural-style and neuralart, which add only its gradient, not the loss. Pixels are taken in the network's units, `white`
    times those of [0, 1].
    """

    def __init__(self, white: float) -> None:
        self.white = white

    def measure(self, features: Tensor, window: Window | None = None) -> Stats:
        """Return the sum of squared differences of a picture (1, 3, H, W), each counted where its left or upper pixel is."""
        whole = features.shape[2:] if window is None else window.whole
        at = (0, 0, *whole) if window is None else (window.place.top, window.place.left, window.place.bottom, window.place.right)
        box = inside(features, window)
        rows = max(0, min(at[2], whole[0] - 1) - at[0])
        columns = max(0, min(at[3], whole[1] - 1) - at[1])
        top, left = (0, 0) if window is None else (window.inside.top, window.inside.left)
        corner = box[..., :rows, :columns]
        right = features[..., top : top + rows, left + 1 : left + 1 + columns] - corner
        down = features[..., top + 1 : top + 1 + rows, left : left + columns] - corner
        return Stats({"tv": right.square().sum() + down.square().sum()}, box.numel())

    def score(self, total: Stats) -> Tensor:
        """Return half the sum."""
        return total.sums["tv"] * (self.white**2 / 2)
