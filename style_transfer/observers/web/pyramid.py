"""Tiles of a picture at several resolutions, encoded on request."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from ...pictures import encode_jpeg, quantize

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from ...pictures import Pixels

TILE = 512
"""The side of a tile in pixels."""
QUALITY = 92
SAMPLES = 8
"""The most samples, in each direction, of which a pixel of a tile is the mean."""
JPEG_SIDE = 65535
"""The longest side of a JPEG in pixels."""


class Pyramid:
    """A picture, (H, W, 3 or 4), as tiles of several resolutions, so that a browser can show a picture of any size.

    The pixels are float32 in [0, 1], or uint8. `finish` is applied to them before anything else. At level z a pixel of a tile is
    the mean of 2^z x 2^z pixels of the picture, or of 8 x 8 samples of them for z > 3. Level 0 has the resolution of the picture,
    and the last level, `levels - 1`, consists of one tile. Tiles are encoded on the first request and kept.
    """

    def __init__(self, pixels: npt.NDArray[Any], finish: Callable[[Pixels], Pixels] | None = None) -> None:
        self._raw = pixels
        self._finish = finish
        self._kept: dict[tuple[int, int, int], bytes] = {}
        self._whole: bytes | None = None

    @functools.cached_property
    def pixels(self) -> npt.NDArray[Any]:
        """The pixels of the picture after `finish`."""
        return self._raw if self._finish is None else self._finish(self._raw)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self._raw.shape[0], self._raw.shape[1]

    @property
    def levels(self) -> int:
        """The number of levels."""
        return max(0, (max(self.size) - 1) // TILE).bit_length() + 1

    def has(self, level: int, column: int, row: int) -> bool:
        """Return whether a tile exists."""
        if not (0 <= level < self.levels and column >= 0 and row >= 0):
            return False
        side = TILE << level
        return row * side < self.size[0] and column * side < self.size[1]

    def tile(self, level: int, column: int, row: int) -> bytes:
        """Return a tile as JPEG. Raises `KeyError` if it does not exist."""
        if not self.has(level, column, row):
            raise KeyError((level, column, row))
        key = level, column, row
        if key not in self._kept:
            side = TILE << level
            part = self.pixels[row * side : (row + 1) * side, column * side : (column + 1) * side]
            self._kept[key] = encode_jpeg(_reduced(part, 1 << level), QUALITY)
        return self._kept[key]

    def jpeg(self) -> bytes:
        """Return the whole picture as JPEG, halved until the format can hold it."""
        if self._whole is None:
            factor = 1
            while max(self.size) > JPEG_SIDE * factor:
                factor *= 2
            self._whole = encode_jpeg(_reduced(self.pixels, factor))
        return self._whole

    def to_8_bits(self) -> Pyramid:
        """Convert the pixels to 8 bits per channel, which take a quarter of the memory, and return the picture."""
        self._raw = self.pixels = _bytes(self.pixels)
        return self


def _bytes(pixels: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Return pixels with 8 bits per channel, converted in blocks of rows so that temporary arrays stay small."""
    if pixels.dtype == np.uint8:
        return pixels
    converted = np.empty(pixels.shape, np.uint8)
    with np.errstate(invalid="ignore"):  # a picture may have values that are not finite
        for start in range(0, len(pixels), 256):
            converted[start : start + 256] = quantize(pixels[start : start + 256], np.uint8)
    return converted


def _reduced(pixels: npt.NDArray[Any], factor: int) -> npt.NDArray[np.uint8]:
    """Return the means of `factor` x `factor` blocks, as uint8. Blocks at the right and bottom edges may be smaller.

    Of a block with more than `SAMPLES` rows and columns, that many evenly spaced ones count.
    """
    step = max(1, factor // SAMPLES)
    top, left = (min(step // 2, (side - 1) // 2) for side in pixels.shape[:2])
    small = _bytes(pixels[top::step, left::step])
    return small if factor == 1 else np.asarray(Image.fromarray(np.ascontiguousarray(small)).reduce(factor // step))
