"""Small pictures: reduced copies of a run's picture, made without waiting for the device, and conversions for display."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F

from ... import pictures as images
from ...compute.capture import Transfer
from ...compute.resampling import resize
from ...pictures.tensors import pyramid_of, to_pixels

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy.typing as npt
    from torch import Tensor

    from ...engine.iterate import Iterate
    from ...geometry.scales import Size
    from ...pictures import Pixels

    Bytes = npt.NDArray[np.uint8]


def fitted(size: Size, side: int, multiple: int = 1) -> Size:
    """Return (height, width) in the proportions of `size`, of at most `side`, each rounded to a multiple of `multiple`."""
    factor = min(1.0, side / max(size))
    height, width = (max(multiple, round(pixels * factor / multiple) * multiple) for pixels in size)
    return height, width


def reduced(picture: Tensor, size: Size) -> Tensor:
    """Return a picture (1, C, H, W) in [0, 1] resized to `size`, bicubic with antialiasing.

    A picture that is at least four times as large is averaged over whole blocks first, which is fast on any device.
    """
    factor = min(picture.shape[2] // size[0], picture.shape[3] // size[1]) // 2
    if factor > 1:
        picture = F.avg_pool2d(picture, factor, ceil_mode=True, count_include_pad=False)
    if picture.device.type not in ("cpu", "cuda"):  # other devices lack antialiasing
        picture = picture.cpu()
    return resize(picture.float(), size, antialias=True).clamp(0, 1)


def as_tensor(pixels: Pixels) -> Tensor:
    """Return an array (H, W, C) as a picture (1, C, H, W) that shares its memory."""
    return torch.from_numpy(pixels).permute(2, 0, 1)[None]


def load_pixels(path: str | Path, max_pixels: int = 1 << 40) -> Pixels:
    """Return the pixels of a picture file, (H, W, 3), or (H, W, 4) with transparency. Raises `ImageError`."""
    picture = images.load(path, max_pixels=max_pixels, alpha=True)
    return picture.pixels if picture.alpha is None else np.dstack([picture.pixels, picture.alpha])


def load_fitted(path: str | Path, side: int, max_pixels: int) -> tuple[Pixels, Size]:
    """Return pixels as `load_pixels` does, those of a large file reduced to a long side of `side`, and the size in the file."""
    opened = images.open_picture(path, max_pixels=max_pixels, alpha=True)
    alpha = opened.alpha()
    if alpha is not None:
        return np.dstack([opened.picture().pixels, alpha]), opened.size
    return to_pixels(pyramid_of(opened, [fitted(opened.size, side)]).largest), opened.size


class Snapshot:
    """A copy of the averaged picture of an iterate, resized, in transfer to the host. Making it does not wait for the device.

    In a group of processes, each of which has a band of the picture, all ranks must make it. They wait for each other, and only
    that of rank 0 has valid pixels.
    """

    def __init__(self, iterate: Iterate, size: Size) -> None:
        if iterate.group.size > 1:
            whole = iterate.image()
            small = reduced(whole, size) if iterate.group.rank == 0 else whole
        else:
            average = iterate.average.value().clamp_(0, 1)
            small = reduced(average if iterate.blend_mask is None else iterate.blend_mask.composite(average), size)
        self._transfer = Transfer(small)

    def pixels(self) -> Pixels:
        """Return the pixels, float32 (H, W, 3) in [0, 1]. Waits for the transfer."""
        return to_pixels(self._transfer.get())


def displayed(pixels: Pixels, finish: Callable[[Pixels], Pixels] | None = None) -> Bytes:
    """Return pixels as uint8 (H, W, 3), after `finish`, which gives their final colours, and on white if transparent."""
    pixels = pixels if finish is None else finish(pixels)
    if pixels.shape[2] == 4:
        alpha = pixels[..., 3:]
        pixels = pixels[..., :3] * alpha + (1 - alpha)
    return images.quantize(pixels, np.uint8)
