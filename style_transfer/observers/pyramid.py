"""A picture cut into tiles on request, at any of its halvings, so that a browser can look at one of any size."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from ..pictures import images

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

TILE = 512
"""Side of a tile in pixels."""
QUALITY = 92
SAMPLES = 8
JPEG_SIDE = 65535
"""The longest side that a JPEG can have."""


class Pyramid:
    """Tiles of one picture, (H, W, 3 or 4): float32 in [0, 1], or uint8, after `finish` if there is one.

    At level z one pixel of a tile is the mean of 2^z x 2^z of the picture's, or of 8 x 8 of them where those are many. Level 0
    has the picture's own pixels, and the last level, `levels - 1`, has a single tile. Nothing is computed before it is asked for,
    and tiles are kept.
    """

    def __init__(
        self, pixels: npt.NDArray[Any], finish: Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]] | None = None
    ) -> None:
        self._raw = pixels
        self._finish = finish
        self._kept: dict[tuple[int, int, int], bytes] = {}
        self._whole: bytes | None = None

    @functools.cached_property
    def pixels(self) -> npt.NDArray[Any]:
        """The picture's pixels."""
        return self._raw if self._finish is None else self._finish(self._raw)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self._raw.shape[0], self._raw.shape[1]

    @property
    def levels(self) -> int:
        """How many levels there are."""
        return max(0, (max(self.size) - 1) // TILE).bit_length() + 1

    def has(self, level: int, column: int, row: int) -> bool:
        """Say whether there is such a tile."""
        if not (0 <= level < self.levels and column >= 0 and row >= 0):
            return False
        side = TILE << level
        return row * side < self.size[0] and column * side < self.size[1]

    def tile(self, level: int, column: int, row: int) -> bytes:
        """Return a tile as JPEG. Raises `KeyError` if there is none."""
        if not self.has(level, column, row):
            raise KeyError((level, column, row))
        key = level, column, row
        if key not in self._kept:
            side = TILE << level
            part = self.pixels[row * side : (row + 1) * side, column * side : (column + 1) * side]
            self._kept[key] = images.encode_jpeg(_reduced(part, 1 << level), QUALITY)
        return self._kept[key]

    def jpeg(self) -> bytes:
        """Return the whole picture as JPEG, halved until the format can hold it."""
        if self._whole is None:
            factor = 1
            while max(self.size) > JPEG_SIDE * factor:
                factor *= 2
            self._whole = images.encode_jpeg(_reduced(self.pixels, factor))
        return self._whole

    def settled(self) -> Pyramid:
        """Return the same picture with 8 bits per channel, which takes a quarter of the memory."""
        return Pyramid(_bytes(self.pixels))


def _bytes(pixels: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Return pixels with 8 bits, row by row so that temporary arrays stay small."""
    if pixels.dtype == np.uint8:
        return pixels
    found = np.empty(pixels.shape, np.uint8)
    with np.errstate(invalid="ignore"):  # a picture that went wrong can be looked at too
        for start in range(0, len(pixels), 256):
            found[start : start + 256] = images.quantize(pixels[start : start + 256], np.uint8)
    return found


def _reduced(pixels: npt.NDArray[Any], factor: int) -> npt.NDArray[np.uint8]:
    """Return the means of `factor` x `factor` blocks, 8 bits; at the far edges of what is left there.

    Of blocks beyond `SAMPLES` on a side, that many rows and columns, evenly spread, stand for the rest.
    """
    step = max(1, factor // SAMPLES)
    top, left = (min(step // 2, (side - 1) // 2) for side in pixels.shape[:2])
    small = _bytes(pixels[top::step, left::step])
    return small if factor == 1 else np.asarray(Image.fromarray(np.ascontiguousarray(small)).reduce(factor // step))
