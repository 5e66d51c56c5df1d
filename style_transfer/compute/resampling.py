"""Resizing of tensors (1, C, H, W), such as pictures: whole, by blocks of rows, or the band of rows of one process."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from ..geometry.scales import Size
from .distributed import LOCAL, Group, Rows


def size_of(x: Tensor) -> Size:
    """Return the (height, width) of a tensor (1, C, H, W)."""
    height, width = x.shape[2:]
    return height, width


def resize(x: Tensor, size: Size, mode: str = "bicubic", *, antialias: bool = False) -> Tensor:
    """Return a (1, C, H, W) tensor resized to `size`, or itself if it has that size. Bicubic results can overshoot [0, 1]."""
    if size_of(x) == tuple(size):
        return x
    if antialias and size[1] == 1 < size[0]:  # torch repeats one value along the height of such results
        return resize(x.mT, (1, size[0]), mode, antialias=True).mT
    return F.interpolate(x, size=tuple(size), mode=mode, align_corners=False, antialias=antialias)


def _cubic(x: Tensor, a: float) -> Tensor:
    """Return the cubic convolution kernel (Keys 1981) at `x`."""
    x = x.abs()
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((x - 5) * x + 8) * x * a - 4 * a
    return torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))


def taps(length: int, target: int, rows: Rows, mode: str, antialias: bool) -> tuple[Tensor, Tensor]:
    """Return the source rows of each of `rows`, (n, taps), and their weights, as in torch, when `length` rows become `target`.

    `mode` is bicubic or bilinear; `antialias` is for bicubic alone.
    """
    scale = length / target
    out = torch.arange(*rows, device="cpu", dtype=torch.float64)
    if antialias:
        widen = max(scale, 1.0)
        centre = (out + 0.5) * scale
        first = (centre - 2 * widen + 0.5).floor().clamp_min(0)
        last = (centre + 2 * widen + 0.5).floor().clamp_max(length)
        index = first[:, None] + torch.arange(int((last - first).max()) if len(out) else 0, device="cpu", dtype=torch.float64)
        weights = _cubic((index - centre[:, None] + 0.5) / widen, -0.5) * (index < last[:, None])
        weights = weights / weights.sum(1, keepdim=True)
    elif mode == "bicubic":
        source = (out + 0.5) * scale - 0.5
        index = source.floor()[:, None] + torch.arange(-1, 3, device="cpu", dtype=torch.float64)
        weights = _cubic(source[:, None] - index, -0.75)
    else:
        source = ((out + 0.5) * scale - 0.5).clamp_min(0)
        index = source.floor()[:, None] + torch.arange(0, 2, device="cpu", dtype=torch.float64)
        weights = 1 - (source[:, None] - index).abs()
    return index.clamp(0, length - 1).long(), weights


def resize_band(x: Tensor, first: int, height: int, size: Size, rows: Rows, mode: str, *, antialias: bool = False) -> Tensor:
    """Return `rows` of a tensor of `height` rows resized to `size`; `x` has the source rows needed, from row `first` on."""
    index, weights = taps(height, size[0], rows, mode, antialias)
    weights = weights.to(x)
    result = x.new_zeros(*x.shape[:2], len(index), size[1])
    if not len(index):
        return result
    x = resize(x, (x.shape[2], size[1]), mode, antialias=antialias)
    for tap in range(index.shape[1]):
        result += x[:, :, index[:, tap] - first] * weights[:, tap, None]
    return result


def resize_blocks(blocks: Iterable[Tensor], size: Size, targets: Sequence[Size]) -> list[Tensor]:
    """Return a picture of `size` resized to each of `targets`, as the antialiased bicubic `resize` does, from blocks of its rows.

    Blocks are (1, 3, rows, width), float32, in order from the top. Sums are rounded in another order than those of torch.
    """
    results = [torch.zeros(1, 3, *target) for target in targets]
    plans = [taps(size[0], height, (0, height), "bicubic", True) for height, _ in targets]
    top = 0
    for block in blocks:
        rows = block.shape[2]
        for result, (index, weights) in zip(results, plans, strict=True):
            begin = int(torch.searchsorted(index[:, -1].contiguous(), top))
            end = int(torch.searchsorted(index[:, 0].contiguous(), top + rows))
            if begin < end:
                at = index[begin:end] - top
                inside = (at >= 0) & (at < rows)
                share = torch.zeros(end - begin, rows, dtype=torch.float64)
                share.scatter_add_(1, at.clamp(0, rows - 1), weights[begin:end] * inside)
                narrow = resize(block, (rows, result.shape[3]), antialias=True)
                result[:, :, begin:end] += share.to(result) @ narrow
        top += rows
    return results


@dataclass(frozen=True, eq=False)
class ImagePyramid:
    """A picture (1, 3, H, W), float, whole or reduced to the sizes that a run needs.

    `size` is the (height, width) of the picture; `levels` are the picture itself or its reductions, at least one.
    """

    size: Size
    levels: tuple[Tensor, ...]

    @classmethod
    def whole(cls, picture: Tensor) -> Self:
        """Return a picture that is not reduced."""
        return cls(size_of(picture), (picture,))

    @property
    def largest(self) -> Tensor:
        """The largest level."""
        return max(self.levels, key=Tensor.numel)

    def nearest(self, size: Size) -> Tensor:
        """Return the level of that size, or else the smallest that is at least as large, or else the largest."""
        enough = [level for level in self.levels if level.shape[2] >= size[0] and level.shape[3] >= size[1]]
        return min(enough, key=Tensor.numel, default=self.largest)


def resize_sharded(
    own: Tensor, mode: str, *, size: Size, bands: Sequence[Rows], target: Size, new: Sequence[Rows], device: torch.device,
    group: Group = LOCAL,
) -> Tensor:  # fmt: skip
    """Return this process's band, one of `new`, of a tensor of `size` resized to `target`, on `device`.

    `own` is its band, one of `bands`, before resizing.
    """
    if group.size == 1:
        return resize(own, target, mode).to(device)
    needed = []
    for rows in new:
        index, _ = taps(size[0], target[0], rows, mode, False)
        needed.append((int(index.min()), int(index.max()) + 1) if len(index) else (0, 0))
    source = group.exchange_rows(own, bands, needed)
    return resize_band(source, needed[group.rank][0], size[0], target, new[group.rank], mode).to(device)
