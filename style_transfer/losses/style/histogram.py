"""The loss of each channel's histogram."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

from torch import Tensor

from ...geometry.tiles import Window
from ...registry import STYLE_LOSSES
from ...settings import Resolved
from ..guidance import weights_in
from ..statistics import Stats, blend, flat, moments, widened
from .base import StyleLoss, StyleStatistics
from .moments import STD_EPS

BINS = 64
SPREAD = 4.0
"""The range of the bins on either side of the style's mean, in standard deviations."""


@STYLE_LOSSES.register("histogram")
class HistogramLoss(StyleLoss):
    """Mean squared difference of the channels' cumulative histograms to the target's, over channels and bins.

    Risser et al. (2017, https://arxiv.org/abs/1701.08893) compare features with what histogram matching would make of them. This
    loss has the same minimum and depends on sums over cells alone.

    The bins range from `low` to `high`, (C,) each: the mean of the style less and plus four of its standard deviations. A value
    is shared between the two nearest bins by linear interpolation, which makes the counts differentiable; values outside of the
    range count in the first or the last bin.
    """

    help = "the histogram of each channel"
    defaults: ClassVar[Mapping[str, Any]] = {"content_weight": 2e-5}

    def __init__(
        self, settings: Resolved, target: Mapping[str, Tensor], low: Tensor, high: Tensor, guide: Tensor | None = None
    ) -> None:
        super().__init__(settings, target, guide)
        self.low, self.high = low, high

    @classmethod
    def prepare(cls, settings: Resolved, styles: StyleStatistics) -> dict[str, Self]:
        """Return the loss at each style layer, from two passes over the styles: the first one for the range of the bins."""
        moments_of = styles.measure(lambda _, x, w, n: moments(x, w, n, second="diagonal"))
        ranges = {layer: spread(blend(stats, styles.weights)) for layer, stats in moments_of.items()}
        counts = styles.measure(lambda layer, x, w, n: histogram(x, w, n, *ranges[layer]))
        return {
            layer: cls(settings, blend(stats, styles.weights), *ranges[layer], styles.guides.get(layer))
            for layer, stats in counts.items()
        }

    def measure(self, features: Tensor, window: Window | None = None) -> Stats:
        """Return the counts in each bin, (C, bins)."""
        return histogram(features, window, weights_in(self.guide, window), self.low, self.high)

    def score(self, total: Stats) -> Tensor:
        """Return the mean squared difference of the cumulative histograms."""
        d = (total.means()["counts"] - self.target["counts"]).cumsum(1)
        return d.square().mean()


def spread(means: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Return the range of the bins, (C,) each, from the means of the style's features and of their squares, both (C,)."""
    reach = SPREAD * (means["second"] - means["mean"].square()).clamp_min(STD_EPS).sqrt()
    return means["mean"] - reach, means["mean"] + reach


def histogram(features: Tensor, window: Window | None, weights: Tensor | None, low: Tensor, high: Tensor) -> Stats:
    """Return how many values of each channel lie in each bin between `low` and `high`, both (C,), as (C, bins).

    `weights` (n,), if given, weight the cells, and their sum is returned as `area`.
    """
    x = widened(flat(features, window))
    low, high = low.to(x)[:, None], high.to(x)[:, None]
    place = ((x - low) / (high - low) * (BINS - 1)).clamp(0, BINS - 1)
    below = place.detach().floor().clamp(max=BINS - 2)
    share = place - below
    index = below.nan_to_num(0).long()  # values that are not finite have no bin; the engine checks the loss
    above, sums = 1 - share, {}
    if weights is not None:
        weights = weights.to(x)
        sums["area"] = weights.sum()
        above, share = above * weights, share * weights
    sums["counts"] = x.new_zeros(x.shape[0], BINS).scatter_add(1, index, above).scatter_add(1, index + 1, share)
    return Stats(sums, x.shape[1])
