"""Guidance by masks: each region of the content is compared with a style picture of its own, or with a part of one.

As in Gatys et al. (2016, https://arxiv.org/abs/1611.07865), the statistics of a region weight each cell by the region's mask. The
mask at a layer, its guide, is the mean of the mask over the pixels of each cell. Unlike in that paper, the loss of a region is
proportional to its area, so that the gradient at a pixel is as large in a small region as in a large one.

Regions are read from mask pictures: one gray mask for each region, or a single mask with a colour for each region.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..compute.resampling import resize
from ..errors import ImageError, SettingsError
from ..geometry.scales import Size
from ..geometry.tiles import Window

Pixels = np.ndarray[Any, np.dtype[np.float32]]
Colour = tuple[float, ...]
"""Red, green and blue in [0, 1]."""

GRAY = 4 / 255
"""A mask whose channels differ by less than this everywhere is gray."""
LABEL = 1.5 / 255
"""The largest value of a mask that holds the labels 0 and 1 in 8 bits."""
COLOURS = 12
"""The most regions that a colour-coded mask may have."""
LEAST_SHARE = 0.002
"""Colours that cover a smaller share of a mask are blurred edges between others."""
SAME = 0.15
"""Colours closer than this, in the channel in which they differ most, count as the same."""
SHADE, SHADES = 0.07, 0.05
"""A mask is refused if the share of its flat areas that differ by more than `SHADE` from all its colours exceeds `SHADES`."""
EMPTY = 1e-6
"""A mask whose mean is below this is black."""


@dataclass(frozen=True, eq=False)
class Region:
    """A region of the content, the index of its style picture, and the mask of that picture's part to compare with, or None.

    Masks are (1, 1, H, W) in [0, 1]. None stands for the whole style picture.
    """

    content: Tensor
    style: int
    mask: Tensor | None = None

    def at(self, size: Size, style_sizes: Sequence[Size], origins: Sequence[int]) -> StageRegion:
        """Return the region at one scale, at which styles have `style_sizes`; `origins` are the indices of their pictures."""
        content = resize(self.content, size, "bilinear", antialias=True).clamp(0, 1)
        masks = {
            index: None if self.mask is None else resize(self.mask, style_size, "bilinear", antialias=True).clamp(0, 1)
            for index, (style_size, style) in enumerate(zip(style_sizes, origins, strict=True))
            if style == self.style
        }
        return StageRegion(content, masks)


@dataclass(frozen=True, eq=False)
class StageRegion:
    """A region at one scale: its mask of the content, and the mask, or None, of each style to compare with, by its index."""

    content: Tensor
    masks: Mapping[int, Tensor | None]

    @property
    def share(self) -> float:
        """The share of the picture that the region covers."""
        return float(self.content.mean())


def coverage(regions: Sequence[StageRegion]) -> Tensor:
    """Return the blend mask of a picture, (1, 1, H, W) in [0, 1]: 0 where no region lies and the content picture remains."""
    return torch.stack([region.content for region in regions]).sum(0).clamp(0, 1)


def coverage_at(regions: Sequence[Region], size: Size) -> Tensor:
    """Return the blend mask of a picture of `size`, as `coverage` does."""
    return coverage([region.at(size, (), ()) for region in regions])


def guide(mask: Tensor, stride: int, size: Size) -> Tensor:
    """Return the guide (1, 1, h, w) of a mask (1, 1, H, W) at a layer of `size`: its mean over the pixels of each cell.

    The last row and column of cells include all pixels up to the edge, also those that are no complete stride.
    """
    return _cell_means(_cell_means(mask, 2, stride, size[0]), 3, stride, size[1])


def _cell_means(x: Tensor, dim: int, stride: int, cells: int) -> Tensor:
    """Return the means over `stride` values each along a dimension, the last one over all that remain.

    Where a layer has one cell more than `x` has strides, the last mean is repeated.
    """
    length = x.shape[dim]
    complete = min(cells, -(-length // stride)) - 1
    shape = *x.shape[:dim], complete, stride, *x.shape[dim + 1 :]
    means = x.narrow(dim, 0, complete * stride).reshape(shape).mean(dim + 1)
    last = x.narrow(dim, complete * stride, length - complete * stride).mean(dim, keepdim=True)
    return torch.cat([means, *[last] * (cells - complete)], dim)


def weights_in(guide: Tensor | None, window: Window | None) -> Tensor | None:
    """Return the weights (n,) of a window's cells, or of all cells, from the guide of the whole layer; None without a guide."""
    return None if guide is None else guide[window.place.index if window else ...].flatten()


def as_mask(pixels: Pixels, alpha: Pixels | None = None) -> Pixels:
    """Return the mask (H, W, 3) in [0, 1] that a picture (H, W, 3) with opacity (H, W) is meant as.

    In a picture of one colour with alpha the shape is the alpha. Labels of 0 and 1 in integers, which are all but black as a
    picture, become 0 and 1.
    """
    if alpha is not None and np.ptp(pixels.reshape(-1, 3), axis=0).max() < GRAY:
        return np.repeat(alpha[..., None], 3, axis=2)
    top = float(pixels.max())
    if 0 < top <= LABEL and bool(((pixels == 0) | (pixels == top)).all()):
        return pixels / np.float32(top)
    return pixels


def regions_of(
    content_masks: Sequence[Pixels], style_masks: Sequence[Pixels], styles: int, sizes: Sequence[Size]
) -> tuple[Region, ...]:
    """Return the regions that masks (H, W, 3) in [0, 1] describe; `sizes` are those of the content and of each style.

    Gray masks are paired in their order: with a single style every region is compared with it, within its own style mask if
    there are style masks; with several styles there is one content mask for each. A single mask in colours contains a region for
    each colour, which is compared with the areas of that colour in the style masks. Raises `SettingsError` or `ImageError`.
    """
    if not content_masks:
        raise SettingsError("--style-mask goes with --content-mask, which marks the area of each style; give both")
    for number, mask in enumerate(content_masks, 1):
        _check_shape(f"content mask {number}", mask, sizes[0])
    if len(content_masks) == 1 and not _gray(content_masks[0]):
        return _coloured(content_masks[0], style_masks, styles, sizes)
    count = len(content_masks)
    if styles not in (1, count):
        raise SettingsError(f"--content-mask: masks given: {count}, styles: {styles}; give one for each, or a single style")
    if len(style_masks) not in (0, count):
        raise SettingsError(f"--style-mask: masks given: {len(style_masks)}, content masks: {count}; give one for each, or none")
    regions = []
    for index, mask in enumerate(content_masks):
        style = 0 if styles == 1 else index
        part = style_masks[index] if style_masks else None
        if part is not None:
            _check_shape(f"style mask {index + 1}", part, sizes[1 + style])
        regions.append(Region(_tensor(mask, f"content mask {index + 1}"), style,
            None if part is None else _tensor(part, f"style mask {index + 1}")))  # fmt: skip
    return tuple(regions)


def _coloured(mask: Pixels, style_masks: Sequence[Pixels], styles: int, sizes: Sequence[Size]) -> tuple[Region, ...]:
    if len(style_masks) != styles:
        raise SettingsError(
            f"--style-mask: masks given: {len(style_masks)}, styles: {styles}; with masks in colours give one for each"
        )
    parts = colours(mask, "content mask 1")
    regions = []
    for style, other in enumerate(style_masks):
        _check_shape(f"style mask {style + 1}", other, sizes[1 + style])
        theirs = colours(other, f"style mask {style + 1}")
        for colour in parts:
            near = min(theirs, key=lambda other, colour=colour: _distance(other, colour))  # type: ignore[misc]
            if _distance(near, colour) < SAME:
                regions.append(Region(parts[colour], style, theirs[near]))
    if not regions:
        raise SettingsError("no colour of --content-mask is in a --style-mask; give both the same colours")
    return tuple(regions)


def _distance(a: Colour, b: Colour) -> float:
    """Return the difference of two colours in the channel in which they differ most."""
    return max(abs(x - y) for x, y in zip(a, b, strict=True))


def colours(mask: Pixels, name: str) -> dict[Colour, Tensor]:
    """Return the area of each colour of a mask, (1, 1, H, W) of zeros and ones; other pixels belong to the nearest colour.

    Only flat areas define colours, not the edges between them. A colour closer than `SAME` to a more frequent one counts as that
    one, since JPEG compression makes several out of one. Raises `ImageError` if there are too many colours, or gradual
    transitions.
    """
    blocks = np.array_split(mask, max(1, round(mask.shape[0] * mask.shape[1] / 2**20)))  # to limit the peak of memory
    areas = [_flat(block) for block in blocks]
    counts = np.zeros(16**3, np.int64)
    for block, flat in zip(blocks, areas, strict=True):
        steps = np.round(block[flat] * 15).astype(np.int64)
        counts += np.bincount(steps[:, 0] * 256 + steps[:, 1] * 16 + steps[:, 2], minlength=len(counts))
    centres: list[Colour] = []
    for code in np.argsort(-counts, kind="stable")[: np.count_nonzero(counts >= max(1, LEAST_SHARE * counts.sum()))]:
        colour = tuple(float(level) / 15 for level in (code // 256, code // 16 % 16, code % 16))
        if all(_distance(colour, other) >= SAME for other in centres):
            centres.append(colour)
    words = f"a mask in colours has up to {COLOURS}, each a flat area, and no shades"
    if not 1 <= len(centres) <= COLOURS:
        raise ImageError(f"{name} has {len(centres)} colours; {words}")
    nearest, shades = [], 0
    for block, flat in zip(blocks, areas, strict=True):
        distances = np.stack([np.abs(block - np.array(centre, np.float32)).max(2) for centre in centres])
        nearest.append(distances.argmin(0).astype(np.uint8))
        shades += int(np.count_nonzero(distances.min(0)[flat] > SHADE))
    if shades > SHADES * counts.sum():
        raise ImageError(f"{name} has gradual transitions between colours; {words}")
    where = np.concatenate(nearest)
    return {centre: torch.from_numpy((where == index).astype(np.float32))[None, None] for index, centre in enumerate(centres)}


def _flat(pixels: Pixels) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Return which pixels (H, W, 3) have about the colour of all four neighbours, (H, W)."""
    flat = np.ones(pixels.shape[:2], np.bool_)
    down, right = (np.abs(np.diff(pixels, axis=axis)).max(2) < SAME / 2 for axis in (0, 1))
    flat[1:] &= down
    flat[:-1] &= down
    flat[:, 1:] &= right
    flat[:, :-1] &= right
    return flat


def _gray(mask: Pixels) -> bool:
    return bool((mask.max(2) - mask.min(2)).max() < GRAY)


def _tensor(mask: Pixels, name: str) -> Tensor:
    if not _gray(mask):
        raise ImageError(f"{name} is in colours, but there are several masks; give gray masks, or a single one in colours")
    gray = torch.from_numpy(np.ascontiguousarray(mask.mean(2, dtype=np.float32)))[None, None]
    if float(gray.mean()) < EMPTY:
        raise ImageError(f"{name} is black all over; paint the region white")
    return gray


def _check_shape(name: str, mask: Pixels, size: Size) -> None:
    """Raise `ImageError` unless a mask has the aspect ratio of its picture, at any size."""
    height, width = mask.shape[:2]
    if abs(height * size[1] - width * size[0]) > 0.02 * height * size[1] + max(height, width):
        raise ImageError(f"{name} is {width}x{height}, but its picture is {size[1]}x{size[0]}: give it the same aspect ratio")
