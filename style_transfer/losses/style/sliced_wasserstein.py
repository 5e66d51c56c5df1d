"""The sliced Wasserstein distance: how far the features' values along random directions are from the style's."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ...geometry.tiles import Window
from ...registry import STYLE_LOSSES
from ...settings import Resolved
from ..guidance import weights_in
from ..loss import seed_of
from ..matrix_sqrt import to_float64, with_gradients
from ..statistics import Stats, blend, flat, moments, sum_dtype, widened
from .base import StyleLoss, StyleStatistics
from .moments import STD_EPS

BASES, PARTS = 8, 4
"""The orthogonal bases, and the sets of directions into which each of them is divided."""
BINS = 512
REACH = 2.0
"""Half of the bins lie within this many of the style's standard deviations from its mean."""
LEAST_DEVIATION = 0.1
"""The smallest standard deviation that counts, as a multiple of the root mean square of the style's features."""
CPU_BLOCK, BLOCK = 2**15, 2**22
"""About this many values are projected and counted at a time: on a CPU as many as fit into its caches."""


@STYLE_LOSSES.register("sliced-wasserstein")
class SlicedWassersteinLoss(StyleLoss):
    """Squared Wasserstein-2 distance along random directions, averaged over these.

    From Heitz, Vanhoey, Chambon and Belcour (2021), https://arxiv.org/abs/2006.07229. On a line the squared distance is the mean
    of (p - T(p))^2 over the values p of the picture, where T(p) is the style's value of the same rank, and its gradient is
    2 (p - T(p)) / n. The paper sorts both pictures' values. Here ranks come from histograms, which are sums over cells. With the
    shares F of the picture and S of the style below x, the squared distance is the integral over x of
    2 int_S(x)^F(x) (Q(u) - x) du, where Q is the inverse of S. So its derivative with respect to F(x) is 2 (Q(F(x)) - x). The
    integral over x is a sum over the borders of the bins; it and its gradient are zero where both histograms are equal.

    The directions of an evaluation are part of an orthogonal basis; the paper's are C for C channels, independent of each other.
    There are `BASES` bases, along which the style is measured once. The shares of several styles are averaged.
    """

    help = "all values along random directions"
    defaults: ClassVar[Mapping[str, Any]] = {"style_factor": 10.0}
    random = True

    def __init__(self, settings: Resolved, target: Mapping[str, Tensor], slices: Slices, guide: Tensor | None = None) -> None:
        super().__init__(settings, target, guide)
        self.slices = slices
        self._chosen = slice(0, 1)

    @classmethod
    def prepare(cls, settings: Resolved, styles: StyleStatistics) -> dict[str, Self]:
        """Return the loss at each style layer, from two passes over the styles: the first one for the range of the bins."""
        measured = styles.measure(lambda _, x, w, n: moments(x, w, n))
        means = {layer: blend(stats, styles.weights) for layer, stats in measured.items()}
        slices = {layer: Slices.of(each, settings.random_seed) for layer, each in means.items()}
        totals = styles.measure(lambda layer, x, w, n: slices[layer].measure(x, w, n))
        losses = {}
        for layer, stats in totals.items():
            mixed = torch.stack([shares(each) * weight for each, weight in zip(stats, styles.weights, strict=True)]).sum(0)
            losses[layer] = cls(settings, {"shares": mixed}, slices[layer], styles.guides.get(layer))
        return losses

    @property
    def capturable(self) -> bool:
        """Evaluations read the tensors of different sets."""
        return False

    def draw(self, seed: int) -> None:
        """Choose the directions of the next evaluation."""
        index = seed % len(self.target["shares"])
        self._chosen = slice(index, index + 1)

    def measure(self, features: Tensor, window: Window | None = None) -> Stats:
        """Return the numbers of cells beyond the borders of the bins, (1, D, BINS - 1), along the set that was drawn."""
        return self.slices.measure(features, window, weights_in(self.guide, window), self._chosen)

    def score(self, total: Stats) -> Tensor:
        """Return the mean squared distance."""
        with torch.no_grad():
            style, found = self.target["shares"][self._chosen], shares(total)
            values = borders(style)
            quantiles, integrals = inverse(style, values, found)
            factors = 2 * widths(values) * self.slices.factors[self._chosen].to(style)[..., None]
            loss = (factors * (integrals - values * (found - style))).sum()
            gradient = factors * (quantiles - values) / cells_of(total)
        return with_gradients(loss, (total.sums["beyond"], gradient))


@dataclass(frozen=True, eq=False)
class Slices:
    """Sets of D directions, and the bins of a layer along them.

    A projection (D, C) and its offset (D,) map features to z = (p - mean) / (REACH deviations) of the style along each direction.
    The bins divide z / (1 + |z|), from -1 to 1, evenly, so that all values have bins and frequent ones the narrowest.
    """

    projections: Tensor
    """(sets, D, C)."""
    offsets: Tensor
    """(sets, D)."""
    factors: Tensor
    """What squared distances in units of z are multiplied by, (sets, D)."""

    @classmethod
    def of(cls, means: Mapping[str, Tensor], seed: int) -> Slices:
        """Return the parts of each basis, from the means of the style's features, (C,), and of their products, (C, C)."""
        mean, second = means["mean"], means["second"]
        channels = len(mean)
        count = -(-channels // PARTS)
        firsts = [min(part * count, channels - count) for part in range(PARTS)]  # sets overlap if they would have other sizes
        whole = [basis(channels, seed, index) for index in range(BASES)]
        directions = torch.stack([each[first : first + count] for each in whole for first in firsts]).to(second)
        middle = directions @ mean
        variance = (directions @ second * directions).sum(-1) - middle.square()
        square = (second.diagonal().sum() / channels).clamp_min(STD_EPS)
        unit = REACH * torch.maximum(variance, LEAST_DEVIATION**2 * square).sqrt()
        return cls(directions / unit[..., None], -middle / unit, unit.square() / count)

    def measure(self, features: Tensor, window: Window | None, weights: Tensor | None, chosen: slice = slice(None)) -> Stats:
        """Return how many cells lie beyond each border of the bins, (sets, D, BINS - 1), along the `chosen` sets.

        That is the number of cells below a border of the lower half, and less the number of those above one of the upper half:
        like this sums in float32 are exact at both ends. `weights` (n,), if given, weight the cells; their sum is the `area`.
        """
        x = flat(features, window)
        dtype, sums = sum_dtype(x), {}
        if weights is not None:
            weights = weights.to(x.device, dtype)
            sums["area"] = weights.sum()
        sets = zip(*(each[chosen].to(x.device, dtype) for each in (self.projections, self.offsets)), strict=True)
        sums["beyond"] = torch.stack([_Beyond.apply(x, weights, projection, offset) for projection, offset in sets])
        return Stats(sums, x.shape[1])


@functools.lru_cache(maxsize=128)
def basis(channels: int, seed: int, index: int) -> Tensor:
    """Return a random orthogonal matrix (C, C) in float32: the Q of a Gaussian matrix, with a positive diagonal of R."""
    random = torch.Generator().manual_seed(seed_of(seed, index))
    q, r = torch.linalg.qr(torch.randn(channels, channels, generator=random, dtype=torch.float64, device="cpu"))
    directions: Tensor = q * r.diagonal().sign()
    return directions.float()


def borders(like: Tensor) -> Tensor:
    """Return the borders of the bins, z (BINS - 1,), in the dtype and on the device of a tensor."""
    y = torch.arange(1, BINS, dtype=like.dtype, device=like.device) * (2 / BINS) - 1
    return y / (1 - y.abs())


def widths(borders: Tensor) -> Tensor:
    """Return the widths of bins around their borders."""
    return (1 + borders.abs()).square() * (2 / BINS)


def cells_of(stats: Stats) -> Tensor | int:
    """Return the total weight of the cells, as a positive float64 scalar, or their number if they have no weights."""
    cells = stats.cells
    return cells if isinstance(cells, int) else to_float64(cells.clamp_min(torch.finfo(cells.dtype).tiny))


def shares(stats: Stats) -> Tensor:
    """Return the share of the cells below each border of the bins, (sets, D, BINS - 1), in float64."""
    result = to_float64(stats.sums["beyond"]) / cells_of(stats)
    result[..., BINS // 2 :] += 1
    return result


def inverse(style: Tensor, borders: Tensor, found: Tensor) -> tuple[Tensor, Tensor]:
    """Return the style's values Q(u) at the shares `found`, and the integral of Q from `style` to `found`, shaped like these.

    `style` are the shares below the borders, (..., BINS - 1). Between them Q is linear. Where both shares at a border are equal,
    Q is the border itself, even if the style has no values near it.
    """
    index = (torch.searchsorted(style, found, right=True) - 1).clamp_(0, BINS - 3)
    step, values = style.diff(), borders.expand_as(style)
    past, width = found - style.gather(-1, index), step.gather(-1, index)
    low, high = values.gather(-1, index), values.gather(-1, index + 1)
    quantiles = torch.lerp(low, high, torch.where(width > 0, past / width, 0).clamp_(0, 1))
    sums = torch.nn.functional.pad(((borders[1:] + borders[:-1]) / 2 * step).cumsum(-1), (1, 0))
    integral = sums.gather(-1, index).sub_(sums).addcmul_(past, low.add_(quantiles), value=0.5)
    largest = values.gather(-1, (style < 1).sum(-1, keepdim=True).clamp_max(BINS - 2))
    return torch.where(found == style, borders, torch.minimum(quantiles, largest)), integral


class _Beyond(torch.autograd.Function):
    """The numbers of cells beyond the borders of the bins, (D, BINS - 1), of features x (C, n).

    A value counts in its bin and the two beside it by the weights of a quadratic spline. So the gradient with respect to it
    changes linearly from the one at the lower border of its bin to the one at the upper. Projections are computed block by block
    and not kept; the backward pass computes them again.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weights: Tensor | None, projection: Tensor, offset: Tensor) -> Tensor:
        ctx.save_for_backward(x, weights, projection, offset)
        sums = projection.new_zeros(3, len(projection), BINS)  # of 1, t and t^2 in each bin
        one = projection.new_ones(1)
        for block in _blocks(x, projection):
            bins, t = _place(x[:, block], projection, offset)
            share = one.expand_as(t) if weights is None else weights[block].expand_as(t)
            terms = (share, t, t.square()) if weights is None else (share, share * t, share * t.square())
            for total, term in zip(sums, terms, strict=True):
                total.scatter_add_(1, bins, term)
        counts, first, second = sums
        spread = (second + counts / 4) / 2
        result = counts - 2 * spread
        result[:, :-1] += (spread - first / 2)[:, 1:]
        result[:, 1:] += (spread + first / 2)[:, :-1]
        half = BINS // 2
        return torch.cat([result[:, :half].cumsum(1), -result[:, half + 1 :].flip(1).cumsum(1).flip(1)], 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        x, weights, projection, offset = ctx.saved_tensors
        slopes = torch.nn.functional.pad(grads[0] / -widths(borders(grads[0])), (1, 1), "replicate")
        middle, change = (slopes[:, 1:] + slopes[:, :-1]) / 2, slopes.diff(dim=1)
        result = torch.empty_like(x)
        for block in _blocks(x, projection):
            bins, t = _place(x[:, block], projection, offset)
            slope = t.mul_(change.gather(1, bins)).add_(middle.gather(1, bins))
            if weights is not None:
                slope *= weights[block]
            result[:, block] = (slope.mT @ projection).mT if x.stride(0) == 1 else projection.mT @ slope
        return result, None, None, None


def _blocks(x: Tensor, projection: Tensor) -> Iterator[slice]:
    """Yield the blocks of cells of features (C, n) to process at a time."""
    cells = max(1, (CPU_BLOCK if x.device.type == "cpu" else BLOCK) // len(projection))
    return (slice(first, first + cells) for first in range(0, x.shape[1], cells))


def _place(x: Tensor, projection: Tensor, offset: Tensor) -> tuple[Tensor, Tensor]:
    """Return the bin of each value, and its place in the bin from -0.5 to 0.5, both (D, n)."""
    z = torch.addmm(offset[:, None], projection, widened(x))
    place = z.div_(z.abs().add_(1)).mul_(BINS / 2).add_(BINS / 2).clamp_(0, BINS - 0.5)
    lower = place.floor()
    t = place.sub_(lower).sub_(0.5)
    return lower.nan_to_num_(0).long(), t  # values that are not finite have no bin; the engine checks the loss
