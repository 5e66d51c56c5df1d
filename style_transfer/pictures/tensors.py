"""Pictures as tensors (1, 3, H, W) and back, and large files as reductions of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np
import torch
from torch import Tensor

from ..compute.resampling import ImagePyramid, resize_blocks
from ..geometry.scales import Size
from .develop import DecodedPicture
from .picture import Picture, Pixels

WHOLE_PIXELS: Final = 1 << 23
"""Pictures of at most so many pixels are not reduced: the network takes much more memory."""


def to_tensor(picture: Picture) -> Tensor:
    """Return a loaded picture as a float32 tensor (1, 3, H, W) in [0, 1]."""
    return from_pixels(picture.pixels)


def pyramid_of(picture: DecodedPicture, sizes: Iterable[Size]) -> ImagePyramid:
    """Return a picture reduced to the `sizes` that a run needs, or whole where that is small or takes less memory.

    Raises `ImageError` for NaN.
    """
    height, width = picture.size
    targets = sorted(set(sizes))
    needed = sum(high * wide for high, wide in targets)
    if height * width > max(WHOLE_PIXELS, needed) and all(high <= height and wide <= width for high, wide in targets):
        levels = resize_blocks(map(from_pixels, picture.blocks()), picture.size, targets)
        return ImagePyramid(picture.size, tuple(level.clamp_(0, 1) for level in levels))
    whole = torch.empty(1, 3, height, width)
    top = 0
    for block in picture.blocks():
        whole[0, :, top : top + len(block)] = torch.from_numpy(block).permute(2, 0, 1)
        top += len(block)
    return ImagePyramid.whole(whole)


def from_pixels(pixels: Pixels) -> Tensor:
    """Return float32 pixels (H, W, 3) as a tensor (1, 3, H, W)."""
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))[None]


def to_pixels(image: Tensor) -> Pixels:
    """Return a tensor (1, C, H, W) as float32 pixels (H, W, C) on the CPU."""
    return image[0].permute(1, 2, 0).to(device="cpu", dtype=torch.float32).contiguous().numpy()
