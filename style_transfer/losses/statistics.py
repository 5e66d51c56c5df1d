"""Additive statistics of features: raw sums over cells, their blend over several styles, Gram matrices and moments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from ..geometry.tiles import Box, Window
from .matrix_sqrt import NARROW, symmetric_product

BLOCK, BLOCKS = 1536, 4
"""On a CPU the Gram matrix of narrow features is summed over blocks of `BLOCK` cells, `BLOCKS` of them in one batch."""


@dataclass(frozen=True)
class Stats:
    """Raw sums over the cells of a part of the picture, by name, and the number of these cells.

    The sum named `area`, if present, is the total weight of weighted cells. A sum that a part lacks counts as zero: a loss of
    several layers has sums of its own at each.
    """

    sums: dict[str, Tensor]
    count: int

    def __add__(self, other: Stats) -> Stats:
        both = {k: v + other.sums[k] for k, v in self.sums.items() if k in other.sums}
        return Stats(self.sums | other.sums | both, self.count + other.count)

    def detach(self) -> Stats:
        """Return the same sums without an autograd graph."""
        return Stats({k: v.detach() for k, v in self.sums.items()}, self.count)

    def to(self, device: torch.device) -> Stats:
        """Return the same sums on a device."""
        return Stats({k: v.to(device) for k, v in self.sums.items()}, self.count)

    @property
    def cells(self) -> Tensor | int:
        """The total weight of the cells, or their number if they have no weights."""
        return self.sums.get("area", self.count)

    def means(self) -> dict[str, Tensor]:
        """Return every sum divided by the total weight of the cells."""
        area = self.sums.get("area")
        count = self.count if area is None else area.clamp_min(torch.finfo(area.dtype).tiny)
        return {k: v / count for k, v in self.sums.items()}


def blend(stats: Sequence[Stats], weights: Sequence[float]) -> dict[str, Tensor]:
    """Return the weighted average of the means of several statistics, and their total number of cells as `count`.

    `weights` sum to 1.
    """
    means = [s.means() for s in stats]
    mixed = {k: torch.stack([m[k] * w for m, w in zip(means, weights, strict=True)]).sum(0) for k in means[0]}
    return mixed | {"count": torch.tensor(float(sum(s.count for s in stats)), device="cpu", dtype=torch.float64)}


def window_of(features: Tensor, window: Window | None) -> Window:
    """Return the window, or the one that counts all cells of features (1, C, H, W)."""
    height, width = features.shape[2:]
    whole = Box(0, 0, height, width)
    return window or Window(whole, whole, (height, width))


def inside(features: Tensor, window: Window | None) -> Tensor:
    """Return the cells of features (1, C, H, W) that a window counts."""
    return features if window is None else features[window.inside.index]


def flat(features: Tensor, window: Window | None) -> Tensor:
    """Return the cells of features (1, C, H, W) that a window counts, as (C, n)."""
    return inside(features, window).flatten(2).squeeze(0)


def sum_dtype(x: Tensor) -> torch.dtype:
    """Return the dtype in which the elements of a tensor are summed: its own, but at least float32."""
    return torch.float32 if x.dtype.itemsize < 4 else x.dtype


def widened(x: Tensor) -> Tensor:
    """Return a tensor in `sum_dtype`."""
    return x.to(sum_dtype(x))


def gram(x: Tensor) -> Tensor:
    """Return x x^T of features (C, n) as (C, C) in `sum_dtype`, without keeping a wider copy of them for the backward pass."""
    result: Tensor = _Gram.apply(x)
    return result


class _Gram(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        if x.is_cuda and x.dtype.itemsize < 4:
            product: Tensor = torch.mm(x, x.mT, out_dtype=torch.float32)
            return product
        if x.device.type == "cpu" and x.mT.is_contiguous():
            return _gram_of_rows(x.mT)
        wide: Tensor = widened(x)
        return wide @ wide.mT

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        x: Tensor = ctx.saved_tensors[0]
        gradient = (grads[0] + grads[0].mT).to(x.dtype)
        # the result has the features' memory layout: channels last where they are last
        return (x.mT @ gradient).mT if x.stride(0) == 1 else gradient @ x


def _gram_of_rows(x: Tensor) -> Tensor:
    """Return x^T x of features (n, C) on a CPU as (C, C).

    Narrow features are processed in blocks that fit into the caches even after conversion to float32, and the lower left quarter
    of the result is copied from the upper right.
    """
    channels = x.shape[1]
    if channels > NARROW:
        wide = widened(x)
        return symmetric_product(wide, wide)
    total = x.new_zeros(channels, channels, dtype=sum_dtype(x))
    half = channels // 2
    upper, corner = total[:half], total[half:, half:]
    for part in torch.split(x, BLOCK * BLOCKS):
        wide = widened(part)
        blocks = wide[None] if len(part) % BLOCK else wide.view(-1, BLOCK, channels)
        left, right = blocks[..., :half], blocks[..., half:]
        upper += torch.bmm(left.mT, blocks).sum(0)
        corner += torch.bmm(right.mT, right).sum(0)
    total[half:, :half] = upper[:, half:].mT
    return total


def moments(
    features: Tensor,
    window: Window | None = None,
    weights: Tensor | None = None,
    *,
    mean: bool = True,
    second: Literal["matrix", "diagonal", "none"] = "matrix",
) -> Stats:
    """Return the sums over cells of f, (C,), as `mean`, and of f f^T, (C, C), or its diagonal, (C,), as `second`.

    `weights` (n,), if given, weight the cells, and their sum is returned as `area`.
    """
    x = flat(features, window)
    sums, y = {}, x
    if weights is not None:
        weights = weights.to(device=x.device, dtype=sum_dtype(x))
        sums["area"] = weights.sum()
        y = (x * weights.sqrt()).to(x.dtype)
    if mean:
        sums["mean"] = x.sum(1, dtype=sum_dtype(x)) if weights is None else (widened(x) * weights).sum(1)
    if second != "none":
        sums["second"] = gram(y) if second == "matrix" else widened(y).square().sum(1)
    return Stats(sums, x.shape[1])
