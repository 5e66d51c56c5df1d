"""Small pictures of a run that is going on, reduced where the picture lies and fetched without waiting for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch.nn.functional as F

from ..compute.devices import Transfer
from ..compute.resampling import resize
from ..pictures import images

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt
    from torch import Tensor

    from ..engine.iterate import Iterate
    from ..geometry.scales import Size

    Pixels = npt.NDArray[np.float32]
    Bytes = npt.NDArray[np.uint8]


def fitted(size: Size, side: int, multiple: int = 1) -> Size:
    """Return (height, width) with `size`'s shape and a long side of at most `side`, in multiples of a number of pixels."""
    factor = min(1.0, side / max(size))
    height, width = (max(multiple, round(pixels * factor / multiple) * multiple) for pixels in size)
    return height, width


def reduced(picture: Tensor, size: Size) -> Tensor:
    """Return a picture (1, 3, H, W) in [0, 1] resized to `size`, bicubic with antialiasing.

    What has several times the pixels is averaged over whole blocks first, at once on any device; what is left to do is cheap.
    """
    factor = min(picture.shape[2] // size[0], picture.shape[3] // size[1]) // 2
    if factor > 1:
        picture = F.avg_pool2d(picture, factor, ceil_mode=True, count_include_pad=False)
    if picture.device.type not in ("cpu", "cuda"):  # other devices lack antialiasing
        picture = picture.cpu()
    return resize(picture.float(), size, antialias=True).clamp(0, 1)


class Shot:
    """The averaged picture of an iterate at some size, on its way to the host. Taking it does not wait for the device.

    In a group of processes, whose parts lie apart, all must take it, which waits; only rank 0 gets pixels.
    """

    def __init__(self, iterate: Iterate, size: Size) -> None:
        if iterate.group.size > 1:
            whole = iterate.image()
            small = reduced(whole, size) if iterate.group.rank == 0 else whole
        else:
            average = iterate.average.value().clamp_(0, 1)
            small = reduced(average if iterate.cover is None else iterate.cover.laid_on(average), size)
        self._transfer = Transfer(small)

    def pixels(self) -> Pixels:
        """Return the pixels, float32 (H, W, 3) in [0, 1]; waits for them."""
        return self._transfer.get()[0].permute(1, 2, 0).contiguous().numpy()


def shown(pixels: Pixels, finish: Callable[[Pixels], Pixels]) -> Bytes:
    """Return the bytes to show of the engine's pixels: colours finished, what is transparent on white, (H, W, 3)."""
    found = finish(pixels)
    if found.shape[2] == 4:
        alpha = found[..., 3:]
        found = found[..., :3] * alpha + (1 - alpha)
    return images.quantize(found, np.uint8)
