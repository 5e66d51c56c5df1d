"""Losses of features at random points of the picture, which are drawn anew for each evaluation.

A point belongs to one cell of each layer, the one that contains it, and a cell to one tile. So the matrix of the features of all
points, (n, C), is a sum over tiles of matrices with rows of zeros, and such a loss is exact in tiles, on several devices and in
several processes, as any other. With bilinear samples, as in STROTSS, a point would need cells of several tiles.

Each tile makes a matrix of all points, at most 12 MB for VGG-19's five style layers: a few per cent of what the graph of a tile
takes.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from ..geometry.scales import Size
from ..geometry.tiles import Box, Window
from .loss import Loss
from .statistics import Stats, inside, sum_dtype, widened

SHARE, LEAST, MOST = 1 / 256, 1024, 2048
"""The points of an evaluation: this share of the pixels, within limits. STROTSS takes 1024 at any size."""
SMALLEST = 1e-12
"""The least mean square by which features are divided."""
ROWS = 256
"""The rows of a mask that are summed at a time."""


def points_for(pixels: float) -> int:
    """Return the number of points to draw in an area."""
    return round(min(max(pixels * SHARE, LEAST), MOST))


class PointSampler:
    """Draws points of a picture of `size`, and gathers the features of the cells that contain them.

    `strides` are those of the layers, in pixels. A mask (1, 1, H, W), if given, is the density of the points, up to a factor.
    Points are drawn on the CPU, with replacement, so that they are the same on all devices and in all processes.
    """

    def __init__(self, size: Size, strides: Mapping[str, int], mask: Tensor | None = None) -> None:
        self.size, self.strides = size, strides
        self.points = torch.zeros(0, 2, dtype=torch.int64, device="cpu")
        """(y, x) of each point, in whole pixels, (n, 2)."""
        self._mask = None if mask is None else mask[0, 0].cpu()
        self._sums = None if self._mask is None else self._mask.sum(1, dtype=torch.float64).cumsum(0)

    @property
    def area(self) -> float:
        """The number of pixels in which points are drawn, those of a mask weighted by it."""
        return self.size[0] * self.size[1] if self._sums is None else float(self._sums[-1])

    def draw(self, count: int, seed: int) -> None:
        """Draw `count` points."""
        random = torch.Generator("cpu").manual_seed(seed)
        shares = torch.rand(count, 2, generator=random, dtype=torch.float64, device="cpu")
        if self._mask is None or self._sums is None:
            self.points = (shares * torch.tensor(self.size, device="cpu")).long()
            return
        rows = torch.searchsorted(self._sums, shares[:, 0] * self._sums[-1], right=True).clamp(max=self.size[0] - 1)
        columns = []
        for part, share in zip(torch.split(rows, ROWS), torch.split(shares[:, 1:], ROWS), strict=True):
            sums = self._mask[part].double().cumsum(1)
            columns.append(torch.searchsorted(sums, share * sums[:, -1:], right=True)[:, 0])
        self.points = torch.stack([rows, torch.cat(columns).clamp(max=self.size[1] - 1)], 1)

    def gather(self, layer: str, features: Tensor, window: Window) -> Tensor:
        """Return the features of the cells that contain points, (n, C) in `sum_dtype`, from those of a window (1, C, h, w).

        Rows of points whose cell the window does not count are zero. Pixels beyond the last complete stride belong to the last
        cell, as in guides.
        """
        place = window.place
        pairs = zip((self.points // self.strides[layer]).unbind(1), window.whole, strict=True)
        y, x = (cell.clamp(max=cells - 1) for cell, cells in pairs)
        owned = (y >= place.top) & (y < place.bottom) & (x >= place.left) & (x < place.right)
        index = owned.nonzero()[:, 0]
        cells = torch.stack([index, y[index] - place.top, x[index] - place.left])
        index, y, x = cells.to(features.device).unbind()
        values = features[0].permute(1, 2, 0)[y, x].to(sum_dtype(features))
        return values.new_zeros(len(self.points), values.shape[1]).index_copy(0, index, values)


class PointGrid:
    """Squares of `step` pixels of a picture of `size`, with their features; `strides` are those of the layers, in pixels.

    A square has the mean of the cells that it contains, or the cell that contains its middle. Incomplete squares at the lower
    and right edge are left out. `mask` (1, 1, H, W) weights the squares.
    """

    def __init__(self, size: Size, strides: Mapping[str, int], step: int, mask: Tensor | None = None) -> None:
        self.strides, self.step = strides, step
        rows, columns = self.shape = max(1, size[0] // step), max(1, size[1] // step)
        self.weights = None if mask is None else mask[0, 0, step // 2 :: step, step // 2 :: step][:rows, :columns]
        """The mask in the middle of each square, (rows, columns)."""

    def choose(self, count: int, seed: int) -> Tensor:
        """Return the numbers of the squares, row by row, or of `count` of them, drawn at random, if there are more.

        With a mask they are those where it is at least a half, or, if there are none, the square where it is largest.
        """
        numbers = torch.arange(self.shape[0] * self.shape[1], device="cpu")
        if self.weights is not None:
            weights = self.weights.flatten().cpu()
            numbers = numbers[weights >= 0.5] if (weights >= 0.5).any() else weights.argmax()[None]
        if len(numbers) > count:
            random = torch.Generator("cpu").manual_seed(seed)
            numbers = numbers[torch.randperm(len(numbers), generator=random, device="cpu")[:count]].sort().values
        return numbers

    def own(self, layer: str, window: Window) -> Box:
        """Return the box of the squares whose middle lies in a cell that the window of a layer counts."""
        place, whole = window.place, window.whole
        top, bottom = (self._before(layer, row, whole[0], self.shape[0]) for row in (place.top, place.bottom))
        left, right = (self._before(layer, column, whole[1], self.shape[1]) for column in (place.left, place.right))
        return Box(top, left, bottom, right)

    def _before(self, layer: str, cell: int, cells: int, squares: int) -> int:
        """Return how many squares along an axis have their middle before a cell; those beyond the last cell belong to it."""
        if cell >= cells:
            return squares
        return min(squares, max(0, -(-(cell * self.strides[layer] - self.step // 2) // self.step)))

    def gather(self, layer: str, features: Tensor, window: Window, box: Box) -> Tensor:
        """Return the features of a box of squares, (n, C), from those of a tile (1, C, h, w), of which the window counts some."""
        inside, place, stride = window.inside, window.place, self.strides[layer]
        down, right = inside.top - place.top, inside.left - place.left
        if stride < self.step and box.area:
            side = self.step // stride
            rows, columns = (
                slice(box.top * side + down, box.bottom * side + down),
                slice(box.left * side + right, box.right * side + right),
            )
            return F.adaptive_avg_pool2d(widened(features[:, :, rows, columns]), box.size).flatten(2)[0].mT
        height, width = features.shape[2:]
        y = self._middle_cells(stride, box.top, box.bottom, window.whole[0], features.device) + down
        x = self._middle_cells(stride, box.left, box.right, window.whole[1], features.device) + right
        found = features[0].index_select(1, y.clamp(0, height - 1)).index_select(2, x.clamp(0, width - 1))
        return widened(found.flatten(1).mT)

    def _middle_cells(self, stride: int, first: int, last: int, cells: int, device: torch.device) -> Tensor:
        """Return the cells that contain the middles of squares from `first` to `last` along an axis."""
        squares = torch.arange(first, last, device=device)
        return ((squares * self.step + self.step // 2) // stride).clamp(max=cells - 1)


class SampledLoss(Loss):
    """A loss of the features at `count` random points of a picture, of several layers at once.

    A subclass sets `layers`, and its `score` gets the features at all points by layer, (n, C) each.
    """

    random = sampled = True
    capturable = False  # points come from the host

    def __init__(self, layers: tuple[str, ...], sampler: PointSampler, count: int) -> None:
        self.layers, self.sampler, self.count = layers, sampler, count

    def draw(self, seed: int) -> None:
        """Draw the points of the next evaluation."""
        self.sampler.draw(self.count, seed)

    def measure_at(self, layer: str, features: Tensor, window: Window) -> Stats:
        """Return the features of the points whose cell the window counts, and rows of zeros for the others."""
        return Stats({layer: self.sampler.gather(layer, inside(features, window), window)}, 0)


def hypercolumns(features: Mapping[str, Tensor], scales: Mapping[str, Tensor]) -> Tensor:
    """Return features (n, C) of several layers, each times its scale, as one matrix (n, D)."""
    return torch.cat([features[layer] * scale for layer, scale in scales.items()], 1)


def balanced(features: Mapping[str, Tensor], weights: Mapping[str, float]) -> dict[str, Tensor]:
    """Return the scales of layers in hypercolumns, whose mean square over `features`, (n, C) each, is then 1.

    The mean square lengths of the layers' vectors are in proportion to the weights. Raw features, as STROTSS takes them, have
    magnitudes that differ between layers and networks.
    """
    share = sum(features[layer].shape[1] for layer in weights) / sum(weights.values())
    return {
        layer: (share * weight / features[layer].square().sum(1).mean().clamp_min(SMALLEST)).sqrt()
        for layer, weight in weights.items()
    }
