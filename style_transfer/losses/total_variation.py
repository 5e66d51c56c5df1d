"""Total variation losses, which smooth the picture."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch.nn.functional as F
from torch import Tensor

from ..geometry.tiles import Box, Window
from .loss import Loss
from .statistics import Stats, window_of


def _axes(features: Tensor, box: Box) -> Tensor:
    """Return the sum of squared differences of a box's pixels to their right and lower neighbours."""
    right = features[Box(box.top, box.left, box.bottom, box.right + 1).index].diff(dim=3)
    down = features[Box(box.top, box.left, box.bottom + 1, box.right).index].diff(dim=2)
    return right.square().sum() + down.square().sum()


class AxesTV(Loss):
    """Mean squared difference to the right and lower neighbour, the edge replicated (Mahendran and Vedaldi 2014)."""

    def measure(self, features: Tensor, window: Window | None = None) -> Stats:
        """Return the sum of squared differences of a picture (1, 3, H, W), each counted at its left or upper pixel."""
        box = window_of(features, window).inside
        return Stats({"tv": _axes(features, box)}, features.shape[1] * box.area)

    def score(self, total: Stats) -> Tensor:
        """Return the mean over all samples."""
        return total.means()["tv"]


class NinePointTV(Loss):
    """Total variation on the nine-point stencil, the edge replicated, as in style-transfer-pytorch (2023).

    2 ((mean dx^2 + mean dy^2) / 3 + (mean d1^2 + mean d2^2) / 12), d1 and d2 the differences along the diagonals of
    all (H + 1) x (W + 1) blocks of 2 x 2 of the padded picture.
    """

    def measure(self, features: Tensor, window: Window | None = None) -> Stats:
        """Return the sums of squared differences along the axes and along the diagonals, and the number of the latter."""
        window = window_of(features, window)
        box, axes = window.inside, _axes(features, window.inside)
        ends = window.place.bottom == window.whole[0], window.place.right == window.whole[1]
        # block (i, j) has pixel (i, j) at its lower right; blocks beyond the last row and column belong to the edge
        padded = F.pad(features, (1, 1, 1, 1), "replicate")
        padded = padded[Box(box.top, box.left, box.bottom + 1 + ends[0], box.right + 1 + ends[1]).index]
        falling = padded[..., 1:, 1:] - padded[..., :-1, :-1]
        rising = padded[..., 1:, :-1] - padded[..., :-1, 1:]
        diagonals = falling.square().sum() + rising.square().sum()
        sums = {"axes": axes, "diagonals": diagonals, "corners": axes.new_full((), falling.numel())}
        return Stats(sums, features.shape[1] * box.area)

    def score(self, total: Stats) -> Tensor:
        """Return the weighted mean over all samples."""
        diagonals = total.sums["diagonals"] / total.sums["corners"]
        return 2 * (total.means()["axes"] / 3 + diagonals / 12)


class InnerTV(Loss):
    """Half the sum of squared differences to the right and lower neighbour, of pixels that have both.

    As in neural-style and neuralart, which add only its gradient, not the loss. Differences are in the network's units, in which
    white is `white` instead of 1.
    """

    def __init__(self, white: float) -> None:
        self.white = white

    def measure(self, features: Tensor, window: Window | None = None) -> Stats:
        """Return the sum of squared differences of a picture (1, 3, H, W), each counted at its left or upper pixel."""
        window = window_of(features, window)
        place, top, left = window.place, window.inside.top, window.inside.left
        rows = max(0, min(place.bottom, window.whole[0] - 1) - place.top)
        columns = max(0, min(place.right, window.whole[1] - 1) - place.left)
        corner = features[..., top : top + rows, left : left + columns]
        right = features[..., top : top + rows, left + 1 : left + 1 + columns] - corner
        down = features[..., top + 1 : top + 1 + rows, left : left + columns] - corner
        return Stats({"tv": right.square().sum() + down.square().sum()}, features.shape[1] * window.inside.area)

    def score(self, total: Stats) -> Tensor:
        """Return half the sum."""
        return total.sums["tv"] * (self.white**2 / 2)


TOTAL_VARIATIONS: Final[dict[str, Callable[[float], Loss]]] = {
    "axes": lambda white: AxesTV(),
    "nine-point": lambda white: NinePointTV(),
    "inner": InnerTV,
}
"""Functions that make the losses of `--tv-loss` by name; their argument is the value of white in the network's units."""
