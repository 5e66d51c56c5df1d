"""The relaxed earth mover's distance of features at random points."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from ...registry import STYLE_LOSSES
from ...settings import Resolved
from ..loss import PICTURE
from ..sampling import PointSampler, SampledLoss, balanced, hypercolumns, points_for
from ..statistics import Stats
from .base import StyleLoss, StyleStatistics

BANK = 2
"""The points of the style pictures, drawn once for each scale, for each point of the picture; STROTSS draws 5000 for 1024."""
FACTOR = 4.0
"""Gives the loss about the strength that Gram matrices have against the same content loss."""
MOMENTS, PALETTE = 1.0, 0.25
"""The weights of the terms beside the distance of hypercolumns."""
SMALLEST = 1e-6
"""The least length by which vectors are divided."""
COLOUR_EPS = 1e-5
"""Added to squared distances of colours, whose square root has no gradient at 0."""

Distance = Callable[[Tensor, Tensor], Tensor]
"""The distances (n,) of pairs of vectors (n, D)."""


@STYLE_LOSSES.register("relaxed-emd")
class RelaxedEMDLoss(SampledLoss, StyleLoss):
    """Relaxed earth mover's distance between hypercolumns of the picture and of the styles, with moments and colours.

    From STROTSS (Kolkin, Salavon and Shakhnarovich 2019, https://arxiv.org/abs/1904.12785): the features of all style layers at
    a point are one vector, its hypercolumn. With the cosine distance D_ij of point i of the picture and point j of the style,
    the relaxed distance is max(mean_i min_j D_ij, mean_j min_i D_ij). Added are the mean absolute differences of means and of
    covariances, and the relaxed distance of colours under |u - v| / sqrt(3).

    Departures: points are single cells, not bilinear samples; layers are balanced (`balanced`) with equal weights, or
    those of `--style-layer-weights`; colours are in the last term only, whose weight is constant, and without
    the rotation that changes no distance. Several styles have shares of the style's points in
    proportion to their weights. In a region points lie in its mask only, in the picture and in its style.
    """

    help = "the relaxed earth mover's distance at random points, as in STROTSS"

    def __init__(self, settings: Resolved, bank: Mapping[str, Tensor], sampler: PointSampler) -> None:
        super().__init__(tuple(bank), sampler, points_for(sampler.area))
        weights = settings.style_layer_weights or (1.0,) * len(settings.style_layers)
        self.scales = balanced(bank, dict(zip(settings.style_layers, weights, strict=True)))
        y = hypercolumns(bank, self.scales)
        self.directions, self.moments, self.colours = unit(y), moments_of(y), bank[PICTURE]

    @classmethod
    def prepare(cls, settings: Resolved, styles: StyleStatistics) -> dict[str, Self]:
        """Return one loss of all style layers."""
        sampler = styles.sampler()
        bank = styles.sample(BANK * points_for(sampler.area), settings.random_seed)
        return {"points": cls(settings, bank, sampler)}

    def score(self, total: Stats) -> Tensor:
        """Return the weighted sum of the three terms."""
        x = hypercolumns(total.sums, self.scales)
        emd = relaxed_emd(unit(x), self.directions, cosine)
        pairs = zip(moments_of(x), self.moments, strict=True)
        moments = torch.stack([(found - target).abs().mean() for found, target in pairs]).sum()
        palette = relaxed_emd(total.sums[PICTURE], self.colours, euclidean)
        loss: Tensor = FACTOR * (emd + MOMENTS * moments + PALETTE * palette)
        return loss


def unit(x: Tensor) -> Tensor:
    """Return vectors (n, D) divided by their length."""
    return F.normalize(x, eps=SMALLEST)


def cosine(u: Tensor, v: Tensor) -> Tensor:
    """Return 1 - cos(u, v) of pairs of unit vectors (n, D)."""
    return 1 - (u * v).sum(1)


def euclidean(u: Tensor, v: Tensor) -> Tensor:
    """Return |u - v| / sqrt(3) of pairs of colours (n, 3), smooth at 0."""
    return ((u - v).square().mean(1) + COLOUR_EPS).sqrt() - math.sqrt(COLOUR_EPS)


def relaxed_emd(x: Tensor, y: Tensor, distance: Distance) -> Tensor:
    """Return the relaxed earth mover's distance of two sets of vectors, (n, D) and (m, D), under a distance of pairs.

    It must grow with |u - v|. The gradient is that of the larger mean. Only nearest vectors are compared with a graph, so that
    the matrix of all distances is not kept.
    """
    of_x, of_y = nearest(x.detach(), y), nearest(y, x.detach())
    return torch.maximum(distance(x, y[of_x]).mean(), distance(x[of_y], y).mean())


def nearest(x: Tensor, y: Tensor) -> Tensor:
    """Return the index of the vector of y, (m, D), nearest to each of x, (n, D)."""
    distances = torch.addmm(y.square().sum(1) / 2, x, y.mT, alpha=-1)  # half their squares, less |x|^2 / 2
    return distances.min(1).indices  # on a CPU five times as fast as `argmin`


def moments_of(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean, (D,), and the covariance, (D, D), of vectors (n, D)."""
    mean = x.mean(0)
    away = x - mean
    return mean, away.mT @ away / len(x)
