"""Targets for each cell: the style's features that are nearest to the content's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from ...geometry.tiles import Box, Window
from ...registry import STYLE_LOSSES
from ...settings import Resolved
from ..sampling import PointGrid, balanced, hypercolumns
from ..statistics import Stats
from .base import StyleLoss, StyleStatistics

STEP = 4
"""The side of the squares that have a target, in pixels."""
BANK = 16384
"""The most squares of the style pictures."""
FACTOR = 4.0
"""Gives the loss about the strength that Gram matrices have against the same content loss."""
SMALLEST = 1e-6
"""The least length by which vectors are divided."""
QUERIES = 2048
"""The squares that are searched for at a time."""


class _Products(torch.autograd.Function):
    """Inner products x y and squared lengths of x, (n,), of the vectors (n, C) that `pairs` returns for features.

    The vectors would take more memory than the features, so they are made again for the gradient.
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor, pairs: Callable[[Tensor], tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(features)
        ctx.pairs = pairs
        x, y = pairs(features)
        return (x * y).sum(1), x.square().sum(1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        inner, squares = (gradient[:, None] for gradient in grads)
        with torch.enable_grad():
            features = ctx.saved_tensors[0].detach().requires_grad_()
            x, y = ctx.pairs(features)
        (gradient,) = torch.autograd.grad(x, features, inner * y + 2 * squares * x.detach())
        return gradient, None


@STYLE_LOSSES.register("neighbors")
class NeighborsLoss(StyleLoss):
    """Mean cosine distance between the picture's hypercolumns and those of the style that are nearest to the content's.

    From NNST (Kolkin et al. 2022, https://arxiv.org/abs/2203.13215): the features of all style layers at a point are one vector,
    its hypercolumn; here a point is a square of four pixels (`PointGrid`). At each scale the hypercolumns of the content are
    replaced by the nearest ones of the style under the cosine distance, the mean of each set subtracted. They are the targets:
    the loss is the mean of 1 - cos(target, hypercolumn of the picture), with nothing subtracted.

    The sums are the inner product of each square's hypercolumn with its target and its squared length, to which each layer
    adds its part, so the loss is exact in tiles. Only the indices of the targets are stored.

    Departures: squares have means or single cells of each layer, where NNST interpolates; layers are balanced
    (`balanced`) with equal weights, or those of `--style-layer-weights`; the search is for the content alone, not for a blend
    with the picture so far, so that it does not depend on the steps before; the style is not rotated, and has at most 16,384
    squares, drawn at random; there is no last pass with the layers apart. Since cosines leave contrast and palette open, Gram
    matrices are added by default (`--extra-weight 1`), where NNST matches colours afterwards. Several styles have shares of the
    squares in proportion to their weights. In a region targets are of its own style.
    """

    defaults: ClassVar = {"content_weight": 0.01, "extra_loss": "gram", "extra_weight": 1.0}
    help = "the style's nearest features for each part of the content, as in NNST"

    def __init__(self, settings: Resolved, bank: Mapping[str, Tensor], grid: PointGrid) -> None:
        self.layers, self.grid = settings.style_layers, grid
        self.bank = {layer: bank[layer] for layer in self.layers}
        weights = settings.style_layer_weights or (1.0,) * len(self.layers)
        self.scales = balanced(bank, dict(zip(self.layers, weights, strict=True)))
        self.lengths = hypercolumns(self.bank, self.scales).norm(dim=1).clamp_min(SMALLEST)
        self.index = self.lengths.new_zeros(grid.shape, dtype=torch.int64)
        """The index in the bank of each square's target, (rows, columns)."""

    @classmethod
    def prepare(cls, settings: Resolved, styles: StyleStatistics) -> dict[str, Self]:
        """Return one loss of all style layers, with its targets."""
        loss = cls(settings, styles.sample_squares(STEP, BANK, settings.random_seed), styles.grid(STEP))
        loss._search(styles)
        return {"neighbors": loss}

    def _search(self, styles: StyleStatistics) -> None:
        """Find the targets. All processes find the same, each those of its rows of the content."""
        keys = hypercolumns(self.bank, self.scales)
        keys = F.normalize(keys - keys.mean(0), eps=SMALLEST)
        total = styles.sum_columns(self.grid, lambda box, features: hypercolumns(features, self.scales).sum(0))
        mean = total / self.index.numel()

        def nearest(box: Box, features: Mapping[str, Tensor]) -> Tensor:
            queries = hypercolumns(features, self.scales) - mean
            found = torch.cat([(each @ keys.mT).max(1).indices for each in queries.split(QUERIES)])
            return self._place(found.to(total.dtype), box)

        self.index = styles.sum_columns(self.grid, nearest).round().long()

    def _place(self, values: Tensor, box: Box) -> Tensor:
        """Return values (n,) of a box of squares among zeros for all others, (rows, columns)."""
        rows, columns = self.grid.shape
        return F.pad(values.view(box.size), (box.left, columns - box.right, box.top, rows - box.bottom))

    def measure_at(self, layer: str, features: Tensor, window: Window) -> Stats:
        """Return a layer's part of each square's inner product with its target, and of its squared length, (rows, columns)."""
        box = self.grid.own(layer, window)
        scale, targets = self.scales[layer].to(features.device), self.index[box.index].flatten()

        def pairs(features: Tensor) -> tuple[Tensor, Tensor]:
            x = self.grid.gather(layer, features, window, box) * scale
            return x, self.bank[layer].index_select(0, targets).to(x) * scale

        inner, squares = _Products.apply(features, pairs)
        return Stats({"inner": self._place(inner, box), "squares": self._place(squares, box)}, 0)

    def score(self, total: Stats) -> Tensor:
        """Return the mean distance, weighted by the region's mask."""
        lengths = total.sums["squares"].clamp_min(SMALLEST**2).sqrt()
        distances = 1 - total.sums["inner"] / (lengths * self.lengths[self.index])
        weights = torch.ones_like(distances) if self.grid.weights is None else self.grid.weights.to(distances)
        loss: Tensor = FACTOR * (distances * weights).sum() / weights.sum().clamp_min(SMALLEST)
        return loss
