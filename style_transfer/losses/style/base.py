"""The base class of style losses."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Protocol, Self

from torch import Tensor

from ...geometry.tiles import Box, Window
from ...settings import Resolved
from ..guidance import weights_in
from ..loss import Loss
from ..sampling import PointGrid, PointSampler
from ..statistics import Stats, blend

StyleStatistic = Callable[[str, Tensor, Window, Tensor | None], Stats]
"""Returns the sums over a window of features (1, C, H, W) at a layer, with weights (n,) of its cells or None."""

ColumnFunction = Callable[[Box, Mapping[str, Tensor]], Tensor]
"""Of a box of a grid's squares, and their features (n, C) at each style layer."""


class StyleStatistics(Protocol):
    """The style pictures of one region, or of the whole picture without regions; a loss measures them as often as it needs."""

    weights: Sequence[float]
    """The weight of each style picture in the blend; they sum to 1."""
    guides: Mapping[str, Tensor]
    """The guide of the region at each style layer, (1, 1, h, w); empty without regions."""

    def measure(self, statistic: StyleStatistic) -> dict[str, list[Stats]]:
        """Return the totals of a statistic at each style layer, one for each style picture, from one pass over all pictures."""

    def sampler(self) -> PointSampler:
        """Return a sampler of the picture that is compared with the styles, within the region."""

    def sample(self, count: int, seed: int) -> dict[str, Tensor]:
        """Return the features at about `count` random points of the styles, (n, C), at each style layer and of the picture.

        The styles have shares of the points in proportion to their weights, and their masks are the densities of points.
        """

    def sample_squares(self, step: int, count: int, seed: int) -> dict[str, Tensor]:
        """Return the features of squares of the styles, (n, C), at each style layer and of the picture.

        They are those within the styles' masks, or, where a style has more than its share of about `count`, some drawn at random.
        """

    def grid(self, step: int) -> PointGrid:
        """Return the squares of the picture that is compared with the styles, weighted by the region's mask."""

    def sum_columns(self, grid: PointGrid, function: ColumnFunction) -> Tensor:
        """Return the sum over parts of the content of a function of a box of squares and their features."""


class StyleLoss(Loss):
    """A loss of features at one layer against the blended statistics of the style pictures.

    A subclass registers itself by `@STYLE_LOSSES.register(name)` and implements `help`, `statistic` and `score`. A loss whose
    statistic depends on the styles implements `prepare` and `measure` in place of `statistic`. A `guide` (1, 1, h, w) weights
    the cells of the whole layer.
    """

    help: ClassVar[str]
    """What is compared, as a phrase for `--help`."""
    defaults: ClassVar[Mapping[str, Any]] = {}
    """Settings that follow from the choice of this loss where the user leaves them open, by name."""
    betas: ClassVar[tuple[float, float] | None] = None
    """Adam's betas, if this loss needs others than the optimizer's own."""
    gram_norms: ClassVar[tuple[str, ...]] = ("pixels", "elements")
    """The values of `--gram-norm` that can be used together with this loss."""

    def __init__(self, settings: Resolved, target: Mapping[str, Tensor], guide: Tensor | None = None) -> None:
        self.target, self.guide = target, guide

    @classmethod
    def prepare(cls, settings: Resolved, styles: StyleStatistics) -> dict[str, Self]:
        """Return the loss at each style layer, or one loss of several under another name."""
        totals = styles.measure(lambda _, features, window, weights: cls.statistic(features, window, weights))
        return {
            layer: cls(settings, cls.blend(settings, stats, styles.weights), styles.guides.get(layer))
            for layer, stats in totals.items()
        }

    @classmethod
    def blend(cls, settings: Resolved, stats: Sequence[Stats], weights: Sequence[float]) -> dict[str, Tensor]:
        """Return the target from the totals of each style picture: the weighted average of their means."""
        return blend(stats, weights)

    @staticmethod
    def statistic(features: Tensor, window: Window | None = None, weights: Tensor | None = None) -> Stats:
        """Return the sums over the window's cells of `features` (1, C, H, W); `weights` (n,), if given, weight the cells."""
        raise NotImplementedError

    def measure(self, features: Tensor, window: Window | None = None) -> Stats:
        """Return the sums over the window's cells, weighted by the guide."""
        return self.statistic(features, window, weights_in(self.guide, window))
