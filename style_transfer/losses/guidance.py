"""Masks: which part of the picture is painted after which part of which style, by guided Gram matrices.

After Gatys et al. (2016, https://arxiv.org/abs/1611.07865): each region has statistics of its own, in which a cell counts as much
as the region's mask says there. The mask comes to a layer as its mean over the pixels of each cell. Here a region counts in
proportion to its area, so that a pixel is pulled as strongly in a small region as in a large one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..compute.resampling import resize
from ..errors import ImageError, SettingsError
from ..geometry.scales import Size
from ..geometry.tiles import Window
from .losses import Loss, Stats

Pixels = np.ndarray[Any, np.dtype[np.float32]]

GRAY = 4 / 255
"""Masks whose channels differ by less are gray."""
COLOURS = 12
"""How many regions a colour-coded mask may have."""
LEAST_SHARE = 0.002
"""Colours that cover less of a mask are the blurred edges between others."""
SAME = 0.15
"""Colours nearer to each other than this, in the channel where they differ most, are one."""
SHADE, SHADES = 0.07, 0.05
"""With a larger part of a mask's areas farther from its colours than that, they flow into each other."""
EMPTY = 1e-6


@dataclass(frozen=True, eq=False)
class Region:
    """A part of the content, (1, 1, H, W) in [0, 1], the style it is painted after, and which part of that, or all of it."""

    content: Tensor
    style: int
    mask: Tensor | None = None

    def at(self, size: Size, style_sizes: Sequence[Size], expanded: Sequence[int]) -> StageRegion:
        """Return the region at one scale. `expanded` says which style picture each of the styles of `style_sizes` is."""
        content = resize(self.content, size, "bilinear", antialias=True).clamp(0, 1)
        masks = {
            index: None if self.mask is None else resize(self.mask, style_size, "bilinear", antialias=True).clamp(0, 1)
            for index, (style_size, style) in enumerate(zip(style_sizes, expanded, strict=True))
            if style == self.style
        }
        return StageRegion(content, masks)


@dataclass(frozen=True, eq=False)
class StageRegion:
    """A region at one scale: its part of the content, and of each style it is painted after, by the style's number."""

    content: Tensor
    masks: Mapping[int, Tensor | None]

    @property
    def share(self) -> float:
        """The part of the picture that it covers."""
        return float(self.content.mean())


def coverage(regions: Sequence[StageRegion]) -> Tensor:
    """Return how much of each pixel is painted at all, (1, 1, H, W) in [0, 1]; what is not stays as the photograph is."""
    return torch.stack([region.content for region in regions]).sum(0).clamp(0, 1)


def guide(mask: Tensor, stride: int, size: Size) -> Tensor:
    """Return a mask (1, 1, H, W) at a layer of `stride` whose size is `size`: its mean over each cell's pixels."""
    coarse = F.avg_pool2d(mask, stride, stride, ceil_mode=True)
    height, width = (max(0, n - have) for n, have in zip(size, coarse.shape[2:], strict=True))
    return F.pad(coarse, (0, width, 0, height), "replicate")[..., : size[0], : size[1]].contiguous()


def weights_in(found: Tensor | None, window: Window) -> Tensor | None:
    """Return the weights (n,) of a window's cells from a guide of the whole layer."""
    return None if found is None else found[window.place.index].flatten()


@dataclass(frozen=True)
class GuidedLoss:
    """A loss of those cells of a layer that a guide (1, 1, h, w) of the whole layer counts."""

    loss: Loss
    sums: Callable[[Tensor, Window, Tensor | None], Stats]
    guide: Tensor

    def measure(self, features: Tensor, window: Window | None = None) -> Stats:
        """Return the sums over the window's cells, as they are weighted."""
        assert window is not None
        return self.sums(features, window, weights_in(self.guide, window))

    def score(self, total: Stats) -> Tensor:
        """Return the loss."""
        return self.loss.score(total)


def regions_of(
    content_masks: Sequence[Pixels], style_masks: Sequence[Pixels], styles: int, sizes: Sequence[Size]
) -> tuple[Region, ...]:
    """Return the regions that masks (H, W, 3) in [0, 1] describe; `sizes` are those of the content and of each style.

    Gray masks pair by their order: with one style all regions are painted after it, each after its own style mask if there are
    any; else there is one content mask for each style. A single mask in colours holds a region for each colour, and is painted
    after what has that colour in the style masks. Raises `SettingsError` or `ImageError`.
    """
    if not content_masks:
        raise SettingsError("--style-mask goes with --content-mask, which says where the styles go")
    for number, mask in enumerate(content_masks, 1):
        _check_shape(f"content mask {number}", mask, sizes[0])
    if len(content_masks) == 1 and not _gray(content_masks[0]):
        return _coloured(content_masks[0], style_masks, styles, sizes)
    count = len(content_masks)
    if styles not in (1, count):
        raise SettingsError(f"--content-mask has {count} masks for {styles} styles; give one for each, or a single style")
    if len(style_masks) not in (0, count):
        raise SettingsError(f"--style-mask has {len(style_masks)} masks for {count} content masks; give one for each, or none")
    found = []
    for index, mask in enumerate(content_masks):
        style = 0 if styles == 1 else index
        part = style_masks[index] if style_masks else None
        if part is not None:
            _check_shape(f"style mask {index + 1}", part, sizes[1 + style])
        found.append(Region(_tensor(mask, f"content mask {index + 1}"), style,
            None if part is None else _tensor(part, f"style mask {index + 1}")))  # fmt: skip
    return tuple(found)


def _coloured(mask: Pixels, style_masks: Sequence[Pixels], styles: int, sizes: Sequence[Size]) -> tuple[Region, ...]:
    if len(style_masks) != styles:
        raise SettingsError(
            f"--style-mask has {len(style_masks)} masks for {styles} styles; with masks in colours give one for each"
        )
    parts = colours(mask, "content mask 1")
    found = []
    for style, other in enumerate(style_masks):
        _check_shape(f"style mask {style + 1}", other, sizes[1 + style])
        theirs = colours(other, f"style mask {style + 1}")
        for colour in parts:
            near = min(theirs, key=lambda other, colour=colour: _far(other, colour))  # type: ignore[misc]
            if _far(near, colour) < SAME:
                found.append(Region(parts[colour], style, theirs[near]))
    if not found:
        raise SettingsError("no colour of --content-mask is in a --style-mask; give both the same colours")
    return tuple(found)


def _far(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    return max(abs(x - y) for x, y in zip(a, b, strict=True))


def colours(mask: Pixels, name: str) -> dict[tuple[float, ...], Tensor]:
    """Return a mask's colours and where each is, (1, 1, H, W) of zeros and ones; pixels of rare colours go to the nearest.

    Colours are those of flat areas, not of the edges between them. One nearer than `SAME` to a commoner one counts as that: a
    JPEG makes several of an area. Raises `ImageError` if there are too many, or shades.
    """
    blocks = np.array_split(mask, max(1, round(mask.shape[0] * mask.shape[1] / 2**20)))  # they take little memory at a time
    areas = [_flat(block) for block in blocks]
    counts = np.zeros(16**3, np.int64)
    for block, flat in zip(blocks, areas, strict=True):
        steps = np.round(block[flat] * 15).astype(np.int64)
        counts += np.bincount(steps[:, 0] * 256 + steps[:, 1] * 16 + steps[:, 2], minlength=len(counts))
    centres: list[tuple[float, ...]] = []
    for code in np.argsort(-counts, kind="stable")[: np.count_nonzero(counts >= max(1, LEAST_SHARE * counts.sum()))]:
        colour = tuple(float(level) / 15 for level in (code // 256, code // 16 % 16, code % 16))
        if all(_far(colour, other) >= SAME for other in centres):
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
        raise ImageError(f"{name} has colours that flow into each other; {words}")
    where = np.concatenate(nearest)
    return {centre: torch.from_numpy((where == index).astype(np.float32))[None, None] for index, centre in enumerate(centres)}


def _flat(pixels: Pixels) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Return which pixels (H, W, 3) are like all four neighbours, (H, W)."""
    found = np.ones(pixels.shape[:2], np.bool_)
    down, right = (np.abs(np.diff(pixels, axis=axis)).max(2) < SAME / 2 for axis in (0, 1))
    found[1:] &= down
    found[:-1] &= down
    found[:, 1:] &= right
    found[:, :-1] &= right
    return found


def _gray(mask: Pixels) -> bool:
    return bool((mask.max(2) - mask.min(2)).max() < GRAY)


def _tensor(mask: Pixels, name: str) -> Tensor:
    if not _gray(mask):
        raise ImageError(f"{name} is in colours, but one of several; give gray masks, or a single one in colours")
    found = torch.from_numpy(np.ascontiguousarray(mask.mean(2, dtype=np.float32)))[None, None]
    if float(found.mean()) < EMPTY:
        raise ImageError(f"{name} is black all over; white says where the region is")
    return found


def _check_shape(name: str, mask: Pixels, size: Size) -> None:
    """Raise `ImageError` unless a mask has the shape of its picture, at whatever size."""
    height, width = mask.shape[:2]
    if abs(height * size[1] - width * size[0]) > 0.02 * height * size[1] + max(height, width):
        raise ImageError(f"{name} is {width}x{height}, but its picture is {size[1]}x{size[0]}: give it the same shape")
